# SPDX-License-Identifier: Apache-2.0
"""rosbag2 files without ROS: sequences and KITTI odometry folders in, clouds and odometry out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from vlad_ros.config import ImportConfig
from vlad_ros.files.sequence import Sequence
from vlad_ros.poses import inverse, to_quaternion
from vlad_ros.stamps import SECOND, nanoseconds
from vlad_ros.types import F32, F64

FIELDS = ("x", "y", "z", "intensity")
FLOAT32 = 7  # sensor_msgs/PointField.FLOAT32
CLOUD, ODOMETRY = "sensor_msgs/msg/PointCloud2", "nav_msgs/msg/Odometry"

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


def kitti_scans(folder: str | os.PathLike[str], rate: float) -> Iterator[StampedScan]:
    """The scans of a KITTI odometry folder: velodyne/*.bin and, where present, times.txt, poses.txt and calib.txt.

    `poses.txt` (or the benchmark's ``../../poses/<sequence>.txt``) holds T_world_camera; with `Tr` = T_camera_velodyne
    of calib.txt the sensor's pose is ``inverse(Tr) T_world_camera Tr``, in a map that is the first scan's frame. Stamps
    start one second after zero, for a stamp of zero means "unknown" in ROS. ValueError names what does not fit.
    """
    folder = Path(folder)
    files = sorted((folder / "velodyne").glob("*.bin"))
    if not files:
        raise ValueError(f"{folder}: no velodyne/*.bin in it, not a KITTI odometry folder")
    poses, seconds = kitti_poses(folder), _numbers(folder / "times.txt")
    for name, values in (("poses", poses), ("times", seconds)):
        if values is not None and len(values) < len(files):
            raise ValueError(f"{folder}: {len(values)} {name} for {len(files)} scans")
    times = np.arange(len(files)) / rate if seconds is None else seconds[:, 0]
    for i, file in enumerate(files):
        numbers = np.fromfile(file, "<f4")
        if len(numbers) % 4:
            raise ValueError(f"{file}: {len(numbers)} numbers are no x y z reflectance quadruples")
        pose = None if poses is None else poses[i]
        yield StampedScan(SECOND + nanoseconds(times[i]), numbers.reshape(-1, 4), pose)


def kitti_poses(folder: Path) -> F64 | None:
    """T_map_velodyne (S, 4, 4) of a KITTI odometry folder, or None without poses; ValueError without `Tr`."""
    path = folder / "poses.txt"
    if not path.exists():
        path = folder.resolve().parent.parent / "poses" / f"{folder.resolve().name}.txt"
    rows = _numbers(path)
    if rows is None:
        return None
    calibration = folder / "calib.txt"
    lines = calibration.read_text().splitlines() if calibration.exists() else []
    Tr = next((line.split()[1:] for line in lines if line.startswith("Tr")), None)
    if Tr is None or len(Tr) != 12:
        raise ValueError(
            f"{calibration}: no line 'Tr:' with 12 numbers; the camera's poses cannot be moved to the LiDAR"
        )
    T_camera_velodyne = _matrices(np.array([Tr], float), calibration)[0]
    return inverse(T_camera_velodyne) @ _matrices(rows, path) @ T_camera_velodyne


def _numbers(path: Path) -> F64 | None:
    """(rows, columns) of a text file, None where there is none."""
    if not path.exists():
        return None
    try:
        return np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _matrices(rows: F64, path: Path) -> F64:
    """(S, 4, 4) of (S, 12) row-major 3x4 matrices."""
    if rows.shape[1] != 12:
        raise ValueError(f"{path}: {rows.shape[1]} numbers a line where a 3x4 matrix has 12")
    out = np.tile(np.eye(4), (len(rows), 1, 1))
    out[:, :3] = rows.reshape(-1, 3, 4)
    return out


def write_bag(path: str | os.PathLike[str], scans: Iterable[StampedScan], config: ImportConfig) -> int:
    """Write the scans as PointCloud2 and, where they have poses, Odometry at the same stamps; the number of scans.

    Streams: one scan is held at a time. An existing `path` is a ValueError, nothing is overwritten.
    """
    plugin = StoragePlugin.MCAP if config.storage == "mcap" else StoragePlugin.SQLITE3
    count = 0
    try:
        with Writer(Path(path), version=9, storage_plugin=plugin) as writer:
            clouds = writer.add_connection(config.points_topic, CLOUD, typestore=TYPES)
            odometry = None
            for count, scan in enumerate(scans, 1):  # noqa: B007
                if scan.T_odom_sensor is not None:
                    odometry = odometry or writer.add_connection(config.odom_topic, ODOMETRY, typestore=TYPES)
                    message = odometry_message(scan.stamp, scan.T_odom_sensor, config.odom_frame, config.frame)
                    writer.write(odometry, scan.stamp, TYPES.serialize_cdr(message, ODOMETRY))
                cloud = cloud_message(scan.stamp, scan.points, config.frame)
                writer.write(clouds, scan.stamp, TYPES.serialize_cdr(cloud, CLOUD))
    except WriterError as error:
        raise ValueError(str(error)) from error
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
def open_bag(path: str | os.PathLike[str]) -> Iterator[Reader]:
    """A reader of the bag, closed at the end; ValueError where `path` is no rosbag2."""
    try:
        reader = Reader(Path(path))
        reader.open()
    except (ReaderError, FileNotFoundError) as error:
        raise ValueError(f"{path}: not a readable rosbag2 ({error})") from error
    try:
        yield reader
    finally:
        reader.close()


def read_messages(path: str | os.PathLike[str], topics: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(topic, deserialised message) in the order of the bag; of all topics, or of those named."""
    with open_bag(path) as reader:
        chosen = [c for c in reader.connections if not topics or c.topic in topics]
        if not chosen:  # rosbags reads "no connections" as all of them
            return
        for connection, _, raw in reader.messages(connections=chosen):
            yield connection.topic, TYPES.deserialize_cdr(raw, connection.msgtype)
