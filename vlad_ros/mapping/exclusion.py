# SPDX-License-Identifier: Apache-2.0
"""Which keyframes are too recent to be candidates: by driving time and by distance."""

from __future__ import annotations

import bisect
import math
from array import array
from typing import NamedTuple

import numpy as np

from vlad_ros.mapping.rows import Rows
from vlad_ros.stamps import nanoseconds
from vlad_ros.types import F64, Ints, Keyframe


class _Drive(NamedTuple):
    """Of each keyframe of a session the driving time [ns], which is its stamp without the pauses and continued across
    sessions that continue each other, and the distance driven [m]; one without odometry lies where the last with it
    was."""

    clock: array[int]
    reach: array[float]


class _Shift(NamedTuple):
    """Offsets of a session: its stamps [ns] ahead of the driving time, its travel [m] behind the distance driven; the
    session that it continues, if any."""

    clock: int = 0
    travel: float = 0.0
    earlier: int | None = None


class Exclusion:
    """Follows the keyframes of a map, session by session; these may be interleaved."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._shifts: dict[int, _Shift] = {}
        self._drives: dict[int, _Drive] = {}

    def skip_time(self, session: int, gap: int) -> None:
        """Record a pause: from here on the session's stamps are `gap` [ns] further ahead of the driving time."""
        shift = self._shift(session)
        self._shifts[session] = shift._replace(clock=shift.clock + gap)

    def follow_on(self, session: int, earlier: int, gap: int, travel: float) -> None:
        """The new `session` continues `earlier`: its stamps are `gap` [ns] further ahead (negative: the clock was set
        back), its travel starts at `travel` [m]. The end of the earlier session is excluded as within one session."""
        if self._rows.ids.get(earlier):
            shift = self._shift(earlier)
            self._shifts[session] = _Shift(shift.clock + gap, shift.travel + travel, earlier)

    def append(self, session: int, stamp: int, travel: float | None) -> None:
        """Add the session's next keyframe."""
        shift, drive = self._shift(session), self._drive(session)
        before = drive.reach[-1] if drive.reach else -math.inf
        if not drive.reach and shift.earlier is not None:
            before = self._drive(shift.earlier).reach[-1]
        drive.clock.append(stamp - shift.clock)
        drive.reach.append(before if travel is None else max(travel + shift.travel, before))

    def extend(self, session: int, stamps: Ints, travels: F64) -> None:
        """Add keyframes (N,) of a session that was driven before; `travels` are NaN where unknown."""
        drive = self._drive(session)
        before = drive.reach[-1] if drive.reach else -math.inf
        reach = np.fmax.accumulate(np.concatenate([[before], travels]))[1:]
        drive.clock.frombytes(stamps.astype(np.int64).tobytes())
        drive.reach.frombytes(reach.tobytes())

    def remove(self, session: int, at: int) -> None:
        """Forget the session's `at`-th keyframe."""
        drive = self._drives[session]
        del drive.clock[at], drive.reach[at]

    def ids(self, query: Keyframe, exclude_time: float, exclude_distance: float) -> Ints:
        """Those younger than `exclude_time` [s] or fewer than `exclude_distance` [m] of travel ago, ascending. Within a
        session, and those that it continues, clock and travel only grow: so these are the end of each."""
        shift = self._shift(query.session)
        oldest = query.stamp - shift.clock - nanoseconds(exclude_time)
        nearest = math.inf if query.travel is None else query.travel + shift.travel - exclude_distance
        found, session = [], query.session if query.session in self._drives else shift.earlier
        while session is not None:
            drive, own = self._drive(session), self._rows.ids[session]
            first = bisect.bisect_right(drive.clock, oldest)
            first = min(first, bisect.bisect_right(drive.reach, nearest))
            found.append(np.array(own[first:], np.int64))
            session = self._shift(session).earlier
        return np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)

    def _drive(self, session: int) -> _Drive:
        return self._drives.setdefault(session, _Drive(array("q"), array("d")))

    def _shift(self, session: int) -> _Shift:
        return self._shifts.get(session, _Shift())
