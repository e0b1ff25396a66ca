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
    return np.asarray(_rotation(poses, truth).apply(p - p.mean(axis=0)) + q.mean(axis=0), np.float64)


def rmse(positions: F64, truth: F64) -> float:
    """Absolute trajectory error [m]: the root mean square distance of `positions` (S, 3) from `truth` (S, 4, 4)."""
    return float(np.sqrt(np.mean(np.sum((positions - truth[:, :3, 3]) ** 2, axis=1))))


def rmse_degrees(poses: F64, truth: F64) -> float:
    """The root mean square angle [deg] between the attitudes of `poses` (S, 4, 4), turned as `aligned` does, and of
    `truth` (S, 4, 4)."""
    turned = _rotation(poses, truth) * Rotation.from_matrix(poses[:, :3, :3])
    angles = (Rotation.from_matrix(truth[:, :3, :3]).inv() * turned).magnitude()
    return float(np.degrees(np.sqrt(np.mean(angles**2))))


def _rotation(poses: F64, truth: F64) -> Rotation:
    p, q = poses[:, :3, 3], truth[:, :3, 3]
    return Rotation.align_vectors(q - q.mean(axis=0), p - p.mean(axis=0))[0]
