# SPDX-License-Identifier: Apache-2.0
"""Pacing of a replay by what its listeners report as taken (`~/_taken`), so that their queues never overflow.

A node that reports nothing is stalled. Messages in flight to it may then be lost: Fast DDS empties the queue of a
process that does not read it for a second. They are sent again if the node runs and still does not take them.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.publisher import Publisher
from rclpy.subscription import Subscription

from vlad_ros.ros.outputs.taken import TOPIC, Intake, intakes_of
from vlad_ros.ros.qos import NEWEST
from vlad_ros.stamps import SECOND

STILL_S = 0.3  # a node that has reported nothing for this long is stalled
UNTAKEN = 100  # reports in a row without progress, after which the messages in flight count as lost
ATTEMPTS = 3  # to send what was lost
AHEAD = 8 << 20  # bytes in flight: half of a segment of shared memory (config/fastdds_shm.xml)
AHEAD_NS = 5 * SECOND  # of bag time: a node keeps odometry (TF: 10 s) until it has taken the scan
LOOK_S = 1.0  # between two checks of the listeners
SILENCE_S = 5.0  # until it is reported which node is waited for


@dataclass(frozen=True, eq=False)
class Sent:
    """A message in flight, the `serial`-th of the replay; `time`, `stamp` [ns]: the bag's, and its header's."""

    serial: int
    topic: str
    time: int
    stamp: int
    raw: bytes


def stamp_of_cdr(raw: bytes) -> int:
    """The stamp [ns] of a serialised message that begins with a header; meaningless for others."""
    if len(raw) < 12:
        return 0
    sec, nanosec = struct.unpack_from("<iI" if raw[1] & 1 else ">iI", raw, 4)
    return int(sec) * SECOND + int(nanosec)


class Taker:
    """A node that reports what it takes, and the messages in flight to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost: Counter[str] = Counter()
        self.heard: float | None = None  # time of its last report; None: never
        self.words = 0  # reports since something was taken or sent
        self.attempts = 0
        self.gone: float | None = None  # since when it has been absent
        self._stands_still = False
        self._intakes: dict[str, Intake] = {}
        self._way: dict[str, deque[Sent]] = {}

    def hear(self, message: DiagnosticArray) -> None:
        """Handle a report of what it has taken."""
        progress = False
        for intake in intakes_of(message):
            before = self._intakes.get(intake.topic)
            self._intakes[intake.topic] = intake
            way = self._way.setdefault(intake.topic, deque())
            if before is not None and intake.taken > before.taken and way:
                self._settle(way, intake, intake.taken - before.taken)
                progress = True
        self.words = 0 if progress else self.words + 1
        self.attempts = 0 if progress else self.attempts
        self.heard = time.monotonic()
        self._stands_still = self._stands_still and self.awaits

    def _settle(self, way: deque[Sent], newest: Intake, number: int) -> None:
        """`number` more were taken, the last with the stamp of `newest`; earlier ones that were not taken are lost."""
        last = min(number, len(way)) - 1
        last = next((i for i in range(last, len(way)) if way[i].stamp == newest.stamp), last)
        self.lost[newest.topic] += max(0, last + 1 - number)
        for _ in range(last + 1):
            way.popleft()

    def send(self, message: Sent) -> None:
        """This message is now in flight."""
        if message.topic in self._way:
            self._way[message.topic].append(message)
            self.words = 0

    def forgo(self, message: Sent) -> None:
        """This message will no longer be taken."""
        self._way[message.topic].remove(message)
        self.lost[message.topic] += 1

    @property
    def awaits(self) -> bool:
        """Whether messages are in flight."""
        return any(self._way.values())

    @property
    def missed(self) -> list[Sent]:
        """Messages it has missed although it is taking others, in sending order; usually none."""
        if self.words < UNTAKEN:
            return []
        return sorted(chain(*self._way.values()), key=lambda message: message.serial)

    def lacks(self, message: Sent) -> bool:
        """Whether it has not taken this, and may get it again."""
        way = self._way.get(message.topic)
        return way is None or (bool(way) and way[0].serial <= message.serial)

    def has_room(self, topic: str, size: int, when: int) -> bool:
        """Room for one more message of this size [bytes] and bag time. After a stall it first takes what was
        in flight."""
        if self.heard is None:
            return True
        if time.monotonic() - self.heard > STILL_S:
            self._stands_still = True
        if self._stands_still:
            return False
        if any(way and abs(when - way[0].time) > AHEAD_NS for way in self._way.values()):
            return False
        if topic not in self._intakes:
            return True
        if len(self._way[topic]) >= self._intakes[topic].room:
            return False
        return not self._way[topic] or size + sum(len(message.raw) for message in self._way[topic]) <= AHEAD


class Pace:
    """Sends messages through `publishers` (by topic) as fast as the takers allow. Owns a ROS node and its thread.

    A taker that has gone is waited for, at most `patience` seconds, as it may be restarting; `say` is told whom the
    replay waits for.
    """

    def __init__(
        self, context: Context, publishers: Mapping[str, Publisher], patience: float, say: Callable[[str], None]
    ) -> None:
        self.repeated = 0
        self._publishers, self._patience, self._say = publishers, patience, say
        self._takers: dict[str, tuple[Taker, Subscription]] = {}
        self._lost: Counter[str] = Counter()  # of takers that have gone
        self._serial = 0
        self._looked = -LOOK_S
        self._changed = threading.Condition()
        self._node = rclpy.create_node(
            "vlad_replay_pace", context=context, start_parameter_services=False, enable_rosout=False
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Release node and thread."""
        self._executor.shutdown()
        self._thread.join(5)
        self._node.destroy_node()

    @property
    def takers(self) -> list[Taker]:
        """The nodes that take part."""
        return [taker for taker, _ in self._takers.values()]

    @property
    def lost(self) -> Counter[str]:
        """Messages that did not arrive, by topic."""
        return sum((taker.lost for taker in self.takers), Counter(self._lost))

    @property
    def heard(self) -> bool:
        """Whether there is any node to pace by."""
        return any(taker.heard is not None for taker in self.takers)

    def meet(self, seconds: float) -> None:
        """Wait `seconds` for nodes that take part, and for their first reports; at most `patience`."""
        begin = time.monotonic()
        with self._changed:
            self._look()
            while not self._takers and time.monotonic() - begin < min(seconds, self._patience):
                self._changed.wait(0.1)
                self._look()
            while any(taker.heard is None for taker in self.takers) and time.monotonic() - begin < self._patience:
                self._changed.wait(0.1)

    def wait(self, topic: str, size: int, when: int) -> float:
        """Wait until all have room for a message of this size [bytes] and bag time; returns the time taken [s]."""
        return self._until(lambda taker: taker.has_room(topic, size, when))

    def drain(self) -> float:
        """Wait until everything was taken; returns the time taken [s]."""
        return self._until(lambda taker: not taker.awaits)

    def publish(self, topic: str, raw: bytes, when: int) -> None:
        """Send it."""
        with self._changed:
            self._serial += 1
            message = Sent(self._serial, topic, when, stamp_of_cdr(raw), raw)
            for taker in self.takers:
                taker.send(message)
        self._publishers[topic].publish(raw)

    def _until(self, ready: Callable[[Taker], bool]) -> float:
        begin, said = time.monotonic(), False
        with self._changed:
            while True:
                if time.monotonic() - self._looked >= LOOK_S:
                    self._look()
                for taker in self.takers:
                    self._repeat(taker)
                slow = [taker.name for taker in self.takers if not ready(taker)]
                waited = time.monotonic() - begin
                if not slow:
                    return waited
                if waited > SILENCE_S and not said:
                    self._say(f"{', '.join(slow)} has taken nothing for {waited:.0f} s: the replay waits")
                    said = True
                self._changed.wait(0.1)

    def _look(self) -> None:
        """Check which nodes listen, and which have gone."""
        self._looked = time.monotonic()
        for topic in self._publishers:
            for info in self._node.get_subscriptions_info_by_topic(topic):
                name = f"{info.node_namespace.rstrip('/')}/{info.node_name}"
                if name not in self._takers and self._node.count_publishers(f"{name}/{TOPIC}"):
                    taker = Taker(name)
                    hear = partial(self._hear, taker)
                    heard = self._node.create_subscription(DiagnosticArray, f"{name}/{TOPIC}", hear, NEWEST)
                    self._takers[name] = taker, heard
        for name, (taker, heard) in list(self._takers.items()):
            if self._node.count_publishers(f"{name}/{TOPIC}"):
                taker.gone = None
            elif taker.gone is None:
                taker.gone = self._looked
            elif self._looked - taker.gone > self._patience:
                self._say(f"{name} has gone: the replay goes on without it")
                self._lost += taker.lost
                self._node.destroy_subscription(heard)
                del self._takers[name]

    def _hear(self, taker: Taker, message: DiagnosticArray) -> None:
        with self._changed:
            taker.hear(message)
            self._changed.notify_all()

    def _repeat(self, taker: Taker) -> None:
        """Send again what `taker` has missed, if no other node has taken it."""
        missed = taker.missed
        if not missed:
            return
        taker.attempts += 1
        taker.words = 0
        for message in missed:
            if taker.attempts > ATTEMPTS or not all(other.lacks(message) for other in self.takers):
                taker.forgo(message)
            else:
                self.repeated += 1
                self._publishers[message.topic].publish(message.raw)
