#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the defaults that set the cost are worth: revisits closed, wrong edges and CPU time by each value.

    VLAD_DATA=folder python bench/defaults.py                                # loop_mid360, all values
    VLAD_DATA=folder python bench/defaults.py --only keyframe_distance --scans 500
    python bench/defaults.py --only keyframe_distance --simulated            # 16 held-out simulated drives, summed

Drives with odometry that drifts by 1 %, at walking pace of a robot; and, for `scan_descriptor_distance`, its second
part in a session of its own against a map of its first part, one of them with odometry and one without. A revisit is
a scan with an earlier place within 5 m that may be matched; it is closed by a right edge of a keyframe up to 3 m of
travel away. CPU seconds are those of the whole pipeline, without ROS (bench/cost.py measures the node). Scans of the
simulated drives lie 1.6 m apart: a keyframe is one of them, so that 1, 2 and 4 m mean 1.6, 3.2 and 4.8.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from table import markdown
from tqdm import tqdm

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation.drives import judging_drives
from vlad_ros.evaluation.edges import edge_error, is_right, revisits
from vlad_ros.files.sequence import Sequence, load_sequence
from vlad_ros.loops.described import Described
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Ints

SEQUENCE = "loop_mid360"
SPEED, DRIFT, DRIFT_YAW = 2.0, 0.01, 0.5  # m/s, share of the distance, degrees per 10 m
RADIUS, CLOSE = 5.0, 3.0  # m
SPLIT = 671  # scans of the map, of the sequence's two parts
VALUES = {
    "keyframe_distance": (1.0, 1.5, 2.0, 3.0, 4.0),
    "max_edges": (1, 2, 3, 0),
    "scan_descriptor_distance": (0.0, 3.0, 5.0, 10.0, 1000.0),
}


@dataclass(frozen=True)
class Tally:
    """What came of drives: counts, CPU seconds and kilometres."""

    keyframes: int
    revisits: int
    closed: int
    edges: int
    wrong: int
    cpu: float
    km: float

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def row(self) -> dict[str, object]:
        """A row of the table."""
        return {
            "keyframes": self.keyframes,
            "revisits": self.revisits,
            "closed": f"{self.closed / self.revisits:.3f}" if self.revisits else "",
            "edges": self.edges,
            "wrong": self.wrong,
            "CPU [ms/keyframe]": f"{1000 * self.cpu / self.keyframes:.0f}",
            "CPU [s/km]": f"{self.cpu / self.km:.1f}",
        }


class Run:
    """The sequence driven once, in sessions that begin at the scans `begins`, each with odometry or without."""

    def __init__(self, drive: Sequence, count: int) -> None:
        self.scans, self.poses = drive.scans[:count], drive.poses_to("judge")[:count]
        self.travel = path_length(self.poses)
        self.stamps: Ints = (SECOND + self.travel / SPEED * SECOND).astype(np.int64) + np.arange(len(self.poses))
        self.odometry = drifting_odometry(self.poses, DRIFT, DRIFT_YAW)

    def drive(self, place: PlaceRecognizer, scans: range, odometry: bool) -> tuple[list[Described], float]:
        """The keyframes of these scans, and the CPU seconds."""
        began, out = time.process_time(), []
        for i in tqdm(scans, unit="scan", leave=False, disable=None):
            T: F64 | None = self.odometry[i] if odometry else None
            out += place.step(self.scans[i], int(self.stamps[i]), T_odom_base=T)
        return out + place.finish(), time.process_time() - began

    def tally(self, described: list[Described], scans: range, sessions: Ints, cpu: float) -> Tally:
        """Closed revisits among `scans`, edges, and what they cost."""
        at = {int(stamp): i for i, stamp in enumerate(self.stamps)}
        closed_at, edges, wrong = [], 0, 0
        for one in described:
            for closure in one.closures:
                if closure.accepted and closure.T_match_query is not None:
                    match, query = at[closure.match_stamp], at[closure.query_stamp]
                    right = is_right(*edge_error(closure.T_match_query, self.poses[match], self.poses[query]))
                    edges, wrong = edges + 1, wrong + (not right)
                    closed_at += [self.travel[query]] if right else []
        config = RecognizerConfig()
        asked = revisits(
            self.poses[: scans.stop],
            self.stamps[: scans.stop],
            sessions[: scans.stop],
            radius=RADIUS,
            exclude_time=config.exclude_time,
            exclude_distance=config.exclude_distance,
        )
        there = [i for i in scans if asked[i]]
        near = [np.min(np.abs(np.array(closed_at) - self.travel[i]), initial=np.inf) <= CLOSE for i in there]
        km = (self.travel[scans.stop - 1] - self.travel[scans.start]) / 1000.0
        return Tally(len(described), len(there), sum(near), edges, wrong, cpu, km)


def one_drive(run: Run, config: RecognizerConfig) -> Tally:
    """All scans as one session with odometry."""
    scans = range(len(run.scans))
    described, cpu = run.drive(PlaceRecognizer.from_pretrained(None, "cpu", config), scans, True)
    return run.tally(described, scans, np.zeros(len(scans), np.int64), cpu)


def two_drives(run: Run, config: RecognizerConfig, of_map: bool, of_query: bool) -> Tally:
    """The second part against a map of the first."""
    place = PlaceRecognizer.from_pretrained(None, "cpu", config)
    split, end = min(SPLIT, len(run.scans) // 2), len(run.scans)
    run.drive(place, range(split), of_map)
    place.open_session()
    described, cpu = run.drive(place, range(split, end), of_query)
    return run.tally(described, range(split, end), (np.arange(end) >= split).astype(np.int64), cpu)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(VALUES))
    parser.add_argument("--scans", type=int, default=100_000, help="of a sequence at most")
    parser.add_argument("--simulated", action="store_true", help="the simulated drives instead of the sequence")
    args = parser.parse_args()
    if args.simulated:
        runs = [Run(drive, args.scans) for drive in tqdm(judging_drives(), total=16, unit="drive", disable=None)]
    elif os.environ.get("VLAD_DATA"):
        runs = [Run(load_sequence(Path(os.environ["VLAD_DATA"]) / f"{SEQUENCE}.npz"), args.scans)]
    else:
        print("defaults: VLAD_DATA must name the folder with the sequences", file=sys.stderr)
        return 2
    rows: list[dict[str, object]] = []
    for name in VALUES if args.only is None else [args.only]:
        for value in VALUES[name]:
            config = RecognizerConfig(**{name: value})
            kinds: dict[str, Callable[[Run], Tally]] = {"one drive": partial(one_drive, config=config)}
            if name == "scan_descriptor_distance":
                kinds["map without odometry, asked with"] = partial(
                    two_drives, config=config, of_map=False, of_query=True
                )
                kinds["map with odometry, asked without"] = partial(
                    two_drives, config=config, of_map=True, of_query=False
                )
            for kind, measure in kinds.items():
                whole = reduce(add, (measure(run) for run in runs))
                rows.append({"": kind, name if args.only else "value": f"{name} {value:g}", **whole.row()})
                print(markdown([rows[-1]]).splitlines()[-1] if len(rows) > 1 else markdown(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
