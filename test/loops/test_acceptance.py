# SPDX-License-Identifier: Apache-2.0
"""What speaks for a loop besides its own geometry: the other candidates, odometry, the keyframes before."""

from __future__ import annotations

import math

import numpy as np
import pytest
from untrained import similarity_alone

from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.loops.acceptance import (
    DRIFT,
    DRIFT_FLOOR,
    Judge,
    _RememberedLoop,
    agree,
    are_apart,
    margin_over_elsewhere,
    odometry_distance,
)
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import inverse
from vlad_ros.stamps import SECOND
from vlad_ros.types import Candidate, Geometry, Keyframe, RejectReason


def pose(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def keyframe(stamp: int, T: np.ndarray | None, travel: float | None = None, **more) -> Keyframe:
    descriptor = np.eye(4, dtype=np.float32)[0]
    return Keyframe(more.pop("session", 0), stamp, descriptor, descriptor, T_odom_base=T, travel=travel, **more)


def database(*keyframes: Keyframe) -> KeyframeDatabase:
    made = KeyframeDatabase(4, model_hash="0", bev=BevConfig())
    for one in keyframes:
        made.add(one)
    return made


def candidates(similarities: list[float]) -> list[Candidate]:
    return [Candidate(i, 0, i * SECOND, s) for i, s in enumerate(similarities)]


def test_the_margin_is_over_the_best_candidate_elsewhere() -> None:
    places = database(*(keyframe(i * SECOND, pose(x), x) for i, x in enumerate([0.0, 5.0, 100.0, 104.0])))
    asked = candidates([0.9, 0.85, 0.7, 0.6])
    assert margin_over_elsewhere(asked[0], asked, places) == pytest.approx(0.2)
    assert margin_over_elsewhere(asked[2], asked, places) == pytest.approx(-0.2)
    together = asked[:2]
    assert margin_over_elsewhere(together[0], together, places) == pytest.approx(0.05)  # over the least similar one


def test_odometry_is_asked_with_a_drift_that_grows_with_the_travel() -> None:
    places = database(keyframe(0, pose(0.0), 0.0))
    for travel in (20.0, 2000.0):
        edge = _RememberedLoop(keyframe(SECOND, pose(1.0), travel), 0, pose(4.0))
        assert odometry_distance(edge, places) == pytest.approx(3.0 / (DRIFT_FLOOR + DRIFT * travel))
    assert math.isnan(odometry_distance(_RememberedLoop(keyframe(SECOND, None), 0, pose(4.0)), places))
    assert math.isnan(
        odometry_distance(_RememberedLoop(keyframe(SECOND, pose(1.0), 1.0, session=1), 0, pose(4.0)), places)
    )


@pytest.mark.parametrize("wrong_by, expected", [(0.0, True), (0.8, True), (3.0, False)])
def test_loops_agree_where_their_quadrangle_closes(wrong_by: float, expected: bool) -> None:
    m1, m2, q1, q2 = pose(0.0), pose(2.0, 1.0, 0.3), pose(50.0, 20.0, 2.0), pose(48.0, 21.0, 2.2)
    places = database(keyframe(0, m1, 0.0), keyframe(SECOND, m2, 2.0))
    T_map_odom = pose(-49.0, -18.0, -1.9)  # where the query's odometry has drifted to
    first = _RememberedLoop(keyframe(60 * SECOND, q1, 90.0), 0, inverse(m1) @ T_map_odom @ q1)
    second = _RememberedLoop(keyframe(61 * SECOND, q2, 92.0), 1, inverse(m2) @ T_map_odom @ q2 @ pose(wrong_by))
    assert agree(first, second, places) is expected
    turned = second._replace(T_match_query=second.T_match_query @ pose(0.0, 0.0, 0.2))
    assert not agree(first, turned, places)


def test_without_odometry_neighbours_agree_and_leaps_do_not() -> None:
    places = database(*(keyframe(i * SECOND, None) for i in range(30)))
    first = _RememberedLoop(keyframe(60 * SECOND, None), 10, pose(0.0))
    later = keyframe(61 * SECOND, None)
    assert agree(first, _RememberedLoop(later, 12, pose(0.0)), places)
    assert not agree(first, _RememberedLoop(later, 25, pose(0.0)), places)
    assert agree(first, _RememberedLoop(later, 10, pose(5.0)), places)
    assert not agree(first, _RememberedLoop(later, 10, pose(500.0)), places)  # 500 m in a second


def marks(count: int, T: np.ndarray) -> Geometry:
    """The same keypoints and points seen from `T`."""
    rng = np.random.default_rng(1)
    xy, features = rng.uniform(-20, 20, (count, 2)), rng.integers(-60, 60, (count, 16))
    cloud = np.concatenate([xy, rng.uniform(0, 3, (count, 1)), np.ones((count, 1))], axis=1) @ inverse(T).T
    return Geometry(
        cloud[:, :2].astype(np.float32),
        features.astype(np.int8),
        np.round(cloud[:, :3] / 0.005).astype(np.int16),
        np.eye(4),
    )


def judged(query: Geometry | None, *matches: Geometry | None, **config):
    places = database(*(keyframe(i * SECOND, None, geometry=g) for i, g in enumerate(matches)))
    config = RecognizerConfig(**{"min_probability": 0.5, "verification_budget": 60.0, "max_edges": 0} | config)
    judge = Judge(Verifier(), similarity_alone(0.0), config)
    return judge.judge(9, keyframe(90 * SECOND, None, geometry=query), candidates([0.9] * len(matches)), places)


def test_a_true_loop_is_accepted_with_its_transform() -> None:
    (closure,) = judged(marks(200, pose(3.0, -1.0, 2.0)), marks(200, np.eye(4)))
    assert closure.accepted and closure.reject_reason is RejectReason.NONE
    assert np.allclose(closure.T_match_query, pose(3.0, -1.0, 2.0), atol=0.05)
    assert closure.evidence.inliers > 150 and np.all(np.linalg.eigvalsh(closure.covariance) > 0)


@pytest.mark.parametrize(
    "query, match, reason",
    [
        (None, marks(50, np.eye(4)), RejectReason.NO_GEOMETRY),
        (marks(50, np.eye(4)), None, RejectReason.NO_GEOMETRY),
        (marks(0, np.eye(4)), marks(50, np.eye(4)), RejectReason.NO_GEOMETRY),
        (marks(1, np.eye(4)), marks(50, np.eye(4)), RejectReason.NO_ALIGNMENT),
    ],
)
def test_what_cannot_be_verified_is_refused_with_a_reason(query, match, reason) -> None:
    (closure,) = judged(query, match)
    assert not closure.accepted and closure.reject_reason is reason
    assert closure.probability == 0.0 and closure.T_match_query is None and closure.evidence is None


def test_verification_ends_with_enough_loops() -> None:
    same = marks(200, np.eye(4))
    first, *others = judged(same, *[same] * 13, max_edges=1)
    assert first.accepted and first.match_id == 0
    assert [one.reject_reason for one in others] == [RejectReason.ENOUGH] * 12
    assert all(one.probability is None and one.T_match_query is None and not one.accepted for one in others)


def test_the_loops_of_a_keyframe_lead_to_places_apart() -> None:
    """Without poses: to matches more than ten keyframes apart."""
    same = marks(200, np.eye(4))
    closures = {one.match_id: one for one in judged(same, *[same] * 13, max_edges=2)}
    assert [id for id, one in closures.items() if one.accepted] == [0, 11]
    between = [closures[id] for id in range(1, 11)]
    assert all(one.reject_reason is RejectReason.REDUNDANT and one.probability > 0.5 for one in between)
    assert closures[12].reject_reason is RejectReason.ENOUGH


@pytest.mark.parametrize(
    "other, apart", [((0, 10.0), False), ((0, 10.1), True), ((0, None), False), ((1, 0.0), True), ((1, None), True)]
)
def test_matches_apart_are_far_from_each_other_or_of_other_sessions(other, apart) -> None:
    session, x = other
    rows = keyframe(0, pose(0.0)), keyframe(SECOND, None if x is None else pose(x), session=session)
    assert are_apart(0, 1, 10.0, database(*rows)) is apart


def test_the_first_candidate_is_verified_even_without_any_time() -> None:
    same = marks(200, np.eye(4))
    first, *others = judged(same, same, same, same, verification_budget=0.0)
    assert first.accepted and first.probability is not None
    assert [one.reject_reason for one in others] == [RejectReason.OUT_OF_TIME] * 2
    assert all(one.probability is None and not one.accepted for one in others)
