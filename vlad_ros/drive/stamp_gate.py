# SPDX-License-Identifier: Apache-2.0
"""Stamp plausibility: an item with an unexpected stamp is held until the next one shows which is right."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Generic, Literal, NamedTuple, TypeVar

from vlad_ros.stamps import SECOND

LATE = SECOND  # up to this much older than the newest, a stamp is only late; farther back it is held
AHEAD = SECOND  # a stamp ahead of the drive's pace by more than this is held
STEPS = 21  # number of steps whose median is the pace

Item = TypeVar("Item")
Verdict = Literal["ok", "repeated_stamp", "late_stamp", "wrong_stamp", "pause", "session_opened"]


class Judged(NamedTuple, Generic[Item]):
    """`item` is accepted with "ok", after a "pause", or as the first of a new session ("session_opened"); with any
    other verdict it is dropped. `gap` [ns]: delay relative to the drive's pace; negative: how far the clock went
    back."""

    item: Item
    verdict: Verdict
    gap: int = 0


class StampGate(Generic[Item]):
    """Judges stamped items in the order of their arrival.

    A stamp more than 1 s back, or ahead of the pace by more than 1 s, is held until the next one arrives: if that
    continues the old stamps, the held one was wrong; if it continues the held one, there was a pause (ahead), or the
    clock was set back. So one wrong stamp costs only one item, however large its error.
    """

    def __init__(self) -> None:
        self._newest: int | None = None
        self._held: tuple[int, Item] | None = None
        self._held_step = 0  # from the one held before the held one, where that was the older [ns]
        self._steps: deque[int] = deque(maxlen=STEPS)

    @property
    def pace(self) -> int:
        """The usual step between stamps [ns]; 0 while unknown."""
        return round(statistics.median(self._steps)) if self._steps else 0

    @property
    def holds(self) -> bool:
        """Whether an item waits for the next one."""
        return self._held is not None

    def judge(self, stamp: int, item: Item) -> list[Judged[Item]]:
        """The verdicts known now: on this item, on the one held before it, on both, or (while it is held) on none."""
        newest, held = self._newest, self._held
        if newest is None:
            self._newest = stamp
            return [Judged(item, "ok")]
        if held is not None and self._confirms(stamp, held[0], newest):
            verdict: Verdict = "pause" if held[0] > newest else "session_opened"
            gap = held[0] - newest - self.pace
            if stamp - held[0] > 2 * self.pace + AHEAD:  # the sensor is slower from here on
                self._steps.clear()
            self._steps.append(stamp - held[0])
            self._newest, self._held = stamp, None
            return [Judged(held[1], verdict, gap), Judged(item, "ok")]
        if held is not None and 0 <= held[0] - stamp <= LATE and not self._follows(stamp, newest):
            return [Judged(item, "repeated_stamp" if stamp == held[0] else "late_stamp")]
        wrong = [] if held is None else [Judged(held[1], "wrong_stamp")]
        self._held = None
        if newest - LATE <= stamp <= newest:
            return [*wrong, Judged(item, "repeated_stamp" if stamp == newest else "late_stamp")]
        if not self._follows(stamp, newest):
            self._held_step = 0 if held is None else stamp - held[0]
            self._held = stamp, item
            return list(wrong)
        self._steps.append(stamp - newest)
        self._newest = stamp
        return [*wrong, Judged(item, "ok")]

    def believe(self) -> list[Judged[Item]]:
        """No further item is expected: accept the held item with its stamp."""
        newest, held = self._newest, self._held
        if held is None or newest is None:
            return []
        self._newest, self._held = held[0], None
        return [Judged(held[1], "pause" if held[0] > newest else "session_opened", held[0] - newest - self.pace)]

    def _follows(self, stamp: int, before: int, pace: int = 0) -> bool:
        """Whether a stamp continues from another; also with an item lost or held in between."""
        return before < stamp <= before + 2 * max(self.pace, pace) + AHEAD

    def _confirms(self, stamp: int, held: int, newest: int) -> bool:
        """Whether a stamp continues from the held one, at the old pace or a slower one that the held one implies."""
        return not self._follows(stamp, newest) and self._follows(stamp, held, max(held - newest, self._held_step))
