# SPDX-License-Identifier: Apache-2.0
"""The evaluation protocols: which frames are queries, what they may match, and when a match is right.

`causal`: frame i may match only frames j < i - gap of its own drive; a frame is a query when such a frame lies within
the radius. `sparse`: every stride-th frame, unchanged, is the map; the frames half way between are the queries, each
turned by a random yaw and thinned to 2,000..5,000 points (one pass, interleaved: no revisit). `cross`: every frame of
one drive against all frames of another one in the same map frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from vlad_ros.poses import turn, wrap
from vlad_ros.types import F32, F64, Bools, Ints

NO_HIT = np.iinfo(np.int64).max
SPARSE_POINTS = (2000, 5000)


@dataclass(frozen=True, eq=False)
class Outcome:
    """A method's answer for each of Q frames.

    `is_query` (Q,): a right answer exists. `best` (Q,): index of the most similar allowed map frame, -1 where none is
    allowed; `similarity` (Q,): its similarity, -inf where none. `rank` (Q,): place of the first right answer among all
    allowed ones, 0 for the best, `NO_HIT` without any. `reverse` (Q,): a query whose right answers all have headings
    that differ from its own by more than 90 degrees.
    """

    is_query: Bools
    best: Ints
    similarity: F64
    rank: Ints
    reverse: Bools

    def correct(self, k: int = 1) -> Bools:
        """(Q,): a right answer is among the best k."""
        return self.rank < k


def judge(similarity: F32, allowed: Bools, near: Bools, opposite: Bools | None = None) -> Outcome:
    """Compare a (Q, M) similarity with the truth; ties go to the lower index; -inf means no candidate.

    `allowed` (Q, M): what a query may match; `near` (Q, M): what lies within the radius; `opposite` (Q, M): headings
    that differ by more than 90 degrees. ValueError where the shapes differ.
    """
    if not similarity.shape == allowed.shape == near.shape:
        raise ValueError(f"shapes differ: similarity {similarity.shape}, allowed {allowed.shape}, near {near.shape}")
    right = allowed & near
    masked = np.where(allowed, similarity.astype(np.float64), -np.inf)
    order = np.argsort(-masked, axis=1, kind="stable")
    hits = np.take_along_axis(right & (masked > -np.inf), order, axis=1)
    is_query: Bools = np.asarray(right.any(axis=1))
    top = masked.max(axis=1, initial=-np.inf)
    best = np.where(top > -np.inf, order[:, 0] if order.shape[1] else -1, -1)
    rank = np.where(hits.any(axis=1), hits.argmax(axis=1) if order.shape[1] else 0, NO_HIT)
    reverse: Bools = np.zeros(len(rank), bool)
    if opposite is not None:
        reverse = is_query & ~np.asarray((right & ~opposite).any(axis=1))
    return Outcome(is_query, best.astype(np.int64), top, rank.astype(np.int64), reverse)


def opposite_headings(query: F64, match: F64) -> Bools:
    """(Q, M) bool: headings [rad] of (Q,) and (M,) that differ by more than 90 degrees."""
    return np.abs(wrap(match[None, :] - query[:, None])) > np.pi / 2


def causal(similarity: F32, positions: F64, gap: int, radius: float, headings: F64 | None = None) -> Outcome:
    """The sequence protocol on (S, S) similarities of one drive with `positions` (S, 3) [m], `headings` (S,) [rad]."""
    frames = np.arange(len(positions))
    allowed = frames[None, :] < frames[:, None] - gap
    opposite = None if headings is None else opposite_headings(headings, headings)
    return judge(similarity, allowed, cdist(positions, positions) <= radius, opposite)


def cross(
    similarity: F32,
    positions: F64,
    map_positions: F64,
    radius: float,
    headings: F64 | None = None,
    map_headings: F64 | None = None,
) -> Outcome:
    """Every query (Q, 3) against the whole map (M, 3) [m]: two sessions, or the sparse-map protocol."""
    near = cdist(positions, map_positions) <= radius
    opposite = None
    if headings is not None and map_headings is not None:
        opposite = opposite_headings(headings, map_headings)
    return judge(similarity, np.ones_like(near), near, opposite)


def sparse_split(scans: list[F32], stride: int, seed: int = 0) -> tuple[Ints, Ints, list[F32], list[float]]:
    """Map indices, query indices, the query scans (N, >=3), turned and thinned at random by `seed`, and their turns
    [rad]."""
    if stride < 2:
        raise ValueError(f"stride must be at least 2, not {stride}")
    keep: Ints = np.arange(0, len(scans), stride)
    queries: Ints = np.arange(stride // 2, len(scans), stride)
    generator = np.random.default_rng(seed)
    drawn = [_turn_and_thin(scans[i], generator) for i in queries]
    return keep, queries, [points for points, _ in drawn], [angle for _, angle in drawn]


def _turn_and_thin(points: F32, generator: np.random.Generator) -> tuple[F32, float]:
    low, high = SPARSE_POINTS
    count = min(int(generator.integers(low, high + 1)), len(points))
    thinned = points[generator.choice(len(points), count, replace=False)]
    angle = float(generator.uniform(0.0, 2.0 * np.pi))
    return turn(thinned, angle), angle
