#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How many large clouds reach the node: with and without the Fast DDS profile, on either side, both reliabilities.

    python bench/large_clouds.py [--weights FILE] [--seconds 10]

Publishes clouds of 130,000 points in Velodyne's layout (2.86 MB) at 20 Hz from a process of its own, and prints a
Markdown table.
"""

from __future__ import annotations

import argparse
import array
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
POINTS, RATE = 130_000, 20.0
STEP = 22  # bytes a point: x y z intensity, ring (uint16), time (float32)


def publish(seconds: float, reliable: bool) -> None:
    """The LiDAR driver's part, in its own process."""
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import PointCloud2, PointField

    rclpy.init()
    node = rclpy.create_node("driver")
    reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    publisher = node.create_publisher(PointCloud2, "points", QoSProfile(depth=5, reliability=reliability))
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate("xyzi")]
    points = np.zeros((POINTS, STEP), np.uint8)
    points[:, :16] = np.random.default_rng(0).normal(0, 15, (POINTS, 4)).astype("<f4").view(np.uint8)
    cloud = PointCloud2(height=1, width=POINTS, fields=fields, point_step=STEP, row_step=STEP * POINTS)
    cloud.header.frame_id = "lidar"
    cloud.data = array.array("B", points.tobytes())
    while publisher.get_subscription_count() == 0:
        time.sleep(0.05)
    time.sleep(0.5)
    start = time.monotonic()
    for i in range(round(seconds * RATE)):
        time.sleep(max(0.0, start + i / RATE - time.monotonic()))
        stamp = 1_000_000_000_000 + round(i * 1e9 / RATE)
        cloud.header.stamp.sec, cloud.header.stamp.nanosec = divmod(stamp, 1_000_000_000)
        publisher.publish(cloud)
    time.sleep(1.0)
    node.destroy_node()
    rclpy.try_shutdown()


def measure(seconds: float, weights: str, driver_profile: bool, node_profile: bool, reliable: bool) -> float:
    """The share of the clouds that the node has received."""
    from vlad_ros.ros.environment import RUNTIME, dds_profile
    from vlad_ros.ros.tools.node_client import NodeClient
    from vlad_ros.ros.tools.node_process import NodeProcess, node_command

    profile = dds_profile()
    parameters = {"device": "cpu", "weights": weights, "odom_source": "none", "points_reliable": reliable}
    argv = node_command(parameters | {"keyframe_period": 60.0})
    log = Path(tempfile.mkdtemp()) / "node.log"
    with NodeClient() as watch, NodeProcess(argv, RUNTIME | profile if node_profile else {}, log) as node:
        watch.wait_active(node, 180.0)
        driver = [sys.executable, __file__, "--publish", str(seconds), *(["--reliable"] if reliable else [])]
        subprocess.run(driver, env=os.environ | (profile if driver_profile else {}), check=True)
        time.sleep(2.0)
        return int(watch.diagnostics["clouds received"]) / round(seconds * RATE)


def main() -> int:
    """Print the table, or be the driver."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="", help="weights file; empty: the ones that ship")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row of the table")
    parser.add_argument("--publish", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--reliable", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.publish is not None:
        publish(args.publish, args.reliable)
        return 0
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    print("| profile in the driver's shell | in the node's | reliability | delivered |\n|---|---|---|---|")
    for driver_profile, node_profile in ((False, False), (False, True), (True, True)):
        for reliable in (False, True):
            share = measure(args.seconds, args.weights, driver_profile, node_profile, reliable)
            words = ["yes" if profile else "no" for profile in (driver_profile, node_profile)]
            print(
                f"| {words[0]} | {words[1]} | {'reliable' if reliable else 'best effort'} | {share:.0%} |", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
