# SPDX-License-Identifier: Apache-2.0
"""Simulated scans against geometry worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from handmade_world import empty, exact
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.poses import transform
from vlad_ros.simulation.caster import CYLINDER, FOLIAGE, GROUND, WALL
from vlad_ros.simulation.paths import locate
from vlad_ros.simulation.sensors import Sensor, cast, dome, fan, random_fan, random_sensor, sensor_pose, spinning, wide
from vlad_ros.simulation.world import World, flat_terrain, rolling_terrain
from vlad_ros.simulation.worlds import make_world, visit

NO_TILT = (0.0, 0.0)


def walls(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32)


def scan(
    world: World, sensor: Sensor, pose: tuple[float, float, float] = (50.0, 50.0, 0.0), seed: int = 0
) -> np.ndarray:
    return cast(world, sensor, pose, np.random.default_rng(seed), NO_TILT)


def test_ground_lies_the_sensor_height_below() -> None:
    points = scan(empty(), exact(spinning(32), height=1.7))
    assert len(points) > 1000
    np.testing.assert_allclose(points[:, 2], -1.7, atol=1e-5)
    assert set(np.unique(points[:, 3])) == {GROUND}


def test_wall_stands_where_it_was_built() -> None:
    """A wall 10 m ahead: every ray at it ends at x = 10, at the range that its azimuth and elevation give."""
    world = empty(walls=walls((60.0, 0.0, 60.0, 100.0, 0.0, 5.0)))
    points = scan(world, exact(spinning(64), height=2.0))
    hit = points[points[:, 3] == WALL]
    assert len(hit) > 1000
    np.testing.assert_allclose(hit[:, 0], 10.0, atol=1e-4)
    assert hit[:, 2].min() >= -2.0 and hit[:, 2].max() <= 3.0
    assert not ((points[:, 0] > 10.001) & (np.abs(points[:, 1]) < 49)).any()  # the wall ends 50 m to each side
    ranges = np.linalg.norm(hit[:, :3], axis=1)
    azimuth, elevation = np.arctan2(hit[:, 1], hit[:, 0]), np.arcsin(hit[:, 2] / ranges)
    np.testing.assert_allclose(ranges, 10.0 / (np.cos(azimuth) * np.cos(elevation)), rtol=1e-4)


@given(heading=st.floats(-math.pi, math.pi), side=st.floats(-math.pi, math.pi), distance=st.floats(3.0, 30.0))
@settings(max_examples=40, deadline=None)
def test_wall_is_found_from_any_heading(heading: float, side: float, distance: float) -> None:
    normal, along = np.array([math.cos(side), math.sin(side)]), np.array([-math.sin(side), math.cos(side)])
    middle = np.array([50.0, 50.0]) + distance * normal
    a, b = middle - 5 * along, middle + 5 * along
    points = scan(empty(walls=walls((*a, *b, 0.0, 8.0))), exact(spinning(16, 360)), (50.0, 50.0, heading))
    hit = points[points[:, 3] == WALL]
    c, s = math.cos(heading), math.sin(heading)
    world_xy = hit[:, :2].astype(float) @ np.array([[c, s], [-s, c]])
    assert len(hit) > 0
    np.testing.assert_allclose(world_xy @ normal, distance, atol=1e-3)
    assert np.abs(world_xy @ along).max() < 5.001
    columns = len(np.unique(np.round(np.degrees(np.arctan2(hit[:, 1], hit[:, 0])) * 2)))
    assert abs(columns - 2 * np.degrees(np.arctan(5 / distance))) < 2.5 + 0.1 * columns  # a column a degree, all hit


def test_cylinder_is_round() -> None:
    world = empty(cylinders=np.array([[58.0, 50.0, 1.0, 0.0, 4.0]], np.float32), foliage=np.zeros(1, bool))
    points = scan(world, exact(spinning(64, 1800), height=2.0))
    hit = points[points[:, 3] == CYLINDER]
    assert len(hit) > 500
    np.testing.assert_allclose(np.linalg.norm(hit[:, :2] - [8.0, 0.0], axis=1), 1.0, atol=1e-3)
    assert (hit[:, 0] < 8.0).all()  # the near side
    assert abs(hit[:, 0].min() - 7.0) < 1e-3


def test_foliage_lets_rays_in_but_keeps_within_its_bounds() -> None:
    world = empty(cylinders=np.array([[58.0, 50.0, 2.0, 1.0, 6.0]], np.float32), foliage=np.ones(1, bool))
    points = scan(world, exact(dome()))
    hit = points[points[:, 3] == FOLIAGE]
    radius = np.linalg.norm(hit[:, :2] - [8.0, 0.0], axis=1)
    assert len(hit) > 50
    assert radius.max() < 2.001 and radius.min() < 1.5


def test_ceiling_is_hit_from_below() -> None:
    points = scan(empty(ceiling=3.0), exact(dome(), height=1.0))
    np.testing.assert_allclose(points[points[:, 2] > 0, 2], 2.0, atol=1e-5)
    assert (points[:, 2] > 0).sum() > 1000


def test_near_wall_hides_what_is_behind_unless_it_is_lower() -> None:
    low, high = (55.0, 0.0, 55.0, 100.0, 0.0, 1.0), (58.0, 0.0, 58.0, 100.0, 0.0, 9.0)
    sensor = exact(spinning(64), height=2.0)
    over = scan(empty(walls=walls(low, high)), sensor)
    far = over[(over[:, 0] > 7.99) & (np.abs(over[:, 1]) < 40)]
    np.testing.assert_allclose(far[:, 0], 8.0, atol=1e-3)
    assert -1.6 <= far[:, 2].min() < -1.4  # the line of sight over the low wall
    hidden = scan(empty(walls=walls((55.0, 0.0, 55.0, 100.0, 0.0, 9.0), high)), sensor)
    assert hidden[np.abs(hidden[:, 1]) < 40, 0].max() < 5.001


def test_bridge_is_seen_above_and_driven_under() -> None:
    world = empty(walls=walls((60.0, 0.0, 60.0, 100.0, 3.0, 9.0)))
    points = scan(world, exact(spinning(128), height=1.0))
    ahead = points[np.abs(points[:, 1]) < 1.0]
    assert ((np.abs(ahead[:, 0] - 10) < 1e-3) & (ahead[:, 2] >= 2.0 - 1e-4)).any()
    assert (ahead[:, 0] > 15).any()


@pytest.mark.parametrize("sensor", [spinning(16), spinning(32), spinning(64), spinning(128), wide(), dome(), fan()])
def test_points_keep_to_the_sensors_limits(sensor: Sensor) -> None:
    world = visit(make_world("street", 3, size=150.0), 1)
    x, y, heading = locate(world.roads[0], np.array([100.0]))[0]
    sensor = replace(sensor, rain=0.02, wobble=0.0)
    flat = replace(world, terrain=flat_terrain(world.size))
    points = cast(flat, sensor, (x, y, heading), np.random.default_rng(1), NO_TILT)
    ranges = np.linalg.norm(points[:, :3], axis=1)
    assert points.dtype == np.float32 and points.shape[1] == 4 and np.isfinite(points).all()
    assert ranges.min() >= sensor.min_range - 1e-3 and ranges.max() <= sensor.max_range + 1e-3
    assert np.abs(np.arctan2(points[:, 1], points[:, 0])).max() <= sensor.field / 2 + 1e-6
    elevation = np.arcsin(points[:, 2] / ranges)
    assert elevation.min() >= min(sensor.elevations) - 1e-3 and elevation.max() <= max(sensor.elevations) + 1e-3
    if not sensor.rays:
        table = np.array(sensor.elevations)
        assert np.abs(elevation[:, None] - table).min(axis=1).max() < 1e-4


def test_pattern_of_a_fan_does_not_repeat() -> None:
    rng = np.random.default_rng(0)
    first, second = (cast(empty(), exact(fan()), (50.0, 50.0, 0.0), rng, NO_TILT) for _ in range(2))
    assert not {row.tobytes() for row in first} & {row.tobytes() for row in second}
    still = [cast(empty(), exact(spinning(16)), (50.0, 50.0, 0.0), rng, NO_TILT) for _ in range(2)]
    assert {row.tobytes() for row in still[0]} & {row.tobytes() for row in still[1]}


def test_noise_dropout_and_thinning_have_the_size_asked_for() -> None:
    world = empty(walls=walls((60.0, 0.0, 60.0, 100.0, 0.0, 50.0)))
    sensor = exact(spinning(32, 1800))
    clean = scan(world, sensor)
    noisy = scan(world, replace(sensor, range_noise=0.1))
    ahead = noisy[(np.abs(noisy[:, 1]) < 1.0) & (noisy[:, 0] > 8) & (noisy[:, 2] > -1.5)]
    assert 0.08 < ahead[:, 0].std() < 0.12
    lost = 1 - len(scan(world, replace(sensor, dropout=0.3))) / len(clean)
    assert 0.25 < lost < 0.35
    thinned = scan(world, replace(sensor, voxel=0.5))
    assert len(np.unique(np.floor(thinned[:, :3] / 0.5), axis=0)) == len(thinned) < len(clean)


def test_tilt_and_slope_are_in_the_pose() -> None:
    """Points of a tilted sensor on a hillside, moved by its pose, lie on walls and terrain all the same."""
    drawn = (rolling_terrain(np.random.default_rng(seed), 100.0, slope=0.08) for seed in range(20))
    terrain = next(terrain for terrain in drawn if np.ptp(terrain) > 1.0)
    world = empty(walls=walls((60.0, 0.0, 60.0, 100.0, 0.0, 5.0)), terrain=terrain)
    sensor, pose, tilt = exact(spinning(32)), (50.0, 40.0, 0.6), (0.03, -0.05)
    points = cast(world, sensor, pose, np.random.default_rng(0), tilt)
    moved = transform(points.astype(float), sensor_pose(world, sensor, pose, tilt))
    wall = points[:, 3] == WALL
    np.testing.assert_allclose(moved[wall, 0], 60.0, atol=1e-3)
    ground = moved[~wall]
    np.testing.assert_allclose(ground[:, 2], world.height(ground[:, 0], ground[:, 1]), atol=1e-3)
    normal = sensor_pose(world, sensor, pose)[:3, 2]
    uphill = [float(world.height(x, y)) for x, y in ((51.0, 40.0), (49.0, 40.0), (50.0, 41.0), (50.0, 39.0))]
    expected = np.array([uphill[1] - uphill[0], uphill[3] - uphill[2], 2.0])
    np.testing.assert_allclose(normal, expected / np.linalg.norm(expected), atol=1e-6)


def test_motion_distorts_a_sweep_and_standing_does_not() -> None:
    world = empty(walls=walls((60.0, 0.0, 60.0, 100.0, 0.0, 9.0), (40.0, 0.0, 40.0, 100.0, 0.0, 9.0)))
    sensor, pose = exact(spinning(16)), (50.0, 50.0, 0.0)
    still = cast(world, sensor, pose, np.random.default_rng(0), NO_TILT, (0.0, 0.0, 0.0))
    moving = cast(world, sensor, pose, np.random.default_rng(0), NO_TILT, (0.0, 0.0, 0.0))
    np.testing.assert_array_equal(still, moving)
    moving = cast(world, sensor, pose, np.random.default_rng(0), NO_TILT, (2.0, 0.0, 0.0))
    behind = moving[(moving[:, 0] < -8) & (moving[:, 2] > -1)]
    # The sweep runs from -pi to pi: the first and the last columns look backwards, from -1 m and from +1 m.
    assert -11.0 < behind[:, 0].min() < -10.8 and -9.2 < behind[:, 0].max() < -9.0


def test_random_sensors_cover_the_field() -> None:
    rng = np.random.default_rng(0)
    sensors = [random_sensor(rng) for _ in range(200)]
    assert {s.name for s in sensors} >= {"spinning16", "spinning32", "spinning64", "spinning128", "wide32", "dome"}
    heights = np.array([s.height for s in sensors])
    assert heights.min() < 0.7 and heights.max() > 2.2 and ((heights >= 0.4) & (heights <= 2.5)).all()
    assert all(random_fan(rng).field < 1.3 for _ in range(5))
