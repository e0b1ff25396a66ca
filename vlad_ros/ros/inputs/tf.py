# SPDX-License-Identifier: Apache-2.0
"""TF, if tf2_ros is installed: the sensor's pose in the body frame, and the odometry for odom_source tf."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from vlad_ros.cloud.deskew import Motion
from vlad_ros.config import NodeConfig
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.poses import from_quaternion
from vlad_ros.types import F64

TF_STEP = 10_000_000  # ns between the poses that a sweep is undistorted by


def _find_tf() -> Any:
    try:
        import tf2_ros
    except ImportError:
        return None
    return tf2_ros


tf2_ros = _find_tf()


class Transforms:
    """TF lookups. ValueError if tf2_ros is not installed."""

    def __init__(self, node: Node) -> None:
        if tf2_ros is None:
            raise ValueError(
                "odom_source tf needs tf2_ros, which is not installed: install ros-$ROS_DISTRO-tf2-ros-py, or set "
                "odom_source to topic or none"
            )
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    @staticmethod
    def installed() -> bool:
        """Whether tf2_ros is installed."""
        return tf2_ros is not None

    def find(self, target: str, source: str, stamp: int | None = None) -> F64 | None:
        """T_target_source at `stamp` [ns] (None: the newest); None when TF does not have it."""
        time = Time() if stamp is None else Time(nanoseconds=stamp)
        try:
            found = self._buffer.lookup_transform(target, source, time).transform
        except tf2_ros.TransformException:
            return None
        t, q = found.translation, found.rotation
        return from_quaternion(np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w]))

    def close(self) -> None:
        """Stop listening."""
        self._listener.unregister()


class TfOdometry:
    """odom_source tf: T_odom_body looked up at the scan's stamp."""

    def __init__(self, transforms: Transforms, config: NodeConfig) -> None:
        self._transforms = transforms
        self._config = config

    def find(self, scan: PendingScan) -> bool:
        """Whether TF has the pose at the stamp; it interpolates and never extrapolates."""
        scan.child = self._config.base_frame.lstrip("/") or scan.frame
        scan.T_odom_child = self._find(scan, scan.stamp)
        return scan.T_odom_child is not None and (scan.offsets is None or self._find(scan, scan.reach[1]) is not None)

    def follow(self, scan: PendingScan) -> None:
        """Looked up every `TF_STEP` across the sweep."""
        first, last = scan.reach
        stamps = first + np.linspace(0, last - first, 2 + (last - first) // TF_STEP).astype(np.int64)
        poses = [T for stamp in stamps if (T := self._find(scan, int(stamp))) is not None]
        if len(poses) == len(stamps):
            scan.motion = Motion(stamps, np.stack(poses))

    def _find(self, scan: PendingScan, stamp: int) -> F64 | None:
        return self._transforms.find(self._config.odom_frame, scan.child, stamp)

    def clear(self) -> None:
        """Nothing to do: the buffer detects clock jumps itself."""
