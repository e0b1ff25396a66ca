# SPDX-License-Identifier: Apache-2.0
"""What a simulated world is made of, and the builder that puts it together.

A world is 2.5-dimensional: vertical walls and vertical cylinders over a terrain. Heights of walls and cylinders count
from the terrain below them, so rays are cast over flat ground and the terrain is added to the points afterwards.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlad_ros.simulation.paths import distance_to_segments, segments
from vlad_ros.types import F32, F64

Point = np.ndarray  # x y [m], (2,)
TERRAIN_CELL = 5.0  # m
MARGIN = 60.0  # m of content beyond the square [0, size]^2, so that places near its edge are surrounded too
TERRAIN_MARGIN = 160.0  # m of terrain beyond the square, as far as a sensor sees


@dataclass(frozen=True, eq=False)
class World:
    """A static world around the square [0, size]^2 [m].

    walls (N, 6) float32 x0 y0 x1 y1 z0 z1; cylinders (M, 5) float32 x y r z0 z1; foliage (M,) bool: crowns and bushes,
    which let rays in and change with the seasons; roads: polylines (K, 2) to drive along, with nothing static within
    `half_width` of them; slots (P, 3) x y yaw: where cars park; traffic in [0, 1]: how many do, and how many
    move; footprints (B, 5) x y length width yaw of buildings; terrain (G, G) float32 heights [m], indexed [x, y] from
    -TERRAIN_MARGIN in steps of TERRAIN_CELL; ceiling [m] above ground or None.
    """

    kind: str
    size: float
    walls: F32
    cylinders: F32
    foliage: np.ndarray
    roads: tuple[F64, ...]
    half_width: float
    slots: F64
    traffic: float
    footprints: F64
    terrain: F32
    ceiling: float | None = None

    def height(self, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        """Terrain height [m], bilinear between the grid's corners."""
        n = len(self.terrain)
        u = np.clip((np.asarray(x, np.float64) + TERRAIN_MARGIN) / TERRAIN_CELL, 0.0, n - 1.001)
        v = np.clip((np.asarray(y, np.float64) + TERRAIN_MARGIN) / TERRAIN_CELL, 0.0, n - 1.001)
        i, j = u.astype(int), v.astype(int)
        a, b, t = u - i, v - j, self.terrain
        low = (1 - a) * t[i, j] + a * t[i + 1, j]
        high = (1 - a) * t[i, j + 1] + a * t[i + 1, j + 1]
        return np.asarray((1 - b) * low + b * high)

    def is_free(self, xy: F64, clearance: float) -> np.ndarray:
        """Whether points (N, 2) are outside of buildings and at least `clearance` from walls and trunks, (N,) bool."""
        low = self.walls[self.walls[:, 4] < 2.5]
        free = distance_to_segments(xy, low) > clearance
        trunks = self.cylinders[self.cylinders[:, 3] < 1.0]
        if len(trunks):
            gap = np.linalg.norm(xy[:, None] - trunks[None, :, :2], axis=2) - trunks[:, 2]
            free &= gap.min(axis=1) > clearance
        return free & ~inside_footprints(xy, self.footprints)


Kinds = dict[str, Callable[[np.random.Generator, float], World]]  # by name: what makes a world of a size [m]


def draw_world(kinds: Kinds, kind: str, seed: int, size: float, least: float) -> World:
    """The world of this kind and seed around the square [0, size]^2 [m]; ValueError for a kind that is not in `kinds`
    and for a size below `least`."""
    if kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(kinds)}, not {kind!r}")
    if size < least:
        raise ValueError(f"size must be at least {least:g} m, not {size}")
    return kinds[kind](np.random.default_rng([zlib.crc32(kind.encode()), seed]), size)


def inside_footprints(xy: F64, footprints: F64) -> np.ndarray:
    """Whether points (N, 2) lie in any of the rectangles (B, 5) x y length width yaw, (N,) bool."""
    if not len(footprints):
        return np.zeros(len(xy), bool)
    d = xy[:, None] - footprints[None, :, :2]
    c, s = np.cos(footprints[:, 4]), np.sin(footprints[:, 4])
    along = np.abs(d[..., 0] * c + d[..., 1] * s) < footprints[:, 2] / 2
    across = np.abs(d[..., 1] * c - d[..., 0] * s) < footprints[:, 3] / 2
    return np.asarray((along & across).any(axis=1))


def box_walls(boxes: np.ndarray) -> F32:
    """The four walls of each upright box (B, 7) x y length width yaw z0 z1, as (4 B, 6) float32."""
    x, y, length, width, yaw, z0, z1 = np.asarray(boxes, np.float64).reshape(-1, 7).T
    c, s = np.cos(yaw), np.sin(yaw)
    corners = []
    for a, b in ((-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)):
        corners.append((x + a * length * c - b * width * s, y + a * length * s + b * width * c))
    sides = [np.stack([*corners[k], *corners[(k + 1) % 4], z0, z1], axis=1) for k in range(4)]
    return np.stack(sides, axis=1).reshape(-1, 6).astype(np.float32)


@dataclass(frozen=True)
class Species:
    """What trees of one species have in common [m]."""

    trunk: float
    crown_base: float
    crown_radius: float
    crown_height: float
    conifer: bool


def random_species(rng: np.random.Generator) -> Species:
    """A random species."""
    return Species(
        trunk=rng.uniform(0.1, 0.35),
        crown_base=rng.uniform(1.2, 4.0),
        crown_radius=rng.uniform(0.7, 2.2),
        crown_height=rng.uniform(2.0, 8.0),
        conifer=rng.random() < 0.15,
    )


class Builder:
    """Collects walls and cylinders; nothing is put where `roads` [polylines] need `half_width` metres to each side."""

    def __init__(self, rng: np.random.Generator, roads: tuple[F64, ...], half_width: float) -> None:
        self.rng = rng
        self.roads = roads
        self.half_width = half_width
        self._road_segments = segments(roads)
        self._walls: list[tuple[float, ...]] = []
        self._boxes: list[tuple[float, ...]] = []
        self._cylinders: list[tuple[float, ...]] = []
        self._foliage: list[bool] = []
        self.footprints: list[tuple[float, ...]] = []
        self.slots: list[tuple[float, float, float]] = []

    def off_road(self, points: F64, margin: float = 0.0) -> np.ndarray:
        """Which points (N, 2) are farther from every road than its half width plus `margin`, (N,) bool."""
        return distance_to_segments(points, self._road_segments) > self.half_width + margin

    def wall(self, start: Point, end: Point, top: float, bottom: float = 0.0) -> None:
        """A wall, fence or hedge; parts on a road are left out."""
        start, step = np.asarray(start), np.subtract(end, start)
        n = max(2, int(np.hypot(*step) / 0.5) + 1)
        u = np.linspace(0.0, 1.0, n)
        free = self.off_road(start + u[:, None] * step) | (bottom > 1.9)
        free = np.concatenate([[False], free, [False]])
        edges = np.flatnonzero(free[1:] != free[:-1])
        for first, last in zip(edges[::2], edges[1::2] - 1, strict=True):
            if last > first:
                self._walls.append((*(start + u[first] * step), *(start + u[last] * step), bottom, top))

    def box(self, at: Point, length: float, width: float, yaw: float, top: float, bottom: float = 0.0) -> bool:
        """An upright box; False, and nothing is built, where it would be on a road."""
        x, y = at
        sides = box_walls(np.array([[x, y, length, width, yaw, 0.0, 1.0]])).astype(np.float64)
        outline = [a[:2] + (a[2:4] - a[:2]) * np.linspace(0, 1, 2 + int(max(length, width)))[:, None] for a in sides]
        if bottom < 4.0 and not self.off_road(np.concatenate(outline)).all():
            return False
        self._boxes.append((x, y, length, width, yaw, bottom, top))
        return True

    def building(self, at: Point, length: float, width: float, yaw: float, top: float) -> bool:
        """A box whose footprint is not free ground, sometimes with a narrower storey on top."""
        if not self.box(at, length, width, yaw, top):
            return False
        self.footprints.append((at[0], at[1], length, width, yaw))
        if self.rng.random() < 0.25:
            self.box(at, length * 0.7, width * 0.7, yaw, top + self.rng.uniform(1.0, 4.0), top)
        return True

    def cylinder(self, at: Point, radius: float, top: float, soft: bool = False) -> bool:
        """A post, pillar, trunk or (`soft`) bush; False where it would be on a road."""
        if not self.off_road(np.array([at]), radius)[0]:
            return False
        self._cylinders.append((at[0], at[1], radius, 0.0, top))
        self._foliage.append(soft)
        return True

    def tree(self, at: Point, species: Species, scale: float = 1.0) -> None:
        """A trunk under a crown of irregular stacked cylinders (conifers: ever narrower ones)."""
        rng = self.rng
        base = species.crown_base * scale * rng.uniform(0.8, 1.2)
        if not self.cylinder(at, species.trunk * scale, base):
            return
        crown = species.crown_radius * scale
        pieces = int(rng.integers(3, 7))
        for k in range(pieces):
            if species.conifer:
                share = k / pieces
                bottom = base + share * species.crown_height * 1.5
                self._crown(at, crown * (1.05 - share), bottom, bottom + species.crown_height * 0.4)
            else:
                bottom = base + rng.uniform(-0.5, 1.5)
                top = base + species.crown_height * rng.uniform(0.5, 1.1)
                self._crown(
                    at + rng.normal(0.0, 0.5 * crown, 2), crown * rng.uniform(0.5, 1.1), bottom, max(top, bottom + 0.5)
                )

    def _crown(self, at: Point, radius: float, bottom: float, top: float) -> None:
        # Crowns may hang over a road, but not into the vehicles on it.
        if bottom < 3.0 and not self.off_road(np.array([at]), radius - 0.5).all():
            bottom = 3.0
        if top > bottom:
            self._cylinders.append((at[0], at[1], radius, bottom, top))
            self._foliage.append(True)

    def bush(self, at: Point, radius: float, top: float) -> None:
        """Low foliage."""
        self.cylinder(at, radius, top, soft=True)

    def thicket(self, points: F64, largest: float, highest: float) -> None:
        """Shrubs and undergrowth of all sizes around `points` (N, 2), off the roads."""
        radii = self.rng.uniform(0.3, largest, len(points))
        tops = self.rng.uniform(0.4, highest, len(points))
        for k in np.flatnonzero(self.off_road(points, largest)):
            self._cylinders.append((points[k, 0], points[k, 1], radii[k], 0.0, tops[k]))
            self._foliage.append(True)

    def pole(self, at: Point) -> None:
        """A lamp, sign or mast."""
        self.cylinder(at, self.rng.uniform(0.05, 0.2), self.rng.uniform(2.0, 9.0))

    def finish(self, kind: str, size: float, terrain: F32, traffic: float, ceiling: float | None = None) -> World:
        """The world built so far."""
        walls = np.array(self._walls, np.float32).reshape(-1, 6)
        return World(
            kind=kind,
            size=size,
            walls=np.concatenate([walls, box_walls(np.array(self._boxes))]),
            cylinders=np.array(self._cylinders, np.float32).reshape(-1, 5),
            foliage=np.array(self._foliage, bool),
            roads=self.roads,
            half_width=self.half_width,
            slots=np.array(self.slots, np.float64).reshape(-1, 3),
            traffic=traffic,
            footprints=np.array(self.footprints, np.float64).reshape(-1, 5),
            terrain=terrain,
            ceiling=ceiling,
        )


def flat_terrain(size: float) -> F32:
    """Level ground."""
    n = int((size + 2 * TERRAIN_MARGIN) / TERRAIN_CELL) + 1
    return np.zeros((n, n), np.float32)


def rolling_terrain(rng: np.random.Generator, size: float, slope: float = 0.05) -> F32:
    """Waves of 60 to 300 m, the steepest of them up to `slope`; two worlds of five are level."""
    out = flat_terrain(size)
    if rng.random() < 0.4:
        return out
    grid = np.arange(len(out)) * TERRAIN_CELL
    for _ in range(3):
        k = 2 * np.pi / rng.uniform(60.0, 300.0)
        direction = rng.uniform(0, 2 * np.pi)
        phase = k * (np.cos(direction) * grid[:, None] + np.sin(direction) * grid[None, :])
        out += (rng.uniform(0, slope) / k * np.sin(phase + rng.uniform(0, 2 * np.pi))).astype(np.float32)
    return out
