# SPDX-License-Identifier: Apache-2.0
"""`keyframes` over DDS: of whatever type and QoS the back-end's publishers are, and however long its path."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import ros_harness  # noqa: E402 - a ROS domain of our own
from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Path  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from std_msgs.msg import String  # noqa: E402

from vlad_ros.config import NodeConfig  # noqa: E402
from vlad_ros.ros.inputs.subscriptions import Subscriptions  # noqa: E402
from vlad_ros.ros.statistics import Statistics  # noqa: E402

SECOND = ros_harness.SECOND
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
BACK_END = """
import sys, time, rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
rclpy.init()
node = rclpy.create_node("back_end")
publisher = node.create_publisher(Path, "keyframes", 1)
path = Path()
for i in range(int(sys.argv[1])):
    pose = PoseStamped()
    pose.header.stamp.sec, pose.header.frame_id, pose.pose.position.x = 1 + i, "map", float(i)
    path.poses.append(pose)
while not publisher.get_subscription_count():
    time.sleep(0.05)
time.sleep(0.5)
publisher.publish(path)
time.sleep(60)
"""


def path_of(*seconds: int) -> Path:
    path = Path()
    for second in seconds:
        pose = PoseStamped()
        pose.header.stamp.sec, pose.pose.position.x = second, float(second)
        path.poses.append(pose)
    return path


class World:
    """A node that listens to `keyframes` and nothing else; what its worker is asked to do, and what is refused."""

    def __init__(self, **config: Any) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("vlad", context=self.context)
        self.elsewhere = rclpy.Context()  # one participant has one type a topic
        rclpy.init(context=self.elsewhere)
        self.other = rclpy.create_node("back_end", context=self.elsewhere)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.jobs: list[Callable[[], None]] = []
        self.announced: list[int] = []
        self.nodes: list[int] = []
        self.paths: list[tuple[list[int], np.ndarray]] = []
        self.refused: list[tuple[str, str]] = []
        stub: Any = self
        self.subscriptions = Subscriptions(
            self.node, NodeConfig(odom_source="none", **config), stub, stub, stub, Statistics(), self.jobs.append
        )
        self.subscriptions.open = True

    def announce(self, stamp: int) -> None:
        """Of the inputs, at once; of the outputs, in the worker."""
        (self.nodes if self._working else self.announced).append(stamp)

    def follow(self, stamps: np.ndarray, numbers: np.ndarray) -> None:
        self.paths.append((stamps.tolist(), numbers))

    def reject(self, reason: str, detail: str) -> None:
        self.refused.append((reason, detail))

    _working = False

    def work(self) -> None:
        """As the worker does."""
        self._working = True
        while self.jobs:
            self.jobs.pop(0)()
        self._working = False

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, what
            self.subscriptions.find_keyframes()
            self.executor.spin_once(timeout_sec=0.05)
            self.work()

    def heard_as(self) -> list[tuple[str, bool]]:
        """Type and reliability of what the node subscribes to."""
        infos = self.node.get_subscriptions_info_by_topic("/keyframes")
        return [(info.topic_type, info.qos_profile.reliability == ReliabilityPolicy.RELIABLE) for info in infos]

    def close(self) -> None:
        self.subscriptions.close()
        self.executor.shutdown()
        self.other.destroy_node()
        self.node.destroy_node()
        rclpy.shutdown(context=self.elsewhere)
        rclpy.shutdown(context=self.context)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(**getattr(request, "param", {}))
    yield world
    world.close()


def test_a_path_of_ten_thousand_poses_arrives(world: World) -> None:
    """0.7 MB, from another process: over best effort most are lost."""
    back_end = subprocess.Popen([sys.executable, "-c", BACK_END, "10000"])
    try:
        world.wait(lambda: world.paths, "the path does not arrive")
    finally:
        back_end.kill()
        back_end.wait()
    ((stamps, numbers),) = world.paths
    assert stamps == [i * SECOND for i in range(1, 10_001)]
    np.testing.assert_array_equal(numbers, [(i, 0, 0, 0, 0, 0, 1) for i in range(10_000)])
    assert ("nav_msgs/msg/Path", True) in world.heard_as() and not world.refused


PATH, POSE = "nav_msgs/msg/Path", "geometry_msgs/msg/PoseStamped"


@pytest.mark.parametrize(("qos", "reliable"), [(RELIABLE, True), (BEST_EFFORT, False)])
@pytest.mark.parametrize("kind", [Path, PoseStamped])
def test_each_type_and_reliability_is_heard(world: World, kind: type, qos: QoSProfile, reliable: bool) -> None:
    publisher = world.other.create_publisher(kind, "keyframes", qos)
    world.wait(publisher.get_subscription_count, "nobody subscribes")
    assert world.heard_as() == [(PATH if kind is Path else POSE, reliable)]
    message = path_of(7, 9) if kind is Path else path_of(9).poses[0]
    time.sleep(0.3)
    publisher.publish(message)
    world.wait(lambda: world.paths or world.nodes, "nothing arrives")
    if kind is Path:
        assert world.paths[0][0] == [7 * SECOND, 9 * SECOND]
    else:
        assert world.nodes == [9 * SECOND]
    assert world.announced == []  # keyframe_source own


def test_other_publishers_are_followed(world: World) -> None:
    """A reliable one, then one of best effort beside it, then another type in the place of both."""
    one = world.other.create_publisher(Path, "keyframes", RELIABLE)
    world.wait(lambda: world.heard_as() == [(PATH, True)], "not reliable")
    two = world.other.create_publisher(Path, "keyframes", BEST_EFFORT)
    world.wait(lambda: world.heard_as() == [(PATH, False)], "the second is not met")
    time.sleep(0.3)
    for second, publisher in enumerate((one, two), start=5):
        publisher.publish(path_of(second))
        world.wait(lambda: len(world.paths) == second - 4, "a path does not arrive")  # noqa: B023
    for publisher in (one, two):
        world.other.destroy_publisher(publisher)
    three = world.other.create_publisher(PoseStamped, "keyframes", RELIABLE)
    world.wait(lambda: world.heard_as() == [(POSE, True)], "the new type is not met")
    time.sleep(0.3)
    three.publish(path_of(9).poses[0])
    world.wait(lambda: world.nodes == [9 * SECOND], "a node does not arrive")


@pytest.mark.parametrize("world", [{"keyframe_source": "topic"}], indirect=True)
def test_another_type_is_named(world: World) -> None:
    world.other.create_publisher(String, "keyframes", RELIABLE)
    told = ("bad_keyframe", "back_end publishes std_msgs/msg/String")
    world.wait(lambda: told in world.refused, "it is not refused")


def tell(world: World, *seconds: int) -> None:
    world.subscriptions._on_path(serialize_message(path_of(*seconds)))


def test_stretches_that_come_while_the_worker_is_busy_are_all_taken(world: World) -> None:
    tell(world, 1, 2, 3, 4)
    tell(world, 1, 2, 3, 4, 5)  # tells anew what the one before did
    tell(world, 2, 3)
    tell(world, 7, 8)
    world.work()
    assert [stamps for stamps, _ in world.paths] == [
        [s * SECOND for s in seconds] for seconds in ((1, 2, 3, 4, 5), (2, 3), (7, 8))
    ]


@pytest.mark.parametrize("world", [{"keyframe_source": "topic"}], indirect=True)
def test_the_newest_pose_is_announced_wherever_it_stands(world: World) -> None:
    tell(world, 8, 9, 3)
    tell(world)
    tell(world, 0, 0)
    world.subscriptions._on_path(serialize_message(path_of(4, 5))[:-40])
    assert world.announced == [9 * SECOND]
    assert [reason for reason, _ in world.refused] == ["bad_keyframe", "bad_path"]
    assert "within pose 2 of 2" in world.refused[1][1] or "no room" in world.refused[1][1]
    world.work()
    assert len(world.paths) == 2  # the one without stamps, too: its refusal names the remedy
