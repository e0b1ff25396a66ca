#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many edges a keyframe a pose graph wants: RMSE with the loops that `max_edges` lets through, and by rules that
prefer chords, which join what the graph so far holds together only by a long way.

    python bench/max_edges.py

Simulated drives of about 700 m (once around, the same way again, back in the opposite direction), odometry off by 1 %
and 0.5 degrees in 10 m. Every candidate is verified once; then each setting judges the same keyframes anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from functools import partial

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from tqdm import tqdm

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation.edges import edge_error, is_right
from vlad_ros.evaluation.trajectory import aligned, rmse
from vlad_ros.files.sequence import Sequence
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.loops.acceptance import Judge
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.simulation.aliased_drives import aliased_drive
from vlad_ros.simulation.routes import make_drive
from vlad_ros.simulation.sensors import dome, spinning
from vlad_ros.types import F64, Geometry, Keyframe, LoopClosure, Verification

SPACING, SPEED = 1.6, 6.0  # m, m/s
SETTINGS = (1, 2, 3, 10, 0)
CHORD = 50.0  # m of way through the graph from which on a loop is a chord
STEP = 5.0  # m of way that a loop counts
KINDS = {
    "street": partial(make_drive, "street", sensor=spinning(32, 450), length=230.0),
    "campus": partial(make_drive, "campus", sensor=spinning(32, 450), length=230.0),
    "park": partial(make_drive, "park", sensor=dome(), length=230.0),
    "carpark": partial(make_drive, "carpark", sensor=spinning(16), length=70.0, shape="line"),
    "indoor": partial(make_drive, "indoor", sensor=dome(), length=70.0, shape="line"),
}


class Remembering(Verifier):
    """Verifies each pair of keyframes once."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[tuple[int, int], Verification] = {}

    def verify(self, query: Geometry, match: Geometry) -> Verification:
        """As the Verifier does; the geometries live as long as this does."""
        key = id(query), id(match)
        if key not in self._known:
            self._known[key] = super().verify(query, match)
        return self._known[key]


def drive(kind: str, seed: int) -> Sequence:
    """The drive through the first world from `seed` on that has the route, at SPEED."""
    for world in range(seed, seed + 20):
        try:
            if kind == "blocks":
                made = aliased_drive(
                    "blocks", world, sensor=spinning(32, 450), loops=True, spacing=SPACING, length=230.0
                )
            else:
                made = KINDS[kind](world, seed=world, spacing=SPACING, revisits=("same", "opposite"))
        except ValueError:
            continue
        stamps = 1.0 + path_length(made.poses_to("bench")) / SPEED
        return dataclasses.replace(made, stamps=stamps + 1e-3 * np.arange(len(stamps)))  # turns on the spot take time
    raise SystemExit(f"no {kind} from seed {seed} on has the route")


def keyframes_of(place: PlaceRecognizer, drive: Sequence, odometry: F64) -> list[Keyframe]:
    """The keyframes that the recogniser makes of the drive."""
    described = []
    bar = tqdm(drive.scans, desc=drive.name, unit="scan", leave=False, disable=None)
    for scan, stamp, T in zip(bar, drive.stamps_ns(), odometry, strict=True):
        described += place.step(scan, stamp, T_odom_base=T)
    return [one.keyframe for one in described + place.finish()]


def judged(
    place: PlaceRecognizer, keyframes: list[Keyframe], verifier: Verifier, max_edges: int
) -> list[list[LoopClosure]]:
    """The accepted loops of each keyframe with this setting, best first."""
    config = dataclasses.replace(place.config, max_edges=max_edges)
    database = KeyframeDatabase(**place.describer.make(False))
    judge, out = Judge(verifier, place.calibration, config), []
    for keyframe in keyframes:
        candidates = database.search(keyframe, config.top_k, config.exclude_time, config.exclude_distance)
        closures = judge.judge(database.add(keyframe), keyframe, candidates, database)
        out.append([closure for closure in closures if closure.accepted])
    return out


def chords(keyframes: list[Keyframe], loops: list[list[LoopClosure]], least: float) -> list[list[LoopClosure]]:
    """Of each keyframe's loops the one between whose ends the way through the graph so far is longest, if it is `least`
    [m] long."""
    travel = np.array([keyframe.travel for keyframe in keyframes])
    rows, columns, ways = list(range(len(travel) - 1)), list(range(1, len(travel))), np.diff(travel).tolist()
    out: list[list[LoopClosure]] = []
    for query, some in enumerate(loops):
        out.append([])
        if not some:
            continue
        so_far = csr_matrix((np.maximum(ways, 1e-6), (rows, columns)), (len(travel), len(travel)))
        away = dijkstra(so_far, directed=False, indices=query)
        best = max(some, key=lambda closure: away[closure.match_id])
        if away[best.match_id] >= least:
            out[-1].append(best)
            rows.append(query)
            columns.append(best.match_id)
            ways.append(STEP)
    return out


def optimised(keyframes: list[Keyframe], loops: list[list[LoopClosure]]) -> F64:
    """The keyframes' poses (N, 4, 4) in the pose graph with these loops, added in the drive's order."""
    graph = LiveGraph(PoseGraphConfig())
    for keyframe, some in zip(keyframes, loops, strict=True):
        graph.add_node(keyframe.stamp, keyframe.T_odom_base)
        for closure in some:
            keys = (0, closure.match_stamp), (0, closure.query_stamp)
            graph.add_loop(LoopEdge(*keys, closure.T_match_query, closure.covariance, closure.probability))
        graph.upkeep()
    graph.upkeep(60.0)
    return graph.poses()


def row(place: PlaceRecognizer, kind: str, seed: int) -> Iterator[str]:
    """The cells of a drive."""
    made = drive(kind, seed)
    truth = made.poses_to("bench")
    keyframes = keyframes_of(place, made, drifting_odometry(truth, 0.01, 0.5, seed))
    index = {stamp: i for i, stamp in enumerate(made.stamps_ns())}
    true = truth[[index[keyframe.stamp] for keyframe in keyframes]]
    odometry = np.stack([keyframe.T_odom_base for keyframe in keyframes])
    yield f"{kind} {made.name.split('_')[1]}"
    yield str(len(keyframes))
    yield f"{path_length(true)[-1]:.0f}"
    yield f"{rmse(aligned(odometry, true), true):.3f}"
    verifier = Remembering()
    variants = [judged(place, keyframes, verifier, number) for number in SETTINGS]
    variants += [chords(keyframes, variants[-1], 0.0), chords(keyframes, variants[-1], CHORD)]
    for loops in tqdm(variants, desc="graphs", leave=False, disable=None):
        wrong = sum(
            not is_right(*edge_error(closure.T_match_query, true[closure.match_id], true[closure.query_id]))
            for some in loops
            for closure in some
        )
        number = sum(map(len, loops))
        error = rmse(aligned(optimised(keyframes, loops), true), true)
        yield f"{error:.3f} ({number}{f', {wrong} wrong' if wrong else ''})"


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=(*KINDS, "blocks"), default=[*KINDS, "blocks"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[9000, 9500], help="first worlds that are tried")
    args = parser.parse_args()
    names = [f"max_edges {number or 'all'}" for number in SETTINGS]
    names += ["the longest chord", f"only chords from {CHORD:g} m on"]
    head = ["drive", "keyframes", "m", "odometry", *names]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    config = RecognizerConfig(max_edges=1, verification_budget=60.0)
    for seed in args.seeds:
        for kind in args.kinds:
            place = PlaceRecognizer.from_pretrained(config=config)
            print("| " + " | ".join(row(place, kind, seed)) + " |", flush=True)


if __name__ == "__main__":
    main()
