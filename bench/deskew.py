# SPDX-License-Identifier: Apache-2.0
"""What the motion of a sweep costs a loop edge, and what deskewing gives back: simulated drives, there and back.

    python bench/deskew.py [--pairs 40] [--worlds 3] [--csv deskew.csv]

A 64-beam sensor turns 10 times a second and stamps the start of its sweep (field `t`, as Ouster). It drives along a
street and back in the opposite direction, fast, swinging its heading, or both; odometry comes 50 times a second. Edges
are made by the verification that ships, from the single scans of a revisit, as they came and deskewed. An edge is
right within 1 m and 5 degrees of the true poses at the stamps.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from table import write_csv
from tqdm import tqdm

from vlad_ros.cloud.decode import decode_rows, point_times
from vlad_ros.cloud.deskew import deskew, reach, sweep_offsets
from vlad_ros.drive.odometry import OdometryBuffer
from vlad_ros.evaluation.edges import edge_error, is_right
from vlad_ros.loops.verification import Verifier
from vlad_ros.model.describer import Describer
from vlad_ros.poses import inverse
from vlad_ros.simulation.routes import plan_route
from vlad_ros.simulation.sensors import MOTION_SECTORS, cast, sensor_pose, uniform
from vlad_ros.simulation.worlds import make_world, visit
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64

SWEEP = SECOND // 10  # ns
ODOMETRY = SECOND // 50  # ns
NEAR = 3.0  # m; scans this near to each other make a pair
SWING = 2.0  # s; the heading swings so slowly
MOTIONS = {  # m/s, greatest deg/s
    "15 m/s": (15.0, 0.0),
    "60 deg/s, at 3 m/s": (3.0, 60.0),
    "15 m/s and 60 deg/s": (15.0, 60.0),
}
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("t", "<u4")])
Edge = Callable[[F32, F32, F64], F64 | None]  # clouds of query and match, true T_match_query -> T_match_query


@dataclass(frozen=True, eq=False)
class Sweep:
    """A scan as it came and deskewed, (N, 4); the true pose at its stamp."""

    raw: F32
    undistorted: F32
    T_map_sensor: F64


class Drive:
    """There and back along a street at `speed` [m/s], the heading swinging by up to `turn` [deg/s]."""

    def __init__(self, seed: int, speed: float, turn: float, columns: int = 900) -> None:
        self.world = make_world("street", seed)
        route = plan_route(self.world, seed, speed * SWEEP / SECOND, ("opposite",), 2.0, 120.0, "line")
        at = np.arange(len(route.poses)) * SWEEP / SECOND
        self.poses = np.column_stack([route.poses[:, :2], np.unwrap(route.poses[:, 2])])
        self.poses[:, 2] += np.radians(turn) * SWING / (2 * np.pi) * np.sin(2 * np.pi * at / SWING)
        self.leg = route.leg
        self.sensor = replace(uniform(64, 22.5, columns), wobble=0.0)
        self.rng = np.random.default_rng([seed, 2])
        self.seasons = self.rng.integers(1 << 31, size=2)

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Scans (query, match) of the way back and of the way there, near to each other, evenly along the street."""
        there, back = (np.flatnonzero(self.leg[:-1] == leg) for leg in (0, 1))
        away = np.linalg.norm(self.poses[back][:, None, :2] - self.poses[there][None, :, :2], axis=2)
        found = [(int(back[i]), int(there[away[i].argmin()])) for i in np.flatnonzero(away.min(axis=1) < NEAR)]
        return [found[i] for i in np.unique(np.linspace(0, len(found) - 1, number).astype(int))]

    def pose(self, time: float) -> F64:
        """T_map_sensor, `time` in sweeps; between two scans x, y and heading change steadily."""
        x, y, yaw = (float(np.interp(time, np.arange(len(self.poses)), column)) for column in self.poses.T)
        return sensor_pose(self.world, self.sensor, (x, y, yaw))

    def sweep(self, i: int) -> Sweep:
        """Scan `i`: from pose `i` to the next, stamped at its start."""
        here, motion = self.poses[i : i + 2].mean(axis=0), self.poses[i + 1] - self.poses[i]
        now = visit(self.world, int(self.seasons[self.leg[i]]), 0.1 * i, here[None, :2], radius=4.0)
        points = cast(now, self.sensor, tuple(here), self.rng, (0.0, 0.0), tuple(motion))
        stamp, odometry = i * SWEEP, OdometryBuffer()
        for at in range(stamp, stamp + SWEEP + 1, ODOMETRY):
            odometry.add(at, self.pose(at / SWEEP))
        message = ouster(points, self.sensor.columns)
        came, rows = decode_rows(message)
        offsets = sweep_offsets(point_times(message), stamp)
        motion_of_sweep = None if offsets is None else odometry.across(*reach(offsets, stamp))
        if offsets is None or motion_of_sweep is None:
            raise RuntimeError("the simulated sweep tells no times, or odometry does not cover it")
        return Sweep(came, deskew(came, offsets[rows], stamp, motion_of_sweep), self.pose(float(i)))


def ouster(points: F32, columns: int) -> SimpleNamespace:
    """A PointCloud2 in all but type: points with the time in the sweep that their azimuth says, as the simulation
    casts them (from MOTION_SECTORS poses, one after the other)."""
    azimuth = np.arctan2(points[:, 1], points[:, 0]) + np.pi
    column = np.rint(azimuth / (2 * np.pi) * columns).astype(int) % columns
    sizes = [len(part) for part in np.array_split(np.arange(columns), MOTION_SECTORS)]
    sector = np.repeat(np.arange(MOTION_SECTORS), sizes)[column]
    rows = np.zeros(len(points), POINT)
    for name, values in zip(("x", "y", "z", "intensity"), points.T, strict=True):
        rows[name] = values
    rows["t"] = np.rint((sector + 0.5) / MOTION_SECTORS * SWEEP)
    kinds = {"x": 7, "y": 7, "z": 7, "intensity": 7, "t": 6}
    fields = [SimpleNamespace(name=n, offset=4 * k, datatype=kinds[n], count=1) for k, n in enumerate(kinds)]
    return SimpleNamespace(
        fields=fields, data=rows.tobytes(), height=1, width=len(rows), point_step=20, row_step=20 * len(rows),
        is_bigendian=False,
    )  # fmt: skip


def verified() -> Edge:
    """Edges as the node makes them: keypoints of the shipped network, aligned without a guess, refined on points."""
    describer, _ = Describer.from_pretrained(device="cpu")
    verifier = Verifier()

    def edge(query: F32, match: F32, true: F64) -> F64 | None:
        return verifier.verify(describer.see(query).geometry(), describer.see(match).geometry()).T_match_query

    return edge


def measure(name: str, seeds: list[int], pairs: int, edge: Edge, columns: int = 900) -> dict[str, float | str]:
    """One row of the table: errors of the edges of `pairs` pairs in all, as the scans came and deskewed."""
    speed, turn = MOTIONS[name]
    errors: dict[str, list[tuple[float, float]]] = {"before": [], "after": []}
    for seed in seeds:
        drive = Drive(seed, speed, turn, columns)
        chosen = drive.pairs(pairs // len(seeds))
        for q, m in tqdm(chosen, desc=f"{name}, street {seed}", leave=False, disable=None):
            query, match = drive.sweep(q), drive.sweep(m)
            true = inverse(match.T_map_sensor) @ query.T_map_sensor
            clouds = {"before": (query.raw, match.raw), "after": (query.undistorted, match.undistorted)}
            for when, (a, b) in clouds.items():
                T = edge(a, b, true)
                off = (np.inf, np.inf) if T is None else edge_error(T, match.T_map_sensor, query.T_map_sensor)
                errors[when].append(off)
    row: dict[str, float | str] = {"motion": name, "pairs": len(errors["after"])}
    for when, found in errors.items():
        metres, degrees = np.array(found).T
        row[f"{when}_m_p50"], row[f"{when}_m_p90"] = (float(np.percentile(metres, p, method="lower")) for p in (50, 90))
        row[f"{when}_deg_p50"], row[f"{when}_deg_p90"] = (
            float(np.percentile(degrees, p, method="lower")) for p in (50, 90)
        )
        row[f"{when}_right"] = float(np.mean([is_right(*error) for error in found]))
    return row


def main() -> None:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="pairs for each motion (default %(default)s)")
    parser.add_argument("--worlds", type=int, default=3, help="streets (default %(default)s)")
    parser.add_argument("--csv", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    edge = verified()
    rows = [measure(name, list(range(arguments.worlds)), arguments.pairs, edge) for name in MOTIONS]
    print("| simulated drive | pairs | edge error [m] p50 / p90 | [deg] p50 / p90 | right |\n|---|---|---|---|---|")
    for row in rows:
        for when in ("before", "after"):
            metres, degrees = (
                f"{row[f'{when}_{unit}_p50']:.2f} / {row[f'{when}_{unit}_p90']:.2f}" for unit in ("m", "deg")
            )
            came = {"before": "as the scans came", "after": "deskewed"}[when]
            print(f"| {row['motion']}, {came} | {row['pairs']} | {metres} | {degrees} | {row[f'{when}_right']:.2f} |")
    if arguments.csv:
        write_csv(arguments.csv, rows)


if __name__ == "__main__":
    main()
