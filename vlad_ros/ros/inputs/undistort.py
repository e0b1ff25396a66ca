# SPDX-License-Identifier: Apache-2.0
"""Scans are moved to their stamps by the odometry across them; where that cannot be, it is said once."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from vlad_ros.cloud.decode import TIMES, Rows
from vlad_ros.cloud.deskew import Motion, deskew
from vlad_ros.config import NodeConfig
from vlad_ros.drive.pairing import Scan
from vlad_ros.ros.inputs.frames import FrameError, Frames
from vlad_ros.ros.outputs.diagnostics import Statistics
from vlad_ros.types import F32


class Undistorter:
    """Of one activation; `state` says for diagnostics what it does. Called by the worker alone."""

    def __init__(self, config: NodeConfig, frames: Frames, warn: Callable[[str], None], statistics: Statistics) -> None:
        self._config = config
        self._frames = frames
        self._warn = warn
        self._statistics = statistics
        self._said: set[str] = set()
        self.state = "" if config.deskew else "off"

    def undistort(self, scan: Scan, points: F32, rows: Rows) -> F32:
        """`points` (N, 4) in the body frame, of the message's `rows` (N,), at the scan's stamp; unchanged where times
        or odometry are missing."""
        if not self._config.deskew:
            return points
        if self._config.odom_source == "none":
            return self._leave(points, "there is no odometry (odom_source none)")
        if scan.offsets is None:
            return self._leave(points, f"they tell no times of their points (a field {', '.join(TIMES)})")
        if scan.motion is None:
            self._statistics.count("not_deskewed")
            return self._leave(points, "odometry does not cover the whole sweep")
        begun = time.monotonic()
        try:
            poses = self._frames.to_body(scan.motion.poses, scan.child)
        except FrameError:  # told where the scan's own pose is asked for
            return points
        moved = deskew(points, scan.offsets[rows], scan.stamp, Motion(scan.motion.stamps, poses))
        self._statistics.took("deskew", time.monotonic() - begun)
        first, last = (1e-6 * (at - scan.stamp) for at in scan.reach)
        self.state = f"on, points {first:.0f} .. {last:.0f} ms from the stamp"
        return np.asarray(moved, np.float32)

    def _leave(self, points: F32, why: str) -> F32:
        self.state = f"off, {why}"
        if why not in self._said:
            self._said.add(why)
            self._warn(f"clouds are not deskewed: {why}; set deskew: false if that is meant")
        return points
