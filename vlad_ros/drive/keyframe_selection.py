# SPDX-License-Identifier: Apache-2.0
"""Keyframe selection: evenly spaced by travel with odometry, by time without."""

from __future__ import annotations

import math

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.scan import Place
from vlad_ros.poses import inverse, yaw
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32


class KeyframeSelector:
    """Call for each scan of a session in order: `wants` first and, if that or another source says yes, `takes`."""

    def __init__(self, config: RecognizerConfig) -> None:
        self._config = config
        self._last: Place | None = None
        self._descriptor: F32 | None = None  # of the last keyframe's single scan
        self._described = -math.inf  # m; travel at the last single scan with a descriptor
        self._looked = 0  # stamp of the last scan with a descriptor

    def wants(self, at: Place) -> bool:
        """Whether the scan should be a keyframe; without odometry only if it also looks new (checked at most once in
        `keyframe_period`). True for the first scan, and for the first with a pose after one without."""
        config, last = self._config, self._last
        if last is None:
            return True
        age = (at.stamp - last.stamp) / SECOND
        if age < 1.0 / config.keyframe_rate:
            return False
        if at.T_odom_base is None or at.travel is None:
            return (at.stamp - self._looked) / SECOND >= config.keyframe_period
        if last.T_odom_base is None or last.travel is None:
            return True
        turned = abs(yaw(inverse(last.T_odom_base) @ at.T_odom_base))
        moved = at.travel - last.travel
        return moved >= config.keyframe_distance or turned >= math.radians(config.keyframe_yaw)

    def wants_scan_descriptor(self, at: Place) -> bool:
        """Whether a keyframe with odometry should have its single scan's descriptor, too."""
        return (at.travel or 0.0) - self._described >= self._config.scan_descriptor_distance

    def takes(self, at: Place, descriptor: F32 | None, forced: bool = False) -> bool:
        """Whether the wanted scan becomes a keyframe, given its single scan's descriptor (D,): always with odometry
        (which needs none), otherwise only if it differs from the last keyframe. `forced`: another source has decided
        that it does."""
        self._looked = at.stamp
        by_looks = not forced and at.T_odom_base is None
        if by_looks and descriptor is not None and self._similarity(descriptor) >= self._config.keyframe_similarity:
            return False
        self._last, self._descriptor = at, descriptor
        if descriptor is not None and at.travel is not None:
            self._described = at.travel
        return True

    def _similarity(self, descriptor: F32) -> float:
        """Similarity to the last keyframe; -inf before the first."""
        return -math.inf if self._descriptor is None else float(descriptor @ self._descriptor)
