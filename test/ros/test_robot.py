# SPDX-License-Identifier: Apache-2.0
"""What only a robot can test: the node with ROS' own launch, sensor_msgs_py and tf2_ros, which are in no registry.

`make robot-test` runs it, in a shell that has sourced the workspace; what is missing there is an error, not a skip.
Everywhere else all of it is skipped, and the node is tested with the stand-ins that are compared here with the
originals: test/helpers/launch_recorder.py and vlad_ros/ros/outputs/cloud_stand_in.py. For TF there is none.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.robot]

from geometry_msgs.msg import TransformStamped  # noqa: E402
from launch_recorder import resolve, rules  # noqa: E402
from ros_harness import SECOND, cloud, live_node, place, time_of, untrained_weights, wait_for  # noqa: E402
from sensor_msgs.msg import PointField  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from vlad_ros.poses import from_xyz_rpy, inverse, to_quaternion  # noqa: E402
from vlad_ros.ros.outputs import messages  # noqa: E402
from vlad_ros.ros.outputs.cloud_stand_in import create_cloud, stand_in  # noqa: E402
from vlad_ros.types import LoopClosure, RejectReason  # noqa: E402

LAUNCH = Path(__file__).resolve().parents[2] / "launch" / "vlad.launch.py"
HEADER = Header(stamp=messages.to_time(12_000_000_034), frame_id="body")


def test_the_real_launch_starts_what_the_recorder_says() -> None:
    import launch
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    commands: list[list[str]] = []
    service = launch.LaunchService(noninteractive=True)
    service.include_launch_description(get_launch_description_from_python_launch_file(str(LAUNCH)))
    handler = launch.event_handlers.OnProcessStart(
        on_start=lambda event, context: (commands.append(event.cmd), context.asyncio_loop.call_soon(service.shutdown))
    )
    service.context.register_event_handler(handler)
    asyncio.new_event_loop().run_until_complete(asyncio.wait_for(service.run_async(), 60))
    ((recorded, _),) = resolve(LAUNCH)
    assert set(rules(commands[0], "-r")) == set(rules(recorded, "-r"))
    assert rules(commands[0], "-p") == rules(recorded, "-p")


def test_what_we_publish_is_read_by_sensor_msgs_py() -> None:
    from sensor_msgs_py import point_cloud2

    bare = LoopClosure(7, 3, 1, 0, 12_000_000_034, 5_000_000_006, 0.75, reject_reason=RejectReason.LOW_SIMILARITY)
    rows = point_cloud2.read_points(messages.closures_message(HEADER, [bare, bare], lambda id: None))
    assert rows["match_id"].tolist() == [3, 3]


def test_the_stand_in_agrees_with_sensor_msgs_py() -> None:
    import sensor_msgs_py.point_cloud2 as original

    fields = [PointField(name="descriptor", offset=0, datatype=7, count=1)]
    rows = np.arange(5, dtype="<f4").view([("descriptor", "<f4")])
    assert create_cloud is original.create_cloud
    assert create_cloud(HEADER, fields, rows) == stand_in(HEADER, fields, rows)


def transform(parent: str, child: str, stamp: int, T: np.ndarray) -> TransformStamped:
    """T_parent_child as TF sends it."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id, message.header.stamp = parent, time_of(stamp)
    p, q = message.transform.translation, message.transform.rotation
    p.x, p.y, p.z = map(float, T[:3, 3])
    q.x, q.y, q.z, q.w = map(float, to_quaternion(T))
    return message


def test_mounting_and_odometry_come_from_tf(tmp_path: Path) -> None:
    """The sensor looks to the left; the body's own odometry, interpolated, says where the match is. Nobody publishes
    odometry, so that a pose can come from TF alone."""
    import tf2_ros

    settings = {
        "weights": untrained_weights(tmp_path / "untrained.safetensors"),
        "device": "cpu",
        "base_frame": "base_link",
        "odom_source": "tf",
        "odom_timeout": 5.0,
        "keyframe_source": "all",
        "accumulation_m": 0.0,
        "exclude_time": 0.0,
        "exclude_distance": 0.0,
    }
    T_base_sensor = from_xyz_rpy((0.5, 0.0, 1.2, 0.0, 0.0, np.pi / 2))
    T_odom_base = [from_xyz_rpy((2.0 * i, 0.1 * i, 0.0, 0.0, 0.0, 0.2 * i)) for i in range(4)]
    with live_node(tmp_path / "node.log", **settings) as (robot, process):
        fixed, moving = tf2_ros.StaticTransformBroadcaster(robot.node), tf2_ros.TransformBroadcaster(robot.node)
        wait_for(lambda: robot.node.count_subscribers("/tf") and robot.node.count_subscribers("/tf_static"), "no TF")
        fixed.sendTransform(transform("base_link", "lidar", 100 * SECOND, T_base_sensor))
        for i, T in enumerate(T_odom_base):
            moving.sendTransform(transform("odom", "base_link", (100 + i) * SECOND, T))
        for i in range(len(T_odom_base)):
            robot.send(cloud((100 + i) * SECOND, place(i)))
        wait_for(lambda: robot.answered == len(T_odom_base), f"not all scans are answered: {process.tail()}")
        robot.wait_report()
        assert robot.count("no_odometry") == 0 and robot.diagnostics["body frame"] == "base_link"
        for i, (_, rows) in enumerate(robot.closures):
            assert len(rows) == i
            for row in rows:
                expected = (inverse(T_odom_base[i]) @ T_odom_base[int(row["match_id"])])[:3, 3]
                np.testing.assert_allclose([row["x"], row["y"], row["z"]], expected, atol=1e-5)
