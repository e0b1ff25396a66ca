# SPDX-License-Identifier: Apache-2.0
"""SE(2) between two sets of keypoints with features: any yaw, no initial guess, and the next best answer too.

Every pair of mutual matches that keeps its length proposes a transform; the one that brings most matches together
wins. The best *clearly different* one tells how ambiguous the place is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlad_ros.jit import kernel
from vlad_ros.types import F32, F64

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TOLERANCE = 1.0  # m between a match's keypoints that a transform brings together
SHORTEST = 4.0  # m between the keypoints of a pair; shorter ones turn too loosely
PROPOSERS = 100  # matches, the most similar ones, whose pairs propose
OTHER_DISTANCE = 2.0  # m at the query's origin, or
OTHER_ANGLE = math.radians(10.0)  # rad, from where on a transform is a clearly different one
POLISH = 3  # least-squares steps on the inliers
MIN_INLIERS = 4


class Alignment(NamedTuple):
    """`x`, `y` [m], `yaw` [rad] of the query in the match's frame; `is_inlier` (matches,) bool; `second`: inliers of
    the best clearly different transform."""

    x: float
    y: float
    yaw: float
    is_inlier: Bools
    second: int


def mutual_matches(query: npt.NDArray[np.int8], match: npt.NDArray[np.int8]) -> tuple[Ints, F32]:
    """Pairs (n, 2) of rows of `query` (K, C) and `match` (L, C) that are each other's most similar, best first, and
    their inner products (n,)."""
    if not len(query) or not len(match):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float32)
    similarity = query.astype(np.float32) @ match.astype(np.float32).T
    forth, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    rows = np.flatnonzero(back[forth] == np.arange(len(forth)))
    strength = similarity[rows, forth[rows]]
    order = np.argsort(-strength, kind="stable")
    return np.stack([rows, forth[rows]], axis=1)[order].astype(np.int64), strength[order]


@kernel
def _propose(a: F64, b: F64, proposers: int, tolerance: float, shortest: float) -> F64:
    """Rows x, y, yaw, inliers of the transforms that pairs of matches (n, 2), (n, 2) propose."""
    out = np.empty((proposers * (proposers - 1) // 2, 4))
    count = 0
    for i in range(proposers):
        for j in range(i + 1, proposers):
            ax, ay, bx, by = a[j, 0] - a[i, 0], a[j, 1] - a[i, 1], b[j, 0] - b[i, 0], b[j, 1] - b[i, 1]
            length = math.hypot(ax, ay)
            if length < shortest or abs(length - math.hypot(bx, by)) > tolerance:
                continue
            yaw = math.atan2(by, bx) - math.atan2(ay, ax)
            c, s = math.cos(yaw), math.sin(yaw)
            mx, my = (a[i, 0] + a[j, 0]) / 2, (a[i, 1] + a[j, 1]) / 2
            x = (b[i, 0] + b[j, 0]) / 2 - (c * mx - s * my)
            y = (b[i, 1] + b[j, 1]) / 2 - (s * mx + c * my)
            inliers = 0
            for k in range(len(a)):
                ex = c * a[k, 0] - s * a[k, 1] + x - b[k, 0]
                ey = s * a[k, 0] + c * a[k, 1] + y - b[k, 1]
                inliers += ex * ex + ey * ey < tolerance * tolerance
            out[count] = x, y, yaw, float(inliers)
            count += 1
    return out[:count]


def _fit(a: F64, b: F64) -> tuple[float, float, float]:
    """Least-squares x, y, yaw of b = R a + t."""
    ma, mb = a.mean(axis=0), b.mean(axis=0)
    m = (a - ma).T @ (b - mb)
    yaw = math.atan2(m[0, 1] - m[1, 0], m[0, 0] + m[1, 1])
    c, s = math.cos(yaw), math.sin(yaw)
    return float(mb[0] - c * ma[0] + s * ma[1]), float(mb[1] - s * ma[0] - c * ma[1]), yaw


def _inliers(a: F64, b: F64, x: float, y: float, yaw: float) -> Bools:
    c, s = math.cos(yaw), math.sin(yaw)
    moved = a @ np.array([[c, s], [-s, c]]) + np.array([x, y])
    return np.asarray(((moved - b) ** 2).sum(axis=1) < TOLERANCE**2)


def align(a: F64, b: F64) -> Alignment | None:
    """The transform that brings most of the matched keypoints `a` (n, 2) onto `b` (n, 2), best matches first; None
    where no transform brings `MIN_INLIERS` together."""
    proposals = _propose(a, b, min(len(a), PROPOSERS), TOLERANCE, SHORTEST)
    if not len(proposals) or proposals[:, 3].max() < MIN_INLIERS:
        return None
    x, y, yaw, _ = proposals[proposals[:, 3].argmax()]
    is_inlier = _inliers(a, b, x, y, yaw)
    for _ in range(POLISH):
        x, y, yaw = _fit(a[is_inlier], b[is_inlier])
        again = _inliers(a, b, x, y, yaw)
        if again.sum() < is_inlier.sum():
            break
        is_inlier = again
    turned = np.abs((proposals[:, 2] - yaw + math.pi) % (2 * math.pi) - math.pi)
    other = (np.hypot(proposals[:, 0] - x, proposals[:, 1] - y) > OTHER_DISTANCE) | (turned > OTHER_ANGLE)
    second = int(proposals[other, 3].max()) if other.any() else 0
    return Alignment(float(x), float(y), float(yaw), is_inlier, second)
