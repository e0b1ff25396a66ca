# SPDX-License-Identifier: Apache-2.0
"""What a back-end's Path costs by its length: milliseconds to read it, to correct the map, to know its nodes.

    python bench/backends.py [--poses 1000 10000 100000] [--csv backends.csv]

A Path of one pose a second, and a map with a keyframe between each two of them. "read": the message's bytes, in the
executor's thread; the rest is the worker's. "first": the whole Path, nothing of it known. "all moved": every pose is
another. "grown": one pose more, the others as they were. "stretch": only 100 poses in the middle, which have moved.
"nodes": the same for the edges between the back-end's nodes. Milliseconds are the thread's processor time, medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
from rclpy.serialization import serialize_message
from table import print_table, write_csv

from vlad_ros.config import BevConfig
from vlad_ros.graph.node_edges import NodeEdges
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import decode, from_xyz_rpy, to_quaternion
from vlad_ros.ros.inputs.path_message import read_path
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Ints, Keyframe

BEGIN = 1000  # s
STRETCH = 100  # poses


def drive(poses: int) -> tuple[F64, F64]:
    """T_odom_base (N, 4, 4), and as positions and quaternions (N, 7)."""
    T = np.stack([from_xyz_rpy((i, 0.01 * i, 0.0, 0.0, 0.0, 1e-4 * i)) for i in range(poses)])
    return T, np.array([(*pose[:3, 3], *to_quaternion(pose)) for pose in T])


def message(numbers: F64) -> bytes:
    """The Path as it comes over the wire."""
    path = PathMessage()
    for i, (x, y, z, qx, qy, qz, qw) in enumerate(numbers.tolist()):
        pose = PoseStamped()
        pose.header.stamp.sec, pose.header.frame_id = BEGIN + i, "map"
        p, q = pose.pose.position, pose.pose.orientation
        p.x, p.y, p.z, q.x, q.y, q.z, q.w = x, y, z, qx, qy, qz, qw
        path.poses.append(pose)
    return bytes(serialize_message(path))


def keyframes(T_odom_base: F64) -> KeyframeDatabase:
    """A map with a keyframe half a second after each pose."""
    database, row = KeyframeDatabase(2, model_hash="0" * 64, bev=BevConfig()), np.array([1, 0], np.float32)
    for i, T in enumerate(T_odom_base):
        database.add(Keyframe(0, (BEGIN + i) * SECOND + SECOND // 2, row, row, False, False, T, float(i)))
    return database


def milliseconds(work: Callable[[int], object], count: int = 5) -> float:
    """The median of `count` calls."""
    times = []
    for i in range(count):
        begin = time.thread_time()
        work(i)
        times.append(1e3 * (time.thread_time() - begin))
    return float(np.median(times))


def measure(poses: int) -> dict[str, float]:
    """One row of the table."""
    T, numbers = drive(poses + 10)
    data = message(numbers[:poses])
    stamps, read = read_path(data)
    grown_stamps = np.arange(BEGIN, BEGIN + poses + 10) * SECOND
    database = keyframes(T[:poses])

    def correct(stamps: Ints, numbers: F64) -> int:
        return database.correct(0, stamps, decode(numbers[:, :3], numbers[:, 3:]))

    def moved(i: int, begin: int, end: int) -> int:
        return correct(grown_stamps[begin:end], numbers[begin:end] + 1e-3 * (i + 1) * np.eye(7)[0])

    row: dict[str, float] = {"poses": poses, "read": milliseconds(lambda _: read_path(data))}
    row["first"] = milliseconds(lambda _: correct(stamps, read), 1)
    row["all moved"] = milliseconds(lambda i: moved(i, 0, poses))
    row["stretch"] = milliseconds(lambda i: moved(i, poses // 2, poses // 2 + STRETCH))
    correct(stamps, read)
    row["grown"] = milliseconds(lambda i: correct(grown_stamps[: poses + i + 1], numbers[: poses + i + 1]))
    edges = NodeEdges(lambda reason: None)
    edges.move((BEGIN + poses + 10) * SECOND, np.eye(4))
    row["nodes first"] = milliseconds(lambda _: edges.announce(*stamps.tolist()), 1)
    row["nodes grown"] = milliseconds(lambda i: edges.announce(*grown_stamps[: poses + i + 1].tolist()))
    return row


def main() -> None:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--poses", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--csv", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    rows = [measure(poses) for poses in arguments.poses]
    print_table(rows, width=11)
    if arguments.csv:
        write_csv(arguments.csv, rows)


if __name__ == "__main__":
    main()
