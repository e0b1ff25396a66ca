# SPDX-License-Identifier: Apache-2.0
"""rosbag2 files without ROS: scans and odometry in, messages out."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, get_typestore

from vlad_ros.atomic import withdrawing
from vlad_ros.config import ImportConfig
from vlad_ros.files.sequence import Sequence
from vlad_ros.files.storage import Bag
from vlad_ros.poses import to_quaternion
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64

FIELDS = ("x", "y", "z", "intensity")
FLOAT32 = 7  # sensor_msgs/PointField.FLOAT32
CLOUD, ODOMETRY = "sensor_msgs/msg/PointCloud2", "nav_msgs/msg/Odometry"

LATEST = 2**31 * SECOND  # ns; a message's seconds have 31 bits

TYPES = get_typestore(Stores.ROS2_JAZZY)


@dataclass(frozen=True, eq=False)
class StampedScan:
    """`points` (N, 4) float32 x y z intensity in the sensor frame, `stamp` [ns], `T_odom_sensor` or None."""

    stamp: int
    points: F32
    T_odom_sensor: F64 | None = None


def sequence_scans(sequence: Sequence, rate: float, T_odom_sensor: F64 | None = None) -> Iterator[StampedScan]:
    """The scans of a sequence; `T_odom_sensor` (S, 4, 4) takes the place of its true poses."""
    poses = sequence.poses if T_odom_sensor is None else T_odom_sensor
    for i, stamp in enumerate(sequence.stamps_ns(rate)):
        yield StampedScan(stamp, sequence.scans[i], None if poses is None else poses[i])


def write_bag(path: str | os.PathLike[str], scans: Iterable[StampedScan], config: ImportConfig) -> int:
    """Write the scans as PointCloud2 and, where they have poses, Odometry at the same stamps; returns the scan count.

    Streams one scan at a time. An existing `path` is a ValueError, nothing is overwritten; if writing fails
    or is interrupted, no file is left. ValueError for a stamp that no message can carry, OSError as writing raises it.
    """
    plugin = StoragePlugin.MCAP if config.storage == "mcap" else StoragePlugin.SQLITE3
    count = 0
    try:
        with withdrawing(path), Writer(Path(path), version=9, storage_plugin=plugin) as writer:
            clouds = writer.add_connection(config.points_topic, CLOUD, typestore=TYPES)
            odometry = None
            for count, scan in enumerate(scans, 1):
                if not 0 <= scan.stamp < LATEST:
                    raise ValueError(f"scan {count - 1}: no message can carry the stamp {scan.stamp} ns (0 .. 2**31 s)")
                if scan.T_odom_sensor is not None:
                    odometry = odometry or writer.add_connection(config.odom_topic, ODOMETRY, typestore=TYPES)
                    message = odometry_message(scan.stamp, scan.T_odom_sensor, config.odom_frame, config.frame)
                    writer.write(odometry, scan.stamp, TYPES.serialize_cdr(message, ODOMETRY))
                cloud = cloud_message(scan.stamp, scan.points, config.frame)
                writer.write(clouds, scan.stamp, TYPES.serialize_cdr(cloud, CLOUD))
    except WriterError as error:
        raise ValueError(str(error)) from error
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error
    return count


def _header(stamp: int, frame: str) -> Any:
    time = TYPES.types["builtin_interfaces/msg/Time"](sec=stamp // SECOND, nanosec=stamp % SECOND)
    return TYPES.types["std_msgs/msg/Header"](stamp=time, frame_id=frame)


def cloud_message(stamp: int, points: F32, frame: str) -> Any:
    """A PointCloud2 of `points` (N, 4): one row, fields x y z intensity, FLOAT32, no padding."""
    field = TYPES.types["sensor_msgs/msg/PointField"]
    data = np.ascontiguousarray(points, "<f4")
    return TYPES.types[CLOUD](
        header=_header(stamp, frame),
        height=1,
        width=len(data),
        fields=[field(name=name, offset=4 * i, datatype=FLOAT32, count=1) for i, name in enumerate(FIELDS)],
        is_bigendian=False,
        point_step=16,
        row_step=16 * len(data),
        data=data.reshape(-1).view(np.uint8),
        is_dense=bool(np.isfinite(data).all()),
    )


def odometry_message(stamp: int, T_odom_base: F64, frame: str, child_frame: str) -> Any:
    """An Odometry with this pose; covariances and twist are zero, which ROS reads as unknown."""
    make = TYPES.types
    x, y, z = T_odom_base[:3, 3]
    qx, qy, qz, qw = to_quaternion(T_odom_base)
    vector, zeros = make["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0), np.zeros(36)
    pose = make["geometry_msgs/msg/Pose"](
        make["geometry_msgs/msg/Point"](x, y, z), make["geometry_msgs/msg/Quaternion"](qx, qy, qz, qw)
    )
    return make[ODOMETRY](
        header=_header(stamp, frame),
        child_frame_id=child_frame,
        pose=make["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=zeros),
        twist=make["geometry_msgs/msg/TwistWithCovariance"](
            twist=make["geometry_msgs/msg/Twist"](linear=vector, angular=vector), covariance=zeros
        ),
    )


@contextmanager
def open_bag(path: str | os.PathLike[str]) -> Iterator[Bag]:
    """The bag, closed at the end; BagError (a ValueError) says what is wrong with `path`, and the remedy."""
    with closing(Bag(path)) as bag:
        yield bag


def deserialise(data: bytes, kind: str) -> Any:
    """Deserialise a message of type `kind`; ValueError if the bytes are not one."""
    try:
        return TYPES.deserialize_cdr(data, kind)
    except SerdeError as error:
        raise ValueError(f"not a readable {kind} ({error})") from error


def read_messages(
    path: str | os.PathLike[str],
    topics: Mapping[str, str] | None = None,
    failed: Callable[[str, str], object] | None = None,
) -> Iterator[tuple[str, Any]]:
    """Yield (topic, message) in bag order, for all topics or only those in `topics`, which maps topics to types.

    Unreadable messages are skipped and reported to `failed`: the topic (empty if the file is damaged) and why.
    Without `failed` it is a ValueError.
    """
    damaged = None if failed is None else partial(failed, "")
    with open_bag(path) as bag:
        chosen = [c for c in bag.connections if topics is None or topics.get(c.topic) == c.msgtype]
        for connection, _, data in bag.messages(chosen, damaged):
            try:
                message = deserialise(data, connection.msgtype)
            except ValueError as error:
                if failed is None:
                    raise
                failed(connection.topic, str(error))
                continue
            yield connection.topic, message
