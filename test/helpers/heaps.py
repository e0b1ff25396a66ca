# SPDX-License-Identifier: Apache-2.0
"""A street between heaps, driven on several days, and a recogniser without a network that knows it from any side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from stand_in import StandIn
from untrained import similarity_alone

from vlad_ros.config import RecognizerConfig
from vlad_ros.loops.described import Described
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64

SEEN, NEAR = 30.0, 10.0  # m: what a scan holds, and how far its descriptor mostly looks
MARKED = 0.05  # intensity below which a point is a landmark, known by its intensity
DAY = 100_000  # s
WAVES = np.random.default_rng(5).normal(0.0, 3000.0, 64)


class Landmarks(StandIn):
    """Descriptors of the landmarks around, the near ones most: no turn changes them, a few metres do little."""

    def __init__(self, model_hash: str = "0" * 64) -> None:
        super().__init__(len(WAVES), model_hash)

    def see(self, points, raster=None):
        seen = super().see(points, raster)
        marked = points[points[:, 3] < MARKED]
        weights = np.exp(-((np.linalg.norm(marked[:, :2], axis=1) / NEAR) ** 2))
        features = weights @ np.cos(marked[:, 3:] * WAVES)
        return seen._replace(descriptor=(features / np.linalg.norm(features)).astype(np.float32))


class Street:
    """Heaps along the x axis, none like another; with a `period` [m] they are repeated."""

    def __init__(self, seed: int = 0, period: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        length = period or 220.0
        middles = np.column_stack([rng.uniform(0, length, round(length)), rng.uniform(4.0, 25.0, round(length))])
        middles[:, 1] *= rng.choice([-1, 1], len(middles))
        heaps = rng.normal(0, (0.7, 0.7, 0.8), (len(middles), 30, 3)) + np.pad(middles, ((0, 0), (0, 1)))[:, None]
        floor = np.c_[rng.uniform(0, length, 20 * round(length)), rng.uniform(-28, 28, 20 * round(length))]
        points = np.concatenate([heaps.reshape(-1, 3), np.pad(floor, ((0, 0), (0, 1)), constant_values=-1.6)])
        points = np.c_[points, rng.uniform(0, 1, len(points))]
        copies = np.arange(-40.0, 180.0, length)
        self.world = np.concatenate([points + np.array([shift, 0, 0, 0]) for shift in copies]).astype(np.float32)

    def scan(self, T: F64, rng: np.random.Generator) -> F32:
        """The points around the pose `T` (4, 4), not the same twice."""
        near = self.world[np.linalg.norm(self.world[:, :2] - T[:2, 3], axis=1) < SEEN]
        near = near[(rng.random(len(near)) < 0.7) | (near[:, 3] < MARKED)]
        near[:, :3] = (near[:, :3] - T[:3, 3] + rng.normal(0, 0.02, (len(near), 3))) @ T[:3, :3]
        return near


def way(first: float, last: float, aside: float = 0.0) -> F64:
    """True poses (S, 4, 4) from `first` to `last` [m] along the street, either way, 1.5 m apart."""
    xs = np.linspace(first, last, round(abs(last - first) / 1.5) + 1)
    return np.stack([from_xyz_rpy((x, aside, 0.0, 0.0, 0.0, np.pi * (last < first))) for x in xs])


def drive(recognizer: PlaceRecognizer, street: Street, poses: F64, day: int, drift: float = 0.0) -> list[Described]:
    """Drive along the true `poses` with odometry that begins at the identity and is too long by a share `drift`; what
    was described."""
    rng, done = np.random.default_rng(day), []
    for number, T in enumerate(poses):
        odometry = inverse(poses[0]) @ T
        odometry[:3, 3] *= 1.0 + drift
        done += recognizer.step(street.scan(T, rng), (DAY * day + number) * SECOND, None, odometry)
    return done + recognizer.finish()


def recogniser(model_hash: str = "0" * 64) -> PlaceRecognizer:
    """Loops are as probable as 0.5 at a similarity of 0.5, where they can be verified."""
    config = RecognizerConfig(verification_budget=60.0, min_range=0.0)
    return PlaceRecognizer(Landmarks(model_hash), similarity_alone(0.5, 20.0), config, False)


def make_map(path: Path, street: Street, poses: F64, day: int, drift: float = 0.0, model_hash: str = "0" * 64) -> Path:
    """The map of one day."""
    recognizer = recogniser(model_hash)
    drive(recognizer, street, poses, day, drift)
    recognizer.save_map(path)
    return path
