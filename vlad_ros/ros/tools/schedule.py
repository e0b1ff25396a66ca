# SPDX-License-Identifier: Apache-2.0
"""When the messages of a bag are due, by their bag times, and the `/clock` values in between."""

from __future__ import annotations

import time
from collections.abc import Callable

from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock

from vlad_ros.ros.outputs.messages import to_time
from vlad_ros.stamps import SECOND

SLACK_S = 0.05  # a delay up to this is caught up; a longer one shifts everything that follows
LONGEST = 180 * SECOND  # ns; no replay waits longer for the next message
UNSORTED = SECOND  # ns; bag times may go back this far between files; more is a restart
GREATEST = 2**31 * SECOND  # ns; limit of a message's seconds field


class Schedule:
    """Bag times on the steady clock: the recorded pace times `rate`. It slips: stalls are not caught up."""

    def __init__(self, rate: float, clock_rate: float, clock: Publisher, say: Callable[[str], None]) -> None:
        self._rate, self._period, self._clock, self._say = rate, 1.0 / clock_rate, clock, say
        self._origin, self._begin = 0, 0.0  # bag time [ns], steady time [s]
        self._newest: int | None = None
        self._jumped = False
        self.played = 0  # ns of bag time

    def follow(self, stamp: int) -> float:
        """Advance to the message of this bag time; returns the steady time [s] when it is due."""
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
        """Sleep until then while publishing the clock."""
        while (left := due - time.monotonic()) > self._period:
            self._tick(int(left * self._rate * SECOND))
            time.sleep(min(self._period, max(0.0, due - time.monotonic())))
        time.sleep(max(0.0, due - time.monotonic()))

    def arrive(self, due: float) -> float:
        """The message is sent now, with its own tick. Returns how late it is [s]; beyond `SLACK_S`, the rest is due
        that much later."""
        self._tick(0)
        late = time.monotonic() - due
        if not 0.0 <= late <= SLACK_S:
            self._begin += late
        return late

    def _tick(self, before: int) -> None:
        """Set `/clock` this many nanoseconds before the newest message's bag time."""
        now = (self._newest or 0) - before
        if 0 <= now < GREATEST:
            self._clock.publish(Clock(clock=to_time(now)))
