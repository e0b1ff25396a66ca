#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The edges that the shipped weights announce: how many are right, how far off, and what they cost.

    python bench/edges.py --rows simulated     # held-out drives, and aliased worlds
    python bench/edges.py --rows dev           # real rows that may be looked at freely
    python bench/edges.py --rows reported      # once for each released set of weights

An edge is right when its transform agrees with the poses within the row's metres and 5 degrees, wherever the matched
frame lies. Real rows need the sequences in the folder that VLAD_DATA names.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist
from table import write_csv
from tqdm import tqdm

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.evaluation import metrics
from vlad_ros.evaluation import results as report
from vlad_ros.evaluation.drives import aliased_drives, judging_drives
from vlad_ros.evaluation.edges import RIGHT_DEGREES, edge_error
from vlad_ros.evaluation.protocols import NO_HIT, Outcome, sparse_split
from vlad_ros.files.sequence import Sequence, load_sequence
from vlad_ros.model.describer import Describer
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.types import F64, LoopClosure

PERIOD = 100_000_000  # ns between frames
BASE = RecognizerConfig(
    keyframe_rate=100.0,
    keyframe_period=0.05,
    keyframe_similarity=1.0,
    verification_budget=60.0,
    exclude_distance=0.0,
    max_edges=0,
)


@dataclass(frozen=True)
class Row:
    """A sequence (or simulated drives) and its protocol: `gap` frames for causal rows, `stride` for sparse ones;
    `drift` [share of the distance] of the odometry, None without; edges are right within `right` [m]; of simulated rows
    `seeds` sets of drives."""

    sequence: str
    radius: float
    gap: int = 0
    stride: int = 0
    drift: float | None = None
    right: float = 1.0
    seeds: int = 1


ROWS = {
    "simulated": [
        Row("simulated drives", 5.0, gap=25, drift=0.02),
        Row("simulated drives", 5.0, gap=25),
        Row("aliased worlds, no loops", 5.0, gap=25, drift=0.02, seeds=4),  # 20 drives
        Row("aliased worlds, no loops", 5.0, gap=25),
        Row("aliased worlds, loops", 5.0, gap=25, drift=0.02),
        Row("aliased worlds, loops", 5.0, gap=25),
    ],
    "dev": [
        Row("loop_mid360", 5.0, gap=56, drift=0.01),
        Row("loop_mid360", 5.0, gap=56),
        Row("mulran_riverside_a_os1_64", 8.0, stride=2, right=1.5),
    ],
    "reported": [
        Row("kitti00_hdl64", 5.0, stride=4),
        Row("kitti00_hdl64", 5.0, stride=2),
        Row("mulran_riverside_b_os1_64", 8.0, stride=2, right=1.5),
        Row("courtyard_livox_avia", 2.0, gap=50, drift=0.01),
        Row("courtyard_livox_avia", 2.0, gap=50),
    ],
}


def drives(row: Row) -> Iterator[Sequence]:
    """The row's sequences."""
    if row.sequence == "simulated drives":
        yield from judging_drives()
    elif row.sequence.startswith("aliased worlds"):
        for seed in range(row.seeds):
            yield from aliased_drives(seed, loops=row.sequence.endswith(", loops"))
    else:
        yield load_sequence(Path(os.environ["VLAD_DATA"]) / f"{row.sequence}.npz")


@dataclass(frozen=True, eq=False)
class Asked:
    """One frame that was asked about: its loop closures, the poses (S, 4, 4) by stamp, whether there was anything to
    find, and which keyframes (by stamp) lie within the radius."""

    closures: list[LoopClosure]
    is_query: bool
    near: set[int]
    poses: dict[int, F64]


def causal(describer: Describer, calibration: Calibration, row: Row, drive: Sequence, seed: int) -> list[Asked]:
    """Every frame against the earlier ones outside the gap."""
    poses = drive.poses_to("judge")
    place = PlaceRecognizer(describer, calibration, dataclasses.replace(BASE, exclude_time=row.gap * PERIOD / 1e9))
    odometry = [None] * len(drive) if row.drift is None else drifting_odometry(poses, row.drift, 0.5, seed)
    stamps = [PERIOD * (i + 1) for i in range(len(drive))]
    described = []
    for scan, stamp, T in zip(scans(drive), stamps, odometry, strict=True):
        described += place.step(scan, stamp, T_odom_base=T, is_keyframe=True)
    described += place.finish()
    near = cdist(poses[:, :3, 3], poses[:, :3, 3]) <= row.radius
    by_stamp = dict(zip(stamps, poses, strict=True))
    asked = []
    for i, one in enumerate(described):
        there = {stamps[j] for j in np.flatnonzero(near[i, : max(0, i - row.gap)])}
        asked.append(Asked(one.closures, bool(there), there, by_stamp))
    return asked


def sparse(describer: Describer, calibration: Calibration, row: Row, drive: Sequence) -> list[Asked]:
    """A map of every stride-th frame; turned and thinned queries from half way between, in a session of their own."""
    poses = drive.poses_to("judge")
    place = PlaceRecognizer(describer, calibration, dataclasses.replace(BASE, exclude_time=3600.0))
    keep, queries, thinned, turns = sparse_split(drive.scans, row.stride)
    by_stamp = {PERIOD * (i + 1): poses[i] for i in range(len(drive))}
    for i in keep:
        place.step(drive.scans[i], PERIOD * (int(i) + 1), is_keyframe=True)
    place.open_session()
    asked = []
    bar = tqdm(queries, desc=drive.name, unit="query", leave=False, disable=None)
    for i, points, turn in zip(bar, thinned, turns, strict=True):
        (one,) = place.step(points, PERIOD * (len(drive) + int(i) + 1), is_keyframe=True)
        by_stamp[one.keyframe.stamp] = poses[i] @ from_xyz_rpy((0.0, 0.0, 0.0, 0.0, 0.0, -turn))
        near = {PERIOD * (int(j) + 1) for j in keep if np.linalg.norm(poses[j, :3, 3] - poses[i, :3, 3]) <= row.radius}
        asked.append(Asked(one.closures, bool(near), near, by_stamp))
    return asked


def scans(drive: Sequence) -> Iterator[np.ndarray]:
    """The drive's scans under a progress bar."""
    return iter(tqdm(drive.scans, desc=drive.name, unit="scan", leave=False, disable=None))


def most_similar(closures: list[LoopClosure]) -> tuple[LoopClosure, float] | None:
    """The answer before verification, and its score."""
    best = max(closures, key=lambda c: c.similarity, default=None)
    return best and (best, best.similarity)


def verified(closures: list[LoopClosure]) -> tuple[LoopClosure, float] | None:
    """The answer after it, and its score: of the accepted ones the nearest, by its own transform (what is accepted may
    be some metres away, for it is an edge that was asked for), and where none is accepted the most probable."""
    accepted = [c for c in closures if c.accepted]
    known = [c for c in closures if c.probability is not None]
    best = min(accepted, key=reach) if accepted else max(known, key=lambda c: c.probability, default=None)
    return best and (best, best.probability)


def reach(closure: LoopClosure) -> float:
    """From the match to the query, by an accepted closure's transform."""
    return float(np.linalg.norm(closure.T_match_query[:3, 3]))


def outcome(asked: list[Asked], answer: Callable[[list[LoopClosure]], tuple[LoopClosure, float] | None]) -> Outcome:
    """The `answer` for each frame, judged by the radius."""
    best, value, rank = [], [], []
    for one in asked:
        top, score = answer(one.closures) or (None, -np.inf)
        best.append(-1 if top is None else top.match_id)
        value.append(score)
        rank.append(0 if top is not None and top.match_stamp in one.near else NO_HIT)
    is_query = np.array([one.is_query for one in asked], bool)
    return Outcome(is_query, np.array(best), np.array(value, np.float64), np.array(rank), np.zeros(len(asked), bool))


def numbers(row: Row, asked: list[Asked], seconds: float) -> dict[str, object]:
    """What is printed of a row."""
    errors, right, closed, announced, revisits = [], 0, 0, 0, 0
    for one in asked:
        accepted = [c for c in one.closures if c.accepted]
        good = 0
        for c in accepted:
            assert c.T_match_query is not None
            error = edge_error(c.T_match_query, one.poses[c.match_stamp], one.poses[c.query_stamp])
            if error[0] <= row.right and error[1] <= RIGHT_DEGREES:
                good += 1
                errors.append(error)
        announced, right = announced + len(accepted), right + good
        closed += one.is_query and good > 0
        revisits += one.is_query
    before, after = (metrics.summarise(outcome(asked, answer)) for answer in (most_similar, verified))
    metres, degrees = np.array(errors).reshape(-1, 2).T
    quantile = lambda values, q: float(np.quantile(values, q)) if len(values) else float("nan")  # noqa: E731
    return {
        "row": row.sequence,
        "odometry": "none" if row.drift is None else f"off by {row.drift:.0%}",
        "queries": revisits,
        "recall@1 before": before["recall@1"],
        "recall@1 after": after["recall@1"],
        "F1max before": before["F1max"],
        "F1max after": after["F1max"],
        "closed": closed / revisits if revisits else float("nan"),
        "edges": announced,
        "wrong": announced - right,
        "precision": right / announced if announced else float("nan"),
        "m p50": quantile(metres, 0.5),
        "m p95": quantile(metres, 0.95),
        "deg p50": quantile(degrees, 0.5),
        "deg p95": quantile(degrees, 0.95),
        "seconds": seconds,
    }


def main() -> int:
    """Measure, print, leave a CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", choices=tuple(ROWS), default="simulated")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument(
        "--odometry", choices=("with", "without"), help="only rows with odometry, or only those without"
    )
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    parser.add_argument("--out", type=Path, help="leave edges_ROWS.csv in this folder")
    args = parser.parse_args()
    if args.rows != "simulated" and not os.environ.get("VLAD_DATA"):
        print("edges: VLAD_DATA must name the folder with the sequences", file=sys.stderr)
        return 2
    describer, metadata = Describer.from_pretrained(args.weights)
    if metadata.calibration is None:
        print("edges: these weights have no calibration; make one with vlad calibrate", file=sys.stderr)
        return 2
    table = []
    for row in ROWS[args.rows]:
        if args.only not in row.sequence or args.odometry == ("with" if row.drift is None else "without"):
            continue
        began, asked = time.monotonic(), []
        for seed, drive in enumerate(drives(row)):
            if row.stride:
                asked += sparse(describer, metadata.calibration, row, drive)
            else:
                asked += causal(describer, metadata.calibration, row, drive, seed)
        table.append(numbers(row, asked, time.monotonic() - began))
        if len(table) == 1:
            print(f"commit {report.commit()}, weights {metadata.sha256[:8]}\n\n| {' | '.join(table[0])} |")
            print("|---" * len(table[0]) + "|")
        shown = (f"{v:.3f}" if isinstance(v, float) else str(v) for v in table[-1].values())
        print(f"| {' | '.join(shown)} |", flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(args.out / f"edges_{args.rows}.csv", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
