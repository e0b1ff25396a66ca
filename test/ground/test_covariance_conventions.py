# SPDX-License-Identifier: Apache-2.0
"""Covariances of edges in other systems' conventions: against finite differences of those systems' own errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation

from vlad_ros.covariance_conventions import (
    adjoint,
    from_upper_triangle,
    g2o_information,
    gtsam_covariance,
    right_covariance,
)
from vlad_ros.poses import from_xyz_rpy, inverse

T = from_xyz_rpy((4.0, -2.0, 0.7, 0.2, -0.4, 2.5))
STEP = 1e-6


def hat(d: np.ndarray) -> np.ndarray:
    """(4, 4) of a twist, translation first."""
    out = np.zeros((4, 4))
    out[:3, :3] = [[0, -d[5], d[4]], [d[5], 0, -d[3]], [-d[4], d[3], 0]]
    out[:3, 3] = d[:3]
    return out


def covariance(seed: int = 0) -> np.ndarray:
    A = np.random.default_rng(seed).normal(size=(6, 6)) * [0.1, 0.2, 0.05, 0.01, 0.02, 0.03]
    return A @ A.T + 1e-5 * np.eye(6)


def jacobian(error: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """d error / d d at d = 0, of an edge whose true transform is exp(d) T, by central differences."""
    columns = [(error(expm(hat(STEP * e)) @ T) - error(expm(hat(-STEP * e)) @ T)) / (2 * STEP) for e in np.eye(6)]
    return np.column_stack(columns)


def gtsam_error(T_true: np.ndarray) -> np.ndarray:
    """Logmap(measured^-1 T_true), rotation first."""
    xi = np.real(logm(inverse(T) @ T_true))
    return np.array([xi[2, 1], xi[0, 2], xi[1, 0], *xi[:3, 3]])


def g2o_error(T_true: np.ndarray) -> np.ndarray:
    """Translation and vector part of the quaternion of measured^-1 T_true (`toVectorMQT`)."""
    E = inverse(T) @ T_true
    q = Rotation.from_matrix(E[:3, :3]).as_quat(canonical=True)
    return np.concatenate([E[:3, 3], q[:3]])


def test_the_adjoint_moves_a_perturbation_to_the_other_side() -> None:
    d = np.array([0.3, -0.1, 0.2, 0.02, 0.05, -0.04])
    np.testing.assert_allclose(T @ expm(hat(d)), expm(hat(adjoint(T) @ d)) @ T, atol=1e-12)


def test_gtsam_by_finite_differences() -> None:
    J = jacobian(gtsam_error)
    np.testing.assert_allclose(gtsam_covariance(covariance(), T), J @ covariance() @ J.T, rtol=1e-6, atol=1e-9)


def test_g2o_by_finite_differences() -> None:
    J = jacobian(g2o_error)
    expected = np.linalg.inv(J @ covariance() @ J.T)
    np.testing.assert_allclose(g2o_information(covariance(), T), expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_the_conversions_are_not_each_other() -> None:
    """What a forgotten adjoint, permutation or factor of two would give is far off."""
    C = covariance()
    assert np.abs(gtsam_covariance(C, T) - C).max() > 0.1 * C.max()
    assert np.abs(right_covariance(C, T) - C).max() > 0.1 * C.max()
    plain = np.linalg.inv(right_covariance(C, T))
    assert g2o_information(C, T)[5, 5] == pytest.approx(4 * plain[5, 5])
    assert g2o_information(C, T)[0, 5] == pytest.approx(2 * plain[0, 5])
    assert g2o_information(C, T)[0, 0] == pytest.approx(plain[0, 0])


def test_a_triangle_becomes_the_matrix_again() -> None:
    np.testing.assert_array_equal(from_upper_triangle(covariance()[np.triu_indices(6)]), covariance())


def test_gtsam_itself_agrees() -> None:
    """The error that gtsam's own factor reports for a perturbed edge is the Mahalanobis distance of ours."""
    gtsam = pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")
    noise = gtsam.noiseModel.Gaussian.Covariance(gtsam_covariance(covariance(), T))
    factor = gtsam.BetweenFactorPose3(0, 1, gtsam.Pose3(T), noise)
    T_map_match = from_xyz_rpy((10.0, 3.0, 0.0, 0.0, 0.1, -1.0))
    for seed in range(5):
        d = 1e-3 * np.random.default_rng(seed).normal(size=6)
        values = gtsam.Values()
        values.insert(0, gtsam.Pose3(T_map_match))
        values.insert(1, gtsam.Pose3(T_map_match @ expm(hat(d)) @ T))
        assert 2 * factor.error(values) == pytest.approx(d @ np.linalg.solve(covariance(), d), rel=1e-2)
