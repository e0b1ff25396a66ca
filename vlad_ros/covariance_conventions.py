# SPDX-License-Identifier: Apache-2.0
"""An edge's covariance in other systems' conventions: perturbed side, order, covariance or information.

Ours is of `d` in `T_true = exp(d) T`: on the side of the match, in the order x y z, roll pitch yaw (Sola, Deray and
Atchuthan, "A micro Lie theory for state estimation in robotics", 2018, for the adjoint). Every other convention differs
in one matrix J, `e = J d`, so that covariance becomes `J C J^T` and information its inverse.
"""

from __future__ import annotations

import numpy as np

from vlad_ros.poses import inverse, skew
from vlad_ros.types import F64

ROTATION_FIRST = np.array([3, 4, 5, 0, 1, 2])


def adjoint(T: F64) -> F64:
    """Ad_T (6, 6) in the order x y z, roll pitch yaw: `T exp(d) = exp(Ad_T d) T`."""
    R = T[:3, :3]
    out = np.zeros((6, 6))
    out[:3, :3] = out[3:, 3:] = R
    out[:3, 3:] = skew(T[:3, 3]) @ R
    return out


def symmetric(matrix: F64) -> F64:
    """Symmetrise: remove the rounding differences between the two triangles."""
    return 0.5 * (matrix + matrix.T)


def from_upper_triangle(numbers: np.ndarray) -> F64:
    """(6, 6) of the 21 numbers of its upper triangle, row by row, as `~/loop_closures` carries them."""
    covariance = np.zeros((6, 6))
    covariance[np.triu_indices(6)] = numbers
    return covariance + np.triu(covariance, 1).T


def right_covariance(covariance: F64, T: F64) -> F64:
    """(6, 6) of `e` in `T_true = T exp(e)`, on the side of the query, still x y z, roll pitch yaw."""
    J = adjoint(inverse(T))
    return symmetric(J @ covariance @ J.T)


def gtsam_covariance(covariance: F64, T: F64) -> F64:
    """(6, 6) for `gtsam.noiseModel.Gaussian.Covariance` of `gtsam.BetweenFactorPose3(match, query, Pose3(T), ...)`.

    GTSAM's error is `Logmap(T^-1 T_true)`: on the right side, rotation first.
    """
    return right_covariance(covariance, T)[np.ix_(ROTATION_FIRST, ROTATION_FIRST)]


def g2o_information(covariance: F64, T: F64) -> F64:
    """(6, 6) for g2o's `EDGE_SE3:QUAT match query T`; np.linalg.LinAlgError when `covariance` is singular.

    g2o's error is the translation of `T^-1 T_true` and the vector part of its quaternion, which is half the angle:
    information of rotations is four times, that between rotations and translations twice as large.
    """
    half_angle = np.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    information = np.asarray(np.linalg.inv(right_covariance(covariance, T)), np.float64)
    return symmetric(information * np.outer(half_angle, half_angle))
