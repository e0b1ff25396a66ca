# SPDX-License-Identifier: Apache-2.0
"""The same route, day after day: `max_keyframes_per_place` bounds the map, and every day is still recognised."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in import drive, recogniser

DAYS, ROUTE = 6, range(-10, 11)  # m


def days(most: int) -> tuple[list[int], list[float], int, set[int]]:
    """After each day: the keyframes of the map, and the share of the day's that were found; how many were removed
    in all, and the sessions that are left."""
    place, sizes, found = recogniser(max_keyframes_per_place=most, accumulation_m=0.0, max_edges=1), [], []
    for day in range(DAYS):
        if day:
            place.open_session()
        described = drive(place, ROUTE, 86_400.0 * day) + place.finish()
        found.append(float(np.mean([any(closure.accepted for closure in one.closures) for one in described])))
        sizes.append(len(place.database))
    left = {place.database.keyframe(int(id)).session for id in place.database.ids()}
    return sizes, found[1:], place.counters["keyframe_removed"], left


def test_without_a_bound_every_day_stays() -> None:
    sizes, found, removed, left = days(0)
    assert sizes == [len(ROUTE) * (day + 1) for day in range(DAYS)]
    assert min(found) == 1.0 and removed == 0 and left == set(range(DAYS))


@pytest.mark.parametrize("most", [1, 2])
def test_a_route_that_is_driven_daily_does_not_grow_the_map(most: int) -> None:
    sizes, found, removed, left = days(most)
    last = [most * len(ROUTE) + max(0, day + 1 - most) for day in range(most, DAYS)]  # and each session's last keyframe
    assert all(size <= bound for size, bound in zip(sizes[most:], last, strict=True)), sizes
    assert min(found) == 1.0 and removed == len(ROUTE) * DAYS - sizes[-1]
    assert left == set(range(DAYS))
