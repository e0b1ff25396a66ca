# SPDX-License-Identifier: Apache-2.0
"""The live node among other stacks: a silent or lossy sensor explained, a back-end's keyframes, a body frame."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_harness import (  # noqa: E402
    SECOND,
    Robot,
    cloud,
    live_node,
    odometry,
    place,
    time_of,
    untrained_weights,
    wait_for,
)
from std_msgs.msg import String  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from vlad_ros.poses import from_xyz_rpy  # noqa: E402
from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402

TOPIC = "/livox/lidar"
MOUNTING = (0.5, 0.0, 1.2, 0.0, 0.0, float(np.pi / 2))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Robot, NodeProcess]]:
    """A node that takes a back-end's keyframes, in base_link, from a sensor mounted sideways."""
    folder = tmp_path_factory.mktemp("topics")
    weights = untrained_weights(folder / "untrained.safetensors")
    settings = {
        "keyframe_source": "topic",
        "base_frame": "base_link",
        "mounting_xyz_rpy": list(MOUNTING),
        "exclude_time": 0.0,
        "exclude_distance": 0.0,
        "device": "cpu",
    }
    with live_node(folder / "node.log", points=TOPIC, weights=weights, **settings) as (robot, process):
        robot.wait_connected(odom=True)
        yield robot, process


def test_silence_is_explained(live: tuple[Robot, NodeProcess]) -> None:
    robot, _ = live
    context = rclpy.Context()
    rclpy.init(context=context)
    livox = rclpy.create_node("livox_driver", context=context)
    livox.create_publisher(String, TOPIC, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT))
    try:
        wait_for(lambda: robot.warns and "livox_driver" in robot.message, "silence is not explained")
        for words in (f"no cloud on {TOPIC}", "std_msgs/msg/String", "best_effort", "sensor_msgs/msg/PointCloud2"):
            assert words in robot.message
    finally:
        livox.destroy_node()
        rclpy.shutdown(context=context)


def drive(robot: Robot, start: int, number: int = 8) -> list[int]:
    """Scans half a metre and half a second apart, with the sensor's own odometry; their stamps [ns]."""
    stamps = [start * SECOND + i * SECOND // 2 for i in range(number)]
    for i, stamp in enumerate(stamps):
        robot.send(odometry(stamp, 0.5 * i, child="lidar"))
        robot.send(cloud(stamp, place(1)))
    return stamps


def path_to(stamp: int) -> PathMessage:
    """A back-end's path whose newest node is at `stamp`."""
    path = PathMessage()
    for at in (stamp - 3 * SECOND, stamp):
        pose = PoseStamped()
        pose.header.stamp = time_of(at)
        path.poses.append(pose)
    return path


def test_exactly_the_announced_scans_become_keyframes(live: tuple[Robot, NodeProcess]) -> None:
    robot, _ = live
    announcer = robot.node.create_publisher(PathMessage, "keyframes", QoSProfile(depth=10))
    markers: list[MarkerArray] = []
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    robot.node.create_subscription(MarkerArray, "/vlad/markers", markers.append, latched)
    wait_for(announcer.get_subscription_count, "the node does not subscribe to keyframes")
    robot.meet()

    stamps = [100 * SECOND + i * SECOND // 2 for i in range(8)]
    for i, stamp in enumerate(stamps):
        robot.send(odometry(stamp, 0.5 * i, child="lidar"))
        robot.send(cloud(stamp, place(1)))
        if i in (2, 5):
            announcer.publish(path_to(stamp + SECOND // 200))  # 5 ms beside the scan
            time.sleep(0.2)  # a back-end is never quicker than its input
    announcer.publish(path_to(stamps[-1] + SECOND))
    wait_for(lambda: robot.diagnostics.get("clouds received") == "8", "the clouds do not arrive")

    # The input is silent now: after five seconds the keyframes whose windows are open get their answer.
    wait_for(lambda: robot.answered == 2, "the waiting keyframes are not answered in silence")
    assert [stamp for stamp, _, _ in robot.descriptors] == [stamps[2], stamps[5]]
    assert {frame for _, frame, _ in robot.descriptors} == {"base_link"}

    # Odometry is the sensor's and the sensor looks to the left: it moved along its own x, to base_link's left.
    (row,) = robot.closures[1][1]
    position = expected_match_position(0.5 * 2, 0.5 * 5)
    assert (row["x"], row["y"], row["z"]) == pytest.approx(tuple(position), abs=1e-5)
    assert position == pytest.approx((0.0, -1.5, 0.0), abs=1e-9)

    wait_for(lambda: markers and len(markers[-1].markers) >= 2, "no markers")
    assert markers[-1].markers[1].header.frame_id == "odom"
    assert len(markers[-1].markers[1].points) == 2


def expected_match_position(match_x: float, query_x: float) -> np.ndarray:
    """By plain matrix products: T_odom_base = T_odom_sensor inv(T_base_sensor)."""
    T_sensor_base = np.linalg.inv(from_xyz_rpy(MOUNTING))
    match, query = (from_xyz_rpy((x, 0, 0, 0, 0, 0)) @ T_sensor_base for x in (match_x, query_x))
    return (np.linalg.inv(query) @ match)[:3, 3]


def test_a_keyframe_announced_too_late_is_counted(live: tuple[Robot, NodeProcess]) -> None:
    robot, process = live
    announcer = robot.node.create_publisher(PathMessage, "keyframes", QoSProfile(depth=10))
    wait_for(announcer.get_subscription_count, "the node does not subscribe to keyframes")
    stamps = drive(robot, 200)
    wait_for(lambda: robot.diagnostics.get("clouds received") == "16", "the clouds do not arrive")
    announcer.publish(path_to(stamps[0]))
    wait_for(lambda: robot.count("keyframe_late") == 1, "keyframe_late is not counted")
    assert "keyframe_timeout" in process.log.read_text()


def test_lost_clouds_name_the_remedy(live: tuple[Robot, NodeProcess]) -> None:
    robot, _ = live
    stamp, small = 300 * SECOND, place(1)[::10]
    for step in np.random.default_rng(0).geometric(1 / 3, 60):  # 10 Hz, two of three lost on the way
        stamp += SECOND // 10 * int(step)
        robot.send(cloud(stamp, small))
        time.sleep(0.02)
    wait_for(lambda: robot.warns and "of 10.0 clouds a second" in robot.message, f"no remedy in {robot.message!r}")
    assert "fastdds_shm.xml" in robot.message and "driver" in robot.message
