# SPDX-License-Identifier: Apache-2.0
"""The queries and the map that a protocol takes from a sequence, and the judge of the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from vlad_ros.cloud.crop import clean
from vlad_ros.config import EvaluationConfig, RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.local_map import LocalMap
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation import protocols
from vlad_ros.evaluation.protocols import Outcome
from vlad_ros.files.sequence import Sequence
from vlad_ros.types import F32, F64, Ints


class Clouds:
    """Clouds (N, 4) made anew on each iteration: all local maps at once would fill the memory."""

    def __init__(self, count: int, make: Callable[[], Iterator[F32]]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[F32]:
        return self._make()


@dataclass(frozen=True, eq=False)
class Task:
    """`queries` against `maps` (None: against themselves), with their frame numbers and positions (Q|M, 3) [m];
    `judge` turns a (Q, M) similarity into an outcome; `label` is the protocol in words."""

    label: str
    queries: Clouds
    maps: Clouds | None
    query_frames: Ints
    map_frames: Ints
    query_positions: F64
    map_positions: F64
    judge: Callable[[F32], Outcome]


def make_task(config: EvaluationConfig, sequence: Sequence, other: Sequence | None = None) -> Task:
    """The task of `config` on `sequence`, or of `sequence` against the map `other` in the same frame.

    ValueError without poses to judge by, and for local maps with the sparse protocol.
    """
    for drive in (sequence, other):
        if drive is not None:
            drive.poses_to("judge")
    if other is not None:
        return _cross(config, sequence, other)
    return _sparse(config, sequence) if config.protocol == "sparse" else _causal(config, sequence)


def _causal(config: EvaluationConfig, sequence: Sequence) -> Task:
    positions, headings = _places(sequence)
    frames = np.arange(len(sequence))

    def judge(similarity: F32) -> Outcome:
        return protocols.causal(similarity, positions, config.gap, config.radius, headings)

    label = f"causal (revisits in one drive), gap {config.gap} frames, radius {config.radius:g} m, {_views(config)}"
    return Task(label, _clouds(config, sequence), None, frames, frames, positions, positions, judge)


def _cross(config: EvaluationConfig, sequence: Sequence, other: Sequence) -> Task:
    positions, headings = _places(sequence)
    map_positions, map_headings = _places(other)

    def judge(similarity: F32) -> Outcome:
        return protocols.cross(similarity, positions, map_positions, config.radius, headings, map_headings)

    label = f"every frame against the map {other.name}, radius {config.radius:g} m, {_views(config)}"
    clouds = _clouds(config, sequence), _clouds(config, other)
    return Task(label, *clouds, np.arange(len(sequence)), np.arange(len(other)), positions, map_positions, judge)


def _sparse(config: EvaluationConfig, sequence: Sequence) -> Task:
    if config.local_maps:
        raise ValueError("the sparse protocol has single scans only; for local maps use --protocol causal")
    positions, _ = _places(sequence)
    keep, queries, thinned, _ = protocols.sparse_split(sequence.scans, config.stride, config.seed)

    def judge(similarity: F32) -> Outcome:
        return protocols.cross(similarity, positions[queries], positions[keep], config.radius)

    offset = float(np.median(cdist(positions[queries], positions[keep]).min(axis=1))) if len(queries) else 0.0
    label = (
        f"sparse (one pass, interleaved), stride {config.stride} (queries {offset:.1f} m off the map), radius"
        f" {config.radius:g} m, queries turned and thinned to 2,000..5,000 points, single scans"
    )
    maps = [sequence.scans[i] for i in keep]
    clouds = Clouds(len(thinned), lambda: iter(thinned)), Clouds(len(maps), lambda: iter(maps))
    return Task(label, *clouds, queries, keep, positions[queries], positions[keep], judge)


def _views(config: EvaluationConfig) -> str:
    if not config.local_maps:
        return "single scans"
    length = RecognizerConfig().accumulation_m
    return f"local maps of {length:g} m, odometry off by {config.drift_scale:.0%} and {config.drift_yaw:g} deg in 10 m"


def _places(sequence: Sequence) -> tuple[F64, F64]:
    """Positions (S, 3) [m] and headings (S,) [rad]."""
    poses = sequence.poses_to("judge")
    return poses[:, :3, 3], np.arctan2(poses[:, 1, 0], poses[:, 0, 0])


def _clouds(config: EvaluationConfig, sequence: Sequence) -> Clouds:
    if not config.local_maps:
        return Clouds(len(sequence), lambda: iter(sequence.scans))
    return Clouds(len(sequence), lambda: local_maps(sequence, config))


def local_maps(sequence: Sequence, config: EvaluationConfig) -> Iterator[F32]:
    """The local map (N, 4) around each scan, in its body frame, in order, joined by drifting odometry."""
    recognizer = RecognizerConfig()
    odometry = drifting_odometry(sequence.poses_to("join scans"), config.drift_scale, config.drift_yaw, config.seed)
    distance, half = path_length(odometry), recognizer.accumulation_m / 2
    joined = LocalMap(recognizer)
    waiting: deque[int] = deque()
    for i, scan in enumerate(sequence.scans):
        # The frame's number serves as its stamp; every frame is a keyframe.
        joined.add(clean(scan, recognizer.min_range, recognizer.max_range), i, odometry[i], distance[i], True)
        waiting.append(i)
        while waiting and distance[i] - distance[waiting[0]] >= half:
            yield joined.join(waiting.popleft()).points
        joined.forget_before(distance[waiting[0] if waiting else i] - half)
    while waiting:
        yield joined.join(waiting.popleft()).points
