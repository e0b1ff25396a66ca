# SPDX-License-Identifier: Apache-2.0
"""The demo's simulated drive, as a bag for the node, and the node's loops judged by the true poses."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlad_ros.config import EvaluationConfig, ImportConfig, RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.evaluation.edges import RIGHT_DEGREES, RIGHT_METRES, edge_error, is_right, revisits
from vlad_ros.evaluation.trajectory import aligned, rmse
from vlad_ros.files.sequence import Sequence
from vlad_ros.graph.graph_file import read_tum
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64

RADIUS = EvaluationConfig().radius  # m; a keyframe this near to an earlier one is a revisit
LENGTH, SPACING, SPEED = 140.0, 1.5, 6.0  # m, m, m/s


@dataclass(frozen=True)
class JudgedEdge:
    """A loop that the node has accepted: stamps [ns], probability, the true distance [m] of the two places, and how far
    its transform is from the truth, in metres and degrees."""

    query: int
    match: int
    probability: float
    distance: float
    metres: float
    degrees: float

    @property
    def true(self) -> bool:
        """Whether its error is within the limits of a right edge."""
        return is_right(self.metres, self.degrees)

    def sentence(self, others: int) -> str:
        """A line for the terminal; `others`: further accepted edges of the same keyframe."""
        more = f", and {others} more" if others else ""
        verdict = "true" if self.true else "FALSE"
        return (
            f"loop  {self.query / SECOND:7.2f} s -> {self.match / SECOND:7.2f} s   {self.distance:5.1f} m apart, "
            f"{self.metres:.2f} m and {self.degrees:.1f} deg off   probability {self.probability:.3f}   {verdict}{more}"
        )


def simulate(seed: int) -> Sequence:
    """A drive around the blocks of a town, once more in the same direction and once in the opposite one, with other
    parked cars each time. 32 beams, 6 m/s."""
    from vlad_ros.simulation.routes import make_drive
    from vlad_ros.simulation.sensors import spinning

    drive = make_drive(
        "street",
        seed,
        sensor=spinning(32, 450),
        seed=seed,
        spacing=SPACING,
        revisits=("same", "opposite"),
        lateral_offset=1.0,
        length=LENGTH,
    )
    stamps = np.asarray(1.0 + np.arange(len(drive)) * SPACING / SPEED, np.float64)
    return Sequence(drive.name, drive.scans, drive.poses, stamps)


def write_drive(drive: Sequence, path: Path) -> F64:
    """The drive as a bag, with drifting odometry, which is returned: a pose (S, 4, 4) a scan."""
    from vlad_ros.files.bags import sequence_scans, write_bag

    noise, config = EvaluationConfig(), ImportConfig()
    odometry = drifting_odometry(drive.poses_to("judge"), noise.drift_scale, noise.drift_yaw, noise.seed)
    write_bag(path, sequence_scans(drive, config.rate, odometry), config)
    return odometry


class Truth:
    """The simulated truth, by stamp [ns]; `poses` (S, 4, 4) and `positions` (S, 3), a scan each."""

    def __init__(self, drive: Sequence) -> None:
        self.index = {stamp: i for i, stamp in enumerate(drive.stamps_ns())}
        self._stamps = np.array(drive.stamps_ns())
        self.poses: F64 = drive.poses_to("judge")
        self.positions = self.poses[:, :3, 3]

    def distance(self, query: int, match: int) -> float:
        """Metres between the places of two stamps."""
        return float(np.linalg.norm(self.positions[self.index[query]] - self.positions[self.index[match]]))

    def edge(self, query: int, match: int, probability: float, T_match_query: F64) -> JudgedEdge:
        """An accepted loop between two stamps, judged."""
        off = edge_error(T_match_query, self.poses[self.index[match]], self.poses[self.index[query]])
        return JudgedEdge(query, match, probability, self.distance(query, match), *off)

    def is_revisit(self, query: int, keyframes: list[int]) -> bool:
        """Whether one of the earlier `keyframes` (stamps) that may be matched lies near: the denominator of recall."""
        config = RecognizerConfig()
        rows = [self.index[stamp] for stamp in (*filter(lambda stamp: stamp < query, keyframes), query)]
        found = revisits(
            self.poses[rows],
            self._stamps[rows],
            np.zeros(len(rows), int),
            radius=RADIUS,
            exclude_time=config.exclude_time,
            exclude_distance=config.exclude_distance,
        )
        return bool(found[-1])


@dataclass(frozen=True, eq=False)
class BeforeAfter:
    """The trajectory at `stamps` [ns] by odometry alone and as corrected, positions (N, 3) aligned with the truth, and
    their RMSE [m]."""

    stamps: list[int]
    before: F64
    after: F64
    rmse_before: float
    rmse_after: float

    def line(self) -> str:
        """A line for the terminal."""
        return f"trajectory {self.rmse_before:.2f} m RMSE by odometry alone, {self.rmse_after:.2f} m with the loops"

    def rows(self) -> dict[int, list[float]]:
        """x y before, x y after [m], by stamp."""
        return dict(zip(self.stamps, np.hstack([self.before[:, :2], self.after[:, :2]]).round(3).tolist(), strict=True))


def compare(truth: Truth, odometry: F64, tum: Path) -> BeforeAfter:
    """The pose graph's trajectory in the file `tum`, and `odometry` (S, 4, 4), a pose a scan, at the same stamps."""
    stamps, poses = read_tum(tum)
    rows = [truth.index[stamp] for stamp in stamps.tolist()]
    true = truth.poses[rows]
    before, after = aligned(odometry[rows], true), aligned(poses, true)
    return BeforeAfter(stamps.tolist(), before, after, rmse(before, true), rmse(after, true))


@dataclass(frozen=True)
class Summary:
    """The node's loops against the truth. `edges`: all accepted ones; `best`: the most probable one per keyframe."""

    keyframes: int
    edges: list[JudgedEdge]
    best: list[JudgedEdge]
    revisits: int
    recognised: int
    lost: int

    @property
    def precision(self) -> float:
        """Share of the accepted edges that are true; nan without edges."""
        return sum(edge.true for edge in self.edges) / len(self.edges) if self.edges else float("nan")

    @property
    def recall(self) -> float:
        """Share of the keyframes at a revisited place whose best accepted edge is true."""
        return self.recognised / self.revisits if self.revisits else float("nan")

    def lines(self) -> list[str]:
        """Lines for the terminal."""
        true = sum(edge.true for edge in self.edges)
        return [
            f"{self.keyframes} keyframes, {self.revisits} of them at a place seen before; {self.lost} messages lost",
            f"precision  {self.precision:.3f}   {true} of {len(self.edges)} accepted edges within {RIGHT_METRES:g} m "
            f"and {RIGHT_DEGREES:g} degrees of the truth",
            f"recall     {self.recall:.3f}   {self.recognised} of {self.revisits} revisits recognised",
        ]


def summarise(truth: Truth, keyframes: list[int], edges: list[JudgedEdge], lost: int) -> Summary:
    """`keyframes`: the stamps of all descriptors received."""
    best: dict[int, JudgedEdge] = {}
    for edge in edges:
        if edge.query not in best or edge.probability > best[edge.query].probability:
            best[edge.query] = edge
    revisits = [stamp for stamp in keyframes if truth.is_revisit(stamp, keyframes)]
    recognised = sum(stamp in best and best[stamp].true for stamp in revisits)
    return Summary(len(keyframes), edges, list(best.values()), len(revisits), recognised, lost)


def write_results(
    folder: Path, truth: Truth, summary: Summary, weights: str, seed: int, corrected: BeforeAfter | None
) -> None:
    """Write trajectory.csv, edges.csv and metrics.json, from which the picture is drawn; without a pose graph there is
    nothing `corrected`."""
    estimates = {} if corrected is None else corrected.rows()
    with open(folder / "trajectory.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["stamp_ns", "x_m", "y_m", "before_x_m", "before_y_m", "after_x_m", "after_y_m"])
        for stamp, i in truth.index.items():
            rows.writerow([stamp, *truth.positions[i, :2].round(3), *estimates.get(stamp, [""] * 4)])
    with open(folder / "edges.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["query_stamp_ns", "match_stamp_ns", "probability", "distance_m", "error_m", "error_deg", "true"])
        rows.writerows(
            [e.query, e.match, *(f"{v:.4f}" for v in (e.probability, e.distance, e.metres, e.degrees)), int(e.true)]
            for e in summary.best
        )
    numbers = {
        "keyframes": summary.keyframes,
        "edges": len(summary.edges),
        "revisits": summary.revisits,
        "precision": summary.precision,
        "recall": summary.recall,
        "messages_lost": summary.lost,
        "radius_m": RADIUS,
        "seed": seed,
        "weights": weights,
        "rmse_before_m": None if corrected is None else corrected.rmse_before,
        "rmse_after_m": None if corrected is None else corrected.rmse_after,
    }
    (folder / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n")
