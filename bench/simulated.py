#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recognition in simulated worlds that no training view was taken in, all revisits in the opposite direction.

    python bench/simulated.py --out docs/simulated_run

Tables: a sparse sensor seen again from the other side, as single scans, as local maps joined by drifting odometry, and
one kind against the other; another sensor in each visit; 64 beams against 16; 20,000 points against 2,000; a sensor 2 m
above the ground against one at 0.5 m. Other cars are parked there in each visit.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vlad_ros.config import EvaluationConfig
from vlad_ros.evaluation import metrics, protocols
from vlad_ros.evaluation import results as report
from vlad_ros.evaluation.describe import method_descriptors, scan_context_similarity
from vlad_ros.evaluation.protocols import Outcome
from vlad_ros.evaluation.task import local_maps
from vlad_ros.files.sequence import Sequence
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import load_weights
from vlad_ros.simulation.routes import Route, plan_route, record
from vlad_ros.simulation.sensors import Sensor, random_sensor, spinning
from vlad_ros.simulation.world import World
from vlad_ros.simulation.worlds import make_world
from vlad_ros.types import F32, F64

WORLDS = (("street", "loop"), ("campus", "loop"), ("park", "loop"), ("riverside", "line"), ("plaza", "loop"))
SEED = 70_000  # far from the seeds of training, its held-out views and the calibration drives
RADIUS, GAP = 5.0, 40  # m, frames
OFFSET = 4.0  # m to the side, as far as the road is wide
SPARSE = (500, 5400)  # points


@dataclass(frozen=True)
class Place:
    """A world and a way there and back through it."""

    world: World
    route: Route
    seed: int
    spacing: float

    def drive(self, sensor: Sensor, leg: int | None = None) -> Sequence:
        """The scans of one leg, 0 there or 1 back, or of both in one drive."""
        chosen = np.ones(len(self.route.leg), bool) if leg is None else self.route.leg == leg
        route = Route(self.route.poses[chosen], self.route.leg[chosen])
        return record(self.world, route, self.seed, sensor, self.spacing, f"{self.world.kind}_{self.seed}", 1)


def places(count: int, length: float, spacing: float) -> Iterator[Place]:
    """`count` worlds; those without a way of this length are passed over."""
    for number, (kind, shape) in enumerate(WORLDS[:count]):
        for seed in range(SEED + 100 * number, SEED + 100 * number + 100):
            world = make_world(kind, seed, size=max(300.0, 1.4 * length))
            try:
                route = plan_route(world, seed, spacing, ("opposite",), OFFSET, length, shape)
            except ValueError:
                continue
            yield Place(world, route, seed, spacing)
            break


def thinned(drive: Sequence, low: int, high: int, seed: int) -> Sequence:
    """The drive with a random number of random points left in each scan."""
    rng = np.random.default_rng(seed)
    scans = [s[rng.choice(len(s), min(len(s), rng.integers(low, high + 1)), replace=False)] for s in drive.scans]
    return Sequence(drive.name, scans, drive.poses, drive.stamps)


def pose(drive: Sequence) -> tuple[F64, F64]:
    """Positions (S, 3) [m] and headings (S,) [rad]."""
    assert drive.poses is not None  # simulated
    return drive.poses[:, :3, 3], np.arctan2(drive.poses[:, 1, 0], drive.poses[:, 0, 0])


class Table:
    """Outcomes by row and method, over all worlds."""

    def __init__(self, network: PlaceNetwork) -> None:
        self.network = network
        self.outcomes: dict[tuple[str, str], list[Outcome]] = {}

    def describe(self, clouds: Iterable[F32]) -> dict[str, F32]:
        """Descriptors by method."""
        return method_descriptors(self.network, clouds)

    def revisit(self, row: str, drive: Sequence, queries: dict[str, F32], maps: dict[str, F32]) -> None:
        """One drive over the same road twice: every frame against all that are `GAP` frames older."""
        positions, headings = pose(drive)
        for method, rows in queries.items():
            outcome = protocols.causal(rows @ maps[method].T, positions, GAP, RADIUS, headings)
            self.outcomes.setdefault((row, method), []).append(outcome)

    def transfer(
        self, row: str, drives: tuple[Sequence, Sequence], there: dict[str, F32], back: dict[str, F32]
    ) -> None:
        """The way back against the map of the way there."""
        (map_positions, map_headings), (positions, headings) = pose(drives[0]), pose(drives[1])
        for method, rows in back.items():
            similarity = rows @ there[method].T
            outcome = protocols.cross(similarity, positions, map_positions, RADIUS, headings, map_headings)
            self.outcomes.setdefault((row, method), []).append(outcome)

    def pooled(self) -> dict[tuple[str, str], Outcome]:
        """All worlds together; frames of different worlds are never compared."""
        names = [field.name for field in fields(Outcome)]
        rows = list(dict.fromkeys(row for row, _ in self.outcomes))
        return {
            key: Outcome(**{name: np.concatenate([getattr(each, name) for each in outcomes]) for name in names})
            for key, outcomes in sorted(self.outcomes.items(), key=lambda item: rows.index(item[0][0]))
        }


def sparse_revisits(table: Table, place: Place) -> None:
    """32 beams, 500..5,400 points a scan: single scans, local maps, and one kind against the other."""
    drive = thinned(place.drive(spinning(32)), *SPARSE, place.seed)
    scans = table.describe(drive.scans)
    maps = table.describe(local_maps(drive, EvaluationConfig(local_maps=True, seed=place.seed)))
    name = "32 beams, 500..5,400 points: "
    table.revisit(f"{name}single scans", drive, scans, scans)
    table.revisit(f"{name}local maps of 10 m", drive, maps, maps)
    table.revisit(f"{name}a single scan asked of local maps", drive, scans, maps)
    table.revisit(f"{name}a local map asked of single scans", drive, maps, scans)
    similarity = scan_context_similarity(drive.scans, None)
    outcome = protocols.causal(similarity, pose(drive)[0], GAP, RADIUS, pose(drive)[1])
    table.outcomes.setdefault((f"{name}single scans", "Scan Context"), []).append(outcome)


def other_sensors(table: Table, place: Place) -> None:
    """Another sensor in each visit, and the transfers one by one."""
    rng = np.random.default_rng(place.seed)
    rows = {"another random sensor in each visit": (random_sensor(rng), random_sensor(rng), None)}
    rows["map 64 beams, query 64 beams"] = (spinning(64), spinning(64), None)
    rows["map 64 beams, query 16 beams"] = (spinning(64), spinning(16), None)
    rows["map 20,000 points, query 2,000 points"] = (spinning(64), spinning(64), (20_000, 2_000))
    rows["sensor 2 m above the ground, query 0.5 m"] = (
        replace(spinning(64), height=2.0),
        replace(spinning(64), height=0.5),
        None,
    )
    known: dict[tuple[Sensor, int, int], tuple[Sequence, dict[str, F32]]] = {}
    for row, (there, back, points) in rows.items():
        seen = []
        for leg, sensor in enumerate((there, back)):
            count = points[leg] if points else sys.maxsize
            if (sensor, leg, count) not in known:
                drive = (
                    thinned(place.drive(sensor, leg), count, count, place.seed) if points else place.drive(sensor, leg)
                )
                known[sensor, leg, count] = drive, table.describe(drive.scans)
            seen.append(known[sensor, leg, count])
        table.transfer(row, (seen[0][0], seen[1][0]), seen[0][1], seen[1][1])


def markdown(outcomes: dict[tuple[str, str], Outcome]) -> str:
    """One line for each row and method."""
    lines = [
        "| simulated, opposite direction, radius 5 m | queries | method | recall@1 (95 %) | F1max |",
        "|---|---|---|---|---|",
    ]
    last = ""
    for (row, method), outcome in outcomes.items():
        numbers = metrics.summarise(outcome)
        low, high = numbers["recall@1_95"]  # type: ignore[misc]
        start = f"| {row} | {numbers['queries']} |" if row != last else "| | |"
        lines.append(f"{start} {method} | {numbers['recall@1']:.3f} ({low:.3f}..{high:.3f}) | {numbers['F1max']:.3f} |")
        last = row
    return "\n".join(lines)


def main() -> int:
    """Measure, print, leave a CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    parser.add_argument("--worlds", type=int, default=len(WORLDS), help="only the first so many worlds")
    parser.add_argument("--length", type=float, default=150.0, help="m there, and as many back")
    parser.add_argument("--out", type=Path, help="leave table.md and table.csv in this folder")
    args = parser.parse_args()
    network, metadata = load_weights(args.weights)
    table = Table(network)
    for place in tqdm(places(args.worlds, args.length, 1.0), total=args.worlds, desc="sparse", disable=None):
        sparse_revisits(table, place)
    for place in tqdm(places(args.worlds, args.length, 2.0), total=args.worlds, desc="sensors", disable=None):
        other_sensors(table, place)
    outcomes = table.pooled()
    text = f"commit {report.commit()}, weights {metadata.sha256[:8]}\n\n{markdown(outcomes)}"
    print(text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "table.md").write_text(text + "\n")
        with open(args.out / "table.csv", "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["row", "method", "metrics"])
            rows.writerows([*key, json.dumps(metrics.summarise(outcome))] for key, outcome in outcomes.items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
