# SPDX-License-Identifier: Apache-2.0
"""Worlds under a roof: halls and corridors, car parks. Lengths in metres."""

from __future__ import annotations

import itertools

import numpy as np

from vlad_ros.simulation.world import Builder, World, flat_terrain, random_species
from vlad_ros.types import F64


class _Frame:
    """A turned grid: positions (along, across) around the world's centre to world x y."""

    def __init__(self, size: float, yaw: float) -> None:
        self.centre, self.yaw = size / 2, yaw
        self.c, self.s = np.cos(yaw), np.sin(yaw)

    def at(self, along: np.floating | float, across: np.floating | float) -> F64:
        return self.centre + np.array([self.c * along - self.s * across, self.s * along + self.c * across])

    def line(self, along: np.ndarray, across: np.ndarray) -> F64:
        return np.stack([self.at(a, c) for a, c in zip(along, across, strict=True)])


def _aisles(f: _Frame, at: list[F64], reach: tuple[float, float]) -> tuple[F64, ...]:
    """Straight aisles at the given places, along both axes of the frame."""
    roads = [f.line(np.linspace(-reach[0], reach[0], 9), np.full(9, across)) for across in at[0]]
    roads += [f.line(np.full(9, along), np.linspace(-reach[1], reach[1], 9)) for along in at[1]]
    return tuple(roads)


def indoor(rng: np.random.Generator, size: float) -> World:
    """Halls, rooms, corridors and courtyards: many short walls at right angles, with doors, furniture and shelves."""
    f = _Frame(size, rng.uniform(0, np.pi))
    cell = rng.uniform(8.0, 35.0)
    n = int(min(size, 260.0) / cell * 0.7)
    offsets = [np.array([(k + rng.uniform(0.3, 0.7)) * cell for k in range(-n, n) if rng.random() < 0.6]) for _ in "xy"]
    b = Builder(rng, _aisles(f, offsets, (n * cell, n * cell)), rng.uniform(0.9, 1.6))
    top = rng.uniform(3.0, 14.0)
    clutter = int(rng.integers(1, 8))
    shelves = rng.random() < 0.35
    for i in range(-n, n):
        for j in range(-n, n):
            _cell_walls(b, f, i * cell, j * cell, cell, top)
            _furniture(b, f, i * cell, j * cell, cell, clutter, top)
            if shelves and rng.random() < 0.4:
                _shelves(b, f, i * cell, j * cell, cell)
    ceiling = top if rng.random() < 0.6 else None
    return b.finish("indoor", size, flat_terrain(size), 0.0, ceiling)


def _cell_walls(b: Builder, f: _Frame, x: float, y: float, cell: float, top: float) -> None:
    rng = b.rng
    for axis in (0, 1):
        if rng.random() > 0.6:
            continue
        start = np.array([x, y]) + rng.normal(0, 0.6, 2)
        step = np.array([cell, 0.0] if axis == 0 else [0.0, cell]) * rng.uniform(0.3, 1.0)
        wall_top = top if rng.random() < 0.8 else rng.uniform(1.0, 3.0)
        b.wall(f.at(*start), f.at(*(start + step)), wall_top)
        if rng.random() < 0.5:  # a pillar, cupboard or niche at the wall
            at = f.at(*(start + step * rng.random()))
            b.box(at, rng.uniform(0.5, 3.0), rng.uniform(0.5, 2.0), f.yaw, rng.uniform(0.6, top))


def _furniture(b: Builder, f: _Frame, x: float, y: float, cell: float, clutter: int, top: float) -> None:
    rng = b.rng
    for _ in range(int(rng.integers(0, clutter + 1))):
        at = f.at(*(np.array([x, y]) + rng.uniform(0, cell, 2)))
        yaw = f.yaw + rng.normal(0, 0.3)
        b.box(at, rng.uniform(0.4, 2.5), rng.uniform(0.4, 1.5), yaw, rng.uniform(0.5, 2.2))
    if rng.random() < 0.3:
        b.cylinder(f.at(*(np.array([x, y]) + rng.uniform(0, cell, 2))), rng.uniform(0.15, 0.6), top)
    if rng.random() < 0.12:  # a courtyard's or an atrium's tree
        b.tree(f.at(*(np.array([x, y]) + rng.uniform(0, cell, 2))), random_species(rng), 0.6)


def _shelves(b: Builder, f: _Frame, x: float, y: float, cell: float) -> None:
    """Parallel racks, one level above the other."""
    rng = b.rng
    gap, top = rng.uniform(2.2, 4.0), rng.uniform(1.8, 6.0)
    for across in np.arange(1.0, cell - 1.0, gap):
        at = f.at(x + cell / 2, y + across)
        b.box(at, cell * rng.uniform(0.5, 0.8), rng.uniform(0.5, 1.2), f.yaw, top)


def carpark(rng: np.random.Generator, size: float) -> World:
    """A car park: pillars in a grid under a low ceiling with beams, rows of parked cars, stair cores, outer walls."""
    f = _Frame(size, rng.uniform(0, np.pi))
    half = np.array([min(0.5 * size, rng.uniform(35, 75)), min(0.5 * size, rng.uniform(25, 60))])
    pitch = rng.uniform(14.5, 17.5)  # two rows of places and an aisle
    rows = np.arange(-half[1] + pitch / 2, half[1] - pitch / 4, pitch)
    ends = np.array([-half[0] + 5.0, 0.0, half[0] - 5.0])
    b = Builder(rng, _aisles(f, [rows, ends], (half[0] - 4.0, half[1] - 4.0)), rng.uniform(2.6, 3.0))
    ceiling = rng.uniform(2.2, 3.4)
    _outer_walls(b, f, half, ceiling)
    bay = rng.uniform(5.0, 8.0)
    radius = rng.uniform(0.2, 0.5)
    for across in np.concatenate([rows - pitch / 2, rows[-1:] + pitch / 2]):
        for along in np.arange(-half[0] + bay / 2, half[0], bay):
            if rng.random() < 0.9:
                b.cylinder(f.at(along, across + rng.choice([-0.05, 0.05])), radius, ceiling)
            b.wall(f.at(along, across - pitch / 2), f.at(along, across + pitch / 2), ceiling, ceiling - 0.4)
        for along in np.arange(-half[0] + 1.5, half[0] - 1.5, 2.6):
            for side in (-1, 1):
                x, y = f.at(along, across + side * 2.6)
                if b.off_road(np.array([[x, y]]), 0.5)[0]:
                    b.slots.append((x, y, f.yaw + np.pi / 2))
    for _ in range(int(rng.integers(2, 9))):  # stair cores, ticket machines, stores
        at = f.at(*rng.uniform(-half, half))
        b.building(at, rng.uniform(1.5, 7.0), rng.uniform(1.5, 5.0), f.yaw, ceiling)
    return b.finish("carpark", size, flat_terrain(size), rng.uniform(0.2, 0.9), ceiling)


def _outer_walls(b: Builder, f: _Frame, half: F64, ceiling: float) -> None:
    """Walls around, in pieces: closed, a parapet that one looks over, or open."""
    rng = b.rng
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    for k in range(4):
        start, end = half * corners[k], half * corners[(k + 1) % 4]
        cuts = np.linspace(0, 1, int(rng.integers(2, 8)))
        for u, v in itertools.pairwise(cuts):
            draw = rng.random()
            if draw < 0.9:
                top = ceiling if draw < 0.7 else 1.1
                b.wall(f.at(*(start + u * (end - start))), f.at(*(start + v * (end - start))), top)
