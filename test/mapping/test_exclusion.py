# SPDX-License-Identifier: Apache-2.0
"""Who is no candidate, against loops over all keyframes: interleaved sessions, pauses, clocks that were set."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from map_rows import keyframe, make

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.stamps import SECOND, nanoseconds


class Naive:
    """Driving time and distance of each keyframe, step by step."""

    def __init__(self) -> None:
        self.clock: dict[int, int] = {}  # session -> stamps ahead of the driving time
        self.travel: dict[int, float] = {}  # session -> travel behind the distance driven
        self.earlier: dict[int, int] = {}
        self.rows: list[tuple[int, int, int, float]] = []  # id, session, driving time, distance

    def family(self, session: int) -> set[int]:
        """The session and those that it continues."""
        return {session} | (self.family(self.earlier[session]) if session in self.earlier else set())

    def add(self, id: int, session: int, stamp: int, travel: float | None) -> None:
        before = [reach for _, other, _, reach in self.rows if other in self.family(session)]
        if any(other == session for _, other, _, _ in self.rows) or session in self.earlier:
            last = max(before, default=-math.inf)
        else:
            last = -math.inf
        reach = last if travel is None else max(travel + self.travel.get(session, 0.0), last)
        self.rows.append((id, session, stamp - self.clock.get(session, 0), reach))

    def ids(self, session: int, stamp: int, travel: float | None, time: float, distance: float) -> list[int]:
        now = stamp - self.clock.get(session, 0) - nanoseconds(time)
        here = math.inf if travel is None else travel + self.travel.get(session, 0.0) - distance
        return [id for id, other, t, d in self.rows if other in self.family(session) and (t > now or d > here)]


def started(data: st.DataObject, database: KeyframeDatabase, naive: Naive, open_: dict) -> None:
    """Begin a session, perhaps one that continues another."""
    session = len(naive.clock)
    naive.clock[session] = 0
    open_[session] = [data.draw(st.integers(0, 50)) * SECOND, 0.0]
    before = sorted({other for _, other, _, _ in naive.rows} - set(naive.earlier.values()))
    if before and data.draw(st.booleans()):
        earlier, gap = data.draw(st.sampled_from(before)), data.draw(st.integers(-100, 100)) * SECOND
        travel = float(data.draw(st.integers(0, 30)))
        # as the drive does: the new session's stamps go on where the old ones ended, but for the gap
        open_[session][0] = open_[earlier][0] + gap
        database.exclusion.follow_on(session, earlier, gap, travel)
        naive.clock[session] = naive.clock[earlier] + gap
        naive.travel[session] = naive.travel.get(earlier, 0.0) + travel
        naive.earlier[session] = earlier
        open_.pop(earlier)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_exclusion_equals_brute_force(data: st.DataObject) -> None:
    rng = np.random.default_rng(0)
    database, naive, open_ = make([]), Naive(), dict[int, list]()
    started(data, database, naive, open_)
    for _ in range(data.draw(st.integers(0, 40))):
        step = data.draw(st.sampled_from(["add"] * 6 + ["pause", "start"]))
        session = data.draw(st.sampled_from(sorted(open_)))
        if step == "start" and len(naive.clock) < 5:
            started(data, database, naive, open_)
        elif step == "pause":
            gap = data.draw(st.integers(1, 1000)) * SECOND
            database.exclusion.skip_time(session, gap)
            naive.clock[session] += gap
            open_[session][0] += gap
        else:
            open_[session][0] += data.draw(st.sampled_from([1, SECOND // 2, SECOND, 20 * SECOND]))
            open_[session][1] += data.draw(st.sampled_from([0.0, 0.5, 1.0, 15.0]))
            stamp, travel = open_[session]
            travel = travel if data.draw(st.booleans()) else None
            naive.add(database.add(keyframe(rng, session, stamp, travel=travel)), session, stamp, travel)
    session = data.draw(st.integers(0, len(naive.clock)))
    stamp, travel = open_.get(session, [data.draw(st.integers(0, 200)) * SECOND, 10.0])
    query = keyframe(rng, session, stamp + 1, travel=data.draw(st.sampled_from([None, travel, travel + 7.0])))
    for time in (0.0, 0.5, 30.0):
        for distance in (0.0, 1.0, 20.0):
            expected = naive.ids(session, query.stamp, query.travel, time, distance)
            found = database.exclusion.ids(query, time, distance).tolist()
            assert found == expected
            answered = {one.id for one in database.search(query, 100, time, distance)}
            assert answered == set(database.ids().tolist()) - set(expected)
