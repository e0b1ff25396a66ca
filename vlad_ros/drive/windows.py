# SPDX-License-Identifier: Apache-2.0
"""Keyframes wait until the local map around each is complete.

All of it runs on the scans' stamps (integer nanoseconds) and on `T_odom_base`, never on the wall clock.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple

from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.drive.keyframe_selection import KeyframeSelector
from vlad_ros.drive.local_map import JoinedMap, LocalMap
from vlad_ros.drive.scan import Place, Scan
from vlad_ros.drive.travel import Track
from vlad_ros.types import F32, F64


class Window(NamedTuple):
    """A completed keyframe, its single scan's descriptor (D,) if it has one, and the local map around it."""

    at: Place
    scan_descriptor: F32 | None
    local_map: JoinedMap


class _Waiting(NamedTuple):
    """A keyframe whose window is open, with the descriptor of its single scan, if any, without its points."""

    at: Place
    travel: float
    scan_descriptor: F32 | None


class Drive:
    """One session's scans, in order of their stamps; each goes through `move`, the `selector`, then `add`, once.

    With odometry, and unless `single_scans`, a keyframe waits for the local map centred on it: until its window is
    full, at the latest until `accumulation_timeout`, a jump, a missing pose or `close`. The others do not wait. So
    keyframes are returned in order of their stamps, each exactly once. `bev` is the configuration of the raster that
    the local maps are for; `counters` counts the interruptions.
    """

    def __init__(self, config: RecognizerConfig, bev: BevConfig, counters: Counter[str], single_scans: bool) -> None:
        self._config, self._counters = config, counters
        self._single_scans = single_scans or config.accumulation_m == 0.0
        self.selector = KeyframeSelector(config)
        self.at: Place | None = None  # of the newest scan
        self._track = Track()
        self._local_map = LocalMap(config, bev)
        self._waiting: deque[_Waiting] = deque()

    @property
    def waiting(self) -> int:
        """Number of keyframes whose window is still open."""
        return len(self._waiting)

    def move(self, scan: Scan) -> tuple[Place, list[Window]]:
        """Position of the next scan along the drive, and the keyframes whose windows end before it."""
        closed: list[Window] = []
        interruption = self._track.interruption(scan.stamp, scan.T_odom_base)
        if interruption is not None:
            self._counters[interruption] += 1
            closed = self.interrupt()
        self.at = Place(scan.stamp, scan.T_odom_base, self._track.move(scan.T_odom_base))
        return self.at, closed

    def interrupt(self) -> list[Window]:
        """End all windows: later scans are not joined with earlier ones. Returns the keyframes closed by this."""
        closed = self.close()
        self._local_map.clear()
        return closed

    def leads_to(self, T_odom_base: F64 | None, after: int) -> bool:
        """Whether odometry continues without a jump to this pose `after` [ns] the newest scan; True if either has no
        pose."""
        at = self.at
        if at is None or at.T_odom_base is None or T_odom_base is None:
            return True
        return self._track.interruption(at.stamp + max(after, 1), T_odom_base) is None

    def joins(self, at: Place) -> bool:
        """Whether a scan is joined with its neighbours; otherwise it is described alone; do not call `add`."""
        return at.T_odom_base is not None and not self._single_scans

    def add(self, at: Place, points: F32, is_keyframe: bool, scan_descriptor: F32 | None) -> list[Window]:
        """Add the scan at `at` to the local map, maybe as a keyframe; returns the keyframes whose windows are now
        full."""
        T_odom_base, travel = at.T_odom_base, at.travel
        if T_odom_base is None or travel is None:
            raise ValueError("a scan without a pose cannot be joined with others")
        self._local_map.add(points, at.stamp, T_odom_base, travel, is_keyframe)
        if is_keyframe:
            self._waiting.append(_Waiting(at, travel, scan_descriptor))
        done: list[Window] = []
        while self._waiting:
            first = self._waiting[0]
            if not self._local_map.is_complete(first.travel, first.at.stamp, travel, at.stamp):
                break
            done.append(self._first())
        oldest = self._waiting[0].travel if self._waiting else travel
        self._local_map.forget_before(oldest - self._config.accumulation_m / 2)
        return done

    def close(self) -> list[Window]:
        """Close all windows; the waiting keyframes, with their windows as far as filled."""
        return [self._first() for _ in range(len(self._waiting))]

    def _first(self) -> Window:
        waiting = self._waiting.popleft()
        return Window(waiting.at, waiting.scan_descriptor, self._local_map.join(waiting.at.stamp))
