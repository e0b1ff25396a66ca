# SPDX-License-Identifier: Apache-2.0
"""Play a rosbag2 to ROS 2: raw CDR as recorded, `/clock`, at the pace of the recording or of the listening nodes.

Needs neither rosbag2_py nor ros2cli.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from vlad_ros.config import ReplayConfig
from vlad_ros.files.bags import open_bag
from vlad_ros.ros.environment import use_shared_memory
from vlad_ros.ros.tools.pace import Pace
from vlad_ros.ros.tools.schedule import SLACK_S, Schedule
from vlad_ros.stamps import SECOND

ACKNOWLEDGE_S = 5.0  # how long the last messages may take to arrive
SETTLE_S = 0.3  # between discovery and the first message: the subscriber matches slightly later
MEET_S = 2.0  # time allowed to discover the nodes that publish `~/_taken`, where anybody listens


@dataclass
class Report:
    """Report: messages by topic, topics left out and why, topics without subscribers, each message's lateness [s].

    `stood`, `held` [s]: how long the player was stalled, and waited for listeners. `repeated`: messages sent again
    after being lost in transport; `lost`: those that were never taken. `span`, `duration` [s]: of bag time and
    of wall time.
    """

    published: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    unheard: list[str] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    stood: float = 0.0
    held: float = 0.0
    repeated: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    span: float = 0.0
    duration: float = 0.0

    def summary(self) -> str:
        """One-line summary for the user."""
        words = [f"{sum(self.published.values())} messages in {self.duration:.1f} s"]
        if self.lateness:
            words.append(f"at most {1e3 * max(self.lateness):.0f} ms late")
        elif self.duration:
            words.append(f"{self.span / self.duration:.1f} times the recorded speed")
        if self.stood:
            words.append(f"the player stood still for {self.stood:.1f} s")
        if self.held > SLACK_S:
            words.append(f"its listeners held it back for {self.held:.1f} s")
        if self.repeated:
            words.append(f"{self.repeated} sent again that were lost on the way")
        words += [f"{number} lost on {topic}" for topic, number in sorted(self.lost.items()) if number]
        return ", ".join(words)


class Player:
    """Publishers for the topics of an open bag, the clock that they follow and the listeners that pace them."""

    def __init__(
        self, node: Node, reader: Any, config: ReplayConfig, topics: tuple[str, ...], say: Callable[[str], None]
    ) -> None:
        self.node, self.reader, self.config, self.say = node, reader, config, say
        self.report = Report()
        missing = sorted(set(topics) - {connection.topic for connection in reader.connections})
        if missing:
            known = ", ".join(sorted({connection.topic for connection in reader.connections}))
            raise ValueError(f"{missing[0]} is not in the bag; it has {known}")
        self.publishers: dict[str, Publisher] = {}
        for connection in reader.connections:
            if not topics or connection.topic in topics:
                self._advertise(connection)
        clock = node.create_publisher(Clock, "/clock", config.depth)
        self.schedule = Schedule(config.rate, config.clock_rate, clock, say)
        self.pace = Pace(node.context, self.publishers, config.wait, say)
        self._told = False  # whether it was reported that there is no node to pace by

    def _advertise(self, connection: Any) -> None:
        topic, kind = connection.topic, connection.msgtype
        if topic == "/clock":
            self.report.skipped[topic] = "the replay has its own"
            return
        try:
            package, *_, name = kind.split("/")
            message = getattr(import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError, TypeError, ValueError):  # the last two: a damaged bag's names
            self.report.skipped[topic] = f"{kind} is not installed"
            return
        latched = any(qos.durability.name == "TRANSIENT_LOCAL" for qos in connection.ext.offered_qos_profiles)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=self.config.depth, durability=durability)
        try:
            self.publishers[topic] = self.node.create_publisher(message, topic, qos)
        except (NameValidationException, AttributeError):
            self.report.skipped[topic] = f"no topic of ROS is called so, or no message {kind}"

    def wait_for_subscribers(self) -> None:
        """Wait until every topic has one, at most `config.wait` seconds; topics without one are reported."""
        end = time.monotonic() + self.config.wait
        while (silent := self._unheard()) and time.monotonic() < end:
            time.sleep(0.05)
        self.report.unheard = silent
        time.sleep(SETTLE_S)

    def _unheard(self) -> list[str]:
        return sorted(t for t, publisher in self.publishers.items() if publisher.get_subscription_count() == 0)

    def play(self, progress: bool) -> None:
        """Publish every message when it is due, or as fast as it is taken; returns when the last one has arrived."""
        chosen = [connection for connection in self.reader.connections if connection.topic in self.publishers]
        if not chosen:
            return
        self.pace.meet(MEET_S if self.config.lossless or len(self._unheard()) < len(self.publishers) else 0.0)
        total, begin = sum(connection.msgcount for connection in chosen), time.monotonic()
        if total > 1 and self.reader.end_time - self.reader.start_time <= 1:
            self.say(f"all bag times are {self.reader.start_time / SECOND:.0f} s: they are not waited for")
        with tqdm(total=total, unit="msg", desc="replay", disable=None if progress else True) as bar:
            for connection, stamp, raw in self.reader.messages(connections=chosen):
                self._send(connection.topic, stamp, bytes(raw))
                bar.update()
        self.report.held += self.pace.drain()
        for publisher in self.publishers.values():
            self._acknowledged(publisher)
        self.report.duration, self.report.span = time.monotonic() - begin, self.schedule.played / SECOND
        self.report.lost, self.report.repeated = self.pace.lost, self.pace.repeated

    def _send(self, topic: str, stamp: int, raw: bytes) -> None:
        """Publish one message when it is due."""
        due, timed = self.schedule.follow(stamp), self._timed()
        if timed:
            self.schedule.wait(due)
        held = self.pace.wait(topic, len(raw), stamp)
        late = self.schedule.arrive(due)
        self.pace.publish(topic, raw, stamp)
        self.report.published[topic] += 1
        self.report.held += held
        if timed:
            self.report.lateness.append(min(late, SLACK_S))
            self.report.stood += late - held if late - held > SLACK_S else 0.0
        if self.config.lossless and timed:
            self._acknowledged(self.publishers[topic])

    def _timed(self) -> bool:
        """Whether the recorded pace applies: in lossless mode only if no node reports what it takes."""
        timed = not self.config.lossless or not self.pace.heard
        if self.config.lossless and timed and not self._told:
            self.say(
                "no vlad node listens, so there is nobody to pace by: played at the recorded pace, each message "
                "acknowledged by those who hear its topic reliably"
            )
            self._told = True
        return timed

    @staticmethod
    def _acknowledged(publisher: Publisher) -> None:
        publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_S))


def play(
    node: Node,
    bag: str | os.PathLike[str],
    config: ReplayConfig,
    topics: tuple[str, ...] = (),
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> Report:
    """Play `bag` (sqlite3 or mcap) through publishers of `node`; all topics, or those named.

    Topics whose type is not installed are left out, one line each through `say`. ValueError: no bag, or no such topic.
    """
    with open_bag(bag) as reader:
        player = Player(node, reader, config, topics, say)
        try:
            for topic, reason in player.report.skipped.items():
                say(f"{topic} is left out: {reason}")
            player.wait_for_subscribers()
            for topic in player.report.unheard:
                say(f"nobody has subscribed to {topic}")
            player.play(progress)
            return player.report
        finally:
            player.pace.close()


def run(bag: str, config: ReplayConfig, topics: tuple[str, ...] = ()) -> Report:
    """`play` in its own process: starts and stops rclpy; Ctrl-C ends it as usual."""
    use_shared_memory()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = rclpy.create_node("vlad_replay")
        try:
            return play(node, bag, config, topics, say=tqdm.write)
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
