# SPDX-License-Identifier: Apache-2.0
"""Loops between maps: keyframes of one searched in another, each candidate verified and judged as while driving."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.covariance_conventions import adjoint
from vlad_ros.loops.acceptance import Judge
from vlad_ros.loops.standing import ALL_TIME
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.parts import Loops, Part, Rows
from vlad_ros.poses import inverse
from vlad_ros.types import Bar, LoopClosure, RejectReason

SPACING = 2.0  # m between two keyframes that are searched
MOST = 3000  # searched in one pair of maps; of larger ones the spacing grows
PROBABLE = 0.5  # loops below say nothing, neither for a place nor against it
ALL = RecognizerConfig(top_k=6, max_edges=0, min_probability=PROBABLE, verification_budget=60.0)

Found = list[tuple[int, int, LoopClosure]]  # rows of match and query


def find_loops(
    databases: Sequence[KeyframeDatabase],
    parts: Sequence[Part],
    rows: Rows,
    calibration: Calibration,
    bar: Bar = iter,
) -> Loops:
    """All probable loops between different parts; `bar` wraps the iteration over the rows that are searched."""
    jobs = [
        (query, match, row)
        for match, query in itertools.combinations_with_replacement(range(len(databases)), 2)
        if match != query or sum(part.map == match for part in parts) > 1
        for row in _sample(rows, query)
    ]
    judges: dict[tuple[int, int, int], Judge] = {}  # one a drive and searched map
    verifier, found = Verifier(), Found()
    at = [rows.of(number) for number in range(len(databases))]
    for job in bar(list(range(len(jobs)))):
        query, match, row = jobs[job]
        drive = query, match, int(rows.session[row])
        judge = judges.setdefault(drive, Judge(verifier, calibration, ALL))
        for closure in _closures(databases, query, match, int(rows.id[row]), judge):
            other = at[match].get(closure.match_id)
            closure = _weighed(closure, calibration)
            if closure.accepted and other is not None and rows.part[other] != rows.part[row]:
                found.append((other, row, closure))
    return _loops(found)


def _sample(rows: Rows, map: int) -> list[int]:
    """Rows of a map's keyframes, SPACING apart along each session."""
    own = np.flatnonzero(rows.map == map)
    spacing = SPACING * max(1.0, len(own) / MOST)
    taken: list[int] = []
    for row in own.tolist():
        last = taken[-1] if taken else row
        fresh = not taken or rows.session[last] != rows.session[row]
        if fresh or np.linalg.norm(rows.poses[row, :3, 3] - rows.poses[last, :3, 3]) >= spacing:
            taken.append(row)
    return taken


def _closures(
    databases: Sequence[KeyframeDatabase], query: int, match: int, id: int, judge: Judge
) -> Iterator[LoopClosure]:
    keyframe, searched = databases[query].whole(id), databases[match]
    if query != match:
        keyframe = dataclasses.replace(keyframe, session=searched.next_session())
    candidates = searched.search(keyframe, ALL.top_k, ALL_TIME, 0.0)
    yield from judge.judge(-1, keyframe, candidates, searched) if candidates else ()


def _weighed(closure: LoopClosure, calibration: Calibration) -> LoopClosure:
    """A loop that a low overlap alone has ruled out is judged by all its evidence: two sensors with different fields of
    view cover little of each other wherever they are, and here many loops must agree before one is believed."""
    if closure.reject_reason != RejectReason.LOW_OVERLAP or closure.evidence is None:
        return closure
    probability = calibration.regression(closure.evidence)
    return dataclasses.replace(closure, probability=probability, accepted=probability >= PROBABLE)


def _loops(found: Found) -> Loops:
    T = [closure.T_match_query for _, _, closure in found if closure.T_match_query is not None]
    C = [closure.covariance for _, _, closure in found if closure.covariance is not None]
    return Loops(
        np.array([match for match, _, _ in found], np.int64),
        np.array([query for _, query, _ in found], np.int64),
        np.array(T).reshape(-1, 4, 4),
        np.array(C).reshape(-1, 6, 6),
        np.array([closure.probability for _, _, closure in found], np.float64),
    )


def towards(loops: Loops, rows: Rows, placed: set[int], part: int) -> Loops:
    """The loops between `placed` parts and `part`, turned so that `part` has the queries."""
    there = np.isin(rows.part[loops.match], list(placed)) & (rows.part[loops.query] == part)
    back = np.isin(rows.part[loops.query], list(placed)) & (rows.part[loops.match] == part)
    ahead, behind = loops.take(there), loops.take(back)
    turned = inverse(behind.T)
    J = np.array([adjoint(T) for T in turned]).reshape(-1, 6, 6)
    covariance = J @ behind.covariance @ J.swapaxes(1, 2)
    return Loops(
        np.concatenate([ahead.match, behind.query]),
        np.concatenate([ahead.query, behind.match]),
        np.concatenate([ahead.T, turned]),
        np.concatenate([ahead.covariance, covariance]),
        np.concatenate([ahead.probability, behind.probability]),
    )
