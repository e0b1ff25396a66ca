# SPDX-License-Identifier: Apache-2.0
"""A recogniser with a stand-in for the network, whose descriptors depend on the points alone, and drives for it."""

from __future__ import annotations

import numpy as np
from untrained import similarity_alone

from vlad_ros.cloud.raster import Bev
from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.loops.described import Described
from vlad_ros.model.describer import Describer, Seen
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import inverse, transform
from vlad_ros.stamps import SECOND
from vlad_ros.types import POINT_SCALE, Geometry

BEV = BevConfig(extent=40.0, resolution=1.0)
WORLD = np.random.default_rng(0).uniform([-60, -20, 0, 0], [60, 20, 5, 1], (2500, 4)).astype(np.float32)


class StandIn(Describer):
    """Random Fourier features of the points (and the raster's mean) instead of a network."""

    def __init__(self, dim: int = 16, model_hash: str = "0" * 64) -> None:
        self.bev, self.dim, self.model_hash = BEV, dim, model_hash
        self.directions = np.random.default_rng(1).standard_normal((3, dim)).astype(np.float32)

    def rasterize(self, points, raster=None):
        raster = np.zeros((BEV.channels, BEV.size, BEV.size), np.float32) if raster is None else raster
        return Bev(raster, np.zeros(3), np.eye(3), 0.0, points)

    def see(self, points, raster=None):
        bev = self.rasterize(points, raster)
        features = np.cos(bev.points[:, :3] @ self.directions).mean(axis=0) + bev.raster.mean()
        descriptor = (features / np.linalg.norm(features)).astype(np.float32)
        return Seen(bev, descriptor, lambda: self.marks(points), {})

    @staticmethod
    def marks(points: np.ndarray) -> Geometry:
        """The points of least intensity as keypoints: no motion changes height and intensity, which tell them apart."""
        chosen = points[np.argsort(points[:, 3])[:100]]
        waves = np.random.default_rng(2).standard_normal((2, 32)) * [[3.0], [60.0]]
        features = np.cos(chosen[:, 2:] @ waves)
        features *= 127 / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-6)
        cloud = np.round(points[:, :3] / POINT_SCALE).astype(np.int16)
        return Geometry(chosen[:, :2].astype(np.float32), features.astype(np.int8), cloud, np.eye(4))


def recogniser(half: float = 0.5, use_bev: bool = False, model_hash: str = "0" * 64, **config) -> PlaceRecognizer:
    """Loops are as probable as 0.5 at a similarity of `half`; all are verified, however busy the computer."""
    config = RecognizerConfig(**{"verification_budget": 60.0, "max_edges": 0} | config)
    return PlaceRecognizer(StandIn(model_hash=model_hash), similarity_alone(half), config, use_bev)


def pose(x: float, yaw: float = 0.0) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0, x], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def view(T: np.ndarray) -> np.ndarray:
    """What a sensor at T sees of the world: all within 15 m."""
    points = transform(WORLD, inverse(T))
    return points[np.linalg.norm(points[:, :2], axis=1) < 15]


def drive(
    place: PlaceRecognizer, xs, start: float = 0.0, period: float = 0.5, odometry: bool = True
) -> list[Described]:
    out = []
    for i, x in enumerate(xs):
        T = pose(x)
        out += place.step(view(T), round((start + period * i) * SECOND), None, T if odometry else None)
    return out


def stamps(described: list[Described]) -> list[float]:
    return [one.keyframe.stamp / SECOND for one in described]


CLOUD = view(pose(0.0))
