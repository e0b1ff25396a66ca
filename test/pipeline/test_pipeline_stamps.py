# SPDX-License-Identifier: Apache-2.0
"""Wrong stamps, pauses and clocks set back: what was just left is no candidate, whatever the clock says."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in import pose, recogniser, stamps, view

from vlad_ros.loops.described import Described
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.stamps import nanoseconds


def play(place: PlaceRecognizer, seconds: list[float], xs: list[float], odometry: bool = True) -> list[Described]:
    out: list[Described] = []
    for s, x in zip(seconds, xs, strict=True):
        out += place.step(view(pose(x)), nanoseconds(s), None, pose(x) if odometry else None)
    return out + place.finish()


def ride(start: float, count: int) -> list[float]:
    return [start + 0.5 * i for i in range(count)]


@pytest.mark.parametrize("off", [3600.0, 30.0, 5.0, 2.0, -2.0, -5.0, -30.0, -3600.0])
@pytest.mark.parametrize("odometry", [True, False])
def test_one_wrong_stamp_costs_one_scan(off: float, odometry: bool) -> None:
    place = recogniser(accumulation_m=0.0, keyframe_similarity=1.0, keyframe_period=0.5)
    seconds = ride(10_000.0, 50)
    seconds[20] += off
    described = play(place, seconds, ride(0.0, 50), odometry)
    assert place.counters == {"wrong_stamp": 1} and {one.keyframe.session for one in described} == {0}
    assert not any(one.closures for one in described)  # neighbours are no loops
    assert nanoseconds(10_010.0) not in [one.keyframe.stamp for one in described]  # the true stamp of the lost one


@pytest.mark.parametrize("odometry", [True, False])
def test_a_pause_is_no_time_that_was_driven(odometry: bool) -> None:
    """Two minutes without a cloud: the same session, and what was seen just before is no candidate."""
    place = recogniser(half=0.0, accumulation_m=0.0, keyframe_similarity=1.0, keyframe_period=0.5)
    seconds = [*ride(100.0, 20), *ride(230.0, 10)]
    xs = [*ride(0.0, 20), *ride(9.5, 10)]
    described = play(place, seconds, xs, odometry)
    assert place.counters == {"pause": 1} and {one.keyframe.session for one in described} == {0}
    assert not any(one.closures for one in described)


def test_a_pause_closes_the_window() -> None:
    place = recogniser()
    described = play(place, [*ride(100.0, 9), *ride(230.0, 9)], [*ride(0.0, 9), *ride(4.0, 9)])
    assert all(one.keyframe.partial for one in described if one.keyframe.stamp < nanoseconds(105.0))


@pytest.mark.parametrize("odometry", [True, False])
def test_a_clock_set_back_makes_neighbours_no_loops(odometry: bool) -> None:
    place = recogniser(half=0.0, accumulation_m=0.0, keyframe_similarity=1.0, keyframe_period=0.5)
    described = play(place, [*ride(1000.0, 40), *ride(50.0, 20)], [*ride(0.0, 40), *ride(20.0, 20)], odometry)
    sessions = [one.keyframe.session for one in described]
    assert set(sessions) == {0, 1} and place.counters == {"session_opened": 1}
    for one in described:
        for closure in one.closures:
            match = place.database.keyframe(closure.match_id)
            driven = len([s for s in stamps(described) if s]) and one.keyframe_id - closure.match_id
            assert match.session == 0 and driven * 0.5 >= 20.0 if odometry else driven >= 60


def test_odometry_that_begins_anew_with_the_clock_is_a_drive_of_its_own() -> None:
    """A bag played again: the places of its last run are candidates at once."""
    place = recogniser(half=0.0, accumulation_m=0.0)
    described = play(place, [*ride(1000.0, 80), *ride(1000.0, 10)], [*ride(0.0, 80), *ride(0.0, 10)])
    again = [one for one in described if one.keyframe.session == 1]
    assert again and all(one.closures for one in again)
    assert np.all([closure.match_session == 0 for one in again for closure in one.closures])
