# SPDX-License-Identifier: Apache-2.0
"""The node's subscriptions: each callback checks its message's own numbers, hands it to `Inputs` and returns."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import Image, PointCloud2

from vlad_ros.config import NodeConfig
from vlad_ros.drive.pairing import Inputs
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.poses import decode_pose, decode_twist
from vlad_ros.ros.inputs.gaps import Gaps
from vlad_ros.ros.inputs.path_message import read_path
from vlad_ros.ros.listener import Listener
from vlad_ros.ros.outputs.publishers import Publishers
from vlad_ros.ros.outputs.taken import Intake
from vlad_ros.ros.qos import heard
from vlad_ros.ros.statistics import Statistics
from vlad_ros.stamps import stamp_of
from vlad_ros.types import F64, Ints

POINTS_TYPE = "sensor_msgs/msg/PointCloud2"
KEYFRAME_TYPES = {"geometry_msgs/msg/PoseStamped": PoseStamped, "nav_msgs/msg/Path": Path}


class Subscriptions:
    """Created at configure, opened at activate, closed at deactivate, destroyed at cleanup.

    Best effort matches every publisher; points are reliable where the parameter asks for it, and `keyframes` where all
    of its publishers offer it: a Path of a long drive is split into hundreds of packets, and one is always lost.
    """

    def __init__(
        self,
        node: LifecycleNode,
        config: NodeConfig,
        inputs: Inputs,
        outputs: Publishers,
        listener: Listener,
        statistics: Statistics,
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._node = node
        self._config = config
        self._inputs = inputs
        self._outputs = outputs
        self._listener = listener
        self._statistics = statistics
        self._later = later
        self._paths: deque[tuple[Ints, F64]] = deque()
        self._made: list[Subscription] = []
        self._intakes: list[Intake] = []
        self._gaps: dict[str, Gaps] = {}
        self._keyframes: Subscription | None = None
        self._offered: tuple[str, bool] | None = None  # type on `keyframes`, and whether reliable
        self.open = False
        self._points = self._subscribe(PointCloud2, "points", self._on_points, heard(10, config.points_reliable))
        if config.odom_source == "topic":
            self._subscribe(Odometry, "odom", self._on_odometry, heard(200))
        if config.use_bev:
            self._subscribe(Image, "bev", self._on_bev, heard(10))
        self.find_keyframes()

    def _subscribe(self, kind: type, topic: str, callback: Any, qos: QoSProfile, raw: bool = False) -> Subscription:
        # Half of the DDS history may be in flight; the other half is left for other publishers.
        intake = Intake(self._node.resolve_topic_name(topic), room=qos.depth // 2)

        gaps = self._gaps[topic] = Gaps()

        def take(message: Any, info: Mapping[str, Any]) -> None:
            intake.taken += 1
            if not raw:
                intake.stamp = stamp_of(message)
            self._count_lost(topic, gaps.before(info))
            callback(message)

        subscription = self._node.create_subscription(kind, topic, take, qos, raw=raw)
        self._made.append(subscription)
        self._intakes.append(intake)
        return subscription

    def _count_lost(self, topic: str, number: int) -> None:
        if number and self.open:
            self._statistics.count(f"{topic}_lost", number - 1)
            self._listener.reject(f"{topic}_lost", "")

    def look(self) -> None:
        """Once a second: who publishes."""
        self.find_keyframes()
        for topic, gaps in self._gaps.items():
            gaps.look(self._node.count_publishers(self._node.resolve_topic_name(topic)))

    def intakes(self, scans: int) -> Iterator[Intake]:
        """What was taken of each input, used or not, and the room for more; of clouds that for `scans` at most."""
        for intake in self._intakes:
            room = min(intake.room, scans) if intake.topic == self.points_topic else intake.room
            yield replace(intake, room=room)

    def close(self) -> None:
        """Destroy the subscriptions."""
        self.open = False
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        self._made.clear()

    @property
    def points_topic(self) -> str:
        """The topic's full name, remapped."""
        return str(self._points.topic_name)

    def points_publishers(self) -> list[TopicEndpointInfo]:
        """The publishers on this topic, of any type."""
        return list(self._node.get_publishers_info_by_topic(self.points_topic))

    def publishers(self, topic: str) -> tuple[str, list[str]]:
        """A topic's full name, and the nodes that publish there."""
        name = self._node.resolve_topic_name(topic)
        return name, [info.node_name for info in self._node.get_publishers_info_by_topic(name)]

    def find_keyframes(self) -> None:
        """Subscribe to `keyframes` once a publisher shows which of the two types it is, and again when its
        publishers have changed."""
        offers, was = self._keyframe_offers(), self._offered
        kind = was[0] if was is not None and was[0] in offers else next(iter(offers), "")
        if not offers or was == (kind, offers[kind]):
            return
        if was is not None:
            self._made.remove(self._keyframes)
            self._node.destroy_subscription(self._keyframes)
            self._offered = None
            if was[0] != kind:
                return  # retry at the next call: DDS refuses a second type on a topic just released
        self._offered = kind, offers[kind]
        is_path, qos = KEYFRAME_TYPES[kind] is Path, heard(100, offers[kind])
        callback = self._on_path if is_path else self._on_keyframe
        self._keyframes = self._subscribe(KEYFRAME_TYPES[kind], "keyframes", callback, qos, raw=is_path)

    def _keyframe_offers(self) -> dict[str, bool]:
        """The types that publishers have on `keyframes`, and whether all of a type's publishers are reliable."""
        offers: dict[str, bool] = {}
        needed = self._offered is None and (self._config.keyframe_source == "topic" or self._config.node_edges)
        for info in self._node.get_publishers_info_by_topic(self._node.resolve_topic_name("keyframes")):
            if info.topic_type in KEYFRAME_TYPES:
                reliable = info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
                offers[info.topic_type] = reliable and offers.get(info.topic_type, True)
            elif needed:
                self._listener.reject("bad_keyframe", f"{info.node_name} publishes {info.topic_type}")
        return offers

    def _on_points(self, message: PointCloud2) -> None:
        if not self.open:
            return
        stamp = stamp_of(message)
        self._statistics.heard(stamp)
        self._drain()
        if stamp <= 0:
            self._listener.reject("zero_stamp", "")
            return
        self._inputs.add_scan(PendingScan(message, stamp, time.monotonic()))

    def _drain(self) -> None:
        """Take messages that have already arrived for this cloud, above all odometry.

        The executor alternates, one message per topic; after a pause in which clouds and ten times as much
        odometry have queued up, the clouds would overtake the poses that they need.
        """
        for subscription in self._made:
            if subscription is self._points:
                continue
            with subscription.handle:
                while (taken := subscription.handle.take_message(subscription.msg_type, subscription.raw)) is not None:
                    subscription.callback(*taken)

    def _on_odometry(self, message: Odometry) -> None:
        if not self.open:
            return
        try:
            T, stamp = decode_pose(message.pose.pose), stamp_of(message)
            self._inputs.add_odometry(stamp, T, message.child_frame_id, decode_twist(message.twist.twist))
        except ValueError as error:
            self._listener.reject("bad_odometry", str(error))
            return
        self._outputs.odom_frame = message.header.frame_id

    def _on_bev(self, message: Image) -> None:
        if self.open:
            self._inputs.add_bev(stamp_of(message), message)

    def _on_keyframe(self, message: PoseStamped) -> None:
        if self.open:
            stamp = stamp_of(message)
            self._announce(stamp)
            self._later(lambda: self._outputs.announce(stamp))

    def _on_path(self, message: bytes) -> None:
        if not self.open:
            return
        try:
            stamps, numbers = read_path(message)
        except ValueError as error:
            self._listener.reject("bad_path", str(error))
            return
        if len(stamps):
            self._announce(int(stamps.max()))
            self._paths.append((stamps, numbers))
            self._later(self._follow_paths)

    def _announce(self, stamp: int) -> None:
        """The back-end's newest node."""
        if stamp <= 0:
            self._listener.reject("bad_keyframe", "")
        elif self._config.keyframe_source == "topic":
            self._inputs.announce(stamp)

    def _follow_paths(self) -> None:
        """In the worker: the paths that arrived while it was busy, except those that a later path replaces."""
        paths = [self._paths.popleft() for _ in range(len(self._paths))]
        for i, (stamps, numbers) in enumerate(paths):
            if i + 1 == len(paths) or not np.isin(stamps, paths[i + 1][0]).all():
                self._outputs.follow(stamps, numbers)
