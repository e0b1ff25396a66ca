# SPDX-License-Identifier: Apache-2.0
"""How well a registration constrains each direction: the covariance of a perturbation on the match's side.

T_true = exp(d) T with d = x y z roll pitch yaw along the axes of the match's frame. Points on surfaces constrain d
along the normals (point-to-plane, Chen and Medioni, 1991); other directions stay wide, as along a corridor. The
constants were chosen on simulated pairs (vlad_ros.simulation.pairs, seeds 300 and 301), so that the normalised squared
error averages 6 in every kind of scene, at every distance and density.
"""

from __future__ import annotations

import numpy as np

from vlad_ros.types import F64

WIDE = 4.0  # m; standard deviation of an unconstrained direction, at the points' mean distance for a rotation
SPURIOUS = 0.006  # of the best constrained direction: apparent constraint from the noise of the normals alone
NOISE = 0.005  # m; points are no nearer to their surfaces than this
MAD = 0.6745  # median of |x| of a standard normal x
POINTS = 2300.0  # errors of neighbouring points are correlated: more points do not average them out
FLOOR = (0.0007, 0.0007, 0.0003, 0.0002, 0.0002, 0.0002)  # m, rad
UNSETTLED = (2.1, 0.7)  # of the motion in the last round of registration: metres, radians
BENT = 0.7  # of the residual over the points' mean distance: a local map's own heading is that uncertain


def jacobian(points: F64, normals: F64) -> F64:
    """(N, 6): how the distances of `points` (N, 3), seen along `normals` (N, 3), change with d at zero."""
    return np.concatenate([normals, np.cross(points, normals)], axis=1)


def covariance(points: F64, normals: F64, residuals: F64, overlap: float, unsettled: tuple[float, float]) -> F64:
    """(6, 6) of a registration whose moved `points` (N, 3) [m, match's frame] lie `residuals` (N,) [m] from surfaces
    with `normals` (N, 3). `unsettled` [m, rad]: how far the last round, with nearer correspondences, still moved it.

    Always finite and positive definite, whatever the scene.
    """
    count = len(points)
    radius = max(1.0, float(np.sqrt((points**2).sum(axis=1).mean()))) if count else 1.0
    unit = np.array([1.0, 1.0, 1.0, radius, radius, radius])  # a rotation expressed in metres at the mean distance
    sigma = float(np.hypot(NOISE, np.median(np.abs(residuals)) / MAD)) if count else NOISE
    weights = 1.0 / (1.0 + (residuals / (2.0 * sigma)) ** 2)
    J = jacobian(points, normals) / unit
    values, vectors = np.linalg.eigh((J * weights[:, None]).T @ J / max(count, 1))
    held = np.maximum(values - SPURIOUS * max(values[-1], 0.0), 0.0) * POINTS / sigma**2 * max(overlap, 0.1) ** 3
    spread = (vectors / (held + WIDE**-2)) @ vectors.T / np.outer(unit, unit)
    metres, radians = UNSETTLED[0] * unsettled[0], UNSETTLED[1] * unsettled[1]
    shared = np.array([metres, metres, metres / 3, radians, radians, np.hypot(radians, BENT * sigma / radius)])
    return np.asarray((spread + spread.T) / 2 + np.diag(np.square(FLOOR) + shared**2))
