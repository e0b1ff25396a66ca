# SPDX-License-Identifier: Apache-2.0
"""Pairs of visits to one place with the true transform between them: ground truth for registration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from vlad_ros.cloud.thin import voxel_thin
from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.poses import inverse, transform
from vlad_ros.simulation.paths import arc_length, locate
from vlad_ros.simulation.sensors import Sensor, cast, draw_tilt, random_sensor, sensor_pose, spinning
from vlad_ros.simulation.world import World
from vlad_ros.simulation.worlds import make_world, visit
from vlad_ros.types import F32, F64

KINDS = ("street", "park", "indoor", "carpark")
ROOFED = ("indoor", "carpark")
PER_WORLD = 4
CLEARANCE = 0.5  # m
HALF_WINDOW = RecognizerConfig().accumulation_m / 2  # m of travel to both sides of a local map
SCANS = 7  # of a local map
VOXEL = RecognizerConfig().accumulation_voxel  # m
DRIFT_SCALE, DRIFT_YAW = 0.01, 0.5  # of a local map's odometry: share of the distance, degrees in 10 m
TRIES = 50

Pose = tuple[float, float, float]  # x y yaw [m, m, rad] in the world


@dataclass(frozen=True, eq=False)
class Pair:
    """`query`, `match` (N, 4) [m] in their body frames and the true `T_match_query`; `kind` of world, `is_map`:
    local maps, not single scans."""

    query: F32
    match: F32
    T_match_query: F64
    kind: str
    is_map: bool

    @property
    def distance(self) -> float:
        """Metres between the two bodies."""
        return float(np.linalg.norm(self.T_match_query[:3, 3]))


def make_pairs(count: int, seed: int, maps: bool) -> Iterator[Pair]:
    """`count` pairs of visits up to 8 m apart (4 m under a roof), half of them in the opposite direction, by the same
    sensor (half of them 16 or 32 sparse beams), in worlds of all kinds; `maps`: local maps where there is no roof."""
    rng = np.random.default_rng([seed, 3])
    made = 0
    while made < count:
        kind = KINDS[made // PER_WORLD % len(KINDS)]
        world = make_world(kind, int(rng.integers(1 << 31)))
        for _ in range(PER_WORLD):
            pair = _pair(world, maps and kind not in ROOFED, rng)
            if pair is not None and made < count:
                made += 1
                yield pair


def _pair(world: World, is_map: bool, rng: np.random.Generator) -> Pair | None:
    roofed = world.kind in ROOFED
    sensor = _sensor(roofed, rng)
    places = _places(world, (4.0 if roofed else 8.0) * rng.random() ** 1.5, rng)
    if places is None:
        return None
    clouds, poses = zip(*(_visit(world, sensor, road, is_map, rng) for road in places), strict=True)
    return Pair(clouds[0], clouds[1], inverse(poses[1]) @ poses[0], world.kind, is_map)


def _sensor(roofed: bool, rng: np.random.Generator) -> Sensor:
    if rng.random() < 0.5:
        return random_sensor(rng, roofed)
    sensor = spinning(int(rng.choice([16, 32])), 512)
    return replace(sensor, height=1.2, wobble=0.015, max_range=60.0 if roofed else 100.0)


def _places(world: World, apart: float, rng: np.random.Generator) -> tuple[list[Pose], list[Pose]] | None:
    """The poses along two ways past a place, the second reversed half of the time; None where nothing was free."""
    for _ in range(TRIES):
        road = world.roads[rng.integers(len(world.roads))]
        end = float(arc_length(road)[-1])
        if end < 4 * HALF_WINDOW:
            continue
        here = rng.uniform(HALF_WINDOW, end - HALF_WINDOW)
        steps = np.linspace(-HALF_WINDOW, HALF_WINDOW, SCANS)
        first = locate(road, np.clip(here + steps, 0, end))
        second = locate(road, np.clip(here + apart + steps, 0, end), rng.uniform(-1, 1) * (0.3 if apart < 4 else 1.0))
        second[:, 2] += rng.normal(0.0, 0.1)
        if rng.random() < 0.5:
            second = second[::-1] + np.array([0.0, 0.0, math.pi])
        both = np.concatenate([first, second])[:, :2]
        edge = 0.1 * world.size
        if both.min() > edge and both.max() < world.size - edge and world.is_free(both, CLEARANCE).all():
            return [_pose(row) for row in first], [_pose(row) for row in second]
    return None


def _pose(row: F64) -> Pose:
    return float(row[0]), float(row[1]), float(row[2])


def _visit(world: World, sensor: Sensor, way: list[Pose], is_map: bool, rng: np.random.Generator) -> tuple[F32, F64]:
    """The cloud at the middle of the way and its true T_world_body; each visit has its own parked cars."""
    now = visit(world, int(rng.integers(1 << 31)), clear=np.array(way)[:, :2])
    middle = len(way) // 2
    scans, poses = [], []
    for number in range(len(way)) if is_map else [middle]:
        tilt = draw_tilt(sensor, rng)
        scans.append(cast(now, sensor, way[number], rng, tilt))
        poses.append(sensor_pose(world, sensor, way[number], tilt))
    if not is_map:
        return scans[0], poses[0]
    odometry = drifting_odometry(np.stack(poses), DRIFT_SCALE, DRIFT_YAW, int(rng.integers(1 << 31)))
    order = sorted(range(len(way)), key=lambda k: abs(k - middle))
    joined = [transform(scans[k], inverse(odometry[middle]) @ odometry[k]) for k in order]
    return voxel_thin(np.concatenate(joined), VOXEL), poses[middle]
