# SPDX-License-Identifier: Apache-2.0
"""A cloud that grows by many others, thinned as it grows."""

from __future__ import annotations

import numpy as np

from vlad_ros.cloud.thin import join
from vlad_ros.types import F32, F64

PENDING = 4_000_000  # points that wait at least, until they are thinned together with the others


class GrowingCloud:
    """The first point in each voxel [m] of all clouds added, each moved by its transform, in their order: as `join`
    makes it of all at once, in the memory of what is left.

    `origin` (3,) [m]: where the first cloud was; the points are told relative to it, so that float32 is exact enough
    anywhere on Earth.
    """

    def __init__(self, voxel: float) -> None:
        self._voxel = voxel
        self._kept: F32 = np.empty((0, 4), np.float32)
        self._clouds: list[F32] = []
        self._transforms: list[F64] = []
        self._waiting = 0
        self.origin: F64 | None = None

    def add(self, points: F32, T: F64) -> None:
        """`points` (N, 4) float32, and their transform (4, 4)."""
        if self.origin is None:
            self.origin = T[:3, 3].copy()
        moved = T.copy()
        moved[:3, 3] -= self.origin
        self._clouds.append(points)
        self._transforms.append(moved)
        self._waiting += len(points)
        if self._waiting > max(PENDING, len(self._kept)):
            self._thin()

    def points(self) -> F32:
        """(M, 4) relative to `origin`."""
        self._thin()
        return self._kept

    def _thin(self) -> None:
        self._kept = join([self._kept, *self._clouds], [np.eye(4), *self._transforms], self._voxel)
        self._clouds, self._transforms, self._waiting = [], [], 0
