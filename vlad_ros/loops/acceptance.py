# SPDX-License-Identifier: Apache-2.0
"""Loop acceptance: each candidate is verified and scored, then accepted, or rejected with a reason."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from typing import NamedTuple

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import inverse, rotation_angle
from vlad_ros.stamps import SECOND
from vlad_ros.stopwatch import stage
from vlad_ros.types import F64, Candidate, Evidence, Keyframe, LoopClosure, RejectReason, Verification

ELSEWHERE = 15.0  # m; a candidate this far from another shows another place
APART = 10.0  # m; the accepted loops of one keyframe lead to matches this far from each other
KEYFRAMES_APART = 10  # both where poses are not known
DRIFT = 0.05  # of the travel between two keyframes: how far odometry may be off at their loop, a standard deviation
DRIFT_FLOOR = 0.5  # m
MEMORY = 3  # last keyframes whose loops are checked for agreement
AGREE_METRES, AGREE_ANGLE = 1.0, math.radians(5.0)
AGREE_KEYFRAMES = 5  # without odometry: matches this near in the map agree
MAX_SPEED = 40.0  # m/s


class _RememberedLoop(NamedTuple):
    """A verified loop, kept to check later loops for agreement."""

    query: Keyframe
    match_id: int
    T_match_query: F64


class Judge:
    """Judges the candidates of one drive's keyframes, in order; it remembers the drive, so create one per drive.

    `calibration` turns evidence into a probability; from `config.min_probability` on a loop is accepted.
    """

    def __init__(self, verifier: Verifier, calibration: Calibration, config: RecognizerConfig) -> None:
        self._verifier, self._calibration, self._config = verifier, calibration, config
        self._recent: deque[_RememberedLoop | None] = deque(maxlen=MEMORY)

    @stage("accept")
    def judge(
        self, id: int, query: Keyframe, candidates: list[Candidate], database: KeyframeDatabase
    ) -> list[LoopClosure]:
        """A loop closure for each candidate (best similarity first) of the keyframe `id`, most probable first.

        Candidates are verified in order until `max_edges` are accepted or `verification_budget` is spent; the first one
        always is. Of those that lead to one place only the first is accepted.
        """
        deadline = time.monotonic() + self._config.verification_budget
        most = self._config.max_edges
        closures: list[LoopClosure] = []
        accepted: list[int] = []
        for number, candidate in enumerate(candidates):
            closure = LoopClosure(
                query_id=id,
                match_id=candidate.id,
                query_session=query.session,
                match_session=candidate.session,
                query_stamp=query.stamp,
                match_stamp=candidate.stamp,
                similarity=candidate.similarity,
                reject_reason=RejectReason.OUT_OF_TIME,
            )
            if most and len(accepted) == most:
                closure = dataclasses.replace(closure, reject_reason=RejectReason.ENOUGH)
            elif number == 0 or time.monotonic() < deadline:
                margin = margin_over_elsewhere(candidate, candidates, database)
                closure = self._weigh(closure, query, margin, database)
            if most and closure.accepted and not all(are_apart(id, candidate.id, APART, database) for id in accepted):
                closure = dataclasses.replace(closure, accepted=False, reject_reason=RejectReason.REDUNDANT)
            if closure.accepted:
                accepted.append(candidate.id)
            closures.append(closure)
        closures.sort(key=lambda closure: (closure.probability is None, -(closure.probability or 0.0)))
        self._remember(query, closures)
        return closures

    def _weigh(self, closure: LoopClosure, query: Keyframe, margin: float, database: KeyframeDatabase) -> LoopClosure:
        match = database.geometry(closure.match_id)
        if query.geometry is None or match is None or query.geometry.is_empty or match.is_empty:
            return dataclasses.replace(closure, reject_reason=RejectReason.NO_GEOMETRY, probability=0.0)
        found = self._verifier.verify(query.geometry, match)
        if found.T_match_query is None:
            return dataclasses.replace(closure, reject_reason=RejectReason.NO_ALIGNMENT, probability=0.0)
        evidence = self._evidence(closure, query, margin, found, found.T_match_query, database)
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

    def _evidence(
        self,
        closure: LoopClosure,
        query: Keyframe,
        margin: float,
        found: Verification,
        T_match_query: F64,
        database: KeyframeDatabase,
    ) -> Evidence:
        edge = _RememberedLoop(query, closure.match_id, T_match_query)
        agreeing = sum(before is not None and agree(before, edge, database) for before in self._recent)
        return Evidence(
            similarity=closure.similarity,
            margin=margin,
            matches=found.matches,
            inliers=found.inliers,
            overlap=found.overlap,
            residual=found.residual,
            ambiguity=found.ambiguity,
            agreement=agreeing / MEMORY,
            odometry=odometry_distance(edge, database),
        )

    def _remember(self, query: Keyframe, closures: list[LoopClosure]) -> None:
        best = closures[0] if closures else None
        if best is None or best.T_match_query is None:
            self._recent.append(None)
        else:
            self._recent.append(_RememberedLoop(query, best.match_id, best.T_match_query))


def are_apart(a: int, b: int, metres: float, database: KeyframeDatabase) -> bool:
    """Whether the keyframes `a` and `b` lie more than `metres` apart, where poses are not known more than
    KEYFRAMES_APART; those of different sessions always do."""
    here, there = database.keyframe(a), database.keyframe(b)
    if here.session != there.session:
        return True
    if here.T_odom_base is None or there.T_odom_base is None:
        return abs(a - b) > KEYFRAMES_APART
    return bool(np.linalg.norm(here.T_odom_base[:3, 3] - there.T_odom_base[:3, 3]) > metres)


def margin_over_elsewhere(candidate: Candidate, others: list[Candidate], database: KeyframeDatabase) -> float:
    """Similarity over that of the best candidate that shows another place, of the least similar one where none does."""
    elsewhere = [
        other.similarity
        for other in others
        if other.session == candidate.session and are_apart(candidate.id, other.id, ELSEWHERE, database)
    ]
    return candidate.similarity - max(elsewhere, default=min(other.similarity for other in others))


def odometry_distance(edge: _RememberedLoop, database: KeyframeDatabase) -> float:
    """Distance [standard deviations of the drift] of a loop from where odometry puts it; NaN where it cannot tell.

    The deviation grows with the travel in between, so that after a long distance no loop is ruled out.
    """
    match, query = database.keyframe(edge.match_id), edge.query
    if match.session != query.session or match.T_odom_base is None or query.T_odom_base is None:
        return math.nan
    error = inverse(inverse(match.T_odom_base) @ query.T_odom_base) @ edge.T_match_query
    travelled = abs((query.travel or 0.0) - (match.travel or 0.0))
    return float(np.linalg.norm(error[:3, 3]) / (DRIFT_FLOOR + DRIFT * travelled))


def agree(before: _RememberedLoop, after: _RememberedLoop, database: KeyframeDatabase) -> bool:
    """Whether two loops of one drive agree on the pose of the map.

    With odometry on both sides the four transforms of the quadrangle must close; without, the second match must be
    the first one or a neighbour of it, and the implied motion must be possible for a vehicle.
    """
    m1, m2 = database.keyframe(before.match_id), database.keyframe(after.match_id)
    if m1.session != m2.session:
        return False
    q1, q2 = before.query, after.query
    poses = (m1.T_odom_base, m2.T_odom_base, q1.T_odom_base, q2.T_odom_base)
    if all(pose is not None for pose in poses):
        M1, M2, Q1, Q2 = (pose for pose in poses if pose is not None)
        predicted = inverse(M2) @ M1 @ before.T_match_query @ inverse(Q1) @ Q2
        error = inverse(predicted) @ after.T_match_query
        moved = float(np.linalg.norm((inverse(M2) @ M1)[:3, 3]) + np.linalg.norm((inverse(Q1) @ Q2)[:3, 3]))
        near = np.linalg.norm(error[:3, 3]) < AGREE_METRES + DRIFT * moved
        return bool(near and rotation_angle(error) < AGREE_ANGLE)
    if before.match_id != after.match_id:
        return abs(before.match_id - after.match_id) <= AGREE_KEYFRAMES
    moved = float(np.linalg.norm((inverse(before.T_match_query) @ after.T_match_query)[:3, 3]))
    return moved <= MAX_SPEED * abs(q2.stamp - q1.stamp) / SECOND
