# SPDX-License-Identifier: Apache-2.0
"""Which keyframes are too recent to be candidates: by the time driven, and by the way."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

from vlad_ros.stamps import nanoseconds
from vlad_ros.types import Keyframe


class _Shift(NamedTuple):
    """How far a session's stamps [ns] are ahead of the time driven, and its travel [m] behind the way driven; the first
    id of the sessions that it goes on from, None where it stands alone."""

    clock: int = 0
    travel: float = 0.0
    first: int | None = None


class Exclusion:
    """Follows the keyframes of a map in the order of their ids."""

    def __init__(self) -> None:
        self._shifts: dict[int, _Shift] = {}
        self._session = -1  # of the last keyframe
        self._clock: list[int] = []  # ns; stamps less the pauses, going on where a session goes on from another
        self._reach: list[float] = []  # travel [m]; a keyframe without odometry lies where the last one with it was

    def skip_time(self, session: int, gap: int) -> None:
        """From here on the session's stamps are `gap` [ns] more ahead of the time driven: there was a pause."""
        shift = self._shift(session)
        self._shifts[session] = shift._replace(clock=shift.clock + gap)

    def follow_on(self, session: int, before: range, earlier: int, gap: int, travel: float) -> None:
        """The new `session` goes on where the newest one, `earlier` with the ids `before`, has ended: its stamps by
        `gap` [ns] more ahead (a clock was set back: negative), its travel counted from `travel` [m] on. What has just
        been left is excluded as within one session."""
        if before:
            shift = self._shift(earlier)
            first = before.start if shift.first is None else shift.first
            self._shifts[session] = _Shift(shift.clock + gap, shift.travel + travel, first)

    def append(self, session: int, stamp: int, travel: float | None) -> None:
        """The next keyframe."""
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
