# SPDX-License-Identifier: Apache-2.0
"""Aliased worlds: places that look alike and are not the same. Lengths in metres.

Each is one piece of a world, copied: the static structure is the same in every copy; parked cars, pedestrians, and a
bin, bush or sign here and there differ. The ground is level, so that nothing else tells the copies apart.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from vlad_ros.simulation.paths import arc_length
from vlad_ros.simulation.streets import facade, line_parking, line_road, plant, random_style
from vlad_ros.simulation.world import MARGIN, Builder, Kinds, World, draw_world, flat_terrain, random_species
from vlad_ros.types import F64

Pose = tuple[float, float, float]  # x y [m], yaw [rad]
AHEAD = 120.0  # m of copies beyond the square, so that no end comes into sight


def make_aliased_world(kind: str, seed: int, size: float = 300.0) -> World:
    """The static world of this kind and seed around the square [0, size]^2 [m]; ValueError as in `draw_world`."""
    return draw_world(ALIASED, kind, seed, size, 100.0)


def blocks(rng: np.random.Generator, size: float) -> World:
    """One block of houses, repeated on a regular grid of streets."""
    pitch = rng.uniform(45.0, 70.0, 2)
    half_width = rng.uniform(3.0, 5.0)
    corner = pitch / 2
    ring = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]]) * corner
    b = Builder(rng, tuple(ring[k : k + 2] for k in range(4)), half_width)
    style = replace(random_style(rng), setback=rng.uniform(0.5, 3.0), density=rng.uniform(0.6, 0.95))
    for side in b.roads:
        s = half_width + 1.0
        while s < arc_length(side)[-1] - half_width - 6.0:
            length = rng.uniform(6.0, 20.0)
            if rng.random() < style.density:
                facade(b, side, s, 1, length, style)
            s += length + rng.uniform(0.0, 4.0)
        plant(b, side, 1, style)
        line_parking(b, side, 1, style.parking)
    return _tiled(rng, b.finish("blocks", size, flat_terrain(size), rng.uniform(0.1, 0.8)), pitch)


def pillars(rng: np.random.Generator, size: float) -> World:
    """An endless car park: equal pillars and beams in a grid under a low ceiling."""
    pitch = np.array([rng.uniform(5.0, 8.0) * int(rng.integers(4, 8)), rng.uniform(15.0, 17.5)])  # cross aisle, aisle
    bays = round(pitch[0] / 7.0)
    half_width, ceiling, radius = rng.uniform(2.6, 3.0), rng.uniform(2.3, 3.4), rng.uniform(0.2, 0.5)
    x, y = pitch / 2
    roads = (np.array([[-x, -y], [x, -y]]), np.array([[-x, y], [x, y]]), np.array([[-x, -y], [-x, y]]))
    b = Builder(rng, (*roads, np.array([[x, -y], [x, y]])), half_width)
    square = rng.random() < 0.5
    for along in -x + (np.arange(bays) + 0.5) * pitch[0] / bays:
        if square:
            b.box(np.array([along, 0.0]), 1.6 * radius, 1.6 * radius, 0.0, ceiling)
        else:
            b.cylinder(np.array([along, 0.0]), radius, ceiling)
        b.wall(np.array([along, -y]), np.array([along, y]), ceiling, ceiling - 0.35)
    for along in np.arange(-x + half_width + 1.5, x - half_width - 1.4, 2.6):
        b.slots += [(along, -2.6, np.pi / 2), (along, 2.6, np.pi / 2)]
    return _tiled(rng, b.finish("pillars", size, flat_terrain(size), rng.uniform(0.1, 0.9), ceiling), pitch)


def tunnel(rng: np.random.Generator, size: float) -> World:
    """A long tunnel, straight or in a slow bend: the same segment with its niche, lamps and signs, repeated."""
    gap, half_width, ceiling = rng.uniform(12.0, 45.0), rng.uniform(3.5, 5.5), rng.uniform(4.6, 6.5)
    b = Builder(rng, (np.array([[0.0, 0.0], [gap, 0.0]]),), half_width)
    lining, kerb = half_width + rng.uniform(0.8, 1.5), rng.uniform(0.15, 0.4)
    niche = gap * rng.uniform(0.2, 0.6)
    for side in (-1, 1):
        deep = lining + (rng.uniform(0.6, 2.0) if side > 0 or rng.random() < 0.5 else 0.0)
        outline = [
            (0, lining),
            (niche, lining),
            (niche, deep),
            (niche + 3.0, deep),
            (niche + 3.0, lining),
            (gap, lining),
        ]
        for start, end in itertools.pairwise(np.array(outline) * (1, side)):
            b.wall(start, end, ceiling)
        low = np.array([[0.0, 1.0], [gap, 1.0]]) * (1, side * (half_width + 0.3))
        b.wall(low[0], low[1], kerb)
        if rng.random() < 0.7:
            b.box(np.array([gap * rng.random(), side * (lining - 0.2)]), 0.9, 0.4, 0.0, rng.uniform(1.2, 2.0))
    for along in np.arange(0.5, gap, gap / int(rng.integers(1, 6))):
        b.box(np.array([along, 0.0]), 1.2, 0.4, 0.0, ceiling, ceiling - 0.25)
    if rng.random() < 0.5:  # a jet fan
        b.box(np.array([gap / 2, 0.0]), 3.0, 1.2, 0.0, ceiling, max(4.1, ceiling - 1.2))
    segment = b.finish("tunnel", size, flat_terrain(size), rng.uniform(0.0, 0.3), ceiling)
    bend = rng.choice([0.0, 1.0]) * rng.choice([-1.0, 1.0]) / rng.uniform(250.0, 1200.0)  # 1/m
    joints = _arc(size, rng.uniform(0, np.pi), bend, gap)
    poses = [(float(a[0]), float(a[1]), float(np.arctan2(*(b - a)[::-1]))) for a, b in itertools.pairwise(joints)]
    return _differ(rng, _copies(segment, poses, (joints,), half_width))


def rows(rng: np.random.Generator, size: float) -> World:
    """Rows of equal trees at equal distances: an orchard, or an avenue through empty fields."""
    species, gap = random_species(rng), rng.uniform(4.0, 9.0)
    half_width = rng.uniform(2.0, 4.0)
    lane = 2 * half_width + rng.uniform(1.0, 5.0)
    many = int(rng.integers(2, 5)) if rng.random() < 0.6 else 0  # rows between two lanes; 0: an avenue
    pitch = np.array([gap * int(rng.integers(8, 14)), lane + max(0, many - 1) * rng.uniform(4.0, 7.0)])
    yaw = rng.uniform(0, np.pi)
    n = np.ceil((0.5 * size + MARGIN) / pitch).astype(int)
    roads = _grid(size, yaw, n, pitch)
    if not many:
        roads = (_arc(size, yaw, 0.0, 10.0),)
    b = Builder(rng, roads, half_width)
    between = np.linspace(lane / 2, pitch[1] - lane / 2, many) if many else np.array([-lane / 2, lane / 2])
    alike = rng.random() < 0.5  # identical trees, or varied ones of one species
    tree = Builder(rng, (), 0.0)
    tree.tree(np.zeros(2), species)
    model = tree.finish("rows", size, flat_terrain(size), 0.0)
    places = []
    for row in between if not many else (between + np.arange(-n[1], n[1])[:, None] * pitch[1]).ravel():
        for along in np.arange(-0.5 * size - MARGIN, 0.5 * size + MARGIN, gap):
            x, y, _ = _around(size, yaw, (float(along + rng.normal(0, 0.05)), float(row + rng.normal(0, 0.05))))
            if not b.off_road(np.array([[x, y]]), 0.3)[0]:
                continue
            places.append((x, y, rng.uniform(0, 2 * np.pi)))
            if not alike:
                b.tree(np.array([x, y]), species, rng.uniform(0.9, 1.1))
    world = b.finish("rows", size, flat_terrain(size), 0.0)
    trees = _copies(model, places, roads, half_width) if alike else world
    return _differ(rng, replace(trees, kind="rows"))


def mirrored(rng: np.random.Generator, size: float) -> World:
    """One long street whose second half repeats the first: mirrored, turned, or with both sides alike, too."""
    half_width, reach = rng.uniform(3.0, 6.0), 0.5 * size + MARGIN
    b = Builder(rng, (np.array([[0.0, 0.0], [reach, 0.0]]),), half_width)
    style = replace(random_style(rng), density=rng.uniform(0.6, 0.98))
    line_road(b, b.roads[0], style)
    half = b.finish("mirrored", size, flat_terrain(size), rng.uniform(0.0, 0.8))
    yaw = rng.uniform(0, np.pi)
    variant = int(rng.integers(3))
    if variant == 2:
        left = half.walls[:, [1, 3]].min(axis=1) > 0
        trunk = half.cylinders[:, 1] > 0
        houses, slots = half.footprints[:, 1] > 0, half.slots[:, 1] > 0
        half = replace(half, walls=half.walls[left], cylinders=half.cylinders[trunk], foliage=half.foliage[trunk])
        half = replace(half, footprints=half.footprints[houses], slots=half.slots[slots])
    here, back = _around(size, yaw, (0.0, 0.0)), _around(size, yaw + np.pi, (0.0, 0.0))
    poses = [here, back, here, back] if variant == 2 else [here, back]
    flips = [False, False, True, True] if variant == 2 else [False, variant == 0]
    return _differ(rng, _copies(half, poses, (_arc(size, yaw, 0.0, 10.0),), half_width, flips))


ALIASED: Kinds = {
    "blocks": blocks,
    "pillars": pillars,
    "tunnel": tunnel,
    "rows": rows,
    "mirrored": mirrored,
}


def _around(size: float, yaw: float, at: tuple[float, float]) -> Pose:
    """The pose of something at `at` in the frame turned by `yaw` around the middle of the square."""
    c, s = np.cos(yaw), np.sin(yaw)
    return float(size / 2 + c * at[0] - s * at[1]), float(size / 2 + s * at[0] + c * at[1]), float(yaw)


def _grid(size: float, yaw: float, n: np.ndarray, pitch: F64) -> tuple[F64, ...]:
    """Straight roads at whole numbers of the pitch along both axes of the turned frame."""
    roads = []
    for axis in (0, 1):
        reach = n[axis] * pitch[axis]
        for k in range(-n[1 - axis], n[1 - axis] + 1):
            along = np.linspace(-reach, reach, 2 * n[axis] + 1)
            across = np.full(len(along), k * pitch[1 - axis])
            points = zip(along, across, strict=True) if axis == 0 else zip(across, along, strict=True)
            roads.append(np.array([_around(size, yaw, point)[:2] for point in points]))
    return tuple(roads)


def _arc(size: float, yaw: float, bend: float, step: float) -> F64:
    """Points `step` apart on an arc of curvature `bend` [1/m] through the middle of the square, and AHEAD beyond it."""
    n = int((0.5 * size + AHEAD) / step) + 1
    s = np.arange(-n, n + 1) * step
    if bend == 0.0:
        x, y = s, np.zeros(len(s))
    else:
        x, y = np.sin(s * bend) / bend, (1 - np.cos(s * bend)) / bend
    return np.array([_around(size, yaw, (a, b))[:2] for a, b in zip(x, y, strict=True)])


def _tiled(rng: np.random.Generator, cell: World, pitch: F64) -> World:
    """Copies of `cell`, `pitch` (2,) [m] apart, over the whole square and its margin, on a grid turned at random."""
    yaw = rng.uniform(0, np.pi)
    n = np.ceil((0.5 * cell.size + MARGIN) / pitch).astype(int)
    cells = list(itertools.product(range(-n[0], n[0]), range(-n[1], n[1])))
    poses = [_around(cell.size, yaw, ((i + 0.5) * pitch[0], (j + 0.5) * pitch[1])) for i, j in cells]
    return _differ(rng, _copies(cell, poses, _grid(cell.size, yaw, n, pitch), cell.half_width))


def _copies(
    part: World, poses: list[Pose], roads: tuple[F64, ...], half_width: float, flips: list[bool] | None = None
) -> World:
    """The world of copies of `part` at the poses, mirrored in their own x axis where `flips` is True."""
    walls, cylinders, slots, footprints = [], [], [], []
    for (x, y, yaw), flip in zip(poses, flips or [False] * len(poses), strict=True):
        sign = -1.0 if flip else 1.0
        R = np.array([[np.cos(yaw), -sign * np.sin(yaw)], [np.sin(yaw), sign * np.cos(yaw)]])
        t = np.array([x, y])
        ends = [part.walls[:, :2] @ R.T + t, part.walls[:, 2:4] @ R.T + t]
        walls.append(np.hstack([*ends, part.walls[:, 4:]]))
        cylinders.append(np.hstack([part.cylinders[:, :2] @ R.T + t, part.cylinders[:, 2:]]))
        turned = yaw + sign * part.slots[:, 2:]
        slots.append(np.hstack([part.slots[:, :2] @ R.T + t, turned]))
        houses = part.footprints
        footprints.append(np.hstack([houses[:, :2] @ R.T + t, houses[:, 2:4], yaw + sign * houses[:, 4:]]))
    return replace(
        part,
        walls=np.concatenate(walls).astype(np.float32),
        cylinders=np.concatenate(cylinders).astype(np.float32),
        foliage=np.tile(part.foliage, len(poses)),
        slots=np.concatenate(slots),
        footprints=np.concatenate(footprints),
        roads=roads,
        half_width=half_width,
    )


def _differ(rng: np.random.Generator, world: World) -> World:
    """The same world with small unique things in random places, up to one in 1500 square metres."""
    b = Builder(rng, world.roads, world.half_width)
    n = int(rng.uniform(0.0, 1.0) * (world.size + 2 * MARGIN) ** 2 / 1500.0)
    for at in rng.uniform(-MARGIN, world.size + MARGIN, (n, 2)):
        kind = rng.integers(3)
        if kind == 0:
            b.bush(at, rng.uniform(0.3, 0.8), rng.uniform(0.4, 1.5))
        elif kind == 1:
            b.box(at, rng.uniform(0.4, 1.2), rng.uniform(0.4, 0.8), rng.uniform(0, np.pi), rng.uniform(0.8, 1.4))
        else:
            b.cylinder(at, 0.05, rng.uniform(2.0, 3.0))
    extra = b.finish(world.kind, world.size, world.terrain, world.traffic)
    return replace(
        world,
        walls=np.concatenate([world.walls, extra.walls]),
        cylinders=np.concatenate([world.cylinders, extra.cylinders]),
        foliage=np.concatenate([world.foliage, extra.foliage]),
    )
