# SPDX-License-Identifier: Apache-2.0
"""Which keyframes are too recent to be candidates: by driving time and by distance."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

from vlad_ros.stamps import nanoseconds
from vlad_ros.types import Keyframe


class _Shift(NamedTuple):
    """Offsets of a session: its stamps [ns] ahead of the driving time, its travel [m] behind the distance driven; the
    first id of the sessions that it continues, None if it continues none."""

    clock: int = 0
    travel: float = 0.0
    first: int | None = None


class Exclusion:
    """Follows the keyframes of a map in the order of their ids."""

    def __init__(self) -> None:
        self._shifts: dict[int, _Shift] = {}
        self._session = -1  # of the last keyframe
        self._clock: list[int] = []  # ns; stamps without the pauses, continued across sessions that continue each other
        self._reach: list[float] = []  # travel [m]; a keyframe without odometry lies where the last one with it was

    def skip_time(self, session: int, gap: int) -> None:
        """Record a pause: from here on the session's stamps are `gap` [ns] further ahead of the driving time."""
        shift = self._shift(session)
        self._shifts[session] = shift._replace(clock=shift.clock + gap)

    def follow_on(self, session: int, before: range, earlier: int, gap: int, travel: float) -> None:
        """The new `session` continues the newest one, `earlier` with the ids `before`: its stamps are `gap` [ns]
        further ahead (negative: the clock was set back), its travel starts at `travel` [m]. The end of the earlier
        session is excluded as within one session."""
        if before:
            shift = self._shift(earlier)
            first = before.start if shift.first is None else shift.first
            self._shifts[session] = _Shift(shift.clock + gap, shift.travel + travel, first)

    def append(self, session: int, stamp: int, travel: float | None) -> None:
        """Add the next keyframe."""
        shift = self._shift(session)
        goes_on = bool(self._reach) and (session == self._session or shift.first is not None)
        before = self._reach[-1] if goes_on else -math.inf
        self._session = session
        self._clock.append(stamp - shift.clock)
        self._reach.append(before if travel is None else max(travel + shift.travel, before))

    def ids(self, query: Keyframe, own: range, exclude_time: float, exclude_distance: float) -> range:
        """Those younger than `exclude_time` [s] or fewer than `exclude_distance` [m] of travel ago. Within a session
        (`own`, and those that it goes on from) clock and travel only grow, so these are its end from some id on."""
        shift = self._shift(query.session)
        begin = own.start if shift.first is None else shift.first
        oldest = query.stamp - shift.clock - nanoseconds(exclude_time)
        first = bisect.bisect_right(self._clock, oldest, begin, own.stop)
        if query.travel is not None:
            nearest = query.travel + shift.travel - exclude_distance
            first = min(first, bisect.bisect_right(self._reach, nearest, begin, own.stop))
        return range(first, own.stop)

    def _shift(self, session: int) -> _Shift:
        return self._shifts.get(session, _Shift())
