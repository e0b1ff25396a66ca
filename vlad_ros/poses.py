# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms, named `T_target_source`, as (4, 4) float64 matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vlad_ros.types import F64, Array

SMALL_ANGLE = 1e-4  # rad; below it series are more exact than quotients
RIGID_TOLERANCE = 1e-3
UNIT_TOLERANCE = 0.01  # of a quaternion's norm
FARTHEST = 1e8  # m; a position farther out is none on Earth, in whatever frame


def check_rigid(T: F64, name: str = "T_odom_base") -> F64:
    """`T` as (4, 4) float64; ValueError naming it unless it is a finite rotation and a translation on Earth."""
    T = np.asarray(T, np.float64)
    if T.shape != (4, 4):
        raise ValueError(f"{name} must be a (4, 4) transform, not of shape {T.shape}")
    return check_all_rigid(T[None], name)[0]


def check_all_rigid(T: F64 | Sequence[F64], name: str) -> F64:
    """`T` as (N, 4, 4) float64; ValueError naming them, and the first that is no finite rotation and translation."""
    T = np.asarray(T, np.float64)
    if T.ndim != 3 or T.shape[1:] != (4, 4):
        raise ValueError(f"{name} must be a (4, 4) transform, not of shape {T.shape[1:]}")
    if not np.all(np.isfinite(T)):
        raise ValueError(f"{name} is not finite")
    R = T[:, :3, :3]
    off = np.abs(R @ R.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    for wrong in T[(off > RIGID_TOLERANCE) | (np.linalg.det(R) < 0) | np.any(T[:, 3] != (0, 0, 0, 1), axis=1)]:
        raise ValueError(f"{name} is not a rigid transform: {wrong.tolist()}")
    for position in T[(np.abs(T[:, :3, 3]) > FARTHEST).any(axis=1), :3, 3]:
        raise ValueError(f"{name} is nowhere on Earth: position {position}")
    return T


def transform(points: np.ndarray, T: F64) -> np.ndarray:
    """Move x y z of `points` (N, >=3) by `T`, keeping further columns; a new array of the same dtype."""
    moved = points.copy()
    moved[:, :3] = points[:, :3] @ T[:3, :3].T.astype(points.dtype) + T[:3, 3].astype(points.dtype)
    return moved


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    """`points` (N, >=2) turned about z by `angle` [rad]; a new array of the same dtype."""
    c, s = np.cos(angle), np.sin(angle)
    turned = points.copy()
    turned[:, :2] = points[:, :2] @ np.array([[c, s], [-s, c]], points.dtype)
    return turned


def from_quaternion(translation: np.ndarray, quaternion_xyzw: np.ndarray) -> F64:
    """T from a translation [m] and a quaternion x y z w, or (N, 4, 4) from (N, 3) and (N, 4)."""
    T = np.zeros((*np.shape(translation)[:-1], 4, 4))
    T[..., :3, :3] = Rotation.from_quat(quaternion_xyzw).as_matrix()
    T[..., :3, 3] = translation
    T[..., 3, 3] = 1.0
    return T


def decode(translation: np.ndarray, quaternion_xyzw: np.ndarray) -> F64:
    """`from_quaternion` for untrusted numbers; ValueError unless they are finite, the positions on Earth and the
    quaternions of unit length."""
    rows = np.atleast_2d(np.concatenate([translation, quaternion_xyzw], axis=-1))
    for row in rows[~np.isfinite(rows).all(axis=1)]:
        raise ValueError(f"the pose is not finite: position {row[:3]}, quaternion {row[3:]}")
    for row in rows[(np.abs(rows[:, :3]) > FARTHEST).any(axis=1)]:
        raise ValueError(f"the pose is nowhere on Earth: position {row[:3]}")
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(rows[:, 3:], axis=1)
    for norm in norms[np.abs(norms - 1.0) > UNIT_TOLERANCE]:
        raise ValueError(f"the quaternion is not of unit length, its norm is {norm:.3g}")
    return from_quaternion(translation, quaternion_xyzw)


def decode_pose(pose: Any) -> F64:
    """T of a geometry_msgs/Pose, whether rosbags' or rclpy's. ValueError as in `decode`."""
    p, q = pose.position, pose.orientation
    return decode(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))


def decode_twist(twist: Any) -> F64:
    """(6,) velocity x y z [m/s] and turning [rad/s] of a geometry_msgs/Twist, whether rosbags' or rclpy's."""
    v, w = twist.linear, twist.angular
    return np.array([v.x, v.y, v.z, w.x, w.y, w.z], np.float64)


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
    """The inverse of a rigid transform, or of many (..., 4, 4)."""
    R = np.swapaxes(T[..., :3, :3], -1, -2)
    out = np.zeros(T.shape)
    out[..., :3, :3] = R
    out[..., :3, 3:] = -R @ T[..., :3, 3:]
    out[..., 3, 3] = 1.0
    return out


def yaw(T: F64) -> float:
    """Heading [rad] of the x axis."""
    return float(np.arctan2(T[1, 0], T[0, 0]))


def wrap(angle: Array) -> Array:
    """`angle` [rad], one or an array, in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def rotation_angle(T: F64) -> float:
    """Angle [rad] of the rotation of `T`."""
    return float(np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1.0, 1.0)))


def interpolate(T_before: F64, T_after: F64, fraction: float | F64) -> F64:
    """Slerp and linear interpolation, `fraction` in [0, 1]; or of many, (N, 4, 4) and (N,)."""
    share = np.asarray(fraction, np.float64)[..., None]
    before, after = (Rotation.from_matrix(T[..., :3, :3]) for T in (T_before, T_after))
    T = np.zeros(T_before.shape)
    T[..., :3, :3] = (before * Rotation.from_rotvec(share * (before.inv() * after).as_rotvec())).as_matrix()
    T[..., :3, 3] = (1 - share) * T_before[..., :3, 3] + share * T_after[..., :3, 3]
    T[..., 3, 3] = 1.0
    return T


def exp(d: F64) -> F64:
    """T (..., 4, 4) of `d` (..., 6) = x y z [m], rotation vector [rad]: a constant twist, applied for a unit of time.

    Sola, Deray and Atchuthan, "A micro Lie theory for state estimation in robotics", 2018, equation 172.
    """
    d = np.asarray(d, np.float64)
    angle, K = np.linalg.norm(d[..., 3:], axis=-1)[..., None, None], skew(d[..., 3:])
    safe = np.where(angle < SMALL_ANGLE, 1.0, angle)
    once = np.where(angle < SMALL_ANGLE, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    twice = np.where(angle < SMALL_ANGLE, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    T = np.zeros((*d.shape[:-1], 4, 4))
    T[..., :3, :3] = np.eye(3) + (1 - twice * angle**2) * K + once * K @ K
    T[..., :3, 3:] = (np.eye(3) + once * K + twice * K @ K) @ d[..., :3, None]
    T[..., 3, 3] = 1.0
    return T


def log(T: F64) -> F64:
    """`d` (..., 6) with ``exp(d) = T`` (..., 4, 4) and a rotation of at most half a turn."""
    T = np.asarray(T, np.float64)
    vector = Rotation.from_matrix(T[..., :3, :3].reshape(-1, 3, 3)).as_rotvec().reshape(*T.shape[:-2], 3)
    angle, K = np.linalg.norm(vector, axis=-1)[..., None, None], skew(vector)
    safe = np.where(angle < SMALL_ANGLE, 1.0, angle)
    half = safe / 2
    twice = np.where(angle < SMALL_ANGLE, 1 / 12 + angle**2 / 720, (1 - half / np.tan(half)) / safe**2)
    translation = (np.eye(3) - 0.5 * K + twice * K @ K) @ T[..., :3, 3:]
    return np.concatenate([translation[..., 0], vector], axis=-1)


def skew(v: F64) -> F64:
    """The matrices (..., 3, 3) of the cross product with `v` (..., 3)."""
    K = np.zeros((*v.shape, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        K[..., j, i], K[..., i, j] = v[..., k], -v[..., k]
    return K
