# SPDX-License-Identifier: Apache-2.0
"""Play a drive through the recogniser, as fast as possible, into the folder of a run."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator

from vlad_ros.config import EvaluationConfig, RunConfig
from vlad_ros.drive.body_points import reason_of
from vlad_ros.evaluation.edges import RIGHT_DEGREES, RIGHT_METRES
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.provenance import commit
from vlad_ros.runs.sources import PlayedScan, Source
from vlad_ros.runs.tables import Run
from vlad_ros.runs.writer import RunRecorder
from vlad_ros.types import F64

JUDGE = ("radius", "drift_scale", "drift_yaw", "seed")  # fields of EvaluationConfig that a run uses

Bar = Callable[[Iterator[PlayedScan]], Iterator[PlayedScan]]


def play(
    recognizer: PlaceRecognizer,
    source: Source,
    folder: str | os.PathLike[str],
    config: RunConfig,
    judge: EvaluationConfig,
    bar: Bar = iter,
) -> Run:
    """Every scan of `source` through `recognizer`, whose map is empty, and the run in `folder`. `bar` shows progress.

    Unusable scans are counted. ValueError if the drive yields no keyframe.
    """
    recorder = RunRecorder()
    counted = told(_step(recognizer, source, config, recorder, bar), source)
    if not len(recorder):
        raise ValueError(f"{source.name}: not one keyframe came of it ({', '.join(counted) or 'it holds no scans'})")
    about = {
        "source": source.name,
        "protocol": protocol(source, recognizer, judge),
        "weights_sha256": recognizer.describer.model_hash,
        "calibration": recognizer.calibration.as_dict(),
        "commit": commit(),
        "seed": judge.seed,
        "counted": counted,
        "configuration": {
            "run": dataclasses.asdict(config),
            "recognizer": dataclasses.asdict(recognizer.config),
            "judge": {name: getattr(judge, name) for name in JUDGE},
            "bev": dataclasses.asdict(recognizer.describer.bev),
            "model": dataclasses.asdict(recognizer.describer.network.config),
        },
    }
    return recorder.write(folder, about, recognizer.config, judge, recognizer.save_map)


def _step(
    recognizer: PlaceRecognizer, source: Source, config: RunConfig, recorder: RunRecorder, bar: Bar
) -> Counter[str]:
    """Play and record; returns what has been counted by the recogniser, the source and here."""
    truth: dict[int, F64 | None] = {}
    is_keyframe = True if config.every_scan else None
    stamp = number = 0
    for number, scan in enumerate(bar(source.scans), 1):
        stamp = scan.stamp
        truth[stamp] = scan.T_world_base
        try:
            done = recognizer.step(
                scan.points, stamp, T_odom_base=scan.T_odom_base, is_keyframe=is_keyframe, cropped=scan.cropped
            )
        except ValueError as error:
            source.counters[reason_of(error)] += 1
            source.why.setdefault(reason_of(error), str(error))
            continue
        for described in done:
            recorder.add(described, truth[described.keyframe.stamp])
        recorder.tick(stamp, number, recognizer.counters + source.counters)
    for described in recognizer.finish():
        recorder.add(described, truth[described.keyframe.stamp])
    counters = recognizer.counters + source.counters
    recorder.finish(stamp, number, counters)
    return counters


def told(counters: Counter[str], source: Source) -> list[str]:
    """The counters as text: how often, the reason, and the first occurrence's details."""
    if source.odometry == "none":
        counters = counters - Counter(no_odometry=counters["no_odometry"])  # none was requested
    why = source.why
    return [f"{count} {name}" + (f": {why[name]}" if name in why else "") for name, count in counters.most_common()]


def protocol(source: Source, recognizer: PlaceRecognizer, judge: EvaluationConfig) -> str:
    """The run's numbers, explained as text."""
    config = recognizer.config
    joined = config.accumulation_m > 0 and source.odometry != "none"
    parts = [
        f"one drive, keyframes against those {config.exclude_time:g} s and {config.exclude_distance:g} m older or more",
        f"local maps of {config.accumulation_m:g} m" if joined else "single scans",
        f"odometry: {source.odometry}",
        f"an edge is right within {RIGHT_METRES:g} m and {RIGHT_DEGREES:g} deg of the true poses",
        f"a revisit has such a keyframe within {judge.radius:g} m",
    ]
    return "; ".join(parts)
