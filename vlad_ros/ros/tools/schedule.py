# SPDX-License-Identifier: Apache-2.0
"""When the messages of a bag are due, by their bag times, and what `/clock` says meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock

from vlad_ros.ros.outputs.messages import to_time
from vlad_ros.stamps import SECOND

SLACK_S = 0.05  # a delay up to this is made up for; by a longer one everything that follows is later
LONGEST = 180 * SECOND  # ns; no replay waits longer for the next message
UNSORTED = SECOND  # ns that bag times go back by where files follow each other; by more they begin anew
GREATEST = 2**31 * SECOND  # ns; what the seconds of a message can hold


class Schedule:
    """Bag times on the steady clock: the recorded pace times `rate`. It slips: no standstill is made up for."""

    def __init__(self, rate: float, clock_rate: float, clock: Publisher, say: Callable[[str], None]) -> None:
        self._rate, self._period, self._clock, self._say = rate, 1.0 / clock_rate, clock, say
        self._origin, self._begin = 0, 0.0  # bag time [ns], steady time [s]
        self._newest: int | None = None
        self._jumped = False
        self.played = 0  # ns of bag time

    def follow(self, stamp: int) -> float:
        """Go on to the message of this bag time; the steady time [s] when it is due."""
        step = 0 if self._newest is None else stamp - self._newest
        if self._newest is None or not -UNSORTED <= step <= LONGEST:
            self._origin, self._begin, self._newest = stamp, time.monotonic(), stamp
            if step and not self._jumped:
                self._say(f"the bag's time jumps by {step / SECOND:.0f} s: such jumps are not waited for")
                self._jumped = True
        elif step > 0:
            self._newest = stamp
            self.played += step
        return self._begin + (self._newest - self._origin) / self._rate / SECOND

    def wait(self, due: float) -> None:
        """Sleep until then with the clock ticking."""
        while (left := due - time.monotonic()) > self._period:
            self._tick(int(left * self._rate * SECOND))
            time.sleep(min(self._period, max(0.0, due - time.monotonic())))
        time.sleep(max(0.0, due - time.monotonic()))

    def arrive(self, due: float) -> float:
        """The message is sent now: a tick of its own. How late it is [s]; unless that is little, what follows is due
        that much later."""
        self._tick(0)
        late = time.monotonic() - due
        if not 0.0 <= late <= SLACK_S:
            self._begin += late
        return late

    def _tick(self, before: int) -> None:
        """`/clock` is so many nanoseconds before the newest message's bag time."""
        now = (self._newest or 0) - before
        if 0 <= now < GREATEST:
            self._clock.publish(Clock(clock=to_time(now)))
