# SPDX-License-Identifier: Apache-2.0
"""Towns: streets and blocks, plazas. Lengths in metres, rates per metre of road side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlad_ros.simulation.paths import arc_length, locate, place
from vlad_ros.simulation.scatter import scatter_plants
from vlad_ros.simulation.world import MARGIN, Builder, World, random_species, rolling_terrain
from vlad_ros.types import F64


@dataclass(frozen=True)
class StreetStyle:
    """What the streets of one town have in common; lengths in metres, rates per metre, shares 0..1."""

    setback: float
    density: float
    height: float
    hedges: float
    trees: float
    poles: float
    balconies: float
    clutter: float
    parking: float
    thickets: float


def random_style(rng: np.random.Generator) -> StreetStyle:
    """The style of a random town."""
    return StreetStyle(
        setback=rng.uniform(0.3, 8.0),
        density=rng.uniform(0.5, 0.98),
        height=rng.uniform(4.0, 18.0),
        hedges=rng.uniform(0.0, 0.7),
        trees=rng.uniform(0.0, 0.14),
        poles=rng.uniform(0.01, 0.06),
        balconies=rng.uniform(0.0, 0.5),
        clutter=rng.uniform(0.0, 0.08),
        parking=rng.uniform(0.3, 1.0),
        thickets=max(0.0, rng.uniform(-0.3, 0.5)),
    )


def street_grid(
    rng: np.random.Generator, size: float, spacing: float, families: int = 2, bend: float = 0.06, sway: float = 0.0
) -> tuple[F64, ...]:
    """Roads in one or two families at right angles, about `spacing` apart, some left out, none quite parallel.

    `sway` [m] is the amplitude of slow bends. Each polyline runs right through the world and its margin.
    """
    heading = rng.uniform(0, np.pi)
    reach = 0.5 * size + MARGIN
    roads = []
    for family in range(families):
        count = int(size / spacing / 2) + 1
        for k in range(-count, count + 1):
            if k and rng.random() < 0.15:
                continue
            yaw = heading + family * np.pi / 2 + rng.normal(0, bend)
            u = np.array([np.cos(yaw), np.sin(yaw)])
            v = np.array([-np.sin(heading + family * np.pi / 2), np.cos(heading + family * np.pi / 2)])
            s = np.arange(-reach, reach + 1, 10.0)
            swing = sway * np.sin(2 * np.pi * s / rng.uniform(150, 300) + rng.uniform(0, 6))
            origin = size / 2 + v * (k * spacing + rng.normal(0, 0.1 * spacing))
            roads.append(origin + s[:, None] * u + swing[:, None] * np.array([-u[1], u[0]]))
    return tuple(roads)


def facade(b: Builder, road: F64, s: float, side: int, length: float, style: StreetStyle) -> None:
    """One building beside the road, with bays, balconies, and a hedge or wall before and beside it."""
    rng = b.rng
    depth = rng.uniform(7.0, 16.0)
    front = b.half_width + style.setback * rng.uniform(0.6, 1.4)
    top = max(2.5, rng.normal(style.height, 2.5))
    for shrink in (1.0, 0.7, 0.45):  # near crossings and bends only a smaller one fits
        at, yaw = place(road, s + length * shrink / 2, side * (front + depth * shrink / 2))
        if b.building(at, length * shrink, depth * shrink, yaw, top):
            break
    else:
        return
    length *= shrink
    if rng.random() < 0.6:
        bay, _ = place(road, s + rng.uniform(0, length), side * (front - 0.4))
        b.box(bay, rng.uniform(1.5, 6.0), rng.uniform(1.0, 3.0), yaw, rng.uniform(2.2, top))
    if rng.random() < style.balconies:
        for along in np.arange(1.5, length - 1.5, rng.uniform(3.0, 6.0)):
            balcony, _ = place(road, s + float(along), side * front)
            for floor in np.arange(2.8, top - 1.0, 3.0):
                b.box(balcony, 2.4, 2.4, yaw, float(floor) + 1.1, float(floor))
    if rng.random() < style.hedges:
        _front_garden(b, road, s, side, length, front)


def _front_garden(b: Builder, road: F64, s: float, side: int, length: float, front: float) -> None:
    rng = b.rng
    fence = side * (b.half_width + 0.3 * (front - b.half_width))
    start, _ = place(road, s, fence)
    b.wall(start, place(road, s + length * rng.uniform(0.4, 1.0), fence)[0], rng.uniform(0.6, 2.2))
    if rng.random() < 0.5:
        b.wall(start, place(road, s, side * front)[0], rng.uniform(0.6, 2.2))


def line_road(b: Builder, road: F64, style: StreetStyle) -> None:
    """Buildings, gaps, trees, poles, bushes and parking places along both sides of a road."""
    rng = b.rng
    for side in (-1, 1):
        s = 0.0
        while s < arc_length(road)[-1]:
            length = rng.uniform(6.0, 28.0)
            if rng.random() < style.density:
                facade(b, road, s, side, length, style)
            s += length + (rng.uniform(0, 2) if rng.random() < 0.6 else rng.uniform(2, 14))
        plant(b, road, side, style)
        line_thickets(b, road, side, style.thickets)
        line_parking(b, road, side, style.parking)


def plant(b: Builder, road: F64, side: int, style: StreetStyle) -> None:
    """Trees, poles, bushes and boxes (bins, sheds, kiosks) between road and houses."""
    rng = b.rng
    species = random_species(rng)
    for s in np.arange(0.0, arc_length(road)[-1], 1.0):
        draw = rng.random()
        if draw >= style.trees * 1.7 + style.poles + style.clutter:
            continue
        verge = rng.uniform(0.1, 0.6) * max(1.0, style.setback)
        at, yaw = place(road, s + rng.random(), side * (b.half_width + verge))
        if draw < style.trees:
            b.tree(at, species if rng.random() < 0.6 else random_species(rng), rng.uniform(0.6, 1.3))
        elif draw < style.trees + style.poles:
            b.pole(at)
        elif draw < style.trees + style.poles + style.clutter:
            b.box(at, rng.uniform(0.4, 2.5), rng.uniform(0.3, 1.2), yaw + rng.normal(0, 0.1), rng.uniform(0.5, 2.6))
        else:
            b.bush(at, rng.uniform(0.3, 1.4), rng.uniform(0.4, 2.2))


def line_thickets(b: Builder, road: F64, side: int, share: float) -> None:
    """Stretches of overgrown verge, `share` of the road's length in all."""
    rng = b.rng
    end = arc_length(road)[-1]
    for s in np.arange(0.0, end, 30.0):
        if rng.random() < share:
            length, depth = rng.uniform(5, 35), rng.uniform(1.5, 10)
            n = int(length * depth * rng.uniform(0.08, 0.4))
            lateral = side * (b.half_width + rng.uniform(0.5, 6.0) + rng.uniform(0, depth, n))
            at = locate(road, s + rng.uniform(0, length, n), lateral)[:, :2]
            b.thicket(at, rng.uniform(0.5, 1.8), rng.uniform(0.8, 5.0))


def line_parking(b: Builder, road: F64, side: int, share: float) -> None:
    """Parking places along the kerb."""
    s = b.rng.uniform(0, 6)
    while s < arc_length(road)[-1] - 6:
        if b.rng.random() < share:
            at, yaw = place(road, s, side * (b.half_width - min(1.2, b.half_width - 1.0)))
            b.slots.append((at[0], at[1], yaw))
        s += b.rng.uniform(5.5, 7.5)


def street(rng: np.random.Generator, size: float) -> World:
    """Streets and blocks; one town in four with narrow alleys."""
    alleys = rng.random() < 0.25
    spacing = rng.uniform(25, 60) if alleys else rng.uniform(45, 120)
    sway = rng.uniform(2, 10) if rng.random() < 0.3 else 0.0
    roads = street_grid(rng, size, spacing, bend=0.12 if alleys else 0.06, sway=sway)
    b = Builder(rng, roads, rng.uniform(1.8, 3.5) if alleys else rng.uniform(3.0, 8.0))
    style = random_style(rng)
    for road in b.roads:
        line_road(b, road, style)
    scatter_plants(b, size, rng.uniform(0, 8), rng.uniform(0, 8), 0.5)  # in the courtyards
    return b.finish("street", size, rolling_terrain(rng, size), rng.uniform(0.0, 0.9))


def plaza(rng: np.random.Generator, size: float) -> World:
    """Squares with arcades, monuments, kiosks and café tables between blocks of houses."""
    b = Builder(rng, street_grid(rng, size, rng.uniform(55, 90), bend=0.03), rng.uniform(3.0, 7.0))
    style = random_style(rng)
    for road in b.roads:
        if rng.random() < 0.9:
            line_road(b, road, style)
    for at in rng.uniform(0, size, (int(rng.integers(6, 14)), 2)):
        _square(b, at, rng.uniform(30, 70))
    return b.finish("plaza", size, rolling_terrain(rng, size, 0.02), rng.uniform(0.0, 0.6))


def _square(b: Builder, centre: F64, side: float) -> None:
    """Furniture around the centre of a square: a monument, rows of trees, columns or tables, kiosks."""
    rng = b.rng
    if rng.random() < 0.7:
        b.cylinder(centre, rng.uniform(0.8, 5.0), rng.uniform(0.4, 1.2))
        b.cylinder(centre, rng.uniform(0.3, 0.8), rng.uniform(2.0, 12.0))
    yaw = rng.uniform(0, np.pi)
    u, v = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    species = random_species(rng)
    for row in np.arange(-side / 2, side / 2 + 1, rng.uniform(8, 20)):
        kind = rng.integers(0, 4)
        for along in np.arange(-side / 2, side / 2 + 1, rng.uniform(3, 9)):
            at = centre + u * along + v * row
            if kind == 0:
                b.tree(at, species, rng.uniform(0.8, 1.1))
            elif kind == 1:
                b.cylinder(at, 0.25, 4.0)
            elif kind == 2 and rng.random() < 0.6:
                b.box(at + rng.normal(0, 0.7, 2), 1.6, 0.6, yaw, rng.uniform(0.45, 1.0))
    for at in centre + rng.uniform(-side / 2, side / 2, (int(rng.integers(0, 5)), 2)):
        b.box(at, rng.uniform(2, 5), rng.uniform(2, 4), yaw, rng.uniform(2.2, 3.5))
