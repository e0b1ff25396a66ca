# SPDX-License-Identifier: Apache-2.0
"""The similarity from which candidates are accepted, chosen on simulated drives for a precision of 0.99."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from vlad_ros.config import RecognizerConfig
from vlad_ros.evaluation.drift import drifting_odometry
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.sequence import Sequence
from vlad_ros.types import LoopClosure

# The drives are quick (a scan every 1.6 m, 0.1 s): every scan a keyframe, the last 40 m of travel excluded
CONFIG = RecognizerConfig(
    keyframe_rate=100.0, keyframe_period=0.1, keyframe_similarity=1.0, exclude_time=2.5, exclude_distance=40.0, top_k=1
)
RADIUS = 5.0  # m: a match this near is right
PRECISION = 0.99


def best_candidates(recognizer: PlaceRecognizer, drive: Sequence, odometry: bool, seed: int) -> list[LoopClosure]:
    """The best candidate of every keyframe of a drive, with drifting odometry (local maps) or none (single scans)."""
    if drive.poses is None:
        raise ValueError(f"{drive.name} has no poses to judge candidates by")
    poses = drifting_odometry(drive.poses, 0.01, 0.5, seed) if odometry else [None] * len(drive)
    best: dict[int, LoopClosure] = {}
    closures: list[LoopClosure] = []
    for points, stamp, T_odom_base in zip(drive.scans, drive.stamps_ns(), poses, strict=True):
        closures += recognizer.process(points, stamp, T_odom_base=T_odom_base)
    for closure in closures + recognizer.flush():
        best.setdefault(closure.query_id, closure)
    return list(best.values())


def judge(drive: Sequence, candidates: Iterable[LoopClosure]) -> tuple[np.ndarray, np.ndarray]:
    """Similarities, and whether the matched keyframe truly lies within RADIUS of the query."""
    if drive.poses is None:
        raise ValueError(f"{drive.name} has no poses to judge candidates by")
    position = dict(zip(drive.stamps_ns(), drive.poses[:, :3, 3], strict=True))
    pairs = [(c.similarity, np.linalg.norm(position[c.query_stamp] - position[c.match_stamp])) for c in candidates]
    values = np.array(pairs, np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1] <= RADIUS


def lowest_threshold(similarity: np.ndarray, right: np.ndarray, precision: float = PRECISION) -> float:
    """The lowest similarity from which on the accepted candidates are right with `precision`; 1 where there is none."""
    order = np.argsort(-similarity, kind="stable")
    share = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(share >= precision)
    return float(similarity[order[good[-1]]]) if len(good) else 1.0


def choose_min_similarity(weights: str | os.PathLike[str], drives: list[Sequence]) -> dict[str, float]:
    """Run the drives through the pipeline; the threshold, and the precision and recall that it has on them.

    Local maps and single scans are pooled: one threshold serves both.
    """
    similarities, rights = [], []
    for number, drive in enumerate(tqdm(drives, desc="threshold", unit="drive")):
        for odometry in (True, False):
            recognizer = PlaceRecognizer.from_pretrained(weights, "cpu", CONFIG)
            similarity, right = judge(drive, best_candidates(recognizer, drive, odometry, number))
            similarities.append(similarity)
            rights.append(right)
    similarity, right = np.concatenate(similarities), np.concatenate(rights)
    threshold = lowest_threshold(similarity, right)
    accepted = similarity >= threshold
    return {
        "min_similarity": threshold,
        "precision": float(right[accepted].mean()) if accepted.any() else float("nan"),
        "share_of_right_candidates_accepted": float((right & accepted).sum() / max(1, right.sum())),
        "candidates": len(similarity),
    }
