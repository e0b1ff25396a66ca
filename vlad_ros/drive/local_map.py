# SPDX-License-Identifier: Apache-2.0
"""Local maps: scans joined by odometry into a map that is centred on a keyframe.

A window that ends at the newest scan covers a different stretch when driven in the other direction; one centred on the
keyframe covers the same stretch. So a keyframe waits until the body is half a window past it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vlad_ros.cloud.thin import join, voxel_thin
from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.poses import inverse
from vlad_ros.stamps import nanoseconds
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64


@dataclass(frozen=True, eq=False)
class JoinedMap:
    """`points` (M, 4) float32 in the keyframe's body frame, one per voxel; `span` [m] of travel from the first to the
    last scan joined; `partial`: that is less than half of the window."""

    points: F32
    span: float
    partial: bool


@dataclass(frozen=True, eq=False)
class _KeptScan:
    """A thinned scan (N, 4) in its body frame."""

    points: F32
    stamp: int
    T_odom_base: F64
    travel: float


class LocalMap:
    """The scans that waiting and future keyframes may need.

    A keyframe waits from its `add` to its `join`. Memory is bounded by the scans of `accumulation_m` behind the oldest
    waiting keyframe, one per `accumulation_spacing` (and `keyframe_yaw`), and by one scan for each waiting keyframe;
    the caller sets with `forget_before` how far back the oldest one needs scans.
    """

    def __init__(self, config: RecognizerConfig, bev: BevConfig | None = None) -> None:
        """`bev` sets the extent of the raster (default: `BevConfig()`)."""
        self._config = config
        self._half = config.accumulation_m / 2
        self._radius = (bev or BevConfig()).extent / math.sqrt(2) + self._half
        # Trace of a rotation by keyframe_yaw; beyond it, a narrow field of view shows new surroundings.
        self._trace = 1.0 + 2.0 * math.cos(math.radians(config.keyframe_yaw))
        self._scans: list[_KeptScan] = []
        self._waiting: set[int] = set()

    def __len__(self) -> int:
        """Number of scans kept."""
        return len(self._scans)

    @stage("local map")
    def add(self, points: F32, stamp: int, T_odom_base: F64, travel: float, is_keyframe: bool) -> None:
        """Offer a scan: `points` (N, 4) in the body frame, `stamp` [ns], `travel` [m] along the session.

        It is kept, thinned and cropped to the raster's reach, if it is a keyframe or `accumulation_spacing` of travel
        after the last one kept.
        """
        last = self._scans[-1] if self._scans else None
        if not is_keyframe and last is not None and travel - last.travel < self._config.accumulation_spacing:
            return
        thinned = voxel_thin(points, self._config.accumulation_voxel)
        seen = thinned[:, 0] ** 2 + thinned[:, 1] ** 2 <= self._radius**2
        self._scans.append(_KeptScan(thinned[seen], stamp, T_odom_base.copy(), travel))
        if is_keyframe:
            self._waiting.add(stamp)

    def clear(self) -> None:
        """Drop all scans, at a jump or a missing pose: those before and after are not joined. Nothing may wait."""
        self._scans.clear()
        self._waiting.clear()

    def is_complete(self, travel_keyframe: float, stamp_keyframe: int, travel_now: float, stamp_now: int) -> bool:
        """Whether a keyframe's wait is over: the body is half a window past it, or `accumulation_timeout` has passed in
        stamp time."""
        late = stamp_now - stamp_keyframe >= nanoseconds(self._config.accumulation_timeout)
        return late or travel_now - travel_keyframe >= self._half

    @stage("local map")
    def join(self, stamp_keyframe: int) -> JoinedMap:
        """The map around a keyframe, which then stops waiting; ValueError when there is no scan with that stamp.

        Its own scan comes first, then the others by their distance in travel, so that the point with less drift is kept
        in each voxel.
        """
        keyframe = self._scan(stamp_keyframe)
        chosen = [keyframe]
        for scan in sorted(self._scans, key=lambda scan: (abs(scan.travel - keyframe.travel), scan.stamp)):
            if abs(scan.travel - keyframe.travel) <= self._half and not self._repeats(scan, chosen):
                chosen.append(scan)
        T_keyframe_odom = inverse(keyframe.T_odom_base)
        transforms = [np.eye(4), *(T_keyframe_odom @ scan.T_odom_base for scan in chosen[1:])]
        points = join([scan.points for scan in chosen], transforms, self._config.accumulation_voxel)
        travels = [scan.travel for scan in chosen]
        span = max(travels) - min(travels)
        self._settle(keyframe)
        return JoinedMap(points, span, span < self._half)

    def forget_before(self, travel: float) -> None:
        """Drop the scans before `travel` [m], which no waiting or future keyframe can need."""
        self._scans = [scan for scan in self._scans if scan.travel >= travel]
        self._waiting &= {scan.stamp for scan in self._scans}

    def _scan(self, stamp: int) -> _KeptScan:
        for scan in self._scans:
            if scan.stamp == stamp:
                return scan
        raise ValueError(f"the local map holds no scan with stamp {stamp}")

    def _repeats(self, scan: _KeptScan, others: list[_KeptScan]) -> bool:
        """Whether one of the others was taken at nearly the same travel with nearly the same heading."""
        return any(
            scan is other
            or (
                abs(scan.travel - other.travel) < self._config.accumulation_spacing
                and float(np.sum(scan.T_odom_base[:3, :3] * other.T_odom_base[:3, :3])) > self._trace
            )
            for other in others
        )

    def _settle(self, keyframe: _KeptScan) -> None:
        """After a keyframe is joined, keep its scan for others only if no settled scan covers the same place."""
        self._waiting.discard(keyframe.stamp)
        settled = [scan for scan in self._scans if scan is not keyframe and scan.stamp not in self._waiting]
        if self._repeats(keyframe, settled):
            self._scans.remove(keyframe)
