# SPDX-License-Identifier: Apache-2.0
"""A trajectory against the true one."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vlad_ros.types import F64


def aligned(poses: F64, truth: F64) -> F64:
    """Positions (S, 3) of `poses` (S, 4, 4), moved rigidly to lie as near as possible to those of `truth` (S, 4, 4)
    (Umeyama 1991, without scale)."""
    p, q = poses[:, :3, 3], truth[:, :3, 3]
    rotation, _ = Rotation.align_vectors(q - q.mean(axis=0), p - p.mean(axis=0))
    return np.asarray(rotation.apply(p - p.mean(axis=0)) + q.mean(axis=0), np.float64)


def rmse(positions: F64, truth: F64) -> float:
    """Absolute trajectory error [m]: the root mean square distance of `positions` (S, 3) from `truth` (S, 4, 4)."""
    return float(np.sqrt(np.mean(np.sum((positions - truth[:, :3, 3]) ** 2, axis=1))))
