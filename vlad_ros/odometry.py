# SPDX-License-Identifier: Apache-2.0
"""Where the body was at a scan's stamp: odometry messages, interpolated, never extrapolated."""

from __future__ import annotations

import bisect

import numpy as np

from vlad_ros.geometry import interpolate
from vlad_ros.types import F64

HISTORY = 30_000_000_000  # ns; far longer than any scan waits for its pose
RESTART = 1_000_000_000  # ns; a message older than the newest by more than this is a clock or bag begun anew
RIGID_TOLERANCE = 1e-3


def check_rigid(T: F64, name: str = "T_odom_base") -> F64:
    """`T` as (4, 4) float64; ValueError naming it unless it is a finite rotation and translation."""
    T = np.asarray(T, np.float64)
    if T.shape != (4, 4):
        raise ValueError(f"{name} must be a (4, 4) transform, not of shape {T.shape}")
    if not np.all(np.isfinite(T)):
        raise ValueError(f"{name} is not finite")
    R = T[:3, :3]
    off = np.abs(R @ R.T - np.eye(3)).max()
    if off > RIGID_TOLERANCE or np.linalg.det(R) < 0 or np.any(T[3] != (0, 0, 0, 1)):
        raise ValueError(f"{name} is not a rigid transform:\n{T}")
    return T


class OdometryBuffer:
    """The last 30 s of `T_odom_base`, in order of their stamps [ns]."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[F64] = []

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest(self) -> int | None:
        """Stamp of the newest message [ns], None before the first."""
        return self._stamps[-1] if self._stamps else None

    def add(self, stamp: int, T_odom_base: F64) -> None:
        """Keep a message. One for a stamp already known replaces it; ValueError unless `T_odom_base` is rigid.

        A message older than the newest by more than 1 s begins a new history (a bag played again).
        """
        T = check_rigid(T_odom_base)
        if self._stamps and stamp < self._stamps[-1] - RESTART:
            self.clear()
        at = bisect.bisect_left(self._stamps, stamp)
        if at < len(self._stamps) and self._stamps[at] == stamp:
            self._poses[at] = T
            return
        self._stamps.insert(at, stamp)
        self._poses.insert(at, T)
        old = bisect.bisect_left(self._stamps, self._stamps[-1] - HISTORY)
        del self._stamps[:old], self._poses[:old]

    def clear(self) -> None:
        """Forget every message."""
        self._stamps.clear()
        self._poses.clear()

    def covers(self, stamp: int) -> bool:
        """Whether `at` has an answer for `stamp`."""
        return bool(self._stamps) and self._stamps[0] <= stamp <= self._stamps[-1]

    def at(self, stamp: int) -> F64 | None:
        """T_odom_base at `stamp` [ns]: the message of that very stamp, or slerp and linear interpolation between the
        messages on both sides; None outside of them."""
        if not self.covers(stamp):
            return None
        after = bisect.bisect_left(self._stamps, stamp)
        if self._stamps[after] == stamp:
            return self._poses[after]
        before = after - 1
        fraction = (stamp - self._stamps[before]) / (self._stamps[after] - self._stamps[before])
        return interpolate(self._poses[before], self._poses[after], fraction)
