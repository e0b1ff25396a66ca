#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A place database made from a map cloud alone, against the map that was driven, asked by another pass.

    python bench/from_cloud.py --csv from_cloud.csv

Rows: `loop_mid360` (in the folder that VLAD_DATA names), whose first 671 scans make the map and whose later ones, where
they come within 5 m of it, ask; and simulated worlds, driven on one day and asked on another, in the other direction.
Before verification: the share of the queries whose best keyframe, or one of the best ten, lies within 5 m of where they
are. Verified: the share that the most probable of the ten loops puts within 5 m, and by how much these are off.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree
from table import stream
from tqdm import tqdm

from vlad_ros.calibration import Calibration
from vlad_ros.cloud.crop import clean
from vlad_ros.cloud.thin import join
from vlad_ros.config import EvaluationConfig, RecognizerConfig
from vlad_ros.evaluation.task import local_maps
from vlad_ros.files.map_cloud import MapCloud
from vlad_ros.files.sequence import Sequence, load_sequence
from vlad_ros.loops.acceptance import Judge
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps import from_cloud
from vlad_ros.model.describer import Describer
from vlad_ros.poses import inverse, rotation_angle
from vlad_ros.simulation.days import make_day
from vlad_ros.simulation.routes import plan_route
from vlad_ros.simulation.sensors import dome, spinning
from vlad_ros.simulation.worlds import make_world
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Keyframe

MAPPED = 671  # scans of loop_mid360
RADIUS = 5.0  # m
GRAIN = 0.1  # m, of the map cloud
WORLDS = {"street": (spinning(32), "line"), "campus": (dome(), "loop"), "park": (spinning(64), "loop")}
SEED, LENGTH = 95_000, 200.0
ALL = RecognizerConfig(max_edges=0, verification_budget=60.0)
ALL_TIME = 1e9  # s
HEADER = ("map", "keyframes", "s each", "asked by", "queries", "best", "one of ten", "verified", "off [m], [deg]")


@dataclass(frozen=True, eq=False)
class Trial:
    """A drive that makes a map, and one that asks, with the frames of it that do; true poses in one frame."""

    name: str
    mapped: Sequence
    asking: Sequence
    frames: np.ndarray
    height: float


def real() -> Iterator[Trial]:
    """loop_mid360, where it is."""
    path = Path(os.environ.get("VLAD_DATA", ""), "loop_mid360.npz")
    if not path.is_file():
        print("from_cloud: VLAD_DATA names no folder with loop_mid360: simulated worlds only", file=sys.stderr)
        return
    drive = load_sequence(path)
    poses = drive.poses_to("judge")
    mapped, later = (
        Sequence(drive.name, drive.scans[part], poses[part]) for part in (slice(MAPPED), slice(MAPPED, None))
    )
    yield Trial(drive.name, mapped, later, _near(poses[MAPPED:], poses[:MAPPED]), 1.2)


def simulated(kind: str, seed: int) -> Trial:
    """The first world of the kind, from `seed` on, that has the way."""
    sensor, shape = WORLDS[kind]
    for each in range(seed, seed + 100):
        world = make_world(kind, each, size=1.4 * LENGTH + 100.0)
        try:
            way = plan_route(world, each, 1.0, (), 0.0, LENGTH, shape).poses
        except ValueError:
            continue
        mapped, asking = (make_day(world, way, sensor, day, back=day > 1, aside=1.0).drive for day in (1, 2))
        frames = _near(asking.poses_to("judge"), mapped.poses_to("judge"))
        return Trial(f"{kind}, simulated", mapped, asking, frames, sensor.height)
    raise ValueError(f"none of 100 {kind} worlds has such a way")


def _near(poses: F64, others: F64) -> np.ndarray:
    return np.flatnonzero(cKDTree(others[:, :3, 3]).query(poses[:, :3, 3])[0] <= RADIUS)


def cloud_of(drive: Sequence) -> MapCloud:
    """The drive's scans at their poses, as a mapping tool leaves them."""
    scans = [clean(scan, 1.0, 100.0) for scan in drive.scans]
    points = join(scans, list(drive.poses_to("join")), GRAIN)
    return MapCloud(join([points], [np.eye(4)], from_cloud.VOXEL), np.zeros(3), len(points))


def described(describer: Describer, drive: Sequence, frames: Iterable[int], local: bool) -> Iterator[Keyframe]:
    """Keyframes of the drive, of local maps or of single scans, with the true poses as odometry."""
    poses, wanted = drive.poses_to("describe"), set(map(int, frames))
    clouds = (
        local_maps(drive, EvaluationConfig(local_maps=True)) if local else (clean(s, 1.0, 100.0) for s in drive.scans)
    )
    for number, points in enumerate(clouds):
        if number in wanted:
            seen = describer.see(points)
            own = None if local else seen.descriptor
            geometry = seen.geometry()
            yield Keyframe(9, (1 + number) * SECOND, seen.descriptor, own, local, False, poses[number], None, geometry)


def driven(describer: Describer, drive: Sequence, bar: tqdm) -> KeyframeDatabase:
    """The map that the drive itself leaves: a keyframe a metre, each by local map and by single scan."""
    travel = np.cumsum(np.linalg.norm(np.diff(drive.poses_to("map")[:, :3, 3], axis=0), axis=1))
    frames = np.unique(np.searchsorted(travel, np.arange(0.0, travel[-1], 1.0)))
    made = KeyframeDatabase(describer.dim, model_hash=describer.model_hash, bev=describer.bev)
    singles = {one.stamp: one.descriptor for one in described(describer, drive, frames, False)}
    for one in described(describer, drive, frames, True):
        bar.update()
        values = {"session": 0, "scan_descriptor": singles[one.stamp]}
        made.add(Keyframe(**{**one.__dict__, **values}))
    return made


def ask(database: KeyframeDatabase, queries: list[Keyframe], calibration: Calibration) -> list[str]:
    """Search, verify, and compare with the true poses."""
    judge, verifier = None, Verifier()
    best, ten, off = 0, 0, []
    for query in queries:
        judge = Judge(verifier, calibration, ALL)  # each alone: a robot that has just been started
        candidates = database.search(query, 10, ALL_TIME, 0.0)
        truth = query.T_odom_base
        near = [_apart(database.T_map_base(one.id), truth) <= RADIUS for one in candidates]
        best, ten = best + near[0], ten + any(near)
        closure = judge.judge(-1, query, candidates, database)[0]
        T = closure.T_match_query
        pose = database.T_map_base(closure.match_id)
        if T is not None and _apart(pose @ T, truth) <= RADIUS:
            error = inverse(truth) @ pose @ T
            off.append((np.linalg.norm(error[:3, 3]), np.degrees(rotation_angle(error))))
    metres, degrees = np.median(np.array(off or [(np.nan, np.nan)]), axis=0)
    shares = (f"{count / len(queries):.3f}" for count in (best, ten, len(off)))
    return [str(len(queries)), *shares, f"{metres:.2f}, {degrees:.1f}"]


def _apart(a: F64 | None, b: F64 | None) -> float:
    return np.inf if a is None or b is None else float(np.linalg.norm(a[:2, 3] - b[:2, 3]))


def rows(
    trial: Trial, describer: Describer, calibration: Calibration, spacing: float, most: int
) -> Iterator[list[str]]:
    """One trial: three maps, each asked twice."""
    frames = trial.frames[:: max(1, -(-len(trial.frames) // most))]
    queries = {kind: list(described(describer, trial.asking, frames, kind == "local maps")) for kind in KINDS}
    cloud = cloud_of(trial.mapped)
    with tqdm(unit="keyframe", desc=trial.name, disable=None) as bar:

        def count(items: list[int]) -> Iterator[int]:
            for item in items:
                bar.update()
                yield item

        makers = {
            "driven": lambda: driven(describer, trial.mapped, bar),
            "cloud, on the ground": lambda: from_cloud.from_cloud(
                cloud, from_cloud.on_the_ground(cloud.points, spacing, trial.height), describer, "cloud", count
            ),
            "cloud, along the way": lambda: from_cloud.from_cloud(
                cloud, from_cloud.along_trajectory(trial.mapped.poses_to("follow"), 2.0), describer, "cloud", count
            ),
        }
        for name, maker in makers.items():
            begun = time.process_time()
            database = maker()
            each = (time.process_time() - begun) / len(database)
            for kind in KINDS:
                told = ask(database, queries[kind], calibration)
                yield [f"{trial.name}: {name}", str(len(database)), f"{each:.2f}", kind, *told]


KINDS = ("local maps", "single scans")


def main() -> int:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS), help="simulated ones")
    parser.add_argument("--no-real", action="store_true", help="leave out loop_mid360")
    parser.add_argument("--spacing", type=float, default=3.0, help="m between keyframes on the ground")
    parser.add_argument("--queries", type=int, default=1000, help="at most, of each kind")
    parser.add_argument("--csv", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    describer, metadata = Describer.from_pretrained(None, "cpu")
    trials = [*([] if arguments.no_real else real()), *(simulated(kind, SEED) for kind in arguments.worlds)]
    calibration = metadata.calibrated(None)
    lines = (
        line for trial in trials for line in rows(trial, describer, calibration, arguments.spacing, arguments.queries)
    )
    stream(HEADER, lines, arguments.csv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
