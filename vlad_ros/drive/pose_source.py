# SPDX-License-Identifier: Apache-2.0
"""Where the pose of a scan comes from: a topic's messages by stamp, or nowhere. (TF: `ros/inputs/tf`.)"""

from __future__ import annotations

from typing import Protocol

from vlad_ros.drive.odometry import OdometryBuffer
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.types import F64

CHILDREN = 8  # frames of odometry on one topic; more are an error somewhere


class PoseSource(Protocol):
    """Where `T_odom_child` of a scan comes from."""

    def find(self, scan: PendingScan) -> bool:
        """Fill the scan's pose when it is known; whether waiting longer is of no use."""

    def follow(self, scan: PendingScan) -> None:
        """Fill the motion across the scan's sweep, when it is known: the waiting is over."""

    def clear(self) -> None:
        """Forget everything: the stamps have begun anew."""


class NoOdometry:
    """odom_source none."""

    def find(self, scan: PendingScan) -> bool:
        """Nothing to wait for."""
        return True

    def follow(self, scan: PendingScan) -> None:
        """No motion is known."""

    def clear(self) -> None:
        """Nothing to forget."""


class TopicOdometry:
    """odom_source topic: interpolated between the messages on both sides, those of each child frame by themselves.

    An empty child frame is the body, `base_frame` or (empty) the cloud's own frame; leading slashes do not count.
    """

    def __init__(self, base_frame: str = "") -> None:
        self._base_frame = base_frame.lstrip("/")
        self._buffers: dict[str, OdometryBuffer] = {}

    def add(self, stamp: int, T_odom_child: F64, child: str, twist: F64 | None) -> int:
        """Keep a message; how many were found to have a wrong stamp. ValueError unless the transform is rigid."""
        child = child.lstrip("/")
        if child not in self._buffers and len(self._buffers) >= CHILDREN:
            raise ValueError(f"the odometry topic has {CHILDREN + 1} child frames: {', '.join(self._buffers)}, {child}")
        return self._buffers.setdefault(child, OdometryBuffer()).add(stamp, T_odom_child, twist)

    @property
    def children(self) -> list[str]:
        """The child frames heard so far."""
        return list(self._buffers)

    @property
    def newest(self) -> int | None:
        """Stamp of the newest message [ns], None before the first."""
        return max((buffer.newest for buffer in self._buffers.values() if buffer.newest is not None), default=None)

    def find(self, scan: PendingScan) -> bool:
        """Interpolated; in vain as soon as odometry is newer than the scan without reaching back to it. With a pose,
        a sweep that goes on after its stamp is waited for, too."""
        scan.child, buffer = self._choose(scan.frame)
        if buffer is None:
            return False
        scan.T_odom_child = buffer.at(scan.stamp)
        return buffer.newest is not None and buffer.newest >= (
            scan.stamp if scan.T_odom_child is None else scan.reach[1]
        )

    def follow(self, scan: PendingScan) -> None:
        """From the messages around the sweep."""
        buffer = self._choose(scan.frame)[1]
        scan.motion = None if buffer is None else buffer.across(*scan.reach)

    def _choose(self, sensor: str) -> tuple[str, OdometryBuffer | None]:
        """The body's odometry, or the sensor's, or whatever there is (whose frame is told where it does not fit)."""
        body = self._base_frame or sensor
        for child in (body, sensor, "", *self._buffers):
            if child in self._buffers:
                return child or body, self._buffers[child]
        return "", None

    def clear(self) -> None:
        """Forget every message."""
        self._buffers.clear()
