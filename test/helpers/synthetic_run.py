# SPDX-License-Identifier: Apache-2.0
"""Runs made from poses alone: as a good drive leaves them, with drifting odometry and loops with honest covariances;
and one with wrong, refused and missing loops among the right ones."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from loops import accepted_loop
from scipy.spatial.transform import Rotation
from sweeps import moving

from vlad_ros.config import EvaluationConfig, RecognizerConfig
from vlad_ros.drive.travel import path_length
from vlad_ros.loops.described import Described
from vlad_ros.poses import inverse
from vlad_ros.runs.tables import Run
from vlad_ros.runs.writer import RunRecorder
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Evidence, Keyframe, LoopClosure, RejectReason

CONFIGURATION: dict[str, Any] = {
    "recognizer": {"min_probability": 0.9, "top_k": 3},
    "judge": {"radius": 5.0},
}


def laps(count: int = 3, keyframes: int = 80, radius: float = 30.0) -> F64:
    """True poses (count * keyframes, 4, 4) around a hilly circle, each lap half a metre farther out and each second one
    driven sideways-looking by 60 degrees, so that loops turn and lie apart in all three directions."""
    poses = []
    for k in range(count * keyframes):
        lap, angle = k // keyframes, 2 * math.pi * k / keyframes
        r = radius + 0.5 * lap
        T = np.eye(4)
        heading = angle + math.pi / 2 + (math.radians(60) if lap % 2 else 0.0)
        T[:3, :3] = Rotation.from_euler("ZYX", [heading, 0.1 * math.sin(3 * angle), 0.05 * math.cos(angle)]).as_matrix()
        T[:3, 3] = r * math.cos(angle), r * math.sin(angle), 2.0 * math.sin(2 * angle) + 0.2 * lap
        poses.append(T)
    return np.stack(poses)


def drifting(poses: F64, seed: int) -> F64:
    """Odometry with steps off by 2 % at random and headings by 0.03 degrees a metre, always to the same side: what
    loops can mend. (A wheel too large makes every circle too large and closes it all the same.)"""
    rng, odometry = np.random.default_rng(seed), poses.copy()
    for k in range(1, len(poses)):
        step = inverse(poses[k - 1]) @ poses[k]
        length = float(np.linalg.norm(step[:3, 3]))
        off = rng.normal(0.0, 0.02 * length, 3)
        odometry[k] = odometry[k - 1] @ moving(np.array([*off, 0.0, 0.0, np.radians(0.03 * length)]), 1.0) @ step
    return odometry


def loop(i: int, j: int, poses: F64, rng: np.random.Generator, **changes: object) -> LoopClosure:
    """The loop of keyframe `j` to the earlier `i`: off by what its covariance, wide in one direction, says."""
    deviations = np.array([0.02, 0.15, 0.05, 0.002, 0.004, 0.008])
    mixing = np.linalg.qr(rng.normal(size=(6, 6)))[0] * 0.2 + np.eye(6)
    root = np.diag(deviations) @ mixing
    T = moving(-root @ rng.normal(size=6), 1.0) @ inverse(poses[i]) @ poses[j]
    evidence = Evidence(0.8, 0.1, 60, 50, 0.7, 0.05, 0.2, 1.0, math.nan)
    values = {"query_id": j, "match_id": i, "similarity": 0.8, "probability": 0.97, "evidence": evidence} | changes
    return accepted_loop((j + 1) * SECOND, (i + 1) * SECOND, T, root @ root.T, **values)


def unverified(i: int, j: int, poses: F64, rng: np.random.Generator) -> LoopClosure:
    """A candidate that nothing aligns."""
    nothing = {"probability": None, "T_match_query": None, "covariance": None, "accepted": False, "evidence": None}
    return loop(i, j, poses, rng, similarity=0.4, reject_reason=RejectReason.NO_ALIGNMENT, **nothing)


def record(poses: F64, odometry: F64 | None, closures: dict[int, list[LoopClosure]], truth: bool = True) -> RunRecorder:
    """A recorder that has seen one keyframe a second, with these closures by the id of their query."""
    recorder, path, descriptor = RunRecorder(), path_length(poses), np.zeros(4, np.float32)
    counters: Counter[str] = Counter()
    for k, T in enumerate(poses):
        T_odom_base = None if odometry is None else odometry[k]
        metres = None if odometry is None else float(path[k])
        keyframe = Keyframe(0, (k + 1) * SECOND, descriptor, descriptor, T_odom_base=T_odom_base, travel=metres)
        counters["late_stamp"] += k % 10 == 0
        times = {"describe": 20.0 + k, "search": 0.5, "verify": 30.0}
        recorder.add(Described(k, keyframe, closures.get(k, []), None, times), T if truth else None)  # type: ignore[arg-type]
        recorder.tick((k + 1) * SECOND, k + 1, counters)
    recorder.finish(len(poses) * SECOND, len(poses), counters)
    return recorder


def write(recorder: RunRecorder, folder: Path, **about: object) -> Run:
    """The recorder's run in `folder`, with a stand-in for the map."""
    words = {"source": "laps", "protocol": "synthetic", "seed": 0, "configuration": {}, **about}
    return recorder.write(folder, words, RecognizerConfig(), EvaluationConfig(), lambda path: path.touch())


def drifted_laps(folder: Path, seed: int = 0, spacing: int = 2) -> tuple[Run, F64]:
    """A run of three laps with drifting odometry, and a right loop from every `spacing`-th keyframe to a keyframe of
    each earlier lap, some metres from where that lap passed; and the true poses."""
    poses, rng = laps(), np.random.default_rng(seed)
    odometry = drifting(poses, seed)
    closures = {
        j: [loop((j + int(rng.integers(-1, 2))) % 80 + 80 * lap, j, poses, rng) for lap in range(j // 80)]
        for j in range(80, len(poses), spacing)
    }
    return write(record(poses, odometry, closures), folder), poses


def mixed_run(folder: Path, keyframes: int = 80) -> Run:
    """Two laps: of the second lap's keyframes some have a right edge, some a wrong or refused one, some none."""
    poses, rng = laps(2, keyframes), np.random.default_rng(0)
    model, nothing = loop(0, 1, poses, rng), unverified(0, 1, poses, rng)
    closures = {}
    for j in range(keyframes, 2 * keyframes):
        i, other = j - keyframes, (j + keyframes // 2) % keyframes
        ends = {"query_id": j, "match_id": i, "T_match_query": inverse(poses[i]) @ poses[j], "similarity": 0.7}
        right = dataclasses.replace(model, **ends, probability=float(rng.uniform(0.9, 1.0)))
        wrong = dataclasses.replace(right, match_id=other, similarity=0.9, probability=float(rng.uniform(0.5, 1.0)))
        refused = {"accepted": False, "reject_reason": RejectReason.LOW_OVERLAP}
        kinds = [
            [right, dataclasses.replace(nothing, query_id=j, match_id=other)],
            [wrong, dataclasses.replace(right, **refused, probability=0.4)],
            [dataclasses.replace(right, **refused, probability=float(rng.uniform(0, 0.9)))],
            [],
        ]
        closures[j] = kinds[int(rng.integers(4))]
    return write(record(poses, poses, closures), folder, configuration=CONFIGURATION, calibration=None)
