# SPDX-License-Identifier: Apache-2.0
"""What `~/markers` costs by the number of keyframes: milliseconds in each second of a drive, one drawing a second.

    python bench/markers.py [--keyframes 1000 10000 100000] [--csv markers.csv]

Four keyframes a second, every other one with an edge to an earlier one. "nobody": no subscriber. "caught up": a
subscriber in another process that has seen the whole board. "catching up": the same, from when it has come until it
has; and how many seconds that takes. Milliseconds are the processor time of the thread that draws (the worker's), the
median and the greatest.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)

import numpy as np
import rclpy
from rclpy.node import Node
from table import print_table, write_csv

from vlad_ros.ros.outputs.markers import MarkerTopic
from vlad_ros.types import LoopClosure

A_SECOND = 4  # keyframes
LISTENER = """
import rclpy
from visualization_msgs.msg import MarkerArray
from vlad_ros.ros.qos import LATCHED
rclpy.init()
node = rclpy.create_node("listener")
node.create_subscription(MarkerArray, "/vlad/markers", lambda message: None, LATCHED, raw=True)
rclpy.spin(node)
"""


class Drive:
    """A node whose markers are drawn, second after second."""

    def __init__(self, node: Node) -> None:
        self.topic, self.keyframes = MarkerTopic(node), 0

    def go_on(self, keyframes: int) -> None:
        """So many keyframes more."""
        T_odom_base = np.eye(4)
        for i in range(self.keyframes, self.keyframes + keyframes):
            T_odom_base[:2, 3] = 30 * np.cos(i / 30), 30 * np.sin(i / 30)
            edge = LoopClosure(i, i - 200, 0, 0, i + 1, i - 199, 0.9, probability=0.95, accepted=i % 4 == 0)
            self.topic.board.add(0, i, T_odom_base, [edge] if i >= 200 and i % 2 == 0 else [])
        self.keyframes += keyframes

    def second(self) -> float:
        """One second of the drive; the milliseconds that its drawing takes."""
        begin = time.thread_time()
        self.go_on(A_SECOND)
        self.topic.draw("odom", now=True)
        took = time.thread_time() - begin
        time.sleep(0.01)
        return 1e3 * took


def measure(node: Node, count: int, seconds: int) -> dict[str, float]:
    """One row of the table."""
    drive = Drive(node)
    drive.go_on(count)
    nobody = [drive.second() for _ in range(seconds)]
    listener = subprocess.Popen([sys.executable, "-c", LISTENER], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: node.count_subscribers("/vlad/markers"), node)
        time.sleep(1.0)
        catching_up = [drive.second()]
        while drive.topic.board.is_behind:
            catching_up.append(drive.second())
        caught_up = [drive.second() for _ in range(seconds)]
    finally:
        listener.terminate()
        listener.wait()
    drive.topic.close()
    wait_for(lambda: not node.count_subscribers("/vlad/markers"), node)
    row: dict[str, float] = {"keyframes": count, "catching_up_s": len(catching_up)}
    for name, found in (("nobody", nobody), ("catching_up", catching_up), ("caught_up", caught_up)):
        row |= {f"{name}_p50_ms": float(np.median(found)), f"{name}_max_ms": max(found)}
    return row


def wait_for(condition: Callable[[], object], node: Node) -> None:
    """Until DDS has noticed."""
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("DDS discovery does not come to an end")
        rclpy.spin_once(node, timeout_sec=0.1)


def main() -> None:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--seconds", type=int, default=60, help="of each kind (default %(default)s)")
    parser.add_argument("--csv", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    rclpy.init()
    node = rclpy.create_node("vlad")
    rows = [measure(node, count, arguments.seconds) for count in arguments.keyframes]
    print_table(rows, width=18)
    if arguments.csv:
        write_csv(arguments.csv, rows)
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()
