# SPDX-License-Identifier: Apache-2.0
"""How well a registration holds each direction: the covariance of a perturbation on the match's side.

T_true = exp(d) T with d = x y z roll pitch yaw along the axes of the match's frame. Points that lie on surfaces speak
along the normals (point-to-plane, Chen and Medioni, 1991); what no normal holds stays wide, as along a corridor.
"""

from __future__ import annotations

import numpy as np

from vlad_ros.types import F64

WIDE = 5.0  # m; standard deviation of a direction that nothing holds, at the points' mean distance for a rotation
SPURIOUS = 0.01  # of the best held direction: what the noise of the normals alone seems to hold
NOISE = 0.02  # m; points are no nearer to their surfaces than this
MAD = 0.6745  # median of |x| of a standard normal x
SCALE = 20.0  # neighbouring points err alike; chosen on simulated pairs so that the squared error averages 6
FLOOR = (0.01, 0.001)  # m, rad; errors that the points share


def jacobian(points: F64, normals: F64) -> F64:
    """(N, 6): how the distances of `points` (N, 3), seen along `normals` (N, 3), change with d at zero."""
    return np.concatenate([normals, np.cross(points, normals)], axis=1)


def covariance(points: F64, normals: F64, residuals: F64, overlap: float) -> F64:
    """(6, 6) of a registration whose moved `points` (N, 3) [m, match's frame] lie `residuals` (N,) [m] from surfaces
    with `normals` (N, 3). Always finite and positive definite, whatever is given."""
    radius = max(1.0, float(np.sqrt((points**2).sum(axis=1).mean()))) if len(points) else 1.0
    unit = np.array([1.0, 1.0, 1.0, radius, radius, radius])  # a rotation counted in metres at the mean distance
    sigma = np.hypot(NOISE, np.median(np.abs(residuals)) / MAD if len(points) else 0.0)
    weights = 1.0 / (1.0 + (residuals / (2.0 * sigma)) ** 2)
    J = jacobian(points, normals) / unit
    values, vectors = np.linalg.eigh((J * weights[:, None]).T @ J / sigma**2)
    held = np.maximum(values - SPURIOUS * max(values[-1], 0.0), 0.0) / (SCALE / max(overlap, 0.1) ** 2)
    spread = (vectors / (held + WIDE**-2)) @ vectors.T / np.outer(unit, unit)
    floor = np.repeat(np.square(FLOOR), 3)
    return np.asarray((spread + spread.T) / 2 + np.diag(floor))
