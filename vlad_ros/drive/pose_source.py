# SPDX-License-Identifier: Apache-2.0
"""Sources of a scan's pose: a topic's messages by stamp, or none. (TF: `ros/inputs/tf`.)"""

from __future__ import annotations

from typing import Protocol

from vlad_ros.drive.odometry import OdometryBuffer
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.types import F64

CHILDREN = 8  # maximum of child frames on one odometry topic; more indicate an error


class PoseSource(Protocol):
    """Source of `T_odom_child` for a scan."""

    def find(self, scan: PendingScan) -> bool:
        """Fill in the scan's pose if known; returns True if waiting longer is useless."""

    def follow(self, scan: PendingScan) -> None:
        """Fill in the motion across the scan's sweep, if known; called when the scan stops waiting."""

    def clear(self) -> None:
        """Discard all messages; a new session starts."""


class NoOdometry:
    """odom_source none."""

    def find(self, scan: PendingScan) -> bool:
        """Nothing to wait for."""
        return True

    def follow(self, scan: PendingScan) -> None:
        """No motion is known."""

    def clear(self) -> None:
        """Nothing to discard."""


class TopicOdometry:
    """odom_source topic: interpolated between neighbouring messages, separately for each child frame.

    An empty child frame is the body, `base_frame` or (empty) the cloud's own frame; leading slashes are ignored.
    """

    def __init__(self, base_frame: str = "") -> None:
        self._base_frame = base_frame.lstrip("/")
        self._buffers: dict[str, OdometryBuffer] = {}

    def add(self, stamp: int, T_odom_child: F64, child: str, twist: F64 | None) -> int:
        """Add a message; returns how many had a wrong stamp. ValueError unless the transform is rigid."""
        child = child.lstrip("/")
        if child not in self._buffers and len(self._buffers) >= CHILDREN:
            self._make_room(child)
        return self._buffers.setdefault(child, OdometryBuffer()).add(stamp, T_odom_child, twist)

    def _make_room(self, child: str) -> None:
        """Forget a frame that came only once, as damaged messages have them. ValueError if there is none."""
        stray = next((name for name, buffer in self._buffers.items() if len(buffer) <= 1), None)
        if stray is None:
            names = ", ".join(map(repr, (*self._buffers, child)))
            raise ValueError(f"the odometry topic has {CHILDREN + 1} child frames: {names}")
        del self._buffers[stray]

    @property
    def children(self) -> list[str]:
        """The child frames received so far."""
        return list(self._buffers)

    @property
    def newest(self) -> int | None:
        """Stamp of the newest message [ns], None before the first."""
        return max((buffer.newest for buffer in self._buffers.values() if buffer.newest is not None), default=None)

    def find(self, scan: PendingScan) -> bool:
        """Interpolate the pose; gives up once odometry is newer than the scan but does not cover it. With a pose, also
        waits until the end of a sweep that continues after its stamp."""
        scan.child, buffer = self._choose(scan.frame)
        if buffer is None:
            return False
        scan.T_odom_child = buffer.at(scan.stamp)
        return buffer.newest is not None and buffer.newest >= (
            scan.stamp if scan.T_odom_child is None else scan.reach[1]
        )

    def follow(self, scan: PendingScan) -> None:
        """Fill in the motion from the messages around the sweep."""
        buffer = self._choose(scan.frame)[1]
        scan.motion = None if buffer is None else buffer.across(*scan.reach)

    def _choose(self, sensor: str) -> tuple[str, OdometryBuffer | None]:
        """The body's odometry, else the sensor's, else any other (whose frame is reported if it does not fit)."""
        body = self._base_frame or sensor
        for child in (body, sensor, "", *self._buffers):
            if child in self._buffers:
                return child or body, self._buffers[child]
        return "", None

    def clear(self) -> None:
        """Discard all messages."""
        self._buffers.clear()
