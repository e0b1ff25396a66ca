# SPDX-License-Identifier: Apache-2.0
"""What of a map cloud is seen from a point: the nearest in each direction, and what stands behind none of them.

A range image around the eye (a z-buffer; Katz, Tal and Basri, "Direct visibility of point sets", 2007, name the
problem: points have no extent). Here each point covers what the voxel does that it stands for, so that the gaps
between the points of a near wall hide what is behind them, and a thin pole hides no more than itself.
"""

from __future__ import annotations

import numpy as np

from vlad_ros.jit import kernel
from vlad_ros.types import F32, F64, Bools

AZIMUTHS, ELEVATIONS = 720, 240  # cells of half a degree: all around, and 60 degrees up and down
NEAREST = 1.0  # m; what is nearer to an eye is the vehicle
BEHIND, SLANT = 0.4, 0.05  # m, and per m of distance: so far behind the nearest a point still belongs to its surface,
# seen at a slant
WIDEST = 20  # cells that a point covers to each side, at most


@kernel
def _see(points: F32, eye: F64, far: float, size: float, visible: Bools) -> None:
    """Mark the points (N, >=3) that are seen from `eye` (3,), at most `far` [m] away; each is `size` [m] wide."""
    step = 2 * np.pi / AZIMUTHS
    image = np.full((ELEVATIONS, AZIMUTHS), np.inf)
    ranges = np.full(len(points), np.inf)
    rows, columns = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    for k in range(len(points)):
        x, y, z = points[k, 0] - eye[0], points[k, 1] - eye[1], points[k, 2] - eye[2]
        flat = np.sqrt(x * x + y * y)
        distance = np.sqrt(flat * flat + z * z)
        if distance < NEAREST or distance > far:
            continue
        row = int(np.floor(np.arctan2(z, flat) / step)) + ELEVATIONS // 2
        if row < 0 or row >= ELEVATIONS:
            continue
        column = int(np.floor((np.arctan2(y, x) + np.pi) / step)) % AZIMUTHS
        ranges[k], rows[k], columns[k] = distance, row, column
        reach = min(WIDEST, int(0.5 * size / (distance * step) + 0.5))
        for i in range(max(0, row - reach), min(ELEVATIONS, row + reach + 1)):
            for j in range(column - reach, column + reach + 1):
                if distance < image[i, j % AZIMUTHS]:
                    image[i, j % AZIMUTHS] = distance
    for k in range(len(points)):
        if ranges[k] <= far and ranges[k] * (1 - SLANT) <= image[rows[k], columns[k]] + BEHIND:
            visible[k] = True


def seen_from(points: F32, eyes: F64, far: float, size: float) -> Bools:
    """(N,) which of `points` (N, >=3) [m] are seen from any of `eyes` (E, 3), up to `far` [m]; `size` [m]: what a point
    stands for."""
    visible = np.zeros(len(points), bool)
    for eye in eyes:
        _see(points, eye, far, size, visible)
    return visible


class Tiles:
    """A cloud (N, 4) sorted into square tiles, to find what is near."""

    def __init__(self, points: F32, side: float) -> None:
        self._side = side
        self._corner = points[:, :2].min(axis=0) if len(points) else np.zeros(2, np.float32)
        tiles = ((points[:, :2] - self._corner) / side).astype(np.int64)
        self._columns = int(tiles[:, 1].max(initial=0)) + 1
        key = tiles[:, 0] * self._columns + tiles[:, 1]
        order = np.argsort(key, kind="stable")
        self._points, self._keys = points[order], key[order]

    def near(self, xy: F64, far: float) -> F32:
        """The points of all tiles within `far` [m] of `xy` (2,)."""
        low = np.maximum(((xy - far - self._corner) // self._side).astype(int), 0)
        high = ((xy + far - self._corner) // self._side).astype(int)
        last = min(int(high[1]), self._columns - 1)
        found = []
        for row in range(int(low[0]), int(high[0]) + 1):
            ends = np.searchsorted(self._keys, [row * self._columns + int(low[1]), row * self._columns + last + 1])
            found.append(self._points[ends[0] : ends[1]] if last >= low[1] else self._points[:0])
        return np.concatenate(found) if found else self._points[:0]
