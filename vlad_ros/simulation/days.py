# SPDX-License-Identifier: Apache-2.0
"""Two drives through one world on different days, which share a part of their way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.files.sequence import Sequence
from vlad_ros.poses import inverse
from vlad_ros.simulation.routes import CLEARANCE, Route, record
from vlad_ros.simulation.sensors import Sensor
from vlad_ros.simulation.world import World
from vlad_ros.types import F64

SPACING = 1.0  # m between two scans
DRIFT = 0.01, 0.5  # share of the travel, and degrees in 10 m, by which each day's odometry is off


@dataclass(frozen=True, eq=False)
class Day:
    """A drive with its true poses T_world_sensor, and its odometry (S, 4, 4), which begins at the identity and
    drifts."""

    drive: Sequence
    odometry: F64


def make_day(world: World, way: F64, sensor: Sensor, seed: int, *, back: bool = False, aside: float = 0.0) -> Day:
    """Drive along `way` (S, 3) x y yaw [m, rad], a scan each; `back`: from its end to its start, `aside` [m] to the
    left of it where there is room. `seed` is the day's: parked cars, moving ones, season, drift."""
    poses = way.copy()
    normal = np.stack([-np.sin(poses[:, 2]), np.cos(poses[:, 2])], axis=1)
    beside = poses[:, :2] + aside * normal
    free = world.is_free(beside, CLEARANCE)
    poses[free, :2] = beside[free]
    if back:
        poses = poses[::-1].copy()
        poses[:, 2] += np.pi
    drive = record(world, Route(poses, np.zeros(len(poses), np.int64)), seed, sensor, SPACING, f"day_{seed}")
    truth = drive.poses_to("drift")
    return Day(drive, inverse(truth[0]) @ drifting_odometry(truth, *DRIFT, seed))


def overlapping(way: F64, share: float) -> tuple[F64, F64]:
    """The two parts of `way` (S, 3), equally long, of which each shares this part of its length with the other."""
    length = round(len(way) / (2.0 - share))
    return way[:length], way[len(way) - length :]
