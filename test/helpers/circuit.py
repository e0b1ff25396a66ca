# SPDX-License-Identifier: Apache-2.0
"""A drive in circles, so small that the whole command runs on it within seconds."""

from __future__ import annotations

import math

import numpy as np

from vlad_ros.files.sequence import Sequence
from vlad_ros.poses import from_xyz_rpy


def circuit(n: int = 34, count: int = 2, radius: float = 10.0) -> Sequence:
    """`count` laps of a circle between heaps, one scan of 1.8 m and one second each."""
    rng = np.random.default_rng(3)
    heaps = [rng.normal(c, (1.0, 1.0, 0.8), (150, 3)) for c in rng.uniform(-28, 28, (30, 3)) * (1, 1, 0)]
    world = np.concatenate([*heaps, np.c_[rng.uniform(-32, 32, (2000, 2)), np.full(2000, -1.6)]])
    poses = []
    for k in range(n * count):
        a = 2 * math.pi * k / n
        poses.append(from_xyz_rpy((radius * math.cos(a), radius * math.sin(a), 0.0, 0.0, 0.0, a + math.pi / 2)))
    scans = [np.c_[(world - p[:3, 3]) @ p[:3, :3], np.zeros(len(world))].astype(np.float32) for p in poses]
    return Sequence("circuit", scans, np.stack(poses), 100.0 + np.arange(len(poses)) * 1.0)
