# SPDX-License-Identifier: Apache-2.0
"""Simulated worlds, the routes through them, and the files made there: same seed, same world, same scan."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from handmade_world import empty, exact

from vlad_ros.files.sequence import load_sequence, save_sequence
from vlad_ros.poses import transform, yaw
from vlad_ros.simulation.caster import WALL
from vlad_ros.simulation.paths import arc_length, distance_to_segments, locate
from vlad_ros.simulation.roads import RoadNetwork, crossings
from vlad_ros.simulation.routes import make_drive, plan_route
from vlad_ros.simulation.sensors import spinning
from vlad_ros.simulation.views import Views, load_views, main, make_views
from vlad_ros.simulation.world import Builder, box_walls, flat_terrain
from vlad_ros.simulation.worlds import KINDS, make_world, visit


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
