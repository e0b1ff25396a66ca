# SPDX-License-Identifier: Apache-2.0
"""The node's own keyframes, told when they are selected, and a back-end's corrections of them (keyframe_source own)."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_harness import SECOND, cloud, live_node, odometry, place, time_of, untrained_weights, wait_for  # noqa: E402

from vlad_ros.stamps import stamp_of  # noqa: E402

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


def test_keyframes_are_told_when_selected_and_take_corrections(tmp_path: Path) -> None:
    weights = untrained_weights(tmp_path / "untrained.safetensors")
    with live_node(tmp_path / "node.log", weights=weights, device="cpu") as (robot, process):
        told: list[PoseStamped] = []
        robot.node.create_subscription(PoseStamped, "/vlad/keyframes", told.append, RELIABLE)
        back_end = robot.node.create_publisher(PathMessage, "keyframes", RELIABLE)
        robot.wait_connected(odom=True)
        wait_for(back_end.get_subscription_count, "the node does not listen to keyframes")
        robot.meet()
        for i in range(8):  # 1 m and 0.5 s apart: no local map of 10 m is complete before the sixth
            robot.send(odometry((100 + i) * SECOND // 2, float(i)))
            robot.send(cloud((100 + i) * SECOND // 2, place(1)))
            if i == 3:
                wait_for(lambda: len(told) == 4, f"keyframes are not told: {process.tail()}")
                assert not robot.descriptors
        wait_for(lambda: len(told) == 8 and robot.answered >= 3, f"no answers: {process.tail()}")
        assert [stamp_of(message) for message in told] == [(100 + i) * SECOND // 2 for i in range(8)]
        assert [message.pose.position.x for message in told] == [float(i) for i in range(8)]
        assert {message.header.frame_id for message in told} == {"odom"}

        path = PathMessage()
        for i, message in enumerate(told[:2]):  # the stretch that has changed
            pose = PoseStamped(pose=message.pose)
            pose.header.stamp, pose.pose.position.y = time_of((100 + i) * SECOND // 2), 0.5
            path.poses.append(pose)
        back_end.publish(path)
        key = "keyframes that the back-end has placed"
        wait_for(lambda: robot.diagnostics.get(key) == "2", f"the corrections are not taken: {robot.diagnostics}")
        assert robot.count("bad_path") == 0
