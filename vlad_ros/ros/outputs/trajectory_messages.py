# SPDX-License-Identifier: Apache-2.0
"""What the pose graph's node sends: a Path in serialised form, TF, and odometry in the map's frame.

rclpy would make a Python object of each of ten thousand poses; numpy writes the bytes of a nav_msgs/Path (see
`inputs.path_message`, which reads them) a hundred times faster.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped, Vector3
from nav_msgs.msg import Odometry
from scipy.spatial.transform import Rotation
from std_msgs.msg import Header

from vlad_ros.poses import decode_pose
from vlad_ros.ros.outputs.messages import to_pose, to_time
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Ints


def _find_tf() -> Any:
    """tf2_msgs/TFMessage, which is in every ROS distribution but in no wheel; None where it is not installed."""
    try:
        from tf2_msgs.msg import TFMessage
    except ImportError:
        return None
    return TFMessage


TF = _find_tf()
GUEST = "session_"  # the frame of another robot's odometry is called this and the number of its session
NO_TF = "TF is not published: tf2_msgs is not installed (ros-$ROS_DISTRO-tf2-msgs); ~/odometry tells the same"


def path_bytes(frame: str, stamps: Ints, poses: F64) -> bytes:
    """A nav_msgs/Path in little-endian CDR: `poses` (N, 4, 4) at `stamps` (N,) [ns], all in `frame`."""
    name = frame.encode() + b"\0"
    newest = int(stamps[-1]) if len(stamps) else 0
    start = _head(newest, name) + bytes(-len(name) % 4) + struct.pack("<I", len(stamps))
    if not len(stamps):
        return b"\0\1\0\0" + start
    numbers = np.concatenate([poses[:, :3, 3], Rotation.from_matrix(poses[:, :3, :3]).as_quat()], axis=1)
    first = start + _head(int(stamps[0]), name)
    first += bytes(-len(first) % 8) + numbers[0].astype("<f8").tobytes()
    pad = -(12 + len(name)) % 8
    row = np.dtype(
        [("sec", "<i4"), ("nanosec", "<u4"), ("length", "<u4"), ("name", "u1", len(name) + pad), ("T", "<f8", 7)]
    )
    rows = np.zeros(len(stamps) - 1, row)
    rows["sec"], rows["nanosec"] = stamps[1:] // SECOND, stamps[1:] % SECOND
    rows["length"], rows["T"] = len(name), numbers[1:]
    rows["name"] = np.frombuffer(name + bytes(pad), np.uint8)
    return b"\0\1\0\0" + first + rows.tobytes()


def _head(stamp: int, name: bytes) -> bytes:
    return struct.pack("<iII", stamp // SECOND, stamp % SECOND, len(name)) + name


def tf_message(stamp: int, parent: str, child: str, T: F64) -> Any:
    """T_parent_child (4, 4) as a tf2_msgs/TFMessage."""
    pose = to_pose(T)
    p = pose.position
    transform = Transform(translation=Vector3(x=p.x, y=p.y, z=p.z), rotation=pose.orientation)
    header = Header(stamp=to_time(stamp), frame_id=parent)
    return TF(transforms=[TransformStamped(header=header, child_frame_id=child, transform=transform)])


def in_map(message: Odometry, map_frame: str, T_map_odom: F64) -> Odometry:
    """An odometry message with its pose in the map's frame; child frame, twist and covariances are as they were."""
    header = Header(stamp=message.header.stamp, frame_id=map_frame)
    moved = Odometry(header=header, child_frame_id=message.child_frame_id, twist=message.twist)
    moved.pose.pose = to_pose(T_map_odom @ decode_pose(message.pose.pose))
    moved.pose.covariance = message.pose.covariance
    return moved
