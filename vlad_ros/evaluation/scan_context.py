# SPDX-License-Identifier: Apache-2.0
"""Scan Context (Kim and Kim, IROS 2018), the baseline: maximum heights in 20 rings x 60 sectors over 80 m.

Similarity is the mean cosine of the columns that are occupied in both, at the best of all 60 column shifts.
"""

from __future__ import annotations

import numpy as np

from vlad_ros.types import F32

RINGS, SECTORS = 20, 60
MIN_RANGE, MAX_RANGE = 0.5, 80.0  # m
SENSOR_HEIGHT = 2.0  # m, added to z so that heights above the ground are positive
BLOCK = 512


def describe(points: F32) -> F32:
    """(RINGS, SECTORS) float32 maximum height of `points` (N, >=3), sensor frame [m]."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    distance = np.hypot(x, y)
    inside = (distance < MAX_RANGE) & (distance > MIN_RANGE)
    angle = np.arctan2(y, x)[inside] % (2 * np.pi)
    ring = (distance[inside] / MAX_RANGE * RINGS).astype(np.int64)
    sector = np.minimum((angle / (2 * np.pi) * SECTORS).astype(np.int64), SECTORS - 1)
    heights = np.zeros((RINGS, SECTORS), np.float32)
    np.maximum.at(heights, (ring, sector), np.maximum(z[inside] + SENSOR_HEIGHT, 0))
    return heights


def similarity(queries: F32, maps: F32) -> F32:
    """(Q, M) float32 of (Q, RINGS, SECTORS) against (M, RINGS, SECTORS), larger is more alike."""
    map_unit, map_live = _columns(maps)
    flat = map_unit.reshape(len(maps), -1).T
    out = np.full((len(queries), len(maps)), -np.inf, np.float32)
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, start + BLOCK)
        unit, live = _columns(queries[rows])
        for shift in range(SECTORS):
            cosines = np.roll(unit, shift, axis=2).reshape(len(unit), -1) @ flat
            columns = np.roll(live, shift, axis=1) @ map_live.T
            np.maximum(out[rows], cosines / np.maximum(columns, 1), out=out[rows])
    return out


def _columns(contexts: F32) -> tuple[F32, F32]:
    """Columns of unit norm, and 1 where a column holds anything."""
    norms = np.linalg.norm(contexts, axis=1, keepdims=True)
    return contexts / np.maximum(norms, 1e-6), (norms[:, 0] > 0).astype(np.float32)
