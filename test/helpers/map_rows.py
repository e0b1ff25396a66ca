# SPDX-License-Identifier: Apache-2.0
"""Keyframes of random descriptors, and databases of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from vlad_ros.config import BevConfig
from vlad_ros.mapping.codec import round_descriptor
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.stamps import SECOND
from vlad_ros.types import Geometry, Keyframe

DIM = 8
MAKE = {"model_hash": "0" * 64, "bev": BevConfig()}  # an all-zero hash must not be taken for the blank checksum


def unit(rng: np.random.Generator, dim: int = DIM) -> np.ndarray:
    vector = rng.standard_normal(dim).astype(np.float32)
    return round_descriptor(vector / np.linalg.norm(vector))  # as a map gives it back


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


def mixed(count: int = 12, seed: int = 9) -> list[Keyframe]:
    """Keyframes of sessions of four: with and without local maps, odometry, single scans and geometry."""
    rng = np.random.default_rng(seed)
    rows = [keyframe(rng, i // 4, i * SECOND, i % 3 == 0, float(i) if i % 2 else None) for i in range(count)]
    shapes = rng.integers(0, 4, (count, 2)) * 10  # empty ones, too
    for i, row in enumerate(rows):
        if i % 6 != 5:
            rows[i] = dataclasses.replace(row, geometry=geometry(rng, *map(int, shapes[i])))
        if i % 9 == 6:
            rows[i] = dataclasses.replace(rows[i], scan_descriptor=None)
    return rows


def equal(one: object, other: object) -> bool:
    """Whether two values, arrays, keyframes or geometries are the same to the last bit, types included."""
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return all(equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


def extend(path, **other) -> KeyframeDatabase:
    """The database that a file grows with."""
    return KeyframeDatabase.extend(path, **({"dim": DIM} | MAKE | other))


def load(path, **other) -> KeyframeDatabase:
    """The database of a file that is only read."""
    return KeyframeDatabase.load(path, **({"dim": DIM} | MAKE | other))
