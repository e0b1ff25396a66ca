# SPDX-License-Identifier: Apache-2.0
"""Which frame is the body, and where the sensor and the odometry are in it. TF only where tf2_ros is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from vlad_ros.cloud.deskew import Motion
from vlad_ros.config import NodeConfig
from vlad_ros.drive.pairing import Scan
from vlad_ros.poses import from_quaternion, from_xyz_rpy, inverse
from vlad_ros.types import F64

TF_STEP = 10_000_000  # ns between the poses that a sweep is undistorted by


def _find_tf() -> Any:
    try:
        import tf2_ros
    except ImportError:
        return None
    return tf2_ros


tf2_ros = _find_tf()


class FrameError(ValueError):
    """A frame that does not fit; `reason` is one of `diagnostics.REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Transforms:
    """TF. ValueError where tf2_ros is not installed."""

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
        """Whether there is a tf2_ros."""
        return tf2_ros is not None

    def find(self, target: str, source: str, stamp: int | None = None) -> F64 | None:
        """T_target_source at `stamp` [ns] (None: the newest); None when TF cannot say."""
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

    def find(self, scan: Scan) -> bool:
        """Found or not; TF interpolates and never extrapolates."""
        scan.child = self._config.base_frame or scan.message.header.frame_id
        scan.T_odom_child = self._find(scan, scan.stamp)
        return scan.T_odom_child is not None and (scan.offsets is None or self._find(scan, scan.reach[1]) is not None)

    def follow(self, scan: Scan) -> None:
        """Looked up every `TF_STEP` across the sweep."""
        first, last = scan.reach
        stamps = first + np.linspace(0, last - first, 2 + (last - first) // TF_STEP).astype(np.int64)
        poses = [T for stamp in stamps if (T := self._find(scan, int(stamp))) is not None]
        if len(poses) == len(stamps):
            scan.motion = Motion(stamps, np.stack(poses))

    def _find(self, scan: Scan, stamp: int) -> F64 | None:
        return self._transforms.find(self._config.odom_frame, scan.child, stamp)

    def clear(self) -> None:
        """The buffer notices jumps of the clock itself."""


class Frames:
    """The frames of one run. The first readable cloud says which frame the sensor's is."""

    def __init__(self, config: NodeConfig, transforms: Transforms | None, warn: Callable[[str], None]) -> None:
        if config.mounting_xyz_rpy and not config.base_frame:
            raise ValueError("mounting_xyz_rpy says where the sensor is in base_frame, but base_frame is empty")
        self._config = config
        self._transforms = transforms
        self._warn = warn
        self.sensor: str | None = None
        self.T_base_sensor: F64 = np.eye(4)

    @property
    def body(self) -> str:
        """The frame of everything that is published."""
        return self._config.base_frame or self.sensor or ""

    @property
    def moves(self) -> bool:
        """Whether points have to be moved into the body frame."""
        return not np.array_equal(self.T_base_sensor, np.eye(4))

    def check(self, frame: str) -> None:
        """FrameError when a cloud comes from another frame than those before."""
        if self.sensor is not None and frame != self.sensor:
            raise FrameError("frame_changed", f"frame_id is {frame!r}, before it was {self.sensor!r}")

    def settle(self, frame: str) -> None:
        """A readable cloud came from `frame`; the first time, find T_base_sensor. FrameError when TF cannot say yet."""
        if self.sensor is not None:
            return
        base, mounting = self._config.base_frame, self._config.mounting_xyz_rpy
        if mounting:
            self.T_base_sensor = from_xyz_rpy(mounting)
        elif base and base != frame:
            self._look_up(base, frame)
        self.sensor = frame

    def _look_up(self, base: str, frame: str) -> None:
        if self._transforms is None:
            self._warn(f"neither TF nor mounting_xyz_rpy says where {frame} is in {base}: the identity is used")
            return
        found = self._transforms.find(base, frame)
        if found is None:
            raise FrameError("no_transform", f"TF knows no transform from {frame!r} to {base!r}")
        self.T_base_sensor = found

    def body_pose(self, scan: Scan) -> F64 | None:
        """T_odom_base of a scan, None without odometry. FrameError for odometry of a third frame."""
        return None if scan.T_odom_child is None else self.to_body(scan.T_odom_child, scan.child)

    def to_body(self, T: F64, child: str) -> F64:
        """T_odom_base (..., 4, 4) of T_odom_child. FrameError for odometry of a third frame."""
        if child == self.body:
            return T
        if child == self.sensor:
            return T @ inverse(self.T_base_sensor)
        raise FrameError("odometry_frame", f"child_frame_id {child!r}, body {self.body!r}, cloud {self.sensor!r}")
