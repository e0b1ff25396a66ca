#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a turn of the vehicle does to the descriptor of real scans: cosines over 36 angles, and recall@1.

    python bench/turn.py --csv turn.csv

Needs the development sequences in the folder that VLAD_DATA names.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vlad_ros.config import EvaluationConfig
from vlad_ros.evaluation import metrics
from vlad_ros.evaluation.describe import network_descriptors
from vlad_ros.evaluation.task import make_task
from vlad_ros.files.sequence import load_sequence
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import load_weights
from vlad_ros.poses import turn
from vlad_ros.types import F32

SEQUENCES = ("loop_mid360", "mulran_riverside_a_os1_64", "campus_velodyne32", "hall_indoor_360")
ANGLES = 36
REVISITS, CONFIG = "loop_mid360", EvaluationConfig(gap=56, radius=5.0)


def cosines(network: PlaceNetwork, scans: list[F32]) -> F32:
    """(len(scans), ANGLES - 1): each scan's descriptor against those of its turned copies."""
    angles = 2 * np.pi * np.arange(ANGLES) / ANGLES
    rows = []
    for scan in tqdm(scans, unit="scan", leave=False, disable=None):
        found = network_descriptors(network, (turn(scan, angle) for angle in angles))["fusion"]
        rows.append(found[1:] @ found[0])
    return np.array(rows)


def recalls(network: PlaceNetwork, path: Path) -> tuple[float, float, int]:
    """recall@1 of a drive against itself, with every query turned at random, and the number of queries."""
    task = make_task(CONFIG, load_sequence(path))
    rng = np.random.default_rng(0)
    bar = {"unit": "scan", "leave": False, "disable": None}
    maps = network_descriptors(network, tqdm(task.queries, **bar))["fusion"]
    queries = (turn(scan, rng.uniform(-np.pi, np.pi)) for scan in tqdm(task.queries, **bar))
    asked = network_descriptors(network, queries)["fusion"]
    outcomes = [task.judge(rows @ maps.T) for rows in (maps, asked)]
    plain, under_yaw = (float(metrics.summarise(outcome)["recall@1"]) for outcome in outcomes)  # type: ignore[arg-type]
    return plain, under_yaw, int(outcomes[0].is_query.sum())


def main() -> int:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    parser.add_argument("--scans", type=int, default=10, help="of each sequence, evenly spread")
    parser.add_argument("--csv", type=Path, help="write the table here too")
    args = parser.parse_args()
    data = os.environ.get("VLAD_DATA")
    if not data:
        print("turn: VLAD_DATA must name the folder with the sequences", file=sys.stderr)
        return 2
    network, metadata = load_weights(args.weights)
    table: list[list[str | float]] = []
    for name in SEQUENCES:
        scans = load_sequence(Path(data) / f"{name}.npz").scans
        found = cosines(network, [scans[i] for i in np.linspace(0, len(scans) - 1, args.scans).astype(int)])
        table += [[name, "mean cosine over 36 angles", float(found.mean())]]
        table += [[name, "lowest cosine", float(found.min())]]
    plain, under_yaw, count = recalls(network, Path(data) / f"{REVISITS}.npz")
    table += [[REVISITS, f"recall@1 of {count} queries", plain]]
    table += [[REVISITS, "the same, every query turned at random", under_yaw]]
    print(f"weights {metadata.sha256[:8]}, {args.scans} scans of each sequence")
    for sequence, what, value in table:
        print(f"{sequence:28} {what:40} {value:.4f}")
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["sequence", "what", "value"])
            rows.writerows(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
