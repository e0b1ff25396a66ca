# SPDX-License-Identifier: Apache-2.0
"""From candidates to decisions: each is verified and weighed, then accepted, or rejected for a named reason."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.database import KeyframeDatabase
from vlad_ros.geometry import inverse, rotation_angle
from vlad_ros.types import F64, Candidate, Evidence, Geometry, Keyframe, LoopClosure, RejectReason, Verification
from vlad_ros.verification import Verifier

ELSEWHERE = 15.0  # m; a candidate this far from another shows another place
ELSEWHERE_KEYFRAMES = 10  # the same where poses are not known
DRIFT = 0.05  # of the travel between two keyframes: how far odometry may be off at their loop, a standard deviation
DRIFT_FLOOR = 0.5  # m
MEMORY = 3  # keyframes whose loops are asked whether they agree
AGREE_METRES, AGREE_ANGLE = 1.0, math.radians(5.0)
AGREE_KEYFRAMES = 5  # without odometry: matches this near in the map agree
MAX_SPEED = 40.0  # m/s


class _Edge(NamedTuple):
    """A verified loop, remembered until later keyframes have been asked about it."""

    query: Keyframe
    match_id: int
    T_match_query: F64


class Judge:
    """Judges the candidates of one drive's keyframes, in order; its memory is of the drive: make another for another.

    `calibration` turns evidence into a probability; from `config.min_probability` on a loop is accepted.
    """

    def __init__(self, verifier: Verifier, calibration: Calibration, config: RecognizerConfig) -> None:
        self._verifier, self._calibration, self._config = verifier, calibration, config
        self._recent: deque[_Edge | None] = deque(maxlen=MEMORY)

    def judge(
        self, id: int, query: Keyframe, candidates: list[Candidate], database: KeyframeDatabase
    ) -> list[LoopClosure]:
        """A loop closure for each candidate (best similarity first) of the keyframe `id`, most probable first.

        Candidates are verified in order until `verification_budget` is spent; the first one always is.
        """
        deadline = time.monotonic() + self._config.verification_budget
        found: list[Verification | RejectReason] = []
        edges: dict[int, _Edge] = {}
        for candidate in candidates:
            in_time = not found or time.monotonic() < deadline
            each = self._verify(query, database.geometry(candidate.id)) if in_time else RejectReason.OUT_OF_TIME
            if isinstance(each, Verification) and each.T_match_query is not None:
                edges[candidate.id] = _Edge(query, candidate.id, each.T_match_query)
            found.append(each)
        closures = []
        for candidate, each in zip(candidates, found, strict=True):
            closure = LoopClosure(
                query_id=id,
                match_id=candidate.id,
                query_session=query.session,
                match_session=candidate.session,
                query_stamp=query.stamp,
                match_stamp=candidate.stamp,
                similarity=candidate.similarity,
            )
            if isinstance(each, RejectReason):
                probability = None if each == RejectReason.OUT_OF_TIME else 0.0
                closure = dataclasses.replace(closure, reject_reason=each, probability=probability)
            else:
                others = [edge for edge in edges.values() if edge.match_id != candidate.id]
                margin = margin_over_elsewhere(candidate, candidates, database)
                closure = self._weigh(closure, each, edges[candidate.id], others, margin, database)
            closures.append(closure)
        closures.sort(key=lambda closure: (closure.probability is None, -(closure.probability or 0.0)))
        self._remember(query, closures)
        return closures

    def _verify(self, query: Keyframe, match: Geometry | None) -> Verification | RejectReason:
        """The alignment with a match, or why there is none."""
        if query.geometry is None or match is None or query.geometry.is_empty or match.is_empty:
            return RejectReason.NO_GEOMETRY
        found = self._verifier.verify(query.geometry, match)
        return RejectReason.NO_ALIGNMENT if found.T_match_query is None else found

    def _weigh(
        self,
        closure: LoopClosure,
        found: Verification,
        edge: _Edge,
        others: list[_Edge],
        margin: float,
        database: KeyframeDatabase,
    ) -> LoopClosure:
        """The closure with what was `found`, its probability and the decision; `others`: its keyframe's other edges."""
        agreeing = sum(before is not None and agree(before, edge, database) for before in self._recent)
        evidence = Evidence(
            similarity=closure.similarity,
            margin=margin,
            matches=found.matches,
            inliers=found.inliers,
            overlap=found.overlap,
            residual=found.residual,
            ambiguity=found.ambiguity,
            agreement=agreeing / MEMORY,
            support=support(edge, others, database),
            odometry=odometry_distance(edge, database),
        )
        probability = self._calibration.probability(evidence)
        least = self._config.min_probability
        accepted = probability >= least
        return dataclasses.replace(
            closure,
            probability=probability,
            T_match_query=found.T_match_query,
            covariance=found.covariance,
            accepted=accepted,
            reject_reason=RejectReason.NONE if accepted else self._calibration.reason(evidence, least),
            evidence=evidence,
        )

    def _remember(self, query: Keyframe, closures: list[LoopClosure]) -> None:
        best = closures[0] if closures else None
        if best is None or best.T_match_query is None:
            self._recent.append(None)
        else:
            self._recent.append(_Edge(query, best.match_id, best.T_match_query))


def margin_over_elsewhere(candidate: Candidate, others: list[Candidate], database: KeyframeDatabase) -> float:
    """Similarity over that of the best candidate that shows another place, of the least similar one where none does."""
    here = database.keyframe(candidate.id)
    elsewhere = []
    for other in others:
        there = database.keyframe(other.id)
        if here.session != there.session:
            continue
        if here.T_odom_base is None or there.T_odom_base is None:
            far = abs(other.id - candidate.id) > ELSEWHERE_KEYFRAMES
        else:
            far = bool(np.linalg.norm(here.T_odom_base[:3, 3] - there.T_odom_base[:3, 3]) > ELSEWHERE)
        if far:
            elsewhere.append(other.similarity)
    return candidate.similarity - max(elsewhere, default=min(other.similarity for other in others))


def support(edge: _Edge, others: list[_Edge], database: KeyframeDatabase) -> float:
    """The share of the keyframe's `others` that put it where `edge` does, of those that the map's own odometry can
    compare with it; 0 where it can compare none."""
    match = database.keyframe(edge.match_id)
    asked, same = 0, 0
    for other in others:
        there = database.keyframe(other.match_id)
        if match.session == there.session and match.T_odom_base is not None and there.T_odom_base is not None:
            asked += 1
            T_match_there = inverse(match.T_odom_base) @ there.T_odom_base
            same += _closes(T_match_there, other.T_match_query, np.eye(4), edge.T_match_query)
    return same / max(1, asked)


def odometry_distance(edge: _Edge, database: KeyframeDatabase) -> float:
    """Distance [standard deviations of the drift] of a loop from where odometry puts it; NaN where it cannot tell.

    The deviation grows with the travel in between, so that after a long way the distance forbids nothing.
    """
    match, query = database.keyframe(edge.match_id), edge.query
    if match.session != query.session or match.T_odom_base is None or query.T_odom_base is None:
        return math.nan
    error = inverse(inverse(match.T_odom_base) @ query.T_odom_base) @ edge.T_match_query
    travelled = abs((query.travel or 0.0) - (match.travel or 0.0))
    return float(np.linalg.norm(error[:3, 3]) / (DRIFT_FLOOR + DRIFT * travelled))


def agree(before: _Edge, after: _Edge, database: KeyframeDatabase) -> bool:
    """Whether two loops of one drive say the same of where the map is.

    With odometry on both sides the four transforms of the quadrangle must close; without, the second match must be
    the first one or a neighbour of it, and the motion that they imply one that a vehicle can make.
    """
    m1, m2 = database.keyframe(before.match_id), database.keyframe(after.match_id)
    if m1.session != m2.session:
        return False
    q1, q2 = before.query, after.query
    poses = (m1.T_odom_base, m2.T_odom_base, q1.T_odom_base, q2.T_odom_base)
    if all(pose is not None for pose in poses):
        M1, M2, Q1, Q2 = (pose for pose in poses if pose is not None)
        return _closes(inverse(M2) @ M1, before.T_match_query, inverse(Q1) @ Q2, after.T_match_query)
    if before.match_id != after.match_id:
        return abs(before.match_id - after.match_id) <= AGREE_KEYFRAMES
    moved = float(np.linalg.norm((inverse(before.T_match_query) @ after.T_match_query)[:3, 3]))
    return moved <= MAX_SPEED * abs(q2.stamp - q1.stamp) / 1e9


def _closes(T_m2_m1: F64, T_m1_q1: F64, T_q1_q2: F64, T_m2_q2: F64) -> bool:
    """Whether the quadrangle of two loops and the odometry between their ends closes, but for what odometry drifts."""
    error = inverse(T_m2_m1 @ T_m1_q1 @ T_q1_q2) @ T_m2_q2
    moved = float(np.linalg.norm(T_m2_m1[:3, 3]) + np.linalg.norm(T_q1_q2[:3, 3]))
    near = np.linalg.norm(error[:3, 3]) < AGREE_METRES + DRIFT * moved
    return bool(near and rotation_angle(error) < AGREE_ANGLE)
