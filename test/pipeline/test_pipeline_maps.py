# SPDX-License-Identifier: Apache-2.0
"""The pipeline's sessions, stamps and maps."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in import CLOUD, SECOND, drive, pose, recogniser, stamps, view

from vlad_ros.mapping.database import MapError


def test_a_bag_played_again_opens_a_session_and_keeps_the_map():
    place = recogniser(half=0.98)
    first = drive(place, np.arange(0, 12, 0.5), start=50.0)
    again = place.step(view(pose(0.0)), 50 * SECOND, None, pose(0.0))
    assert not again and not place.counters  # one wrong stamp is no bag begun again; the next scan tells
    again = place.step(view(pose(0.5)), 50 * SECOND + SECOND // 2, None, pose(0.5))
    assert place.counters == {"session_opened": 1}
    assert stamps(first + again) == list(range(50, 62))  # the waiting ones of the old session were answered
    assert {one.keyframe.session for one in first + again} == {0}
    second = drive(place, np.arange(1.0, 12, 0.5), start=51.0) + place.finish()
    assert {one.keyframe.session for one in second} == {1}
    assert all(one.closures[0].match_session == 0 and one.closures[0].accepted for one in second)
    assert second[0].keyframe.travel == 0.0
    assert len(place.database) == 24 and place.session == 1


def test_late_and_repeated_stamps_are_dropped_and_counted():
    place = recogniser(accumulation_m=0.0)
    assert len(place.step(CLOUD, 10 * SECOND, is_keyframe=True)) == 1
    for stamp in (10 * SECOND, 10 * SECOND, 9 * SECOND):
        assert place.step(CLOUD, stamp, is_keyframe=True) == []
    assert place.counters == {"repeated_stamp": 2, "late_stamp": 1}
    assert len(place.database) == 1


def test_is_keyframe_overrules_the_selection():
    place = recogniser(accumulation_m=0.0)
    assert place.step(CLOUD, 0, is_keyframe=False) == []
    assert len(place.step(CLOUD, 1, is_keyframe=True)) == 1
    assert len(place.step(CLOUD, 2, is_keyframe=True)) == 1  # whatever the rate


def save_drive_map(path, metres, start):
    """The map of a straight drive of its own."""
    place = recogniser()
    drive(place, np.arange(0, metres, 0.5), start=start)
    place.finish()
    place.save_map(path)


def test_a_saved_map_answers_a_new_recogniser(tmp_path):
    save_drive_map(tmp_path / "x.map", 30.0, start=1000.0)
    fresh = recogniser()
    fresh.load_map(tmp_path / "x.map")
    assert fresh.session == 1 and len(fresh.database) == 30
    answers = drive(fresh, np.arange(0, 30, 0.5)) + fresh.finish()
    assert [one.closures[0].match_id for one in answers] == list(range(30))
    assert {one.closures[0].match_session for one in answers} == {0}
    assert answers[0].keyframe_id == 30


def test_a_map_that_cannot_be_loaded_leaves_everything_as_it_is(tmp_path):
    path = tmp_path / "x.map"
    other = recogniser(model_hash="1" * 64)
    other.step(CLOUD, 0)
    place, untouched = recogniser(), recogniser()
    a, b = (drive(p, np.arange(0, 8, 0.5)) for p in (place, untouched))
    for refused in (lambda: None, lambda: other.save_map(path), lambda: path.write_bytes(path.read_bytes()[:-1])):
        refused()
        with pytest.raises(MapError):
            place.load_map(path)
    with pytest.raises(MapError):
        place.save_map(tmp_path / "nowhere" / "x.map")
    a, b = a + place.finish(), b + untouched.finish()
    assert [(p.keyframe_id, p.keyframe.stamp) for p in a] == [(q.keyframe_id, q.keyframe.stamp) for q in b]


def test_a_map_of_bevs_and_one_of_clouds_do_not_mix(tmp_path):
    place = recogniser(use_bev=True)
    place.step(CLOUD, 0)
    place.save_map(tmp_path / "x.map")
    with pytest.raises(MapError, match="made from bev, not from points"):
        recogniser().load_map(tmp_path / "x.map")


def test_the_drive_goes_on_in_a_loaded_and_in_a_cleared_map(tmp_path):
    """Keyframes waiting for their windows meet the map that is there when they close, as its newest session."""
    save_drive_map(tmp_path / "x.map", 6.0, start=500.0)
    place = recogniser()
    before = drive(place, np.arange(0, 8, 0.5))
    place.load_map(tmp_path / "x.map")
    after = place.finish()
    assert stamps(before + after) == list(range(8))
    assert [one.keyframe.session for one in before + after] == [0] * len(before) + [1] * len(after)
    assert [one.keyframe_id for one in after] == list(range(6, 6 + len(after)))
    assert all(one.closures for one in after)
    drive(place, np.arange(8, 10, 0.5), start=8.0)
    place.clear_map()
    assert len(place.database) == 0 and place.session == 0
    assert [(one.keyframe.session, one.keyframe_id) for one in place.finish()] == [(0, 0), (0, 1)]
