# SPDX-License-Identifier: Apache-2.0
"""The folder that an evaluation writes: configuration, commit, seed, metrics with units, and a CSV row per frame."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.config import EvaluationConfig
from vlad_ros.evaluation.protocols import NO_HIT, Outcome
from vlad_ros.evaluation.task import Task
from vlad_ros.provenance import commit

UNITS = {"frames": "frames", "queries": "frames", "reverse_queries": "frames"}


def document(
    config: EvaluationConfig, task: Task, numbers: dict[str, Any], sequence: str, map: str | None, weights: str | None
) -> dict[str, Any]:
    """The metrics and everything needed to read them, as one JSON object."""
    return {
        "sequence": sequence,
        "map": map,
        "protocol": task.label,
        "descriptor": config.descriptor,
        "weights_sha256": weights,
        "commit": commit(),
        "seed": config.seed,
        "configuration": dataclasses.asdict(config),
        "metrics": numbers,
    }


def write_evaluation(folder: str | os.PathLike[str], document: dict[str, Any], task: Task, outcome: Outcome) -> None:
    """Write configuration.json, metrics.json and queries.csv into `folder`; makes it where there is none."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about = {key: value for key, value in document.items() if key != "metrics"}
    (folder / "configuration.json").write_text(json.dumps(about, indent=2) + "\n")
    metrics = {
        name: {"value": value, "unit": UNITS.get(name, "share, 0..1")} for name, value in document["metrics"].items()
    }
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    with open(folder / "queries.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["frame", "is_query", "reverse", "match", "similarity", "distance_m", "correct", "rank"])
        table.writerows(_rows(task, outcome))


def _rows(task: Task, outcome: Outcome) -> list[list[Any]]:
    rows = []
    for i, best in enumerate(outcome.best):
        match: list[Any] = ["", "", ""]
        if best >= 0:
            distance = float(np.linalg.norm(task.query_positions[i] - task.map_positions[best]))
            match = [int(task.map_frames[best]), f"{outcome.similarity[i]:.6f}", f"{distance:.3f}"]
        rank = "" if outcome.rank[i] == NO_HIT else int(outcome.rank[i]) + 1
        flags = [int(outcome.is_query[i]), int(outcome.reverse[i])]
        rows.append([int(task.query_frames[i]), *flags, *match, int(outcome.correct()[i]), rank])
    return rows
