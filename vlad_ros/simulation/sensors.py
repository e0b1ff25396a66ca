# SPDX-License-Identifier: Apache-2.0
"""LiDARs, and the scan that one takes at a pose in a world.

Spinning sensors have a fixed table of elevations; domes and fans have a non-repeating pattern, drawn anew in each scan.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from vlad_ros.cloud.thin import voxel_thin
from vlad_ros.simulation.caster import sweep
from vlad_ros.simulation.world import World
from vlad_ros.types import F32, F64

MOTION_SECTORS = 16  # poses that a sweep in motion is cast from


@dataclass(frozen=True)
class Sensor:
    """A LiDAR and the way it is mounted.

    elevations [rad]: the table of beams; with `rays` > 0 (lowest, highest), and each column draws that many elevations
    between them, within an ellipse where the field of view is not a full turn. columns: azimuth steps in a
    full turn; field [rad]: horizontal field of view, centred on x. height [m] above ground, roll and pitch [rad] of
    the mounting, wobble [rad]: standard deviation of roll and pitch from scan to scan. range_noise [m]; dropout and
    rain: probabilities that a ray is lost, or ends at a drop. voxel [m]: side of the output's voxels, 0: not thinned.
    """

    name: str
    elevations: tuple[float, ...]
    columns: int
    field: float = 2 * math.pi
    rays: int = 0
    min_range: float = 0.5
    max_range: float = 100.0
    range_noise: float = 0.02
    dropout: float = 0.05
    rain: float = 0.0
    height: float = 1.8
    roll: float = 0.0
    pitch: float = 0.0
    wobble: float = 0.01
    voxel: float = 0.0


def _table(*degrees: float) -> tuple[float, ...]:
    return tuple(float(e) for e in np.radians(degrees))


def spinning(beams: int, columns: int = 900) -> Sensor:
    """A spinning sensor of 16, 32, 64 or 128 beams; ValueError for other numbers.

    Elevations as in the data sheets: VLP-16; HDL-32E; HDL-64E (two blocks of 1/3 and 1/2 degree); Hesai Pandar128-like
    (dense around the horizon).
    """
    tables = {
        16: np.linspace(-15.0, 15.0, 16),
        32: np.linspace(-30.67, 10.67, 32),
        64: np.concatenate([np.linspace(-24.33, -8.83, 32), np.linspace(-8.33, 2.0, 32)]),
        128: np.concatenate([np.linspace(-25.0, -6.5, 30), np.linspace(-6.0, 2.0, 68), np.linspace(2.5, 15.0, 30)]),
    }
    if beams not in tables:
        raise ValueError(f"beams must be one of {', '.join(map(str, tables))}, not {beams}")
    return Sensor(f"spinning{beams}", _table(*tables[beams]), columns)


def uniform(beams: int, half_field: float, columns: int = 900) -> Sensor:
    """A spinning sensor with evenly spaced beams (Ouster-like): +-`half_field` degrees."""
    return Sensor(f"uniform{beams}", _table(*np.linspace(-half_field, half_field, beams)), columns)


def wide(columns: int = 600) -> Sensor:
    """32 beams spread unevenly over -25..15 degrees, dense at the horizon (VLP-32C)."""
    table: tuple[float, ...]
    table = (-25, -15.639, -11.31, -8.843, -7.254, -6.148, -5.333, -4.667, -4, -3.667, -3.333, -3, -2.667, -2.333, -2)
    table += (-1.667, -1.333, -1, -0.667, -0.333, 0, 0.333, 0.667, 1, 1.333, 1.667, 2.333, 3.333, 4.667, 7, 10.333, 15)
    return Sensor("wide32", _table(*table), columns)


def dome(rays: int = 20, columns: int = 1000) -> Sensor:
    """A non-repeating dome, 360 degrees by -7..52 degrees (Livox Mid-360)."""
    return Sensor("dome", _table(-7.0, 52.0), columns, rays=rays, max_range=60.0, min_range=0.2)


def fan(rays: int = 48, columns: int = 1440, width: float = 70.0, height: float = 70.0) -> Sensor:
    """A non-repeating solid-state fan, `width` by `height` degrees (Livox Avia: 70 by 77, Horizon: 82 by 25)."""
    table = _table(-height / 2, height / 2)
    return Sensor("fan", table, columns, field=math.radians(width), rays=rays, max_range=90.0)


def random_fan(rng: np.random.Generator, indoor: bool = False) -> Sensor:
    """A fan with random pattern, range and mounting."""
    sensor = fan(int(rng.integers(20, 80)), int(rng.choice([720, 1080, 1440])), height=rng.uniform(25.0, 77.0))
    return _mounted(replace(sensor, max_range=rng.uniform(40.0, 90.0)), rng, indoor)


def random_sensor(rng: np.random.Generator, indoor: bool = False) -> Sensor:
    """A sensor with a full turn, random in beams, density, range, noise, weather and mounting."""
    kind = rng.choice(6, p=[0.18, 0.2, 0.2, 0.22, 0.05, 0.15])
    columns = int(rng.choice([360, 512, 720, 900]))
    if kind == 0:
        sensor = spinning(16, columns)
    elif kind == 1:
        sensor = spinning(32, columns) if rng.random() < 0.6 else wide(columns)
    elif kind == 2:
        sensor = spinning(64, columns)
    elif kind == 3:
        sensor = uniform(int(rng.choice([32, 64])), float(rng.choice([16.6, 22.5, 45.0], p=[0.4, 0.5, 0.1])), columns)
    elif kind == 4:
        sensor = spinning(128, min(columns, 512))
    else:
        return _mounted(dome(int(rng.integers(4, 21))), rng, indoor)
    return _mounted(replace(sensor, max_range=rng.uniform(50.0, 100.0)), rng, indoor)


def _mounted(sensor: Sensor, rng: np.random.Generator, indoor: bool) -> Sensor:
    return replace(
        sensor,
        max_range=min(sensor.max_range, 60.0) if indoor else sensor.max_range,
        height=rng.uniform(0.4, 1.5 if indoor else 2.5),
        roll=rng.normal(0.0, 0.01),
        pitch=rng.normal(0.0, 0.01),
        wobble=rng.uniform(0.002, 0.02),
        dropout=rng.uniform(0.0, 0.3),
        range_noise=rng.uniform(0.005, 0.04),
        rain=rng.uniform(0.0, 0.03) if not indoor and rng.random() < 0.1 else 0.0,
    )


def draw_tilt(sensor: Sensor, rng: np.random.Generator) -> tuple[float, float]:
    """Roll and pitch [rad] of one scan against the ground: the mounting's and a random wobble."""
    roll, pitch = rng.normal(0.0, sensor.wobble, 2)
    return sensor.roll + float(roll), sensor.pitch + float(pitch)


def sensor_pose(
    world: World, sensor: Sensor, pose: tuple[float, float, float], tilt: tuple[float, float] = (0.0, 0.0)
) -> F64:
    """T_map_sensor (4, 4) of a sensor at (x, y, yaw), standing on the terrain's slope, tilted by (roll, pitch)."""
    x, y, yaw = pose
    sx = float(world.height(x + 1.0, y) - world.height(x - 1.0, y)) / 2
    sy = float(world.height(x, y + 1.0) - world.height(x, y - 1.0)) / 2
    slope = math.hypot(sx, sy)
    upright = Rotation.identity()
    if slope > 0:
        upright = Rotation.from_rotvec(np.array([sy, -sx, 0.0]) / slope * math.atan(slope))
    T = np.eye(4)
    T[:3, :3] = (upright * Rotation.from_euler("ZYX", [yaw, tilt[1], tilt[0]])).as_matrix()
    T[:3, 3] = x, y, float(world.height(x, y)) + sensor.height
    return T


def cast(
    world: World,
    sensor: Sensor,
    pose: tuple[float, float, float],
    rng: np.random.Generator,
    tilt: tuple[float, float] | None = None,
    motion: tuple[float, float, float] | None = None,
) -> F32:
    """The scan (N, 4) float32 x y z [m] in the sensor frame (z up) and intensity in [0, 1], taken at (x, y, yaw).

    `tilt`: (roll, pitch) [rad], drawn from `rng` when None. `motion`: (dx, dy, dyaw) in the world during one sweep,
    centred on `pose`; its points are placed as if the sensor stood still, as a driver publishes them.
    Rays are cast over flat ground and the terrain is added to the points, so hills hide nothing.
    """
    tilt = draw_tilt(sensor, rng) if tilt is None else tilt
    seed = int(rng.integers(1 << 31))
    step = 2 * math.pi / sensor.columns
    columns = max(1, round(sensor.field / step))
    first = -step * columns / 2 + (step * float(rng.random()) if sensor.rays else 0.0)
    slopes = _slopes(sensor, columns, rng)
    sectors = MOTION_SECTORS if motion else 1
    parts = []
    for k, part in enumerate(np.array_split(np.arange(columns), sectors)):
        when = (k + 0.5) / sectors - 0.5
        moved = (
            pose
            if motion is None
            else (pose[0] + when * motion[0], pose[1] + when * motion[1], pose[2] + when * motion[2])
        )
        rows = slopes if len(slopes) == 1 else slopes[part]
        parts.append(_cast_part(world, sensor, moved, tilt, rows, first + part[0] * step, step, len(part), seed + k))
    points = np.concatenate(parts)
    return voxel_thin(points, sensor.voxel) if sensor.voxel > 0 else points


def _cast_part(
    world: World,
    sensor: Sensor,
    pose: tuple[float, float, float],
    tilt: tuple[float, float],
    slopes: F64,
    first: float,
    step: float,
    columns: int,
    seed: int,
) -> F32:
    x, y, yaw = pose
    hits = sweep(
        (world.walls, world.cylinders, world.foliage, world.ceiling or 0.0),
        (x, y, sensor.height, yaw),
        tilt,
        slopes,
        (first, step, columns),
        (sensor.min_range, sensor.max_range),
        (sensor.range_noise, sensor.dropout, sensor.rain),
        seed,
    )
    if world.terrain.any():
        hits[:, 2] += world.height(hits[:, 0], hits[:, 1])
    T = sensor_pose(world, sensor, pose, tilt)
    hits[:, :3] = (hits[:, :3] - T[:3, 3]) @ T[:3, :3]
    return hits.astype(np.float32)


def _slopes(sensor: Sensor, columns: int, rng: np.random.Generator) -> F64:
    """Tangents of the elevations, (1, beams) of the table or (columns, rays) of this scan's random pattern."""
    if not sensor.rays:
        return np.tan(np.array(sensor.elevations))[None]
    low, high = sensor.elevations
    share = rng.random((columns, sensor.rays))
    if sensor.field < 2 * math.pi - 1e-6:
        across = (np.arange(columns) + 0.5) / columns * 2 - 1
        share = 0.5 + (share - 0.5) * np.sqrt(1 - across**2)[:, None]
    return np.tan(low + (high - low) * share)
