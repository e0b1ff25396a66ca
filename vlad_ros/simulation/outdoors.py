# SPDX-License-Identifier: Apache-2.0
"""Worlds under the sky: streets, campus, park, plaza, riverside. Lengths in metres, rates per metre of road side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlad_ros.simulation.paths import arc_length, locate, resample
from vlad_ros.simulation.world import MARGIN, Builder, World, random_species, rolling_terrain
from vlad_ros.types import F64


@dataclass(frozen=True)
class StreetStyle:
    """What the streets of one town have in common."""

    setback: float
    density: float
    height: float
    hedges: float
    trees: float
    poles: float
    balconies: float
    parking: float


def random_style(rng: np.random.Generator) -> StreetStyle:
    """A town."""
    return StreetStyle(
        setback=rng.uniform(0.3, 8.0),
        density=rng.uniform(0.5, 0.98),
        height=rng.uniform(4.0, 18.0),
        hedges=rng.uniform(0.0, 0.7),
        trees=rng.uniform(0.0, 0.14),
        poles=rng.uniform(0.01, 0.06),
        balconies=rng.uniform(0.0, 0.5),
        parking=rng.uniform(0.3, 1.0),
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


def _facade(b: Builder, road: F64, s: float, side: int, length: float, style: StreetStyle) -> None:
    """One building beside the road, with bays, balconies, and a hedge or wall before and beside it."""
    rng = b.rng
    depth = rng.uniform(7.0, 16.0)
    front = b.half_width + style.setback * rng.uniform(0.6, 1.4)
    x, y, yaw = locate(road, np.array([s + length / 2]), side * (front + depth / 2))[0]
    top = max(2.5, rng.normal(style.height, 2.5))
    if not b.building(x, y, length, depth, yaw, top):
        return
    if rng.random() < 0.6:
        bx, by, _ = locate(road, np.array([s + rng.uniform(0, length)]), side * (front - 0.4))[0]
        b.box(bx, by, rng.uniform(1.5, 6.0), rng.uniform(1.0, 3.0), yaw, rng.uniform(2.2, top))
    if rng.random() < style.balconies:
        for along in np.arange(1.5, length - 1.5, rng.uniform(3.0, 6.0)):
            bx, by, _ = locate(road, np.array([s + along]), side * front)[0]
            for floor in np.arange(2.8, top - 1.0, 3.0):
                b.box(bx, by, 2.4, 2.4, yaw, floor + 1.1, floor)
    if rng.random() < style.hedges:
        _front_garden(b, road, s, side, length, front)


def _front_garden(b: Builder, road: F64, s: float, side: int, length: float, front: float) -> None:
    rng = b.rng
    fence = b.half_width + 0.3 * (front - b.half_width)
    ends = locate(road, np.array([s, s + length * rng.uniform(0.4, 1.0)]), side * fence)
    b.wall(*ends[0, :2], *ends[1, :2], rng.uniform(0.6, 2.2))
    if rng.random() < 0.5:
        back = locate(road, np.array([s]), side * front)[0]
        b.wall(*ends[0, :2], *back[:2], rng.uniform(0.6, 2.2))


def line_road(b: Builder, road: F64, style: StreetStyle) -> None:
    """Buildings, gaps, trees, poles, bushes and parking places along both sides of a road."""
    rng = b.rng
    end = arc_length(road)[-1]
    for side in (-1, 1):
        s = 0.0
        while s < end:
            length = rng.uniform(6.0, 28.0)
            if rng.random() < style.density:
                _facade(b, road, s, side, length, style)
            s += length + (rng.uniform(0, 2) if rng.random() < 0.6 else rng.uniform(2, 14))
        species = random_species(rng)
        room = max(1.0, style.setback)
        for at in np.arange(0.0, end, 1.0):
            draw = rng.random()
            if draw >= style.trees * 1.7 + style.poles:
                continue
            x, y, _ = locate(road, np.array([at + rng.random()]), side * (b.half_width + rng.uniform(0.1, 0.6) * room))[
                0
            ]
            if draw < style.trees:
                b.tree(x, y, species if rng.random() < 0.6 else random_species(rng), rng.uniform(0.6, 1.3))
            elif draw < style.trees + style.poles:
                b.pole(x, y)
            else:
                b.bush(x, y, rng.uniform(0.3, 1.4), rng.uniform(0.4, 2.2))
        _parking(b, road, side, style.parking)


def _parking(b: Builder, road: F64, side: int, share: float) -> None:
    end = arc_length(road)[-1]
    s = b.rng.uniform(0, 6)
    inset = min(1.2, b.half_width - 1.0)
    while s < end - 6:
        if b.rng.random() < share:
            x, y, yaw = locate(road, np.array([s]), side * (b.half_width - inset))[0]
            b.slots.append((x, y, yaw))
        s += b.rng.uniform(5.5, 7.5)


def scatter(b: Builder, size: float, per_hectare: float) -> F64:
    """Random points (N, 2) over the world and its margin."""
    n = b.rng.poisson(per_hectare * ((size + 2 * MARGIN) / 100) ** 2)
    return b.rng.uniform(-MARGIN, size + MARGIN, (n, 2))


def scatter_plants(b: Builder, size: float, trees: float, bushes: float, poles: float) -> None:
    """Trees, bushes and poles, so many per hectare; half of the trees in clumps of one species."""
    rng = b.rng
    clumps = [(p, random_species(rng)) for p in scatter(b, size, trees / 16)]
    for x, y in scatter(b, size, trees / 2):
        b.tree(x, y, random_species(rng), rng.uniform(0.5, 1.5))
    for (x, y), species in clumps:
        for dx, dy in rng.normal(0, 7.0, (8, 2)):
            b.tree(x + dx, y + dy, species, rng.uniform(0.7, 1.3))
    for x, y in scatter(b, size, bushes):
        b.bush(x, y, rng.uniform(0.3, 2.2), rng.uniform(0.4, 2.4))
    for x, y in scatter(b, size, poles):
        b.pole(x, y)


def scatter_fences(b: Builder, size: float, per_hectare: float, heading: float, longest: float = 60.0) -> None:
    """Fences, hedges and garden walls, mostly along or across `heading`."""
    rng = b.rng
    for x, y in scatter(b, size, per_hectare):
        yaw = heading + rng.integers(0, 2) * np.pi / 2 + rng.normal(0, 0.1)
        length = rng.uniform(5.0, longest)
        b.wall(x, y, x + length * np.cos(yaw), y + length * np.sin(yaw), rng.uniform(0.6, 2.8))


def scatter_parking(b: Builder, size: float, lots: int) -> None:
    """Small car parks: double rows of places side by side."""
    rng = b.rng
    for x, y in rng.uniform(0, size, (lots, 2)):
        yaw = rng.uniform(0, np.pi)
        u, v = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        for k in range(int(rng.integers(4, 14))):
            for row in (0.0, 5.5):
                px, py = np.array([x, y]) + u * 2.6 * k + v * row
                b.slots.append((px, py, yaw + np.pi / 2))


def scatter_buildings(b: Builder, size: float, per_hectare: float, heading: float) -> None:
    """Free-standing buildings with annexes and porches, mostly in line with `heading`."""
    rng = b.rng
    for x, y in scatter(b, size, per_hectare):
        square = rng.random() < 0.8
        yaw = heading + (rng.integers(0, 2) * np.pi / 2 if square else rng.uniform(0, np.pi)) + rng.normal(0, 0.03)
        length, width, top = rng.uniform(6, 40), rng.uniform(6, 25), rng.uniform(3, 25)
        if not b.building(x, y, length, width, yaw, top):
            continue
        for _ in range(int(rng.integers(0, 5))):
            dx, dy = rng.uniform(-0.5, 0.5, 2) * (length, width)
            sign = rng.choice([-1.0, 1.0])
            dx, dy = (dx, sign * width / 2) if rng.random() < 0.5 else (sign * length / 2, dy)
            ax, ay = x + dx * np.cos(yaw) - dy * np.sin(yaw), y + dx * np.sin(yaw) + dy * np.cos(yaw)
            b.box(ax, ay, rng.uniform(1.5, 8), rng.uniform(1.5, 8), yaw, rng.uniform(2, top))


def street(rng: np.random.Generator, size: float) -> World:
    """Streets and blocks."""
    spacing = rng.uniform(45, 120)
    sway = rng.uniform(2, 10) if rng.random() < 0.3 else 0.0
    b = Builder(rng, street_grid(rng, size, spacing, sway=sway), rng.uniform(3.0, 8.0))
    style = random_style(rng)
    for road in b.roads:
        line_road(b, road, style)
    scatter_plants(b, size, rng.uniform(0, 8), rng.uniform(0, 8), 0.5)  # what grows in the courtyards
    return b.finish("street", size, rolling_terrain(rng, size), rng.uniform(0.0, 0.9))


def campus(rng: np.random.Generator, size: float) -> World:
    """Boxes of all sizes between paths, trees and fences."""
    b = Builder(rng, street_grid(rng, size, rng.uniform(60, 130), bend=0.2), rng.uniform(2.0, 5.0))
    heading = float(np.arctan2(*np.flip(b.roads[0][-1] - b.roads[0][0])))
    scatter_buildings(b, size, rng.uniform(2.0, 8.0), heading)
    scatter_plants(b, size, rng.uniform(3, 40), rng.uniform(2, 25), rng.uniform(1, 8))
    scatter_fences(b, size, rng.uniform(0, 6), heading)
    scatter_parking(b, size, int(rng.integers(0, 8)))
    return b.finish("campus", size, rolling_terrain(rng, size), rng.uniform(0.0, 0.8))


def park(rng: np.random.Generator, size: float) -> World:
    """Trees, clumps and bushes along winding paths; few buildings."""
    paths = street_grid(rng, size, rng.uniform(50, 110), bend=0.25, sway=rng.uniform(3, 15))
    b = Builder(rng, paths, rng.uniform(1.2, 3.0))
    heading = rng.uniform(0, np.pi)
    scatter_buildings(b, size, rng.uniform(0.1, 1.2), heading)
    scatter_plants(b, size, rng.uniform(10, 90), rng.uniform(2, 30), rng.uniform(1, 10))
    scatter_fences(b, size, rng.uniform(0.3, 1.5), heading, 160.0)
    return b.finish("park", size, rolling_terrain(rng, size, 0.08), rng.uniform(0.0, 0.3))


def plaza(rng: np.random.Generator, size: float) -> World:
    """Squares with arcades, monuments, kiosks and café tables between blocks of houses."""
    spacing = rng.uniform(55, 90)
    b = Builder(rng, street_grid(rng, size, spacing, bend=0.03), rng.uniform(3.0, 7.0))
    style = random_style(rng)
    for road in b.roads:
        if rng.random() < 0.7:
            line_road(b, road, style)
    for x, y in rng.uniform(0, size, (int(rng.integers(4, 9)), 2)):
        _square(b, x, y, rng.uniform(30, 70))
    return b.finish("plaza", size, rolling_terrain(rng, size, 0.02), rng.uniform(0.0, 0.6))


def _square(b: Builder, x: float, y: float, side: float) -> None:
    """Furniture around the centre of a square: a monument, rows of lamps, trees or columns, tables, kiosks, walls."""
    rng = b.rng
    if rng.random() < 0.7:
        b.cylinder(x, y, rng.uniform(0.8, 5.0), rng.uniform(0.4, 1.2))
        b.cylinder(x, y, rng.uniform(0.3, 0.8), rng.uniform(2.0, 12.0))
    yaw = rng.uniform(0, np.pi)
    u, v = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    species = random_species(rng)
    for row in np.arange(-side / 2, side / 2 + 1, rng.uniform(8, 20)):
        kind = rng.integers(0, 4)
        for along in np.arange(-side / 2, side / 2 + 1, rng.uniform(3, 9)):
            px, py = np.array([x, y]) + u * along + v * row
            if kind == 0:
                b.tree(px, py, species, rng.uniform(0.8, 1.1))
            elif kind == 1:
                b.cylinder(px, py, 0.25, 4.0)
            elif kind == 2 and rng.random() < 0.6:
                b.box(px + rng.normal(0, 0.7), py + rng.normal(0, 0.7), 1.6, 0.6, yaw, rng.uniform(0.45, 1.0))
    for _ in range(int(rng.integers(0, 5))):
        px, py = np.array([x, y]) + rng.uniform(-side / 2, side / 2, 2)
        b.box(px, py, rng.uniform(2, 5), rng.uniform(2, 4), yaw, rng.uniform(2.2, 3.5))


def riverside(rng: np.random.Generator, size: float) -> World:
    """A wide road along a river: long rows of like trees, lamps and rails, bridges, few buildings."""
    roads = street_grid(rng, size, rng.uniform(120, 260), bend=0.03, sway=rng.uniform(0, 15))
    b = Builder(rng, roads, rng.uniform(4.0, 9.0))
    for road in b.roads:
        for side in (-1, 1):
            for _ in range(int(rng.integers(1, 4))):
                _tree_row(b, road, side)
            if rng.random() < 0.6:
                _rail(b, road, side)
            if rng.random() < 0.4:
                _parking(b, road, side, rng.uniform(0.1, 0.8))
    _bridges(b, int(rng.integers(0, 4)))
    heading = rng.uniform(0, np.pi)
    scatter_buildings(b, size, rng.uniform(0.1, 1.5), heading)
    scatter_plants(b, size, rng.uniform(0, 12), rng.uniform(1, 15), rng.uniform(0.5, 4))
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
        x, y, _ = locate(road, np.array([s + rng.normal(0, 0.2)]), lateral + rng.normal(0, 0.15))[0]
        if lamps:
            b.cylinder(x, y, 0.12, 8.0)
        else:
            b.tree(x, y, species, rng.uniform(0.85, 1.15))


def _rail(b: Builder, road: F64, side: int) -> None:
    rng = b.rng
    line = locate(resample(road, 10.0), np.arange(0, arc_length(road)[-1], 10.0), side * (b.half_width + 0.5))
    top = rng.uniform(0.7, 3.0)
    for a, c in zip(line[:-1], line[1:], strict=True):
        if rng.random() < 0.85:
            b.wall(*a[:2], *c[:2], top)


def _bridges(b: Builder, count: int) -> None:
    """Decks over a road on pairs of piers."""
    rng = b.rng
    for _ in range(count):
        road = b.roads[rng.integers(len(b.roads))]
        x, y, yaw = locate(road, np.array([rng.uniform(0.25, 0.75) * arc_length(road)[-1]]))[0]
        deck = rng.uniform(5.0, 7.0)
        b.box(x, y, rng.uniform(6, 14), rng.uniform(40, 90), yaw + rng.normal(0, 0.2), deck + 1.5, deck)
        for side in (-1, 1):
            for along in (-3.0, 3.0):
                off = side * (b.half_width + 1.5)
                px = x + along * np.cos(yaw) - off * np.sin(yaw)
                py = y + along * np.sin(yaw) + off * np.cos(yaw)
                b.cylinder(px, py, rng.uniform(0.5, 0.9), deck)
