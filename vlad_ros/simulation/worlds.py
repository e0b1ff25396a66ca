# SPDX-License-Identifier: Apache-2.0
"""Worlds by kind and seed, and what changes in them from visit to visit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.distance import cdist

from vlad_ros.simulation.greens import campus, park, riverside
from vlad_ros.simulation.indoors import carpark, indoor
from vlad_ros.simulation.paths import arc_length, locate_on
from vlad_ros.simulation.streets import plaza, street
from vlad_ros.simulation.world import Kinds, World, box_walls, draw_world
from vlad_ros.types import F32, F64

KINDS: Kinds = {
    "street": street,
    "campus": campus,
    "park": park,
    "indoor": indoor,
    "carpark": carpark,
    "plaza": plaza,
    "riverside": riverside,
}


def make_world(kind: str, seed: int, size: float = 300.0) -> World:
    """The static world of this kind and seed around the square [0, size]^2 [m]; ValueError as in `draw_world`."""
    return draw_world(KINDS, kind, seed, size, 60.0)


def visit(
    world: World,
    seed: int,
    time: float = 0.0,
    clear: F64 | None = None,
    here: F64 | None = None,
    radius: float = 3.0,
) -> World:
    """The world on one visit: `seed` draws the parked and moving cars, the pedestrians and the season's foliage.

    `time` [s] moves what moves; the rest stays the same for the same seed. No car is parked within `radius` metres of
    the points `clear` (K, 2), where the sensor goes; nothing moves within it of `here` (default: `clear`).
    """
    rng = np.random.default_rng(seed)
    parked, moving = _parked(world, rng), _moving(world, rng, time)
    people = _pedestrians(world, rng, time)
    if clear is not None:
        here = clear if here is None else here
        parked = parked[_away(parked[:, :2], clear, radius)]
        moving = moving[_away(moving[:, :2], here, radius)]
        people = people[_away(people[:, :2], here, radius)]
    cars = np.concatenate([parked, moving])
    cylinders, foliage = _season(world, rng)
    walkers = np.zeros((len(people), 5), np.float32)
    walkers[:, :2], walkers[:, 2], walkers[:, 4] = people[:, :2], people[:, 2], people[:, 3]
    return replace(
        world,
        walls=np.concatenate([world.walls, _car_walls(cars)]),
        cylinders=np.concatenate([cylinders, walkers]),
        foliage=np.concatenate([foliage, np.zeros(len(people), bool)]),
    )


def _away(points: F64, clear: F64, radius: float) -> np.ndarray:
    if not len(points):
        return np.zeros(0, bool)
    return np.asarray(cdist(points, clear, "sqeuclidean").min(axis=1) > radius**2)


def _sizes(rng: np.random.Generator, n: int) -> F64:
    """Length, width, height [m] of n vehicles, one of seven a van or lorry, (n, 3)."""
    size = rng.uniform((3.6, 1.6, 1.4), (5.2, 2.0, 1.8), (n, 3))
    large = rng.random(n) < 0.15
    size[large] = rng.uniform((5.0, 1.9, 2.0), (9.0, 2.4, 3.4), (int(large.sum()), 3))
    return size


def _parked(world: World, rng: np.random.Generator) -> F64:
    """Cars (n, 6) x y yaw length width height in some of the slots."""
    share = world.traffic * rng.uniform(0.3, 1.2)
    slots = world.slots[rng.random(len(world.slots)) < share]
    slots = slots + rng.normal(0.0, 1.0, slots.shape) * (0.25, 0.25, 0.04)
    slots[:, 2] += np.pi * (rng.random(len(slots)) < 0.5)
    return np.hstack([slots, _sizes(rng, len(slots))])


def _moving(world: World, rng: np.random.Generator, time: float) -> F64:
    """Cars (n, 6) on the right-hand side of the roads, at constant speeds."""
    if world.half_width < 2.5:
        return np.zeros((0, 6))
    which = _along_roads(world, rng, world.traffic / 80.0)
    n = len(which)
    start, speed, size = rng.uniform(0, 1e4, n), rng.uniform(0.0, 12.0, n), _sizes(rng, n)
    forward = rng.random(n) < 0.5
    s = start + np.where(forward, 1, -1) * speed * time
    where = locate_on(world.roads, which, s, np.where(forward, -0.5, 0.5) * world.half_width)
    return np.hstack([where, size])


def _pedestrians(world: World, rng: np.random.Generator, time: float) -> F64:
    """People (n, 4) x y radius height walking beside the roads, or in aisles."""
    which = _along_roads(world, rng, rng.random() / 60.0)
    n = len(which)
    s = rng.uniform(0, 1e4, n) + rng.uniform(-1.5, 1.5, n) * time
    lateral = rng.choice([-1.0, 1.0], n) * world.half_width * rng.uniform(0.6, 1.3, n)
    where = locate_on(world.roads, which, s, lateral)
    return np.column_stack([where[:, :2], rng.uniform(0.15, 0.3, n), rng.uniform(1.2, 1.9, n)])


def _along_roads(world: World, rng: np.random.Generator, per_metre: float) -> np.ndarray:
    """Indices of roads, each as often as it has things, `per_metre` on average."""
    ends = np.array([arc_length(road)[-1] for road in world.roads])
    return np.repeat(np.arange(len(ends)), rng.poisson(per_metre * ends))


def _season(world: World, rng: np.random.Generator) -> tuple[F32, np.ndarray]:
    """Crowns and bushes of another season: all a little larger or smaller, some pieces gone."""
    shrink, lost = rng.uniform(0.65, 1.05), rng.uniform(0.0, 0.35)
    kept = ~(world.foliage & (rng.random(len(world.foliage)) < lost))
    cylinders = world.cylinders[kept]
    foliage = world.foliage[kept]
    cylinders[foliage, 2] *= np.float32(shrink)
    return cylinders, foliage


def _car_walls(cars: F64) -> F32:
    """Walls of the cars: a low body under a shorter cabin, vans and lorries straight up."""
    x, y, yaw, length, width, top = cars.T
    tall = top > 1.9
    body = np.column_stack([x, y, length, width, yaw, np.full(len(cars), 0.25), np.where(tall, top, 0.95)])
    cabin = np.column_stack([x, y, 0.55 * length, 0.88 * width, yaw, np.full(len(cars), 0.9), top])
    return box_walls(np.concatenate([body, cabin[~tall]]))
