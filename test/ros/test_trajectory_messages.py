# SPDX-License-Identifier: Apache-2.0
"""What the pose graph's node sends, against rclpy's own serialisation."""

from __future__ import annotations

import types

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from graph_drives import town  # noqa: E402
from nav_msgs.msg import Odometry, Path  # noqa: E402
from rclpy.serialization import deserialize_message  # noqa: E402

from vlad_ros.poses import decode_pose, from_xyz_rpy  # noqa: E402
from vlad_ros.ros.graph_outputs import changes  # noqa: E402
from vlad_ros.ros.inputs.path_message import read_path  # noqa: E402
from vlad_ros.ros.outputs import trajectory_messages  # noqa: E402
from vlad_ros.stamps import stamp_of  # noqa: E402

START = 1_700_000_000_999_999_990


@pytest.mark.parametrize("frame", ["", "m", "map", "odom", "robot/map", "ten_letter"])
@pytest.mark.parametrize("number", [0, 1, 2, 7])
def test_the_bytes_of_a_path_are_those_of_ros(frame: str, number: int) -> None:
    poses, stamps = town(0)[:number], START + 7 * np.arange(number)
    data = trajectory_messages.path_bytes(frame, stamps, poses)
    path = deserialize_message(data, Path)
    assert path.header.frame_id == frame and [stamp_of(pose) for pose in path.poses] == stamps.tolist()
    assert all(pose.header.frame_id == frame for pose in path.poses)
    for message, T in zip(path.poses, poses, strict=True):
        np.testing.assert_allclose(decode_pose(message.pose), T, atol=1e-12)
    ours, numbers = read_path(data)
    np.testing.assert_array_equal(ours, stamps)
    np.testing.assert_allclose(numbers[:, :3], poses[:, :3, 3])


def test_odometry_in_the_map_keeps_all_but_frame_and_pose() -> None:
    message = Odometry(child_frame_id="base")
    message.header.frame_id, message.twist.twist.linear.x, message.pose.covariance[0] = "odom", 3.0, 0.5
    message.pose.pose.position.x = 1.0
    moved = trajectory_messages.in_map(message, "map", from_xyz_rpy((0, 0, 5.0, 0, 0, np.pi / 2)))
    assert (moved.header.frame_id, moved.child_frame_id, moved.twist, moved.pose.covariance[0]) == (
        "map",
        "base",
        message.twist,
        0.5,
    )
    np.testing.assert_allclose(decode_pose(moved.pose.pose), from_xyz_rpy((0, 1.0, 5.0, 0, 0, np.pi / 2)), atol=1e-12)


def test_tf_leads_from_the_map_to_odometry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory_messages, "TF", types.SimpleNamespace)  # tf2_msgs is in no wheel
    T = from_xyz_rpy((1.0, 2.0, 3.0, 0.1, 0.2, 0.3))
    (transform,) = trajectory_messages.tf_message(START, "map", "odom", T).transforms
    assert (transform.header.frame_id, transform.child_frame_id, stamp_of(transform)) == ("map", "odom", START)
    pose = types.SimpleNamespace(position=transform.transform.translation, orientation=transform.transform.rotation)
    np.testing.assert_allclose(decode_pose(pose), T, atol=1e-12)


def test_only_what_has_moved_or_is_new_is_told() -> None:
    poses, stamps = town(0)[:10], np.arange(10)
    moved = poses.copy()
    moved[4, 0, 3] += 0.02
    assert changes(stamps, poses, None).tolist() == list(range(10))
    assert changes(stamps, moved, (stamps[:8], poses[:8])).tolist() == [4, 8, 9]
    moved[4, 0, 3] -= 0.015
    assert changes(stamps, moved, (stamps, poses)).tolist() == []
    assert changes(stamps + 1, poses, (stamps, poses)).tolist() == list(range(10))  # another drive
