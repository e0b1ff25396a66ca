# SPDX-License-Identifier: Apache-2.0
"""Records a run while its drive is played, and writes its folder; `tables` describes the files."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.atomic import withdrawing
from vlad_ros.config import EvaluationConfig, RecognizerConfig
from vlad_ros.evaluation import edges
from vlad_ros.loops.described import Described
from vlad_ros.poses import to_quaternion
from vlad_ros.runs import metrics
from vlad_ros.runs import tables as run
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Keyframe, LoopClosure

ABSENT = ""  # the cell of an unknown number
UNFINISHED = ".unfinished"  # subfolder of the run for files being written


class RunRecorder:
    """Collects the rows of a run: of keyframes and candidates, and of the counts once per second of the drive."""

    def __init__(self) -> None:
        self._keyframes: list[Keyframe] = []
        self._truth: list[F64 | None] = []
        self._closures: list[LoopClosure] = []
        self._timing: list[dict[str, float]] = []
        self._health: list[dict[str, int]] = []
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._keyframes)

    def add(self, described: Described, T_world_base: F64 | None) -> None:
        """Add a keyframe, its true pose, and its candidates. ValueError unless ids are 0, 1, 2, ..."""
        if described.keyframe_id != len(self._keyframes):
            raise ValueError(
                f"keyframe {described.keyframe_id} after {len(self._keyframes)} of the run: start it with an empty map"
            )
        keyframe = dataclasses.replace(described.keyframe, geometry=None)  # it is large and already in the map
        self._keyframes.append(keyframe)
        self._truth.append(T_world_base)
        self._closures += described.closures
        self._timing.append(described.milliseconds)
        self._counts["keyframes"] += 1
        self._counts["candidates"] += len(described.closures)
        for closure in described.closures:
            outcome = "accepted" if closure.accepted else f"rejected_{closure.reject_reason.name}"
            self._counts[outcome] += 1

    def tick(self, stamp: int, scans: int, counters: Counter[str]) -> None:
        """After each scan: the number of `scans` played and the recogniser's `counters` so far."""
        if not self._health or not 0 <= stamp - self._health[-1]["stamp_ns"] < SECOND:
            self._health.append(self._counted(stamp, scans, counters))

    def finish(self, stamp: int, scans: int, counters: Counter[str]) -> None:
        """After the last scan and the keyframes that were still waiting."""
        self._health.append(self._counted(stamp, scans, counters))

    def _counted(self, stamp: int, scans: int, counters: Counter[str]) -> dict[str, int]:
        dropped = {f"counted_{reason}": count for reason, count in sorted(counters.items())}
        return {"stamp_ns": stamp, "scans": scans, **self._counts, **dropped}

    def write(
        self,
        folder: str | os.PathLike[str],
        about: dict[str, Any],
        config: RecognizerConfig,
        judge: EvaluationConfig,
        save_map: Callable[[Path], None],
    ) -> run.Run:
        """Write the run into `folder` and read it back. An earlier run there stays intact until writing has finished,
        and if writing fails; a newly created folder is then removed.

        `about`: what was played and how; format, version and metrics are added. ValueError without keyframes.
        """
        folder = Path(folder)
        with withdrawing(folder):
            (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
            try:
                written = self._write(folder / UNFINISHED, about, config, judge, save_map)
                (folder / run.ABOUT).unlink(missing_ok=True)  # from here on the folder does not count as a finished run
                for file in sorted((folder / UNFINISHED).iterdir(), key=lambda file: file.name == run.ABOUT):
                    os.replace(file, folder / file.name)
            finally:
                shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
            return dataclasses.replace(written, path=folder)

    def _write(
        self,
        folder: Path,
        about: dict[str, Any],
        config: RecognizerConfig,
        judge: EvaluationConfig,
        save_map: Callable[[Path], None],
    ) -> run.Run:
        """Write every file of the run, and read it back."""
        _write_table(folder / "keyframes.csv", run.KEYFRAME_COLUMNS, self._keyframe_rows(config, judge))
        _write_table(folder / "closures.csv", run.CLOSURE_COLUMNS, map(self._closure_row, self._closures))
        stages = list(dict.fromkeys(stage for row in self._timing for stage in row))
        names = ["keyframe_id", *(f"{stage}_ms" for stage in stages)]
        _write_table(
            folder / "timing.csv",
            names,
            ([i, *(row.get(s, ABSENT) for s in stages)] for i, row in enumerate(self._timing)),
        )
        counted = list(dict.fromkeys(name for row in self._health for name in row))
        _write_table(folder / "health.csv", counted, ([row.get(name, 0) for name in counted] for row in self._health))
        save_map(folder / run.MAP)
        document = {"format": run.FORMAT, "version": run.VERSION, **about}
        written = run.read_tables(folder, document)
        document["metrics"] = metrics.summarise(written.keyframes, written.closures, written.has_truth)
        (folder / run.ABOUT).write_text(json.dumps(document, indent=2) + "\n")
        return written

    def _keyframe_rows(self, config: RecognizerConfig, judge: EvaluationConfig) -> Iterable[list[Any]]:
        seen_before = self._revisits(config, judge)
        for i, (keyframe, T_world_base) in enumerate(zip(self._keyframes, self._truth, strict=True)):
            yield [
                *(i, keyframe.session, keyframe.stamp, _cell(keyframe.travel)),
                *(int(keyframe.is_local_map), int(keyframe.partial), int(i in seen_before)),
                *_pose(keyframe.T_odom_base),
                *_pose(T_world_base),
            ]

    def _revisits(self, config: RecognizerConfig, judge: EvaluationConfig) -> set[int]:
        """Ids of the keyframes at a place seen before; empty without true poses."""
        known = {i: T for i, T in enumerate(self._truth) if T is not None}
        if not known:
            return set()
        keyframes = [self._keyframes[i] for i in known]
        found = edges.revisits(
            np.stack(list(known.values())),
            np.array([keyframe.stamp for keyframe in keyframes]),
            np.array([keyframe.session for keyframe in keyframes]),
            radius=judge.radius,
            exclude_time=config.exclude_time,
            exclude_distance=config.exclude_distance,
        )
        return set(np.array(list(known))[found].tolist())

    def _closure_row(self, closure: LoopClosure) -> list[Any]:
        covariance = closure.covariance
        evidence = closure.evidence
        return [
            *(closure.query_id, closure.match_id, closure.query_session, closure.match_session),
            *(closure.query_stamp, closure.match_stamp, float(closure.similarity), _cell(closure.probability)),
            *(int(closure.accepted), closure.reject_reason.name),
            *self._error(closure),
            *_pose(closure.T_match_query),
            *([ABSENT] * len(run.UPPER) if covariance is None else [float(covariance[i, j]) for i, j in run.UPPER]),
            *(
                [ABSENT] * len(run.EVIDENCE)
                if evidence is None
                else [_cell(getattr(evidence, name)) for name in run.EVIDENCE]
            ),
        ]

    def _error(self, closure: LoopClosure) -> Sequence[Any]:
        """error_m, error_deg, is_right; empty, empty, 0 without a transform or without true poses."""
        T, match, query = closure.T_match_query, self._truth[closure.match_id], self._truth[closure.query_id]
        if T is None or match is None or query is None:
            return ABSENT, ABSENT, 0
        metres, degrees = edges.edge_error(T, match, query)
        return metres, degrees, int(edges.is_right(metres, degrees))


def _cell(number: float | None) -> Any:
    return ABSENT if number is None or math.isnan(number) else float(number)


def _pose(T: F64 | None) -> list[Any]:
    return [ABSENT] * 7 if T is None else [*T[:3, 3].tolist(), *to_quaternion(T).tolist()]


def _write_table(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with open(path, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        table.writerows(rows)
