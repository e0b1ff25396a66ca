# SPDX-License-Identifier: Apache-2.0
"""Play a rosbag2 to ROS 2: raw CDR as recorded, `/clock`, lateness measured. Needs neither rosbag2_py nor ros2cli."""

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
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from vlad_ros.config import ReplayConfig
from vlad_ros.files.bags import open_bag
from vlad_ros.ros.environment import use_shared_memory
from vlad_ros.stamps import SECOND

ACKNOWLEDGE_S = 5.0  # how long the last messages may take to arrive
SETTLE_S = 0.3  # between discovery and the first message: the subscriber's side matches a moment later


@dataclass
class Report:
    """What was played: messages by topic, topics left out and why, topics nobody heard, each message's lateness [s]."""

    published: Counter[str] = field(default_factory=Counter)
    skipped: dict[str, str] = field(default_factory=dict)
    unheard: list[str] = field(default_factory=list)
    lateness: list[float] = field(default_factory=list)
    duration: float = 0.0

    def summary(self) -> str:
        """One line for people."""
        worst = max(self.lateness, default=0.0)
        return f"{sum(self.published.values())} messages in {self.duration:.1f} s, at most {1e3 * worst:.0f} ms late"


class Player:
    """Publishers for the topics of an open bag, and the clock that they follow."""

    def __init__(self, node: Node, reader: Any, config: ReplayConfig, topics: tuple[str, ...]) -> None:
        self.node, self.reader, self.config = node, reader, config
        self.report = Report()
        self.clock = node.create_publisher(Clock, "/clock", config.depth)
        missing = sorted(set(topics) - {connection.topic for connection in reader.connections})
        if missing:
            known = ", ".join(sorted({connection.topic for connection in reader.connections}))
            raise ValueError(f"{missing[0]} is not in the bag; it has {known}")
        self.publishers: dict[str, Publisher] = {}
        for connection in reader.connections:
            if not topics or connection.topic in topics:
                self._advertise(connection)

    def _advertise(self, connection: Any) -> None:
        topic, kind = connection.topic, connection.msgtype
        if topic == "/clock":
            self.report.skipped[topic] = "the replay has its own"
            return
        package, *_, name = kind.split("/")
        try:
            message = getattr(import_module(f"{package}.msg"), name)
        except (ImportError, AttributeError):
            self.report.skipped[topic] = f"{kind} is not installed"
            return
        latched = any(qos.durability.name == "TRANSIENT_LOCAL" for qos in connection.ext.offered_qos_profiles)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        qos = QoSProfile(depth=self.config.depth, durability=durability)
        self.publishers[topic] = self.node.create_publisher(message, topic, qos)

    def wait_for_subscribers(self) -> None:
        """Until every topic has one, at most `config.wait` seconds; who has none then is reported."""
        end = time.monotonic() + self.config.wait
        while (silent := self._unheard()) and time.monotonic() < end:
            time.sleep(0.05)
        self.report.unheard = silent
        time.sleep(SETTLE_S)

    def _unheard(self) -> list[str]:
        return sorted(t for t, publisher in self.publishers.items() if publisher.get_subscription_count() == 0)

    def play(self, progress: bool) -> None:
        """Publish every message when it is due; returns when the last one has been acknowledged."""
        chosen = [connection for connection in self.reader.connections if connection.topic in self.publishers]
        if not chosen:
            return
        total = sum(connection.msgcount for connection in chosen)
        first, begin = self.reader.start_time, time.monotonic()
        with tqdm(total=total, unit="msg", desc="replay", disable=None if progress else True) as bar:
            for connection, stamp, raw in self.reader.messages(connections=chosen):
                due = begin + (stamp - first) / self.config.rate / SECOND
                self._sleep_until(due, stamp)
                self.report.lateness.append(time.monotonic() - due)
                self.publishers[connection.topic].publish(bytes(raw))
                self.report.published[connection.topic] += 1
                bar.update()
        for publisher in self.publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_S))
        self.report.duration = time.monotonic() - begin

    def _sleep_until(self, due: float, stamp: int) -> None:
        """Sleep with the clock ticking; the last tick is the stamp of the message that is due."""
        period = 1.0 / self.config.clock_rate
        while (left := due - time.monotonic()) > period:
            self._tick(stamp - int(left * self.config.rate * SECOND))
            time.sleep(min(period, max(0.0, due - time.monotonic())))
        time.sleep(max(0.0, due - time.monotonic()))
        self._tick(stamp)

    def _tick(self, now: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now, SECOND)
        self.clock.publish(message)


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
        player = Player(node, reader, config, topics)
        for topic, reason in player.report.skipped.items():
            say(f"{topic} is left out: {reason}")
        player.wait_for_subscribers()
        for topic in player.report.unheard:
            say(f"nobody has subscribed to {topic}")
        player.play(progress)
        return player.report


def run(bag: str, config: ReplayConfig, topics: tuple[str, ...] = ()) -> Report:
    """`play` in a process of its own: starts and stops rclpy; Ctrl-C ends it as it does any program."""
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
