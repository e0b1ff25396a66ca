# SPDX-License-Identifier: Apache-2.0
"""Distance travelled along a drive, and interruptions of the odometry."""

from __future__ import annotations

import numpy as np

from vlad_ros.drive.jumps import Continuity
from vlad_ros.types import F64

ANCHOR = 0.1  # m; smaller motions (odometry noise at standstill) are not counted


def path_length(poses: F64) -> F64:
    """Cumulative path length [m] at each of `poses` (S, 4, 4), (S,)."""
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])[: len(poses)]


class Track:
    """The travel [m] along a session, from the poses of its scans."""

    def __init__(self) -> None:
        self.travel = 0.0
        self._continuity = Continuity()
        self._anchor: F64 | None = None

    def interruption(self, stamp: int, T_odom_base: F64 | None) -> str | None:
        """Interruption between the last scans and the next one at `stamp` [ns]: "no_odometry" if there was some before,
        "odometry_jump", or None. Call once for each scan."""
        if T_odom_base is None:
            self._continuity.clear()
            return None if self._anchor is None else "no_odometry"
        return "odometry_jump" if self._continuity.breaks_at(stamp, T_odom_base) else None

    def move(self, T_odom_base: F64 | None) -> float | None:
        """Travel at the next scan, None without a pose. Summed between anchors more than 0.1 m apart, so that jitter
        does not add up. Across missing poses and jumps the straight line is used."""
        if T_odom_base is None:
            return None
        if self._anchor is None:
            self._anchor = T_odom_base
        moved = float(np.linalg.norm(T_odom_base[:3, 3] - self._anchor[:3, 3]))
        if moved > ANCHOR:
            self.travel += moved
            self._anchor = T_odom_base
        return self.travel
