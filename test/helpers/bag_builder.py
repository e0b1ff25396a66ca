# SPDX-License-Identifier: Apache-2.0
"""Small bags as recorders, drivers and accidents leave them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from vlad_ros.config import EvaluationConfig, RunConfig
from vlad_ros.files.bags import TYPES, cloud_message, odometry_message
from vlad_ros.poses import from_xyz_rpy, to_quaternion
from vlad_ros.runs.sources import PlayedScan, open_source
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64

START = 1_700_000_000 * SECOND
STEP = SECOND // 10
COUNT = 12
MESSAGE, STORAGE, FILE = CompressionMode.MESSAGE, CompressionMode.STORAGE, CompressionMode.FILE

Message = tuple[str, int, Any]


def pose(k: int) -> F64:
    """T_odom_body at the k-th scan: a bend."""
    return from_xyz_rpy((0.5 * k, 0.02 * k * k, 0.0, 0.0, 0.0, 0.08 * k))


def cloud(k: int, points: int = 40) -> np.ndarray:
    """(points, 4), another for each k; none so near that it is cropped."""
    return np.random.default_rng(k).uniform([3, -20, -2, 0], [20, 20, 3, 1], (points, 4)).astype(np.float32)


def messages(count: int = COUNT, child: str = "lidar", frame: str = "lidar", points: int = 40) -> Iterator[Message]:
    """(topic, time of recording, message): an odometry and a cloud of the same stamp every 0.1 s."""
    for k in range(count):
        stamp = START + k * STEP
        yield "/odom", stamp, odometry_message(stamp, pose(k), "odom", child)
        yield "/points", stamp, cloud_message(stamp, cloud(k, points), frame)


def changed(change: Callable[[str, int, Any], Any], **how: Any) -> Iterator[Message]:
    """`messages`, each changed in place by `change` (topic, its number on the topic, message)."""
    seen: Counter[str] = Counter()
    for topic, time, message in messages(**how):
        change(topic, seen[topic], message)
        seen[topic] += 1
        yield topic, time, message


def odometry(at: int, change: Callable[[Any], object]) -> Callable[[str, int, Any], None]:
    """Of the message on /odom with this number."""
    return lambda topic, number, message: change(message) and None if (topic, number) == ("/odom", at) else None


def points(at: int, change: Callable[[Any], object]) -> Callable[[str, int, Any], None]:
    """Of the message on /points with this number."""
    return lambda topic, number, message: change(message) and None if (topic, number) == ("/points", at) else None


def rotation(**values: float) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for name, value in values.items():
            setattr(message.pose.pose.orientation, name, value)

    return change


def stamped(sec: int, nanosec: int = 0) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec

    return change


class Raw:
    """Bytes under the name of a type."""

    def __init__(self, data: bytes, kind: str) -> None:
        self.data, self.__msgtype__ = data, kind


def static(*joints: tuple[str, str, tuple[float, ...]], time: int = START) -> Message:
    """A message on /tf_static: (parent, child, x y z roll pitch yaw) each."""
    make, stamped = TYPES.types, []
    for parent, child, xyz_rpy in joints:
        T = from_xyz_rpy(xyz_rpy)
        moment = make["builtin_interfaces/msg/Time"](sec=0, nanosec=0)
        stamped.append(
            make["geometry_msgs/msg/TransformStamped"](
                header=make["std_msgs/msg/Header"](stamp=moment, frame_id=parent),
                child_frame_id=child,
                transform=make["geometry_msgs/msg/Transform"](
                    translation=make["geometry_msgs/msg/Vector3"](*T[:3, 3]),
                    rotation=make["geometry_msgs/msg/Quaternion"](*to_quaternion(T)),
                ),
            )
        )
    return "/tf_static", time, make["tf2_msgs/msg/TFMessage"](transforms=stamped)


def write(
    path: Path,
    content: Iterable[Message],
    storage: str = "mcap",
    compress: CompressionMode | None = None,
    recorded: Callable[[int], int] | None = None,
) -> Path:
    """The file of a bag's messages in the folder `path`; `recorded` changes the times of recording."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer, connections = Writer(path, version=9, storage_plugin=plugin), {}
    if compress is not None:
        writer.set_compression(compress, CompressionFormat.ZSTD)
    with writer:
        for topic, time, message in content:
            kind = message.__msgtype__
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=TYPES)
            data = message.data if isinstance(message, Raw) else TYPES.serialize_cdr(message, kind)
            writer.write(connections[topic, kind], time if recorded is None else recorded(time), data)
    (file,) = (file for file in path.iterdir() if file.name != "metadata.yaml")
    return file


class Heard:
    """What `vlad run` makes of a bag: its scans, how often it could not use what, and what it said."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.said: list[str] = []
        source = open_source(path, RunConfig(**{"deskew": False} | options), EvaluationConfig(), self.said.append)
        self.count = source.count
        self.scans: list[PlayedScan] = list(source.scans)
        self.counters, self.why = dict(source.counters), source.why

    @property
    def posed(self) -> int:
        """Scans with a pose."""
        return sum(scan.T_odom_base is not None for scan in self.scans)


def spoil(data: bytes, seed: int) -> bytes:
    """`data` with some bytes replaced at random."""
    rng = np.random.default_rng(seed)
    spoiled = bytearray(data)
    for at in rng.integers(0, len(data), int(rng.choice([1, 1, 3, 20]))):
        spoiled[at] = int(rng.integers(0, 256))
    return bytes(spoiled)


NAN = math.nan
