# SPDX-License-Identifier: Apache-2.0
"""The simulation against geometry worked out by hand, and against itself: same seed, same world, same scan."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.geometry import transform, yaw
from vlad_ros.sequence import load_sequence, save_sequence
from vlad_ros.simulation.caster import CYLINDER, FOLIAGE, GROUND, WALL
from vlad_ros.simulation.paths import arc_length, distance_to_segments, locate
from vlad_ros.simulation.roads import RoadNetwork, crossings
from vlad_ros.simulation.routes import make_drive, plan_route
from vlad_ros.simulation.sensors import Sensor, cast, dome, fan, random_fan, random_sensor, sensor_pose, spinning, wide
from vlad_ros.simulation.views import Views, load_views, main, make_views
from vlad_ros.simulation.world import Builder, World, box_walls, flat_terrain, rolling_terrain
from vlad_ros.simulation.worlds import KINDS, make_world, visit

NO_TILT = (0.0, 0.0)


def exact(sensor: Sensor, **changes: float) -> Sensor:
    """The sensor without noise; drop-out of far points alone remains."""
    return replace(sensor, range_noise=0.0, dropout=0.0, rain=0.0, wobble=0.0, **changes)


def empty(**parts: object) -> World:
    """Level ground with nothing on it but `parts`."""
    world = World(
        kind="made by hand",
        size=100.0,
        walls=np.zeros((0, 6), np.float32),
        cylinders=np.zeros((0, 5), np.float32),
        foliage=np.zeros(0, bool),
        roads=(),
        half_width=1.0,
        slots=np.zeros((0, 3)),
        traffic=0.0,
        footprints=np.zeros((0, 5)),
        terrain=flat_terrain(100.0),
    )
    return replace(world, **parts)


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


@pytest.mark.parametrize("kind", KINDS)
def test_worlds_repeat_by_seed_and_keep_their_roads_free(kind: str) -> None:
    world, again, other = (make_world(kind, seed, size=150.0) for seed in (5, 5, 6))
    np.testing.assert_array_equal(world.walls, again.walls)
    np.testing.assert_array_equal(world.cylinders, again.cylinders)
    np.testing.assert_array_equal(visit(world, 1).walls, visit(again, 1).walls)
    assert world.walls.shape != other.walls.shape or not np.allclose(world.walls, other.walls)
    assert len(world.walls) + len(world.cylinders) > 50 and len(world.roads) > 1
    for road in world.roads:
        along = locate(road, np.arange(0.0, arc_length(road)[-1], 1.0))[:, :2]
        low = world.walls[world.walls[:, 4] < 1.9]
        assert distance_to_segments(along, low).min() > world.half_width - 0.5
        trunks = world.cylinders[world.cylinders[:, 3] == 0.0]
        if len(trunks):
            gap = np.linalg.norm(along[:, None] - trunks[None, :, :2], axis=2) - trunks[:, 2]
            assert gap.min() > 0.3


def test_visits_change_cars_and_leaves_but_nothing_built() -> None:
    world = make_world("street", 1, size=150.0)
    first, second, later = visit(world, 1), visit(world, 2), visit(world, 1, time=5.0)
    n = len(world.walls)
    np.testing.assert_array_equal(first.walls[:n], world.walls)
    np.testing.assert_array_equal(second.walls[:n], world.walls)
    assert len(first.walls) > n and not np.array_equal(first.walls[n:], second.walls[n:])
    same = {row.tobytes() for row in first.walls[n:]} & {row.tobytes() for row in later.walls[n:]}
    assert 0 < len(same) < len(first.walls) - n  # the parked ones stay, the others have driven on
    trunks = {row.tobytes() for row in world.cylinders[~world.foliage]}
    assert trunks <= {row.tobytes() for row in second.cylinders[~second.foliage]}
    assert second.foliage.sum() < world.foliage.sum()
    clear = world.slots[:20, :2]
    bodies = visit(world, 1, clear=clear).walls[n:]
    centres = bodies[:, :4].reshape(-1, 4, 4).mean(axis=1).reshape(-1, 2, 2).mean(axis=1)
    assert np.linalg.norm(centres[:, None] - clear, axis=2).min() > 2.9


def test_unknown_names_are_refused() -> None:
    town = make_world("street", 0, size=100.0)
    with pytest.raises(ValueError, match="'moon'"):
        make_world("moon", 0)
    with pytest.raises(ValueError, match="20"):
        make_world("street", 0, size=20.0)
    with pytest.raises(ValueError, match="17"):
        spinning(17)
    with pytest.raises(ValueError, match="sideways"):
        plan_route(town, 0, 1.0, ("sideways",), 0.0, 100.0)
    with pytest.raises(ValueError, match="spiral"):
        plan_route(town, 0, 1.0, (), 0.0, 100.0, "spiral")
    with pytest.raises(ValueError, match="5000"):
        plan_route(town, 0, 1.0, (), 0.0, 5000.0, "line")
    with pytest.raises(ValueError, match="wide"):
        make_views("wide", worlds=1)


def test_box_has_its_corners() -> None:
    box = box_walls(np.array([[1.0, 2.0, 4.0, 2.0, np.pi / 2, 0.0, 3.0]]))
    corners = {(round(float(w[0]), 4), round(float(w[1]), 4)) for w in box}
    assert corners == {(0.0, 0.0), (2.0, 0.0), (2.0, 4.0), (0.0, 4.0)}
    for a, b in itertools.pairwise([*box, box[0]]):
        np.testing.assert_allclose(a[2:4], b[:2], atol=1e-6)


def test_builder_keeps_off_the_road_and_cuts_doors() -> None:
    road = np.array([[0.0, 0.0], [100.0, 0.0]])
    b = Builder(np.random.default_rng(0), (road,), 2.0)
    assert not b.box(np.array([50.0, 3.0]), 4.0, 4.0, 0.0, 3.0)
    assert b.box(np.array([50.0, 5.0]), 4.0, 4.0, 0.0, 3.0)
    b.wall(np.array([20.0, -10.0]), np.array([20.0, 10.0]), 3.0)
    built = b.finish("made by hand", 100.0, flat_terrain(100.0), 0.0)
    pieces = built.walls[built.walls[:, 0] == 20.0]
    assert len(pieces) == 2
    assert np.abs(pieces[:, [1, 3]]).min() >= 2.0 and np.abs(pieces[:, [1, 3]]).max() == 10.0


def test_random_sensors_cover_the_field() -> None:
    rng = np.random.default_rng(0)
    sensors = [random_sensor(rng) for _ in range(200)]
    assert {s.name for s in sensors} >= {"spinning16", "spinning32", "spinning64", "spinning128", "wide32", "dome"}
    heights = np.array([s.height for s in sensors])
    assert heights.min() < 0.7 and heights.max() > 2.2 and ((heights >= 0.4) & (heights <= 2.5)).all()
    assert all(random_fan(rng).field < 1.3 for _ in range(5))


def test_roads_meet_where_lines_cross() -> None:
    a, b = np.array([[0.0, 0.0], [4.0, 0.0], [10.0, 0.0]]), np.array([[6.0, -2.0], [6.0, 8.0]])
    assert crossings(a, b) == [(6.0, 2.0)]
    world = empty(roads=tuple(line + 20.0 for line in (a * 5, b * 5)))
    network = RoadNetwork(world)
    crossing = next(n for n, ways in network.ways.items() if len(ways) == 4)
    np.testing.assert_allclose(network.nodes[crossing], [50.0, 20.0], atol=1e-6)


def headings_apart(poses: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each pose, distance to the nearest of the others and the angle between their headings."""
    gap = np.linalg.norm(poses[:, None, :2] - others[None, :, :2], axis=2)
    nearest = gap.argmin(axis=1)
    turn = np.abs((poses[:, 2] - others[nearest, 2] + np.pi) % (2 * np.pi) - np.pi)
    return gap.min(axis=1), turn


@pytest.mark.parametrize("shape", ["loop", "line"])
def test_revisits_are_the_ones_asked_for(shape: str) -> None:
    world = make_world("street", 2)
    length = 400.0 if shape == "loop" else 220.0
    route = plan_route(world, 1, 1.0, ("opposite", "same", "crossing", "none"), 3.0, length, shape)
    first = route.poses[route.leg == 0]
    assert 0.5 * length < len(first) < 2 * length
    assert world.is_free(route.poses[:, :2], 0.3).all()
    steps = np.linalg.norm(np.diff(route.poses[:, :2], axis=0), axis=1)
    assert steps.max() < 1.01
    turns = np.abs((np.diff(route.poses[:, 2]) + np.pi) % (2 * np.pi) - np.pi)
    assert turns.max() < np.radians(20)
    for leg, angle in ((1, np.pi), (2, 0.0)):
        gap, turn = headings_apart(route.poses[route.leg == leg], first)
        assert np.median(gap) < 6.0
        assert np.mean(np.abs(turn - angle) < 0.5) > 0.8
    gap, turn = headings_apart(route.poses[route.leg == 3], first)
    near = gap < 2.0
    assert near.any() and np.median(turn[near]) > np.radians(20) and np.median(turn[near]) < np.radians(160)
    gap, _ = headings_apart(route.poses[route.leg == 4], route.poses[route.leg != 4])
    assert np.mean(gap > 5.0) > 0.3


def test_scans_of_two_visits_agree_with_the_static_walls() -> None:
    """The truth is true: building points of both passes, moved by their poses, lie on the world's own walls."""
    arguments = dict(spacing=4.0, revisits=("opposite",), length=120.0, shape="line", lateral_offset=3.0)
    sensor = exact(spinning(32, 360), max_range=50.0)
    sequence = make_drive("street", 4, sensor=replace(sensor, wobble=0.02), **arguments)
    assert sequence.poses is not None and sequence.stamps is not None
    assert len(sequence) == len(sequence.poses) == len(sequence.stamps) > 50
    np.testing.assert_allclose(np.diff(sequence.stamps), 0.1)
    static = make_world("street", 4).walls.astype(float)
    headings = np.array([yaw(T) for T in sequence.poses])
    assert np.ptp(headings) > 3.0
    for i in (5, 15, len(sequence) - 10):
        moved = transform(sequence.scans[i].astype(float), sequence.poses[i])
        wall = moved[moved[:, 3] == WALL]
        above = wall[wall[:, 2] > sequence.poses[i][2, 3] + 2.5]  # over the roofs of the cars
        assert len(above) > 40
        assert distance_to_segments(above[:, :2], static).max() < 0.01


def test_drives_repeat_and_survive_the_sequence_format(tmp_path: object) -> None:
    arguments = dict(spacing=5.0, revisits=(), length=110.0, shape="line", distorted=True)
    sensor = replace(spinning(16, 360), wobble=0.01)
    one, two = (make_drive("park", 0, sensor=sensor, **arguments) for _ in range(2))
    for a, b in zip(one.scans, two.scans, strict=True):
        np.testing.assert_array_equal(a, b)
    path = tmp_path / "drive.npz"  # type: ignore[operator]
    save_sequence(path, one)
    back = load_sequence(path)
    assert len(back) == len(one) and back.poses is not None
    np.testing.assert_allclose(back.scans[3], one.scans[3], atol=0.003)
    np.testing.assert_array_equal(back.poses, one.poses)


def test_views_file_has_its_fields_and_no_pickle(tmp_path: object) -> None:
    path = tmp_path / "views.npz"  # type: ignore[operator]
    main([str(path), "--worlds", "2", "--places", "4", "--views", "3", "--seed", "2"])
    with np.load(path, allow_pickle=False) as data:
        assert set(data.files) == {"xyz", "offsets", "pose", "place", "world"}
        assert data["xyz"].dtype == np.int16 and data["pose"].dtype == np.float32
    views = load_views(path)
    check_views(views, per_place=3)
    again = make_views("near", 2, 4, 3, seed=2)
    np.testing.assert_array_equal(again.xyz, views.xyz)
    np.testing.assert_array_equal(again.pose, views.pose)
    for place in np.unique(views.place):
        xy = views.pose[views.place == place, :2]
        assert np.linalg.norm(xy[:, None] - xy, axis=2).max() <= 7.0
    np.savez(path, xyz=views.xyz)
    with pytest.raises(ValueError, match="offsets"):
        load_views(path)


def check_views(views: Views, per_place: int) -> None:
    assert len(views) > 0 and len(views) % per_place == 0
    assert views.offsets[0] == 0 and views.offsets[-1] == len(views.xyz) and (np.diff(views.offsets) >= 500).all()
    assert len(views.pose) == len(views.place) == len(views.world) == len(views.offsets) - 1
    assert (np.bincount(views.place) == per_place).all()
    for place in np.unique(views.place):
        assert len(np.unique(views.world[views.place == place])) == 1
    points = views.points(0)
    assert points.dtype == np.float32 and np.linalg.norm(points, axis=1).max() < 130.0


def test_far_views_spread_along_the_road_and_jobs_do_not_matter() -> None:
    views = make_views("far", 2, 4, 6, seed=3, kinds={"street": 1.0}, jobs=2)
    check_views(views, per_place=6)
    np.testing.assert_array_equal(views.xyz, make_views("far", 2, 4, 6, seed=3, kinds={"street": 1.0}).xyz)
    spans = []
    for place in np.unique(views.place):
        xy = views.pose[views.place == place, :2]
        spans.append(np.linalg.norm(xy[:, None] - xy, axis=2).max())
    assert max(spans) > 8.0 and max(spans) < 25.0


def test_views_of_two_sensors_see_the_same_walls() -> None:
    """Two views of a place, moved by their poses, overlap: most of the sparser lies near the denser."""
    views = make_views("near", 2, 8, 2, seed=5, kinds={"street": 1.0})
    shares = []
    for i in range(0, len(views), 2):
        clouds = []
        for k in (i, i + 1):
            p, (x, y, heading) = views.points(k), views.pose[k]
            p = p[(p[:, 2] > -0.2) & (np.linalg.norm(p[:, :2], axis=1) < 25)]
            c, s = np.cos(heading), np.sin(heading)
            clouds.append(np.column_stack([x + c * p[:, 0] - s * p[:, 1], y + s * p[:, 0] + c * p[:, 1]]))
        if min(map(len, clouds)) > 50:
            small, large = sorted(clouds, key=len)
            gap = np.linalg.norm(small[:, None] - large[None], axis=2).min(axis=1)
            shares.append(np.mean(gap < 1.0))
    assert len(shares) >= 5 and np.median(shares) > 0.7
