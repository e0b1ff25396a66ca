# SPDX-License-Identifier: Apache-2.0
"""SE(2) between two sets of keypoints with features: any yaw, no initial guess, and how ambiguous it is.

Every pair of mutual matches that preserves its length proposes a transform; most inliers win. The ambiguity of the
place is measured by the best *clearly different* transform: among those proposals, and among shifts along
repeated structure (rows of trees, pillars), where a keypoint's true match need not be its most similar one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlad_ros.jit import kernel
from vlad_ros.poses import wrap
from vlad_ros.types import F32, F64, Bools, Ints

TOLERANCE = 1.0  # m between a match's keypoints that a transform brings together
SHORTEST = 4.0  # m between the keypoints of a pair; shorter ones leave the yaw too uncertain
PROPOSERS = 100  # most similar matches, whose pairs propose transforms
OTHER_DISTANCE = 2.0  # m at the query's origin, or
OTHER_ANGLE = math.radians(10.0)  # rad, from which on a transform is clearly different
RIVALS = 3  # most similar keypoints of the match that a shift may bring a keypoint of the query to
POLISH = 3  # least-squares steps on the inliers
MIN_INLIERS = 6  # fewer inliers occur by chance anywhere


class Matches(NamedTuple):
    """`pairs` (n, 2): rows of the query and of the match that are each other's most similar, the most similar pairs
    first; `rivals` (K, R): for each row of the query the most similar ones of the match."""

    pairs: Ints
    rivals: Ints


class Alignment(NamedTuple):
    """`x`, `y` [m], `yaw` [rad] of the query in the match's frame; `is_inlier` (matches,) bool; `ambiguity` 0..1:
    keypoints that the best clearly different transform brings together, over those of this one."""

    x: float
    y: float
    yaw: float
    is_inlier: Bools
    ambiguity: float


@kernel
def _products(a: npt.NDArray[np.int8], b: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """All inner products (K, L) of the rows; exact, without a thread pool that would spin between small calls."""
    out = np.empty((len(a), len(b)), np.int32)
    for i in range(len(a)):
        for j in range(len(b)):
            total = np.int32(0)
            for k in range(a.shape[1]):
                total += np.int32(a[i, k]) * np.int32(b[j, k])
            out[i, j] = total
    return out


def match_features(query: npt.NDArray[np.int8], match: npt.NDArray[np.int8]) -> Matches:
    """Match the rows of `query` (K, C) and `match` (L, C) by their inner products."""
    if not len(query) or not len(match):
        return Matches(np.zeros((0, 2), np.int64), np.zeros((len(query), 0), np.int64))
    similarity = _products(query, match)
    forth, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    rows = np.flatnonzero(back[forth] == np.arange(len(forth)))
    order = np.argsort(-similarity[rows, forth[rows]], kind="stable")
    pairs = np.stack([rows, forth[rows]], axis=1)[order].astype(np.int64)
    count = min(RIVALS, len(match))
    rivals = np.argpartition(-similarity, count - 1, axis=1)[:, :count].astype(np.int64)
    return Matches(pairs, rivals)


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


@kernel
def _shifts(a: F64, b: F64, rivals: Ints, x: float, y: float, yaw: float, tolerance: float, other: float) -> tuple:
    """How many of `a` (K, 2), rotated by `yaw`, lie on one of their rivals in `b` (L, 2): shifted by x, y, and by
    the best shift that is at least `other` away from it."""
    c, s = math.cos(yaw), math.sin(yaw)
    shifts = np.empty((rivals.size, 2))
    owners = np.empty(rivals.size, np.int64)
    for k in range(len(a)):
        for r in range(rivals.shape[1]):
            n = k * rivals.shape[1] + r
            shifts[n, 0] = b[rivals[k, r], 0] - (c * a[k, 0] - s * a[k, 1])
            shifts[n, 1] = b[rivals[k, r], 1] - (s * a[k, 0] + c * a[k, 1])
            owners[n] = k
    here, elsewhere = 0, 0
    for n in range(-1, len(shifts)):
        cx, cy = (x, y) if n < 0 else (shifts[n, 0], shifts[n, 1])
        if n >= 0 and (cx - x) ** 2 + (cy - y) ** 2 < other * other:
            continue
        count, last = 0, -1
        for m in range(len(shifts)):
            if owners[m] != last and (shifts[m, 0] - cx) ** 2 + (shifts[m, 1] - cy) ** 2 < tolerance * tolerance:
                count += 1
                last = owners[m]
        if n < 0:
            here = count
        elif count > elsewhere:
            elsewhere = count
    return here, elsewhere


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


def align(query: F32, match: F32, matches: Matches) -> Alignment | None:
    """The transform that brings most of the matched keypoints of `query` (K, 2) [m] onto those of `match` (L, 2).

    None where no transform brings `MIN_INLIERS` together.
    """
    of_query: F64 = query.astype(np.float64)
    of_match: F64 = match.astype(np.float64)
    a, b = of_query[matches.pairs[:, 0]], of_match[matches.pairs[:, 1]]
    proposals = _propose(a, b, min(len(a), PROPOSERS), TOLERANCE, SHORTEST)
    if not len(proposals) or proposals[:, 3].max() < MIN_INLIERS:
        return None
    x, y, yaw, _ = (float(v) for v in proposals[proposals[:, 3].argmax()])
    is_inlier = _inliers(a, b, x, y, yaw)
    for _ in range(POLISH):
        refined = _fit(a[is_inlier], b[is_inlier])
        again = _inliers(a, b, *refined)
        if again.sum() < is_inlier.sum():
            break
        (x, y, yaw), is_inlier = refined, again
    turned = np.abs(wrap(proposals[:, 2] - yaw))
    other = (np.hypot(proposals[:, 0] - x, proposals[:, 1] - y) > OTHER_DISTANCE) | (turned > OTHER_ANGLE)
    second = proposals[other, 3].max() / is_inlier.sum() if other.any() else 0.0
    here, elsewhere = _shifts(of_query, of_match, matches.rivals, x, y, yaw, TOLERANCE, OTHER_DISTANCE)
    return Alignment(x, y, yaw, is_inlier, min(1.0, max(second, elsewhere / max(here, 1))))
