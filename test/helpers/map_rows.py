# SPDX-License-Identifier: Apache-2.0
"""Keyframes of random descriptors, and databases of them."""

from __future__ import annotations

import numpy as np

from vlad_ros.config import BevConfig
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.types import Geometry, Keyframe

DIM = 8
MAKE = {"model_hash": "0" * 64, "bev": BevConfig()}  # an all-zero hash must not be taken for the blank checksum


def unit(rng: np.random.Generator, dim: int = DIM) -> np.ndarray:
    vector = rng.standard_normal(dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


def keyframe(rng, session=0, stamp=0, is_local_map=False, travel=None, dim=DIM) -> Keyframe:
    scan = unit(rng, dim)
    pose = None if travel is None else np.eye(4)
    if pose is not None:
        pose[0, 3] = travel
    return Keyframe(session, stamp, unit(rng, dim) if is_local_map else scan, scan, is_local_map, False, pose, travel)


def make(keyframes, dim=DIM) -> KeyframeDatabase:
    database = KeyframeDatabase(dim, **MAKE)
    for one in keyframes:
        database.add(one)
    return database


def geometry(rng: np.random.Generator, keypoints: int = 5, points: int = 20) -> Geometry:
    T = np.eye(4)
    T[2, 3] = rng.uniform(0.5, 2.0)
    return Geometry(
        rng.standard_normal((keypoints, 2)).astype(np.float32),
        rng.integers(-127, 128, (keypoints, 6)).astype(np.int8),
        rng.integers(-9000, 9000, (points, 3)).astype(np.int16),
        T,
    )
