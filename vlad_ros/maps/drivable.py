# SPDX-License-Identifier: Apache-2.0
"""The ground of a map cloud that a vehicle can stand on, and places spread over it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from vlad_ros.jit import kernel
from vlad_ros.types import F32, F64, Bools, Ints

CELL = 0.5  # m
GAP = 1.5  # m; so wide a gap between two points of ground is ground
STEP = 0.2  # m between neighbouring cells; more is a kerb that nobody drives over, or a wall
LOW, HIGH = 0.3, 1.0  # m above the ground: what stands in the way; a map maker's own trail hangs higher
CLEARANCE = 0.8  # m from everything
TILE, FEW = 20.0, 50  # m; a tile with fewer points is no ground: some stray far away, and would blow up the grid
MOST = 100_000_000  # cells, 25 km^2: some gigabytes
LEAST_AREA = 100.0  # m^2 of ground that hangs together; less is a roof or a wall's top
NO_GROUND = "no ground that hangs together; is z up, and are these metres?"
DIRECTIONS = 16  # headings that are tried
REACH = 12.0  # m along each of them


class Ground(NamedTuple):
    """Cells of side CELL from `corner` (2,) [m] on: `height` (X, Y) [m] where `free` (X, Y) of what stands in the way,
    and the distance `room` (X, Y) [m] to where it is not."""

    corner: F64
    height: F64
    free: Bools
    room: F64

    def at(self, xy: F64) -> tuple[Ints, Ints]:
        """The cells of positions (..., 2) [m], those beyond the border on it."""
        cells = np.floor((xy - self.corner) / CELL).astype(np.int64)
        size = np.array(self.free.shape) - 1
        cells = np.clip(cells, 0, size)
        return cells[..., 0], cells[..., 1]


def drivable(points: F32) -> Ground:
    """The drivable ground under `points` (N, >=3) [m], z up. ValueError where there is none."""
    points = _dense(points)
    corner = np.floor(points[:, :2].min(axis=0)) - CELL
    reach = points[:, :2].max(axis=0) - corner
    shape = int(np.ceil(reach[0] / CELL)) + 2, int(np.ceil(reach[1] / CELL)) + 2
    if shape[0] * shape[1] > MOST:
        raise ValueError(
            f"the cloud is {reach[0]:.0f} m x {reach[1]:.0f} m large; are these metres? Cut it into pieces of "
            f"{MOST * CELL**2 / 1e6:.0f} km^2, or name its way with --trajectory"
        )
    low = _lowest(points, corner, shape)
    known = np.isfinite(low)
    apart, (i, j) = distance_transform_edt(~known, sampling=CELL, return_indices=True)
    height = np.where(apart <= GAP / 2, low[i, j], np.nan)
    level = _hangs_together(height)
    blocked = _blocked(points, corner, np.where(level, height, np.nan))
    free = level & ~blocked
    room = np.asarray(distance_transform_edt(free, sampling=CELL))
    return Ground(corner, height, free & (room >= CLEARANCE), room)


def _dense(points: F32) -> F32:
    """Without the points of nearly empty tiles. ValueError where none are left."""
    tiles = np.floor(points[:, :2].astype(np.float64) / TILE).astype(np.int64)
    _, number, count = np.unique(tiles @ [1, 1 << 31], return_inverse=True, return_counts=True)
    kept = points[count[number] >= FEW]
    if not len(kept):
        raise ValueError(f"nowhere {FEW} points in {TILE:.0f} m x {TILE:.0f} m: {NO_GROUND}")
    return kept


@kernel
def _lowest(points: F32, corner: F64, shape: tuple[int, int]) -> F64:
    """The height (X, Y) of the lowest point of each cell, NaN where there is none."""
    out = np.full(shape, np.nan)
    for k in range(len(points)):
        i, j = int((points[k, 0] - corner[0]) / CELL), int((points[k, 1] - corner[1]) / CELL)
        if not out[i, j] <= points[k, 2]:
            out[i, j] = points[k, 2]
    return out


@kernel
def _blocked(points: F32, corner: F64, height: F64) -> Bools:
    """(X, Y) whether something stands on the ground of a cell."""
    out = np.zeros(height.shape, np.bool_)
    for k in range(len(points)):
        i, j = int((points[k, 0] - corner[0]) / CELL), int((points[k, 1] - corner[1]) / CELL)
        above = points[k, 2] - height[i, j]
        if above > LOW and above < HIGH:
            out[i, j] = True
    return out


def _hangs_together(height: F64) -> Bools:
    """(X, Y) cells in areas of at least LEAST_AREA, or the largest, within which no step is higher than STEP."""
    number = np.arange(height.size).reshape(height.shape)
    ends = []
    for axis in (0, 1):
        here, there = np.split(number, [1], axis)[1], np.split(number, [-1], axis)[0]
        even = np.abs(np.diff(height, axis=axis)) <= STEP
        ends.append(np.stack([here[even], there[even]]))
    i, j = np.concatenate(ends, axis=1)
    pairs = coo_matrix((np.ones(len(i), np.int8), (i, j)), (height.size, height.size))
    _, group = connected_components(pairs, directed=False)
    group = group.reshape(height.shape)
    cells = np.bincount(group[np.isfinite(height)].ravel())
    if not len(cells) or cells.max() < 2:
        raise ValueError(NO_GROUND)
    large = cells >= min(LEAST_AREA / CELL**2, cells.max())
    return np.asarray(np.isfinite(height) & large[np.minimum(group, len(cells) - 1)])


def spread(ground: Ground, spacing: float) -> F64:
    """Positions (K, 2) [m] on the free ground: none nearer than `spacing` to another, no free one farther from all; the
    roomiest first, which are the middles of ways. ValueError where there is none."""
    regions, _ = label(ground.free)
    i, j = np.nonzero(ground.free & (np.bincount(regions.ravel())[regions] * CELL**2 >= spacing**2))
    order = np.argsort(-np.minimum(ground.room[i, j], 2 * spacing), kind="stable")
    chosen = _apart(np.stack([i[order], j[order]], axis=1), np.array(ground.free.shape), spacing / CELL)
    if not len(chosen):
        raise ValueError("no ground that a vehicle could stand on; name its way with --trajectory")
    return np.asarray(ground.corner + (chosen + 0.5) * CELL)


@kernel
def _apart(cells: Ints, shape: Ints, least: float) -> Ints:
    """Those of `cells` (N, 2) that are at least so many cells from all before them."""
    taken = np.zeros((shape[0], shape[1]), np.bool_)
    out = np.empty_like(cells)
    count, reach = 0, int(np.ceil(least))
    for k in range(len(cells)):
        i, j = cells[k, 0], cells[k, 1]
        if taken[i, j]:
            continue
        out[count, 0], out[count, 1] = i, j
        count += 1
        for a in range(max(0, i - reach), min(shape[0], i + reach + 1)):
            for b in range(max(0, j - reach), min(shape[1], j + reach + 1)):
                if (a - i) ** 2 + (b - j) ** 2 < least**2:
                    taken[a, b] = True
    return out[:count]


def headings(ground: Ground, places: F64) -> F64:
    """(K,) [rad] the direction of the longest free way through each of `places` (K, 2), both ways together."""
    angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
    steps = np.arange(1, int(REACH / CELL) + 1) * CELL
    length = np.zeros((len(places), DIRECTIONS))
    for sign in (1.0, -1.0):
        along = sign * np.stack([np.cos(angles), np.sin(angles)], axis=1)[:, None] * steps[:, None]
        free = ground.free[ground.at(places[:, None, None] + along)]
        length += np.logical_and.accumulate(free, axis=2).sum(axis=2)
    return np.asarray(angles[np.argmax(length, axis=1)])
