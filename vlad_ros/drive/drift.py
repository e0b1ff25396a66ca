# SPDX-License-Identifier: Apache-2.0
"""Simulated drifting odometry, made from true poses, for evaluations with local maps."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from vlad_ros.poses import inverse
from vlad_ros.types import F64

STEP_NOISE = 0.005  # standard deviation of each step's translation, as a share of its length


def drifting_odometry(poses: F64, scale: float, yaw_deg: float, seed: int = 0) -> F64:
    """T_odom_base (S, 4, 4) that starts at the first of `poses` (S, 4, 4) and drifts.

    Distances have a scale error of `scale` (sign drawn once per drive: a wheel is too large or too small), headings a
    random walk of `yaw_deg` degrees in 10 m of travel.
    """
    generator = np.random.default_rng(seed)
    stretch = 1.0 + scale * generator.choice([-1.0, 1.0])
    odometry = np.empty_like(poses)
    odometry[:1] = poses[:1]
    for i in range(1, len(poses)):
        step = inverse(poses[i - 1]) @ poses[i]
        length = float(np.linalg.norm(step[:3, 3]))
        step[:3, 3] = step[:3, 3] * stretch + generator.normal(0.0, STEP_NOISE * length, 3)
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler(
            "z", generator.normal(0.0, np.radians(yaw_deg) * np.sqrt(length / 10.0))
        ).as_matrix()
        odometry[i] = odometry[i - 1] @ step @ turn
    return odometry
