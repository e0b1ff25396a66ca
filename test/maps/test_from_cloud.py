# SPDX-License-Identifier: Apache-2.0
"""`vlad map from-cloud`: the ground, what is seen from it, and a robot that finds itself there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.spatial import cKDTree

from vlad_ros import cli
from vlad_ros.config import RecognizerConfig
from vlad_ros.files.map_cloud import MapCloud
from vlad_ros.files.ply import write_ply
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.drivable import CLEARANCE, drivable, headings, spread
from vlad_ros.maps.from_cloud import along_trajectory, from_cloud, on_the_ground
from vlad_ros.maps.visibility import Tiles, seen_from
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import from_xyz_rpy, inverse, rotation_angle, transform
from vlad_ros.simulation.days import make_day
from vlad_ros.simulation.routes import plan_route
from vlad_ros.simulation.sensors import spinning
from vlad_ros.simulation.worlds import make_world
from vlad_ros.stamps import SECOND


def grid(x: tuple[float, float], y: tuple[float, float], z: float = 0.0, step: float = 0.25) -> np.ndarray:
    axes = np.meshgrid(np.arange(*x, step), np.arange(*y, step))
    return np.column_stack([axes[0].ravel(), axes[1].ravel(), np.full(axes[0].size, z)])


def upright(start: tuple[float, float], end: tuple[float, float], top: float, step: float = 0.25) -> np.ndarray:
    """A wall."""
    n = int(np.hypot(end[0] - start[0], end[1] - start[1]) / step) + 1
    foot = np.linspace(start, end, n)
    heights = np.arange(0.0, top, step)
    return np.column_stack([np.repeat(foot, len(heights), 0), np.tile(heights, n)])


def cloud(*parts: np.ndarray) -> np.ndarray:
    points = np.concatenate(parts)
    return np.pad(points, ((0, 0), (0, 1))).astype(np.float32)


ROAD, ROOF = grid((0, 60), (0, 8)), grid((0, 60), (9, 20), 6.0)
YARD = cloud(ROAD, upright((0, 8.5), (60, 8.5), 6.0), ROOF, upright((30, 2), (34, 2), 1.5), grid((0, 60), (-4, 0), 0.5))


def test_the_ground_is_the_road_but_no_wall_roof_bench_or_kerb():
    ground = drivable(YARD)
    i, j = np.nonzero(ground.free)
    xy = ground.corner + (np.stack([i, j], axis=1) + 0.5) * 0.5
    road = (xy[:, 1] > 0) & (xy[:, 1] < 8.5 - CLEARANCE + 0.3) & (np.abs(ground.height[i, j]) < 1e-6)
    other = ~road  # a large roof and a large pavement are ground of their own
    assert road.sum() > 0.6 * 60 * 6 / 0.25
    assert np.isin(np.round(ground.height[i, j][other], 1), [0.5, 6.0]).all()
    bench = (np.abs(xy[:, 0] - 32) < 2) & (np.abs(xy[:, 1] - 2) < 0.7)
    assert not (bench & road).any()


def test_points_that_stray_far_away_do_not_count_and_another_unit_is_a_sentence():
    strays = np.array([[9e7, -9e7, 0, 0], [-2e5, 1e3, 5, 0], [10, 4, 1e6, 0]], np.float32)
    with_them, without = drivable(np.concatenate([strays, YARD])), drivable(YARD)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(with_them, without, strict=True))
    for points in (YARD[:40], YARD * np.float32(1000.0)):  # millimetres
        with pytest.raises(ValueError, match=r"nowhere 50 points in 20 m x 20 m: .* are these metres"):
            drivable(points)
    dense = np.concatenate([YARD, YARD + np.float32([20_000, 20_000, 0, 0])])
    with pytest.raises(ValueError, match=r"20060 m x 20024 m large; are these metres\? Cut it into pieces of 25 km"):
        drivable(dense)


def test_places_are_spread_and_leave_no_hole():
    ground = drivable(YARD)
    for spacing in (2.0, 5.0):
        places = spread(ground, spacing)
        apart = cKDTree(places).query(places, 2)[0][:, 1]
        assert apart.min() >= spacing - 1e-9
        i, j = np.nonzero(ground.free)
        holes = cKDTree(places).query(ground.corner + (np.stack([i, j], axis=1) + 0.5) * 0.5)[0]
        assert holes.max() < spacing


def test_a_heading_is_along_the_road():
    turned = transform(YARD, from_xyz_rpy((0, 0, 0, 0, 0, 0.5)))
    ground = drivable(turned)
    places = spread(ground, 4.0)
    inner = places[ground.height[ground.at(places)] < 0.1]
    off = (headings(ground, inner) - 0.5 + np.pi / 2) % np.pi - np.pi / 2
    assert np.median(np.abs(off)) < np.radians(12)


def test_without_ground_it_is_said():
    wall = cloud(upright((0, 0), (0, 20), 9.0))
    with pytest.raises(ValueError, match="ground"):
        on_the_ground(wall, 3.0, 1.5)


def test_what_stands_behind_a_wall_is_not_seen_and_what_stands_beside_a_pole_is():
    eye = np.array([[0.0, 0.0, 1.5]])
    wall, behind = upright((10, -5), (10, 5), 3.0), upright((20, -4), (20, 4), 2.0)
    pole, far = upright((5, -12), (5, -12), 3.0), upright((10, -30), (10, -20), 3.0)
    parts = [wall, behind, pole, far]
    visible = seen_from(cloud(*parts), eye, 60.0, 0.25)
    shares = [part.mean() for part in np.split(visible, np.cumsum([len(part) for part in parts])[:-1])]
    assert shares[0] > 0.95 and shares[1] < 0.02 and shares[2] == 1.0 and shares[3] > 0.75
    both = seen_from(cloud(*parts), np.array([[0, 0, 1.5], [30, 0, 1.5]]), 60.0, 0.25)
    assert both[len(wall) : len(wall) + len(behind)].mean() > 0.95
    assert not seen_from(cloud(*parts), eye, 9.0, 0.25).any()


def test_tiles_find_what_is_near():
    points = np.random.default_rng(0).uniform(-100, 100, (3000, 4)).astype(np.float32)
    tiles = Tiles(points, 20.0)
    for xy in ((0.0, 0.0), (-99.0, 99.0), (300.0, 0.0), (-300.0, -300.0), (99.0, 300.0)):
        found = {tuple(p) for p in tiles.near(np.array(xy), 30.0)}
        assert found >= {tuple(p) for p in points[np.linalg.norm(points[:, :2] - xy, axis=1) <= 30.0]}
        assert found <= {tuple(p) for p in points}


def test_stands_follow_a_trajectory():
    poses = np.stack([from_xyz_rpy((0.4 * n, 0.0, 1.0 + 0.01 * n, 0.1, 0.0, 0.0)) for n in range(100)])
    stands = along_trajectory(poses, 2.0)
    assert len(stands) == 20
    assert all(np.array_equal(stand.T_cloud_base, poses[5 * n]) for n, stand in enumerate(stands))
    np.testing.assert_allclose(sorted(stands[9].eyes[:, 0]), 18.0 + np.array([-4, -2, 0, 2, 4]), atol=2e-3)  # it climbs
    assert stands[0].eyes[:, 0].min() == 0.0


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A street's cloud of one day as a file, in UTM coordinates, and the drive of another day that asks."""
    world = make_world("street", 5, size=300.0)
    way = plan_route(world, 5, 1.5, (), 0.0, 45.0, "line").poses
    first = make_day(world, way, spinning(32, 600), 1, aside=1.0).drive
    second = make_day(world, way[6:24], spinning(16, 600), 2, back=True, aside=1.0).drive
    path = tmp_path_factory.mktemp("town") / "town.ply"
    points = np.concatenate(
        [transform(scan, T.astype(np.float32)) for scan, T in zip(first.scans, first.poses, strict=True)]
    )
    write_ply(path, points, np.array([500_000.0, 5_000_000.0, 0.0]), intensity=False)
    return path, first, second


def test_a_robot_finds_itself_in_a_cloud_from_its_first_keyframes_on(town, tmp_path, capsys):
    path, _, drive = town
    out = tmp_path / "town.map"
    words = ["map", "from-cloud", str(path), "-o", str(out), "--spacing", "8", "--height", "1.8", "--device", "cpu"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "virtual keyframes" in said and "in its frame" in said
    database = KeyframeDatabase.open(out)
    assert database.identities[0][1] == "town.ply" and np.array_equal(database.sessions[0], np.eye(4))
    stamps = [database.keyframe(id).stamp for id in database.ids().tolist()]
    assert stamps == list(range(1, len(stamps) + 1))
    assert all(database.keyframe(id).travel is None for id in database.ids().tolist())
    assert cli.main(["map", "info", str(out)]) == 0 and "town.ply" in capsys.readouterr().out

    recognizer = PlaceRecognizer.from_pretrained(None, "cpu", RecognizerConfig(verification_budget=60.0))
    recognizer.load_map(out)
    from vlad_ros.loops.relocalisation import Relocaliser

    relocaliser, errors, first = Relocaliser(), [], None
    closures = []
    for number, (scan, T) in enumerate(zip(drive.scans, drive.poses, strict=True)):
        done = recognizer.step(scan, (100 + number) * SECOND, None, inverse(drive.poses[0]) @ T)
        for one in done + (recognizer.finish() if number == len(drive.scans) - 1 else []):
            closures += one.closures
            finding = relocaliser.observe(one.keyframe_id, one.closures, recognizer.database)
            if finding.pose is not None:
                first = first or one.keyframe_id - len(database)
                truth = drive.poses[one.keyframe.stamp // SECOND - 100].copy()
                truth[:2, 3] += 500_000.0, 5_000_000.0
                error = inverse(truth) @ finding.pose.T_map_base
                errors.append((np.linalg.norm(error[:3, 3]), np.degrees(rotation_angle(error))))
    assert first is not None and first <= 5 and len(errors) > 3
    assert np.max(errors, axis=0)[0] < 0.5 and np.max(errors, axis=0)[1] < 3.0
    assert all(loop.match_session != loop.query_session for loop in closures if loop.accepted)  # never node edges


def test_what_cannot_be_made_is_said_and_nothing_is_written(town, tmp_path, capsys):
    path, _, _ = town
    (tmp_path / "far.txt").write_text("0 0 0 0 0 0 0 1\n1 1 0 0 0 0 0 1\n")
    np.save(tmp_path / "wall.npy", upright((0, 0), (0, 20), 9.0))
    (tmp_path / "there.map").write_text("")
    for words, why in (
        ([path, "--trajectory", tmp_path / "far.txt"], "does the trajectory lie in the cloud's frame?"),
        ([path, "--trajectory", tmp_path / "none.txt"], "none.txt"),
        ([tmp_path / "wall.npy"], "ground"),
        ([tmp_path / "none.pcd"], "no such file"),
        ([path, "--spacing", "0"], "spacing"),
        ([path, "--height", "nan"], "height"),
    ):
        status = cli.main(["map", "from-cloud", *map(str, words), "-o", str(tmp_path / "x.map"), "--device", "cpu"])
        error = capsys.readouterr().err
        assert status == 2 and why in error and len(error.splitlines()) == 1, error
    assert not (tmp_path / "x.map").exists()
    assert cli.main(["map", "from-cloud", str(path), "-o", str(tmp_path / "there.map")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_stand_that_sees_nothing_has_no_keyframe(town):
    from heaps import Landmarks

    _, first, _ = town
    points = np.pad(first.scans[0][:, :3], ((0, 0), (0, 1)))
    stands = along_trajectory(np.stack([np.eye(4), from_xyz_rpy((500.0, 0, 0, 0, 0, 0))]), 400.0)
    describer = Landmarks()
    made = from_cloud(MapCloud(points, np.zeros(3), len(points)), stands, describer, "one")
    assert len(made) == 1 and dataclasses.asdict(describer.bev)
