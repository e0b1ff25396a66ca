# SPDX-License-Identifier: Apache-2.0
"""Batches of rasters from simulated views; thinning, heading and joined views are drawn anew in each step."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from vlad_ros.cloud.raster import Bev, rasterize
from vlad_ros.cloud.thin import voxel_thin
from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.poses import turn
from vlad_ros.simulation.views import Views, load_views
from vlad_ros.training.recipe import StageRecipe
from vlad_ros.types import F32, F64

VOXEL = RecognizerConfig().accumulation_voxel  # m


@dataclass(frozen=True, eq=False)
class Batch:
    """Rasters of a batch. Sample n belongs to ``group[n]`` (samples of a group may share points) and ``world[n]``, and
    was seen from ``pose[n]`` (x, y [m], yaw [rad]) in that world. The first half of a place's samples comes from one
    group of its views, the second from the other: samples n and n + len / 2 are two visits to one place."""

    bevs: list[Bev]
    pose: F64
    world: np.ndarray
    group: np.ndarray


class Places:
    """Views, given or read from a file, by place and world."""

    def __init__(self, source: Views | str | os.PathLike[str]) -> None:
        views = source if isinstance(source, Views) else load_views(source)
        self.points, self.pose = views.points, views.pose.astype(np.float64)
        self.place, self.world = views.place, views.world
        self.of_place = [np.flatnonzero(self.place == p) for p in range(self.place.max() + 1)]
        self.place_world = np.array([self.world[members[0]] for members in self.of_place])

    def draw_places(self, stage: StageRecipe, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` places: half of them from `stage.worlds` worlds, the rest from anywhere."""
        chosen: list[int] = []
        if stage.worlds:
            for world in rng.choice(np.unique(self.place_world), stage.worlds, replace=False):
                here = np.flatnonzero(self.place_world == world)
                share = min(len(here), max(1, count // (2 * stage.worlds)))
                chosen += rng.choice(here, share, replace=False).tolist()
        others = np.setdiff1d(np.arange(len(self.of_place)), chosen)
        return np.array(chosen + rng.choice(others, count - len(chosen), replace=False).tolist())


def thin(points: F32, views: int, rng: np.random.Generator) -> F32:
    """Half of the time all points, else a random 1,200 to 8,000 per view."""
    count = int(np.exp(rng.uniform(np.log(1200), np.log(8000)))) * views
    if rng.random() < 0.5 or count >= len(points):
        return points
    return points[rng.choice(len(points), count, replace=False)]


def joined(views: Places, indices: np.ndarray, bev: BevConfig, rng: np.random.Generator) -> F32:
    """Several views as a local map in the frame of the first: each levelled and moved by its pose, as by odometry."""
    if len(indices) == 1:
        return views.points(indices[0])
    clouds = []
    for index in indices:
        placed = turn(np.asarray(rasterize(views.points(index), bev).points)[:, :3], views.pose[index, 2])
        placed[:, :2] += (views.pose[index, :2] - views.pose[indices[0], :2]).astype(np.float32)
        if index != indices[0]:  # odometry drifts by about 1 % and half a degree in 10 m
            placed = turn(placed, rng.normal(0, 0.005))
            placed[:, :2] += rng.normal(0, 0.08, 2).astype(np.float32)
        clouds.append(turn(placed, -views.pose[indices[0], 2]))
    return voxel_thin(np.concatenate(clouds), VOXEL)


def draw(views: Places, stage: StageRecipe, bev: BevConfig, rng: np.random.Generator) -> Batch:
    """One batch of ``2 * stage.places * stage.anchors`` rasters, a few less where that is no multiple of a place's.

    A share `stage.single` of the batches joins no views: it holds every view of fewer places, so that a view has as
    many neighbours along the street to be told from as its place has views.
    """
    alone = stage.single > 0 and rng.random() < stage.single
    size = len(views.of_place[0]) if alone else 2 * stage.anchors
    halves: list[list[tuple[Bev, F64, int, int]]] = [[], []]
    for place in views.draw_places(stage, max(1, 2 * stage.places * stage.anchors // size), rng):
        order = rng.permutation(views.of_place[place])
        groups = np.array_split(order, len(order) if alone else 2)
        for number, group in enumerate(groups):
            for anchor in range(1 if alone else stage.anchors):
                other = anchor == 0 or not stage.turn_weight  # else the same cloud again
                if other:
                    members = np.roll(group, -anchor)[: rng.integers(1, min(stage.merge, len(group)) + 1)]
                angle = rng.uniform(-np.pi, np.pi)
                if other:
                    cloud = thin(joined(views, members, bev, rng), len(members), rng)
                points = turn(cloud, angle)
                pose = views.pose[members[0]] - np.array([0.0, 0.0, angle])
                name = int(place) * len(order) + number
                sample = (rasterize(points, bev), pose, int(views.place_world[place]), name)
                halves[2 * number // len(groups)].append(sample)
    bevs, poses, worlds, names = zip(*(halves[0] + halves[1]), strict=True)
    return Batch(list(bevs), np.array(poses), np.array(worlds), np.array(names))
