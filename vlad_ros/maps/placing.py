# SPDX-License-Identifier: Apache-2.0
"""Whether the loops between a part and what is placed already put it in the map, and where.

Right loops agree with each other, and so do those between equal places that are not the same. What tells them apart:
from a place in equal surroundings loops lead to several copies of it, and of two sets that exclude each other and are
about equally large neither is believed; and where two drives share a street, each recognises most of it in the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from vlad_ros.graph.chain import strayed
from vlad_ros.graph.consistency import SLACK_METRES
from vlad_ros.maps.consistent import DRIFT, agreement, largest_clique
from vlad_ros.maps.loops_between import SPACING
from vlad_ros.maps.parts import Loops, Rows
from vlad_ros.poses import inverse, log
from vlad_ros.types import F64, Bools, Ints

SURE = 0.9  # probability of the loops that count for a place; against it count all that are probable
LEAST_PLACES = 5  # keyframes, SPACING apart, with such a loop
LEAST_EXTENT = 8.0  # m across these, and across what they match: nearly a local map's length, so that some share little
RIVAL = 0.5  # share of the places from which on a set that excludes them makes both doubtful
SHARED = 4.0  # m; keyframes this near to the other drive's should be recognised
RECOGNISED = 0.2  # share of them, of either drive, that must be
EACH = 3  # loops of one keyframe that are looked at, to places APART
APART = 2.0  # m
MOST = 400  # loops in all
CHUNK = 1024  # rows


@dataclass(frozen=True, eq=False)
class Meeting:
    """A part and what it meets. `loops`: those believed, none where `refusal` says why it is kept apart; `places`:
    keyframes with such a loop; `metres`, `degrees`: how far each (places,) is off where one rigid transform puts it;
    `rival`: places of the largest set that excludes these; `recognised`: share of what lies together that is."""

    loops: Loops
    places: int
    rival: int
    extent: float
    recognised: float
    metres: F64
    degrees: F64
    refusal: str


def meet(loops: Loops, rows: Rows, placed: Bools, part: Bools) -> Meeting:
    """Judge `loops` of the keyframes `part` (N,) bool in those that are `placed`."""
    some = loops.take(_spread(loops, rows))
    agree = agreement(some, rows)
    chosen = largest_clique(agree)
    best = some.take(chosen)
    sure = best.take(best.probability >= SURE)
    places = len(np.unique(sure.query))
    against = np.flatnonzero(agree[:, chosen].mean(axis=1) < 0.5) if len(chosen) else np.zeros(0, np.int64)
    rival = against[largest_clique(agree[np.ix_(against, against)])]
    rivals = len(np.unique(some.query[rival]))
    extent = min(_extent(rows.poses[ends]) for ends in (sure.query, sure.match))
    recognised = _recognised(best, rows, placed, part) if places else 0.0
    metres, degrees = _off(sure, rows)
    refusal = _refusal(places, rivals, extent, recognised)
    kept = best if not refusal else best.take(np.zeros(0, np.int64))
    return Meeting(kept, places, rivals, extent, recognised, metres, degrees, refusal)


def _refusal(places: int, rivals: int, extent: float, recognised: float) -> str:
    if places < LEAST_PLACES:
        return f"{places} places agree on where it lies, of {LEAST_PLACES} that are needed"
    if extent < LEAST_EXTENT:
        return f"the {places} places that agree lie within {extent:.0f} m, {LEAST_EXTENT:.0f} are needed"
    if rivals >= RIVAL * places:
        return f"{places} places agree on where it lies, and {rivals} on somewhere else: it looks the same there"
    if recognised < RECOGNISED:
        return f"{places} places agree on where it lies, but only {recognised:.0%} of what would lie together there"
    return ""


def _spread(loops: Loops, rows: Rows) -> Ints:
    """Of each keyframe its EACH most probable loops to different places, and of these at most MOST in all."""
    where = (rows.poses[loops.match] @ loops.T)[:, :3, 3]
    queries = np.unique(loops.query)
    queries = queries[:: max(1, -(-len(queries) * EACH // MOST))]
    kept: list[int] = []
    for query in queries:
        own = np.flatnonzero(loops.query == query)
        mine: list[int] = []
        for one in own[np.argsort(-loops.probability[own], kind="stable")].tolist():
            if len(mine) < EACH and all(np.linalg.norm(where[one] - where[other]) > APART for other in mine):
                mine.append(one)
        kept += mine
    return np.array(kept, np.int64)


def _extent(poses: F64) -> float:
    """The diagonal [m] of the box around the positions of `poses` (N, 4, 4)."""
    return float(np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0))) if len(poses) else 0.0


def _recognised(best: Loops, rows: Rows, placed: Bools, part: Bools) -> float:
    """Of the keyframes of either side that lie within SHARED of the other's: the share that a loop of `best` starts, or
    ends, SPACING from; the smaller of both sides."""
    here, there = np.flatnonzero(part), np.flatnonzero(placed)
    moved = bend(rows, here, best)[:, :3, 3]
    fixed = rows.poses[there, :3, 3]
    shares = []
    for own, other, ends in ((moved, fixed, _among(here, best.query)), (fixed, moved, _among(there, best.match))):
        shared = cKDTree(other).query(own)[0] <= SHARED
        near = cKDTree(own[ends]).query(own)[0] <= SPACING
        shares.append(float(near[shared].mean()) if shared.any() else 0.0)
    return min(shares)


def _among(rows: Ints, some: Ints) -> Ints:
    return np.searchsorted(rows, np.unique(some))


def _off(loops: Loops, rows: Rows) -> tuple[F64, F64]:
    """How far the loops' ends are off [m], [deg] where the one transform puts them that fits all best."""
    if not len(loops):
        return np.zeros(0), np.zeros(0)
    rigid = _means(loops, rows, np.ones((1, len(loops))))[0]
    error = log(inverse(rows.poses[loops.match] @ loops.T) @ rigid @ rows.poses[loops.query])
    return np.linalg.norm(error[:, :3], axis=1), np.degrees(np.linalg.norm(error[:, 3:], axis=1))


def bend(rows: Rows, part: Ints, loops: Loops) -> F64:
    """T_map_base (N, 4, 4) of the rows `part`: each where the loops put it, the nearer along the way the more."""
    out = np.empty((len(part), 4, 4))
    for begin in range(0, len(part), CHUNK):
        some = part[begin : begin + CHUNK]
        ways = rows.way(some[:, None], loops.query[None])
        sigmas = np.hypot(SLACK_METRES, strayed(ways, DRIFT)[0])
        out[begin : begin + CHUNK] = _means(loops, rows, sigmas**-2) @ rows.poses[some]
    return out


def _means(loops: Loops, rows: Rows, weights: F64) -> F64:
    """(N, 4, 4) the mean of where the loops put the querying part, by each row of `weights` (N, L): its rotation is the
    chordal mean (Hartley et al., "Rotation averaging", 2013), and the middle of the queries is moved to the middle of
    where the loops move them."""
    share = weights / weights.sum(axis=1, keepdims=True)
    placements, queries = loops.placements(rows), rows.poses[loops.query]
    U, _, V = np.linalg.svd(np.einsum("nl,lij->nij", share, placements[:, :3, :3]))
    U[:, :, 2] *= np.linalg.det(U @ V)[:, None]
    T = np.tile(np.eye(4), (len(weights), 1, 1))
    T[:, :3, :3] = U @ V
    moved = share @ (placements @ queries)[:, :3, 3]
    T[:, :3, 3] = moved - np.einsum("nij,nj->ni", T[:, :3, :3], share @ queries[:, :3, 3])
    return T
