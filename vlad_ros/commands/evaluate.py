# SPDX-License-Identifier: Apache-2.0
"""`vlad evaluate SEQUENCE.npz`: measure recognition on a sequence, and print the metrics with their protocol."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from vlad_ros.config import EvaluationConfig
from vlad_ros.options import add_options, from_options

if TYPE_CHECKING:
    from vlad_ros.evaluation.task import Clouds, Task
    from vlad_ros.types import F32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sequence, map, protocol, weights, and what is written."""
    parser.add_argument("sequence", metavar="SEQUENCE.npz", help="the drive whose frames are queries")
    parser.add_argument("--map", metavar="MAP.npz", help="another drive in the same frame, as the map")
    parser.add_argument("--weights", metavar="FILE", help="weights file; the shipped ones when left out")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", metavar="FOLDER", help="write configuration, metrics and a CSV of the frames here")
    add_options(parser, EvaluationConfig)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    from vlad_ros.evaluation import metrics, results
    from vlad_ros.evaluation.task import make_task
    from vlad_ros.files.sequence import load_sequence

    config = from_options(EvaluationConfig, args)
    sequence, other = load_sequence(args.sequence), load_sequence(args.map) if args.map else None
    task = make_task(config, sequence, other)
    similarity, sha256 = _similarity(task, config, args.weights, args.device)
    outcome = task.judge(similarity)
    numbers = metrics.summarise(outcome, seed=config.seed)
    document = results.document(config, task, numbers, sequence.name, other.name if other else None, sha256)
    if args.out:
        results.write_evaluation(args.out, document, task, outcome)
    print(json.dumps(document) if args.json else _text(document))
    return 0


def _similarity(task: Task, config: EvaluationConfig, weights: str | None, device: str) -> tuple[F32, str | None]:
    from vlad_ros.evaluation.describe import network_similarities, scan_context_similarity

    queries, maps = _bar(task.queries), None if task.maps is None else _bar(task.maps)
    if config.descriptor == "scan-context":
        return scan_context_similarity(queries, maps), None
    from vlad_ros.model.weights import load_weights

    network, metadata = load_weights(weights, device)
    found = network_similarities(network, queries, maps, config.descriptor_size)
    return found[config.descriptor], metadata.sha256


def _bar(clouds: Clouds) -> Any:
    from tqdm import tqdm

    return tqdm(clouds, total=len(clouds), unit="cloud", file=sys.stderr, disable=None)


def _text(document: dict[str, Any]) -> str:
    numbers = document["metrics"]
    lines = [f"{document['sequence']}, {document['descriptor']}", f"protocol     {document['protocol']}"]
    lines.append(f"queries      {numbers['queries']} of {numbers['frames']} frames")
    for name in ("recall@1", "recall@10", "reverse_recall@1"):
        if name in numbers:
            low, high = numbers[f"{name}_95"]
            of = f", {numbers['reverse_queries']} queries" if name.startswith("reverse") else ""
            label = "  reverse @1" if name.startswith("reverse") else name
            lines.append(f"{label:<12} {numbers[name]:.3f}  (95 %: {low:.3f}..{high:.3f}{of})")
    lines += [f"{name:<12} {numbers[name]:.3f}" for name in ("F1max", "AP", "recall@P100")]
    return "\n".join(lines)
