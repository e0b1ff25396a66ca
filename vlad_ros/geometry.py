# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms, named `T_target_source`, as (4, 4) float64 matrices."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from vlad_ros.types import F64


def transform(points: np.ndarray, T: F64) -> np.ndarray:
    """Move x y z of `points` (N, >=3) by `T`, keeping further columns; a new array of the same dtype."""
    moved = points.copy()
    moved[:, :3] = points[:, :3] @ T[:3, :3].T.astype(points.dtype) + T[:3, 3].astype(points.dtype)
    return moved


def from_quaternion(translation: np.ndarray, quaternion_xyzw: np.ndarray) -> F64:
    """T from a translation [m] and a quaternion x y z w."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(quaternion_xyzw).as_matrix()
    T[:3, 3] = translation
    return T


def from_xyz_rpy(values: tuple[float, ...]) -> F64:
    """T from x y z [m] and fixed-axis roll pitch yaw [rad] (REP 103)."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", values[3:6]).as_matrix()
    T[:3, 3] = values[:3]
    return T


def to_quaternion(T: F64) -> F64:
    """Quaternion x y z w of `T`."""
    return np.asarray(Rotation.from_matrix(T[:3, :3]).as_quat(), np.float64)


def inverse(T: F64) -> F64:
    """The inverse of a rigid transform."""
    R = T[:3, :3].T
    out = np.eye(4)
    out[:3, :3] = R
    out[:3, 3] = -R @ T[:3, 3]
    return out


def yaw(T: F64) -> float:
    """Heading [rad] of the x axis."""
    return float(np.arctan2(T[1, 0], T[0, 0]))


def rotation_angle(T: F64) -> float:
    """Angle [rad] of the rotation of `T`."""
    return float(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1.0, 1.0)))


def interpolate(T_before: F64, T_after: F64, fraction: float) -> F64:
    """Slerp and linear interpolation, `fraction` in [0, 1]."""
    rotations = Rotation.from_matrix(np.stack([T_before[:3, :3], T_after[:3, :3]]))
    T = np.eye(4)
    T[:3, :3] = Slerp([0.0, 1.0], rotations)(fraction).as_matrix()
    T[:3, 3] = (1 - fraction) * T_before[:3, 3] + fraction * T_after[:3, 3]
    return T
