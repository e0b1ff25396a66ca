# SPDX-License-Identifier: Apache-2.0
"""What stands on open ground: trees, buildings, fences, car parks. Lengths in metres, rates per hectare."""

from __future__ import annotations

import numpy as np

from vlad_ros.simulation.world import MARGIN, Builder, random_species
from vlad_ros.types import F64


def scatter(b: Builder, size: float, per_hectare: float) -> F64:
    """Random points (N, 2) over the world and its margin."""
    n = b.rng.poisson(per_hectare * ((size + 2 * MARGIN) / 100) ** 2)
    return b.rng.uniform(-MARGIN, size + MARGIN, (n, 2))


def scatter_plants(b: Builder, size: float, trees: float, bushes: float, poles: float) -> None:
    """Trees, half of them in clumps of one species, bushes and poles."""
    rng = b.rng
    for at in scatter(b, size, trees / 2):
        b.tree(at, random_species(rng), rng.uniform(0.5, 1.5))
    for centre in scatter(b, size, trees / 16):
        species = random_species(rng)
        for at in centre + rng.normal(0, 7.0, (8, 2)):
            b.tree(at, species, rng.uniform(0.7, 1.3))
    for at in scatter(b, size, bushes):
        b.bush(at, rng.uniform(0.3, 2.2), rng.uniform(0.4, 2.4))
    for at in scatter(b, size, poles):
        b.pole(at)


def scatter_fences(b: Builder, size: float, per_hectare: float, heading: float, longest: float = 60.0) -> None:
    """Fences, hedges and garden walls, mostly along or across `heading`."""
    rng = b.rng
    for at in scatter(b, size, per_hectare):
        yaw = heading + rng.integers(0, 2) * np.pi / 2 + rng.normal(0, 0.1)
        b.wall(at, at + rng.uniform(5.0, longest) * _unit(yaw), rng.uniform(0.6, 2.8))


def scatter_parking(b: Builder, size: float, lots: int) -> None:
    """Small car parks: double rows of places side by side."""
    rng = b.rng
    for corner in rng.uniform(0, size, (lots, 2)):
        yaw = rng.uniform(0, np.pi)
        for k in range(int(rng.integers(4, 14))):
            for row in (0.0, 5.5):
                x, y = corner + _unit(yaw) * 2.6 * k + _unit(yaw + np.pi / 2) * row
                b.slots.append((x, y, yaw + np.pi / 2))


def scatter_buildings(b: Builder, size: float, per_hectare: float, heading: float) -> None:
    """Free-standing buildings with annexes and porches, mostly in line with `heading`."""
    rng = b.rng
    for at in scatter(b, size, per_hectare):
        square = rng.random() < 0.8
        yaw = heading + (rng.integers(0, 2) * np.pi / 2 if square else rng.uniform(0, np.pi)) + rng.normal(0, 0.03)
        length, width, top = rng.uniform(6, 40), rng.uniform(6, 25), rng.uniform(3, 25)
        if b.building(at, length, width, yaw, top):
            for _ in range(int(rng.integers(0, 5))):
                _annexe(b, at, length, width, yaw, top)


def _annexe(b: Builder, at: F64, length: float, width: float, yaw: float, top: float) -> None:
    """A porch, bay or wing at one of the sides of a building."""
    rng = b.rng
    along, across = rng.uniform(-0.5, 0.5, 2)
    if rng.random() < 0.5:
        along = np.sign(along) / 2
    else:
        across = np.sign(across) / 2
    where = at + along * length * _unit(yaw) + across * width * _unit(yaw + np.pi / 2)
    b.box(where, rng.uniform(1.5, 8), rng.uniform(1.5, 8), yaw, rng.uniform(2, top))


def _unit(yaw: float) -> F64:
    return np.array([np.cos(yaw), np.sin(yaw)])
