# SPDX-License-Identifier: Apache-2.0
"""The body frame, and the transforms of the sensor and the odometry to it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vlad_ros.config import NodeConfig
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.types import F64

Find = Callable[[str, str], "F64 | None"]  # T_target_source of two frames, None if not (yet) known


class FrameError(ValueError):
    """An unexpected or unknown frame; `reason` is one of `ros.reasons.REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Frames:
    """The frames of one run, without leading slashes. The first readable cloud sets the sensor's frame; `find` looks up
    TF, where available."""

    def __init__(self, config: NodeConfig, find: Find | None, warn: Callable[[str], None]) -> None:
        if config.mounting_xyz_rpy and not config.base_frame:
            raise ValueError("mounting_xyz_rpy says where the sensor is in base_frame, but base_frame is empty")
        self._config = config
        self._base = config.base_frame.lstrip("/")
        self._find = find
        self._warn = warn
        self.sensor: str | None = None
        self.T_base_sensor: F64 = np.eye(4)

    @property
    def body(self) -> str:
        """The frame of everything that is published."""
        return self._base or self.sensor or ""

    @property
    def moves(self) -> bool:
        """Whether points have to be moved into the body frame."""
        return not np.array_equal(self.T_base_sensor, np.eye(4))

    def check(self, frame: str) -> None:
        """FrameError when a cloud's frame differs from that of earlier clouds."""
        if self.sensor is not None and frame != self.sensor:
            raise FrameError("frame_changed", f"frame_id is {frame!r}, before it was {self.sensor!r}")

    def settle(self, frame: str) -> None:
        """For the first readable cloud, in `frame`: find T_base_sensor. FrameError when TF does not have it yet."""
        if self.sensor is not None:
            return
        base, mounting = self._base, self._config.mounting_xyz_rpy
        if mounting:
            self.T_base_sensor = from_xyz_rpy(mounting)
        elif base and base != frame:
            self._look_up(base, frame)
        self.sensor = frame

    def _look_up(self, base: str, frame: str) -> None:
        if self._find is None:
            self._warn(f"neither TF nor mounting_xyz_rpy says where {frame} is in {base}: the identity is used")
            return
        found = self._find(base, frame)
        if found is None:
            raise FrameError("no_transform", f"TF knows no transform from {frame!r} to {base!r}")
        self.T_base_sensor = found

    def to_body(self, T: F64, child: str) -> F64:
        """T_odom_base (..., 4, 4) of T_odom_child. FrameError for odometry of any other frame."""
        if child == self.body:
            return T
        if child == self.sensor:
            return T @ inverse(self.T_base_sensor)
        raise FrameError("odometry_frame", f"child_frame_id {child!r}, body {self.body!r}, cloud {self.sensor!r}")
