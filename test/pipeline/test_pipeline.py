# SPDX-License-Identifier: Apache-2.0
"""The pipeline's promises: windows, and exactly one answer for each keyframe."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in import CLOUD, SECOND, WORLD, StandIn, drive, pose, recogniser, stamps, view

from vlad_ros.poses import inverse, transform
from vlad_ros.types import LoopClosure, RejectReason

# -- windows ----------------------------------------------------------------------------------------------------------


def test_a_keyframe_is_answered_when_the_body_is_half_a_window_past_it():
    place = recogniser()
    for i in range(60):
        x = 0.5 * i
        answered = place.step(view(pose(x)), i * SECOND, None, pose(x))
        due = i - 10  # 5 m later
        assert stamps(answered) == ([due] if due >= 0 and due % 2 == 0 else [])
    assert stamps(place.finish()) == [50, 52, 54, 56, 58]
    assert place.finish() == []
    assert len(place.database) == 30


def test_the_local_map_is_centred_on_the_keyframe_and_in_its_body_frame():
    place = recogniser()
    described = drive(place, np.arange(0, 30, 0.5)) + place.finish()
    one = next(one for one in described if one.keyframe.travel == 15.0)
    assert one.keyframe.is_local_map and not one.keyframe.partial
    assert np.array_equal(one.keyframe.T_odom_base, pose(15.0))
    points = one.bev.points
    assert points[:, 0].min() < -19 and points[:, 0].max() > 19  # 15 m of sight, 5 m of travel both ways
    near, seen = transform(WORLD, inverse(pose(15.0))), np.linalg.norm
    expected = near[seen(near[:, :2], axis=1) < 15]
    distance = seen(expected[:, None, :3] - points[None, :, :3], axis=2).min(axis=1)
    assert distance.max() < 0.25 * 3**0.5  # each point of the world is there, but for the thinning
    assert np.allclose(one.keyframe.scan_descriptor, place.describe(view(pose(15.0))), atol=1e-6)
    assert not np.allclose(one.keyframe.descriptor, one.keyframe.scan_descriptor, atol=1e-3)


def test_a_single_scan_is_described_every_few_metres():
    place = recogniser(scan_descriptor_distance=5.0)
    described = drive(place, np.arange(0, 30, 0.5)) + place.finish()
    assert [one.keyframe.travel for one in described if one.keyframe.scan_descriptor is not None] == list(
        range(0, 30, 5)
    )
    assert all(one.keyframe.is_local_map for one in described)


def test_where_the_map_has_single_scans_each_keyframe_can_meet_them():
    place = recogniser(scan_descriptor_distance=5.0)
    drive(place, np.arange(0, 30, 1.0), period=1.0, odometry=False)
    place.open_session()
    described = drive(place, np.arange(0.25, 30, 0.5), start=100.0) + place.finish()
    assert all(one.keyframe.is_local_map and one.keyframe.scan_descriptor is not None for one in described)
    assert sum(bool(one.closures) for one in described) == len(described)


def test_keyframes_with_less_than_half_a_window_are_flagged():
    place = recogniser()
    described = drive(place, np.arange(0, 20.1, 0.5)) + place.finish()
    assert not any(one.keyframe.partial for one in described)  # the first and last ones see 5 m to one side
    place = recogniser()
    described = drive(place, np.arange(0, 3.1, 0.5)) + place.finish()
    assert [one.keyframe.partial for one in described] == [True] * 4


def test_a_standing_vehicle_waits_no_longer_than_the_timeout():
    place = recogniser(accumulation_timeout=3.0)
    answers = []
    for i, x in enumerate([0.0, 0.5, 1.0] + [1.0] * 20):
        answers += [(at, i / 2) for at in stamps(place.step(view(pose(x)), i * SECOND // 2, None, pose(x)))]
    assert answers == [(0.0, 3.0), (1.0, 4.0)]


@pytest.mark.parametrize("beyond", [pose(24.0), pose(4.0, np.radians(170)), None])
def test_a_jump_or_a_missing_pose_closes_the_window(beyond):
    place = recogniser()
    assert drive(place, np.arange(0, 4.1, 0.5)) == []
    closed = place.step(view(pose(4.0)), 9 * SECOND // 2, None, beyond)
    assert place.counters == {"no_odometry" if beyond is None else "odometry_jump": 1}
    assert stamps(closed)[:5] == [0, 1, 2, 3, 4]
    assert all(one.keyframe.partial for one in closed[:5])  # 4 m are less than half of 10
    # what comes afterwards is not joined with what came before
    x = 4.0 if beyond is None else beyond[0, 3]
    after = drive(place, [x + 0.5, x + 1.0], start=6.0) + place.finish()
    assert after and all(np.linalg.norm(one.bev.points[:, :2], axis=1).max() < 15 + 1.1 for one in after)


@pytest.mark.parametrize("config", [{"accumulation_m": 0.0}, {"use_bev": True}])
def test_without_accumulation_a_keyframe_is_answered_at_once(config):
    place = recogniser(**config)
    for i in range(10):
        described = place.step(view(pose(float(i))), i * SECOND, None, pose(float(i)))
        assert stamps(described) == [i]
        keyframe = described[0].keyframe
        assert not keyframe.is_local_map and keyframe.descriptor is keyframe.scan_descriptor
        assert keyframe.travel == float(i)
        assert np.array_equal(keyframe.descriptor, place.describe(view(pose(float(i)))))
    assert place.finish() == []


def test_without_odometry_a_keyframe_is_answered_at_once():
    place = recogniser(keyframe_similarity=1.0)
    described = drive(place, np.arange(0, 60, 2.0), period=1.0, odometry=False)
    assert stamps(described) == list(range(30))
    assert described[5].keyframe.T_odom_base is None and described[5].keyframe.travel is None
    assert place.counters == {}


def test_a_parked_car_does_not_fill_the_map():
    place = recogniser()
    assert len(drive(place, [0.0] * 100, odometry=False)) == 1
    assert len(drive(place, [0.0] * 100, start=20.0) + place.finish()) == 1  # the first with a pose


# -- exactly once -----------------------------------------------------------------------------------------------------

EVENTS = st.tuples(
    st.sampled_from(["go", "go", "go", "go", "jump", "blind", "again", "late", "restart", "flush", "empty"]),
    st.sampled_from([0.0, 0.4, 0.9, 1.9]),
    st.sampled_from([True, False]),
    st.sampled_from([0.1, 0.5, 12.0]),
)


@given(st.lists(EVENTS, max_size=60))
@settings(max_examples=60, deadline=None)
def test_every_keyframe_gets_exactly_one_answer_in_order(events):
    place = recogniser()
    x, now, session, expected, got = 0.0, 1e6, 0, [], []
    for kind, step, is_keyframe, period in events:
        stamp = now + period
        if kind == "flush":
            got += place.finish()
            continue
        if kind == "empty":
            with pytest.raises(ValueError):
                place.step(np.zeros((0, 4), np.float32), round(stamp * SECOND), None, pose(x))
            continue
        if kind in ("again", "late") and now > 1e6:
            stamp = now if kind == "again" else now - 0.5
            assert place.step(CLOUD, round(stamp * SECOND), None, pose(x), True) == []
            continue
        if kind == "restart" and now > 1e6:
            stamp = now - 1000.0
            session += bool({key for key in expected if key[0] == session})  # an id is used once something has it
        x = x + (50.0 if kind == "jump" else step)
        # The scan after a leap of the stamps is held until the next one.
        for at in (stamp, stamp + 0.1) if abs(stamp - now) > 1.0 else (stamp,):
            T = None if kind == "blind" else pose(x)
            got += place.step(view(pose(x % 30)), round(at * SECOND), None, T, is_keyframe)
            now = at
            if is_keyframe:
                expected.append((session, round(at * SECOND)))
    got += place.finish()
    assert [(one.keyframe.session, one.keyframe.stamp) for one in got] == expected
    assert [one.keyframe_id for one in got] == list(range(len(expected)))
    for one in got:
        for closure in one.closures:
            assert closure.match_id < closure.query_id == one.keyframe_id
            assert place.database.keyframe(closure.match_id).stamp == closure.match_stamp
            recent = one.keyframe.stamp - closure.match_stamp < 30 * SECOND
            assert closure.match_session != closure.query_session or not recent


def test_process_and_flush_are_step_and_finish():
    one, other = recogniser(), recogniser()
    xs = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, 0, -0.5)])
    flat: list[LoopClosure] = []
    rich: list[LoopClosure] = []
    for i, x in enumerate(xs):
        flat += one.process(view(pose(x)), i * SECOND, T_odom_base=pose(x))
        for described in other.step(view(pose(x)), i * SECOND, T_odom_base=pose(x)):
            rich += described.closures
    flat += one.flush()
    rich += [closure for described in other.finish() for closure in described.closures]
    assert len(flat) == len(rich) > 100
    for a, b in zip(*(sorted(each, key=lambda c: (c.query_id, c.match_id)) for each in (flat, rich)), strict=True):
        assert (a.query_id, a.match_id, a.similarity) == (b.query_id, b.match_id, b.similarity)
        # threads sum in any order
        assert a.probability == pytest.approx(b.probability, abs=1e-3)


def test_a_revisit_is_found_and_the_answer_names_both_places():
    place = recogniser(half=0.98)
    xs = np.concatenate([np.arange(0, 30, 0.5), np.arange(30, 0, -0.5)])
    described = drive(place, xs, period=1.0) + place.finish()
    back = [one for one in described if one.keyframe.stamp > 95 * SECOND]
    assert len(back) > 8
    for one in back:
        best = one.closures[0]
        there = place.database.keyframe(best.match_id)
        assert abs(there.T_odom_base[0, 3] - one.keyframe.T_odom_base[0, 3]) <= 1.0
        assert best.similarity > 0.99 and best.accepted and best.reject_reason is RejectReason.NONE
        assert best.probability >= 0.9 and best.evidence.inliers > 10 and best.covariance.shape == (6, 6)
        assert np.allclose(best.T_match_query, inverse(there.T_odom_base) @ one.keyframe.T_odom_base, atol=0.05)
        assert (best.query_session, best.match_session) == (0, 0)
        assert best.query_stamp == one.keyframe.stamp and best.match_stamp == there.stamp
        assert len(one.closures) <= 10
        said = [c.probability for c in one.closures]
        assert said == sorted(said, reverse=True)


def test_min_probability_met_exactly_accepts():
    first, second = view(pose(0.0)), view(pose(2.0))
    similarity = float(StandIn().see(first).descriptor @ StandIn().see(second).descriptor)

    def closure(**config) -> LoopClosure:
        place = recogniser(half=similarity, exclude_time=0.0, **config)
        place.step(first, 0)
        return (place.step(second, SECOND) + place.finish())[0].closures[0]

    exact = closure().probability
    met, missed = closure(min_probability=exact), closure(min_probability=np.nextafter(exact, 2.0))
    assert met.accepted and met.reject_reason is RejectReason.NONE
    assert not missed.accepted and missed.reject_reason is RejectReason.LOW_SIMILARITY
