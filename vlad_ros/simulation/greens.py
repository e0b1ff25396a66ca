# SPDX-License-Identifier: Apache-2.0
"""Open ground: campus, park, riverside. Lengths in metres, rates per hectare."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from vlad_ros.simulation.paths import arc_length, locate, place
from vlad_ros.simulation.scatter import scatter_buildings, scatter_fences, scatter_parking, scatter_plants
from vlad_ros.simulation.streets import line_parking, line_road, line_thickets, random_style, street_grid
from vlad_ros.simulation.world import Builder, World, random_species, rolling_terrain
from vlad_ros.types import F64


def campus(rng: np.random.Generator, size: float) -> World:
    """Boxes of all sizes between paths, trees and fences."""
    b = Builder(rng, street_grid(rng, size, rng.uniform(60, 130), bend=0.2), rng.uniform(2.0, 5.0))
    heading = float(np.arctan2(*np.flip(b.roads[0][-1] - b.roads[0][0])))
    style = replace(random_style(rng), setback=rng.uniform(2.0, 12.0), density=rng.uniform(0.15, 0.7))
    for road in b.roads:
        if rng.random() < 0.6:
            line_road(b, road, style)
    scatter_buildings(b, size, rng.uniform(3.0, 11.0), heading)
    scatter_plants(b, size, rng.uniform(5, 45), rng.uniform(3, 28), rng.uniform(1, 8))
    scatter_fences(b, size, rng.uniform(0, 6), heading)
    scatter_parking(b, size, int(rng.integers(0, 8)))
    return b.finish("campus", size, rolling_terrain(rng, size), rng.uniform(0.0, 0.8))


def park(rng: np.random.Generator, size: float) -> World:
    """Trees, clumps and bushes along winding paths; few buildings."""
    paths = street_grid(rng, size, rng.uniform(50, 110), bend=0.25, sway=rng.uniform(3, 15))
    b = Builder(rng, paths, rng.uniform(1.2, 3.0))
    heading = rng.uniform(0, np.pi)
    overgrown = rng.uniform(0.0, 0.8)
    for road in b.roads:
        for side in (-1, 1):
            line_thickets(b, road, side, overgrown)
    scatter_buildings(b, size, rng.uniform(0.3, 1.5), heading)
    scatter_plants(b, size, rng.uniform(18, 95), rng.uniform(4, 32), rng.uniform(1, 10))
    scatter_fences(b, size, rng.uniform(0.5, 2.0), heading, 160.0)
    return b.finish("park", size, rolling_terrain(rng, size, 0.08), rng.uniform(0.0, 0.3))


def riverside(rng: np.random.Generator, size: float) -> World:
    """A wide road along a river: long rows of like trees, lamps and rails, bridges, few buildings."""
    roads = street_grid(rng, size, rng.uniform(90, 220), bend=0.03, sway=rng.uniform(0, 15))
    b = Builder(rng, roads, rng.uniform(4.0, 9.0))
    for road in b.roads:
        for side in (-1, 1):
            for _ in range(int(rng.integers(1, 5))):
                _tree_row(b, road, side)
            if rng.random() < 0.6:
                _rail(b, road, side)
            line_thickets(b, road, side, max(0.0, rng.uniform(-0.2, 1.0)))
            if rng.random() < 0.4:
                line_parking(b, road, side, rng.uniform(0.1, 0.8))
    _bridges(b, int(rng.integers(0, 4)))
    heading = rng.uniform(0, np.pi)
    scatter_buildings(b, size, rng.uniform(0.3, 3.0), heading)
    scatter_plants(b, size, rng.uniform(2, 25), rng.uniform(2, 20), rng.uniform(0.5, 4))
    scatter_fences(b, size, rng.uniform(0.2, 2.0), heading, 120.0)
    return b.finish("riverside", size, rolling_terrain(rng, size), rng.uniform(0.0, 0.6))


def _tree_row(b: Builder, road: F64, side: int) -> None:
    """Equal trees (or lamps) at equal distances, a few of them missing."""
    rng = b.rng
    species, lamps = random_species(rng), rng.random() < 0.25
    gap = rng.uniform(20, 35) if lamps else rng.uniform(4, 12)
    lateral = side * (b.half_width + rng.uniform(0.5, 14.0))
    for s in np.arange(rng.uniform(0, gap), arc_length(road)[-1], gap):
        if rng.random() < 0.1:
            continue
        at, _ = place(road, s + rng.normal(0, 0.2), lateral + rng.normal(0, 0.15))
        if lamps:
            b.cylinder(at, 0.12, 8.0)
        else:
            b.tree(at, species, rng.uniform(0.85, 1.15))


def _rail(b: Builder, road: F64, side: int) -> None:
    """A guard rail, wall or noise barrier with gaps."""
    line = locate(road, np.arange(0, arc_length(road)[-1], 10.0), side * (b.half_width + 0.5))[:, :2]
    top = b.rng.uniform(0.7, 3.0)
    for start, end in itertools.pairwise(line):
        if b.rng.random() < 0.85:
            b.wall(start, end, top)


def _bridges(b: Builder, count: int) -> None:
    """Decks over a road on pairs of piers."""
    rng = b.rng
    for _ in range(count):
        road = b.roads[rng.integers(len(b.roads))]
        s = rng.uniform(0.25, 0.75) * arc_length(road)[-1]
        at, yaw = place(road, s)
        deck = rng.uniform(5.0, 7.0)
        b.box(at, rng.uniform(6, 14), rng.uniform(40, 90), yaw + rng.normal(0, 0.2), deck + 1.5, deck)
        for side in (-1, 1):
            for along in (-3.0, 3.0):
                b.cylinder(place(road, s + along, side * (b.half_width + 1.5))[0], rng.uniform(0.5, 0.9), deck)
