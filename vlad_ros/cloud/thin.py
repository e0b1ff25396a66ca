# SPDX-License-Identifier: Apache-2.0
"""Thinning: keep the first point in each voxel."""

from __future__ import annotations

import numpy as np

from vlad_ros.cloud.decode import four_columns
from vlad_ros.jit import kernel
from vlad_ros.types import F32, F64

EMPTY = -1


@kernel
def _insert(points: F32, T: F32, per_metre: np.float32, table: np.ndarray, used: int, out: F32, count: int) -> tuple:
    """Append to `out` the points, moved by T (3, 4), that are the first in their voxel.

    `table` (2^k, 2) int64 is an open-addressing hash of blocks of 4 x 4 x 4 voxels: the block's key, EMPTY where the
    slot is free, and a bit for each voxel seen. Returns the slots used and the points in `out`; when three quarters of
    the table are used, it returns early, with a negative number of points.
    """
    mask = len(table) - 1
    limit = len(table) * 3 // 4
    for k in range(len(points)):
        px, py, pz = points[k, 0], points[k, 1], points[k, 2]
        x = T[0, 0] * px + T[0, 1] * py + T[0, 2] * pz + T[0, 3]
        y = T[1, 0] * px + T[1, 1] * py + T[1, 2] * pz + T[1, 3]
        z = T[2, 0] * px + T[2, 1] * py + T[2, 2] * pz + T[2, 3]
        i, j, h = int(np.floor(x * per_metre)), int(np.floor(y * per_metre)), int(np.floor(z * per_metre))
        bit = 1 << ((i & 3) << 4 | (j & 3) << 2 | (h & 3))
        a, b, c = i >> 2, j >> 2, h >> 2
        key = (a & 0x1FFFFF) << 42 | (b & 0x1FFFFF) << 21 | (c & 0x1FFFFF)
        slot = (a * 73856093 ^ b * 19349663 ^ c * 83492791) & mask
        while table[slot, 0] != key and table[slot, 0] != EMPTY:
            slot = (slot + 1) & mask
        if table[slot, 0] == EMPTY:
            if used >= limit:
                return used, -1
            used += 1
            table[slot, 0] = key
        elif table[slot, 1] & bit:
            continue
        table[slot, 1] |= bit
        out[count, 0], out[count, 1], out[count, 2], out[count, 3] = x, y, z, points[k, 3]
        count += 1
    return used, count


def join(clouds: list[F32], transforms: list[F64], voxel: float) -> F32:
    """The clouds (N, 4), each moved by its transform, the first point of each voxel in the clouds' order (M, 4)."""
    total = sum(len(cloud) for cloud in clouds)
    out = np.empty((total, 4), np.float32)
    per_metre = np.float32(1.0 / voxel)
    slots = 1 << max(10, (total // 4).bit_length())  # surfaces fill several voxels of a block; more on demand
    while True:
        table = np.zeros((slots, 2), np.int64)
        table[:, 0] = EMPTY
        used = count = 0
        for cloud, T in zip(clouds, transforms, strict=True):
            used, count = _insert(cloud, T[:3].astype(np.float32), per_metre, table, used, out, count)
            if count < 0:
                break
        if count >= 0:
            return out[:count].copy()
        slots *= 4


def voxel_thin(points: F32, voxel: float) -> F32:
    """The first point of each voxel [m] of `points` (N, >=3), in their order, (M, 4) float32; intensity 0 if absent.
    ValueError if `voxel` is not positive."""
    if voxel <= 0:
        raise ValueError(f"voxel must be positive, not {voxel}")
    return join([four_columns(points)], [np.eye(4)], voxel)
