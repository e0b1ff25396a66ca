#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole table of recognition: every row of the protocols, for the shipped network, its heads and the baselines.

    python bench/recognition.py --rows dev                     # rows that may be looked at freely
    python bench/recognition.py --rows all --out docs/recognition_run

Needs the real sequences in the folder that VLAD_DATA names. Reported rows are run once for each released set of
weights, so they are run only when asked for. One of the baselines, MapClosures, is a wheel of its own:
`pip install map-closures`.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vlad_ros.config import BevConfig, EvaluationConfig, ModelConfig
from vlad_ros.evaluation import metrics
from vlad_ros.evaluation import results as report
from vlad_ros.evaluation.describe import method_descriptors, network_similarities, scan_context_similarity
from vlad_ros.evaluation.protocols import Outcome
from vlad_ros.evaluation.task import Task, make_task
from vlad_ros.files.sequence import load_sequence
from vlad_ros.types import F32

CANDIDATES = 50  # closures asked of MapClosures, before the gap is applied; it proposes fewer


@dataclass(frozen=True)
class Row:
    """A sequence, its protocol, and whether the row may be looked at in development."""

    sequence: str
    config: EvaluationConfig
    dev: bool


ROWS = [
    Row("loop_mid360", EvaluationConfig(gap=56, radius=5.0), True),
    Row("loop_mid360", EvaluationConfig(gap=56, radius=5.0, local_maps=True), True),
    Row("mulran_riverside_a_os1_64", EvaluationConfig(protocol="sparse", stride=2, radius=8.0), True),
    Row("kitti00_hdl64", EvaluationConfig(protocol="sparse", stride=2, radius=5.0), False),
    Row("kitti00_hdl64", EvaluationConfig(protocol="sparse", stride=4, radius=5.0), False),
    Row("mulran_riverside_b_os1_64", EvaluationConfig(protocol="sparse", stride=2, radius=8.0), False),
    Row("courtyard_livox_avia", EvaluationConfig(gap=50, radius=2.0), False),
    Row("courtyard_livox_avia", EvaluationConfig(gap=50, radius=2.0, local_maps=True), False),
    Row("courtyard_livox_avia", EvaluationConfig(gap=50, radius=5.0), False),
]


def map_closures_similarity(clouds: Iterable[F32], count: int) -> F32:
    """(S, S) RANSAC inliers between local maps by MapClosures (Gupta et al., ICRA 2024), -inf without a proposal."""
    from map_closures.map_closures import MapClosures

    pipeline = MapClosures()
    inliers = np.full((count, count), -np.inf, np.float32)
    for i, cloud in enumerate(clouds):
        for closure in pipeline.get_top_k_closures(i, cloud[:, :3].astype(np.float64), CANDIDATES):
            inliers[i, closure.source_id if closure.target_id == i else closure.target_id] = closure.number_of_inliers
    return inliers


def similarities(task: Task, row: Row, weights: str | None) -> dict[str, F32]:
    """(Q, M) similarity by name of the method; MapClosures only where there are local maps to give it."""
    import torch

    from vlad_ros.model.network import PlaceNetwork
    from vlad_ros.model.weights import load_weights

    def clouds(label: str) -> tuple[Iterable[F32], Iterable[F32] | None]:
        bar = {"unit": "cloud", "file": sys.stderr, "disable": None}
        queries = tqdm(task.queries, desc=f"{row.sequence}, {label}", **bar)
        return queries, None if task.maps is None else tqdm(task.maps, desc="its map", **bar)

    network, _ = load_weights(weights)
    torch.manual_seed(0)
    untrained = PlaceNetwork(ModelConfig(), BevConfig()).eval()
    queries, maps = clouds("network")
    asked = method_descriptors(network, queries)
    known = asked if maps is None else method_descriptors(network, maps)
    found = {name: rows @ known[name].T for name, rows in asked.items()}
    found["untrained"] = network_similarities(untrained, *clouds("untrained network"))["fusion"]
    found["Scan Context"] = scan_context_similarity(*clouds("Scan Context"))
    if row.config.local_maps:
        found["MapClosures"] = map_closures_similarity(clouds("MapClosures")[0], len(task.queries))
    return found


def cell(outcome: Outcome, sparse: bool) -> str:
    """recall@1 with its interval, and recall@10 (sparse) or F1max (causal)."""
    numbers = metrics.summarise(outcome)
    low, high = numbers["recall@1_95"]  # type: ignore[misc]
    second = numbers["recall@10"] if sparse else numbers["F1max"]
    text = f"{numbers['recall@1']:.3f} ({low:.3f}..{high:.3f}) / {second:.3f}"
    if "reverse_recall@1" in numbers:
        text += f", reverse {numbers['reverse_recall@1']:.3f}"
    return text


def markdown(results: list[tuple[Row, Task, dict[str, Outcome]]]) -> str:
    """One line for each row and method, and the paired comparison of the fusion with each head over all queries."""
    lines = ["| data | protocol | queries | method | recall@1 (95 %) / recall@10 (sparse) or F1max (causal) | p |"]
    lines.append("|---|---|---|---|---|---|")
    pooled: dict[str, list[np.ndarray]] = {"fusion": [], "bev": [], "points": []}
    for row, task, outcomes in results:
        base = outcomes["fusion"]
        start = f"| `{row.sequence}` | {task.label} | {int(base.is_query.sum())} |"
        for name, outcome in outcomes.items():
            answers = outcome.correct()[outcome.is_query]
            p = "" if name == "fusion" else f"{metrics.mcnemar(base.correct()[base.is_query], answers):.3f}"
            lines.append(f"{start} {name} | {cell(outcome, row.config.protocol == 'sparse')} | {p} |")
            start = "| | | |"
            if name in pooled:
                pooled[name].append(answers)
    lines += ["", "p: paired exact McNemar test of recall@1 against the fusion."]
    for name in ("bev", "points"):
        a, b = np.concatenate(pooled["fusion"]), np.concatenate(pooled[name])
        lines.append(f"All {len(a)} queries pooled: fusion {a.mean():.4f}, {name} {b.mean():.4f}, ")
        lines[-1] += f"p = {metrics.mcnemar(a, b):.4f}."
    return "\n".join(lines)


def main() -> int:
    """Measure the rows, print the table, leave a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", choices=("dev", "reported", "all"), default="dev")
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    parser.add_argument("--out", help="leave the table, a CSV and each row's run folder here")
    args = parser.parse_args()
    data = os.environ.get("VLAD_DATA")
    if not data:
        print("recognition: VLAD_DATA must name the folder with the sequences", file=sys.stderr)
        return 2
    if importlib.util.find_spec("map_closures") is None:
        print("recognition: the baseline MapClosures is missing: pip install map-closures", file=sys.stderr)
        return 2
    results = []
    for row in ROWS:
        if args.rows == "all" or row.dev == (args.rows == "dev"):
            task = make_task(row.config, load_sequence(Path(data) / f"{row.sequence}.npz"))
            outcomes = {name: task.judge(s) for name, s in similarities(task, row, args.weights).items()}
            results.append((row, task, outcomes))
    table = f"commit {report.commit()}, weights {args.weights or 'shipped'}\n\n{markdown(results)}"
    print(table)
    if args.out:
        write(Path(args.out), results, table)
    return 0


def write(folder: Path, results: list[tuple[Row, Task, dict[str, Outcome]]], table: str) -> None:
    """table.md, table.csv, and for each row and method the folder that `vlad evaluate --out` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(table + "\n")
    with open(folder / "table.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sequence", "protocol", "method", "metrics"])
        for number, (row, task, outcomes) in enumerate(results):
            for name, outcome in outcomes.items():
                numbers = metrics.summarise(outcome)
                rows.writerow([row.sequence, task.label, name, json.dumps(numbers)])
                document = report.document(row.config, task, numbers, row.sequence, None, None) | {"descriptor": name}
                label = f"{number}_{row.sequence}_{name.lower().replace(' ', '_')}"
                report.write_evaluation(folder / label, document, task, outcome)


if __name__ == "__main__":
    sys.exit(main())
