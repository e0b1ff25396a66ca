# SPDX-License-Identifier: Apache-2.0
"""Convert a cloud message to points in the body frame at its stamp; used by the node and by offline runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vlad_ros.cloud.crop import crop_rows, missing_returns, outside
from vlad_ros.cloud.decode import TIMES, CloudError, Rows, decode_rows
from vlad_ros.cloud.deskew import Motion, deskew
from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.drive.frames import FrameError, Frames
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.poses import transform
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64


class BodyPoints:
    """Decodes, crops, transforms and deskews the clouds of one drive; `state` is a readable deskewing status.

    `count(reason)` is called for each fault, `warn(sentence)` once per kind of fault, with a sentence.
    """

    def __init__(
        self,
        config: NodeConfig,
        recognizer: RecognizerConfig,
        frames: Frames,
        warn: Callable[[str], None],
        count: Callable[[str], object],
    ) -> None:
        self._config, self._recognizer = config, recognizer
        self._frames, self._warn, self._count = frames, warn, count
        self._said: set[str] = set()
        self.state = "" if config.deskew else "off"
        self.deskewed = False  # whether the last scan was

    @stage("crop")
    def points(self, scan: PendingScan) -> F32:
        """The cloud (N, 4) in the body frame, deskewed to its stamp if times and odometry are available; cropped by
        range from the sensor, without points on the vehicle. CloudError or FrameError when it cannot be used."""
        self._frames.check(scan.frame)
        points, rows = decode_rows(scan.message)
        self._frames.settle(scan.frame)
        self._look_for_missing_returns(points)
        # Crop before any transform, while the sensor, and so every zero return, is at the origin.
        points, rows = crop_rows(points, rows, self._recognizer.min_range, self._recognizer.max_range)
        points = transform(points, self._frames.T_base_sensor) if self._frames.moves else points
        if self._recognizer.body_box:
            kept = outside(points, self._recognizer.body_box)
            points, rows = points[kept], rows[kept]
        self.deskewed = False
        return self._undistort(scan, points, rows)

    def pose(self, scan: PendingScan) -> F64 | None:
        """T_odom_base (4, 4) at the stamp, None without odometry; call after `points`. FrameError for odometry of any
        other frame."""
        return None if scan.T_odom_child is None else self._frames.to_body(scan.T_odom_child, scan.child)

    def _undistort(self, scan: PendingScan, points: F32, rows: Rows) -> F32:
        """`points` (N, 4) in the body frame, from the message's `rows` (N,), deskewed; unchanged if times or odometry
        are missing."""
        if not self._config.deskew:
            return points
        if self._config.odom_source == "none":
            return self._leave(points, "there is no odometry (odom_source none)")
        if scan.times_fault:
            self._count("bad_times")
            return self._leave(points, scan.times_fault)
        if scan.offsets is None:
            return self._leave(points, f"they tell no times of their points (a field {', '.join(TIMES)})")
        if scan.motion is None:
            self._count("not_deskewed")
            return self._leave(points, "odometry does not cover the whole sweep")
        try:
            poses = self._frames.to_body(scan.motion.poses, scan.child)
        except FrameError:  # reported when the scan's own pose is requested
            return points
        moved = deskew(points, scan.offsets[rows], scan.stamp, Motion(scan.motion.stamps, poses))
        self.deskewed = True
        first, last = (1e-6 * (at - scan.stamp) for at in scan.reach)
        self.state = f"on, points {first:.0f} .. {last:.0f} ms from the stamp"
        return np.asarray(moved, np.float32)

    def _look_for_missing_returns(self, points: F32) -> None:
        """Warn once, count every time."""
        sentence = missing_returns(points)
        if sentence:
            self._count("missing_returns")
            if "missing_returns" not in self._said:
                self._said.add("missing_returns")
                self._warn(sentence)

    def _leave(self, points: F32, why: str) -> F32:
        self.state = f"off, {why}"
        if why not in self._said:
            self._said.add(why)
            self._warn(f"clouds are not deskewed: {why}; set deskew: false if that is meant")
        return points


def reason_of(error: ValueError) -> str:
    """The name under which a scan that cannot be used is counted, by the node and by offline runs."""
    if isinstance(error, CloudError):
        return f"cloud_{error.reason}"
    return error.reason if isinstance(error, FrameError) else "unusable"
