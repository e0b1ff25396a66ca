# SPDX-License-Identifier: Apache-2.0
"""The raster on hand-made points and against an independent numpy one; the ground on planes that are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import data_file
from scipy.spatial.transform import Rotation

from vlad_ros.cloud.ground import fit_ground, levelling
from vlad_ros.cloud.raster import Bev, rasterize, rasterize_torch
from vlad_ros.cloud.raster_image import from_image, preview, to_image
from vlad_ros.config import BevConfig
from vlad_ros.files.sequence import load_sequence

CONFIG = BevConfig()
FLAT = np.array([0.0, 0.0, -1.5])


def street(rng: np.random.Generator, plane: tuple[float, float, float] = (0, 0, -1.7), n: int = 20000) -> np.ndarray:
    """Ground of a known plane within 40 m, two walls, poles and bushes on it; (N, 4)."""
    ground = np.column_stack([rng.uniform(-40, 40, (n, 2)), rng.normal(0, 0.02, n), rng.uniform(0, 255, n)])
    wall = np.column_stack([rng.uniform(-40, 40, n // 2), rng.choice([-9.0, 11.0], n // 2), rng.uniform(0, 7, n // 2)])
    centres = rng.uniform(-30, 30, (40, 2))[rng.integers(0, 40, n // 4)]
    bush = np.column_stack([centres + rng.normal(0, 0.4, (n // 4, 2)), rng.uniform(0, 3, n // 4)])
    objects = np.pad(np.concatenate([wall, bush]), ((0, 0), (0, 1)), constant_values=9.0)
    points = np.concatenate([ground, objects])
    points[:, 2] += points[:, :2] @ np.array(plane[:2]) + plane[2]
    return points.astype(np.float32)


def reference(points: np.ndarray, plane: np.ndarray, config: BevConfig) -> np.ndarray:
    """The raster by the definition, in float64, one point after the other."""
    normal = np.array([-plane[0], -plane[1], 1]) / np.sqrt(plane[0] ** 2 + plane[1] ** 2 + 1)
    turn = Rotation.align_vectors([[0, 0, 1]], [normal])[0] if normal[2] < 1 else Rotation.identity()
    axis = np.cross(normal, [0, 0, 1])
    angle = np.arcsin(np.linalg.norm(axis))
    turn = Rotation.from_rotvec(axis / max(np.linalg.norm(axis), 1e-12) * angle)
    raster = np.zeros((config.channels, config.size, config.size))
    for x, y, z in turn.apply(points[:, :3].astype(np.float64)):
        h = z - plane[2] * normal[2]
        i = int(np.floor((config.extent / 2 - x) / config.resolution))
        j = int(np.floor((config.extent / 2 - y) / config.resolution))
        if h < config.slices[0] or not (0 <= i < config.size and 0 <= j < config.size):
            continue
        raster[0, i, j] = max(raster[0, i, j], min(h, config.height_max))
        raster[sum(h >= edge for edge in config.slices), i, j] = 1
    return raster


def cells(bev: Bev) -> list[tuple[int, int, int]]:
    return [(int(c), int(i), int(j)) for c, i, j in np.argwhere(np.asarray(bev.raster)[1:] > 0)]


@pytest.mark.parametrize(
    ("x", "y", "h", "expected"),
    [
        (39.9, 39.9, 1.0, [(0, 0, 0)]),  # farthest ahead and left: the upper left corner
        (-39.9, -39.9, 1.0, [(0, 159, 159)]),
        (0.2, -0.2, 1.0, [(0, 79, 80)]),
        (40.0, 40.0, 1.0, [(0, 0, 0)]),  # the upper edge is in,
        (-40.0, 0.2, 1.0, []),  # the lower one is out
        (40.1, 0.0, 1.0, []),
        (0.0, 0.0, 1.0, [(0, 80, 80)]),  # on a cell's border: the cell behind and to the right
        (0.5, 0.5, 1.0, [(0, 79, 79)]),
        (5.2, 0.2, 0.34, []),  # ground
        (5.2, 0.2, 0.36, [(0, 69, 79)]),
        (5.2, 0.2, 1.5, [(1, 69, 79)]),
        (5.2, 0.2, 3.0, [(2, 69, 79)]),
        (5.2, 0.2, 6.0, [(3, 69, 79)]),
        (5.2, 0.2, 50.0, [(3, 69, 79)]),
        (5.2, 0.2, -2.0, []),
    ],
)
def test_a_hand_made_point_falls_where_the_design_says(x: float, y: float, h: float, expected: list) -> None:
    bev = rasterize(np.array([[x, y, h - 1.5]]), CONFIG, plane=FLAT)
    assert cells(bev) == expected
    height = min(h, 12.0) if expected else 0.0
    assert bev.raster[0].max() == pytest.approx(height, abs=1e-6)
    np.testing.assert_allclose(bev.points, [[x, y, h, 0]], atol=1e-6)


@pytest.mark.parametrize("plane", [(0.0, 0.0, -1.7), (0.1, -0.07, -1.2), (-0.3, 0.25, -2.0)])
def test_the_raster_is_the_definition_point_by_point(plane: tuple[float, float, float]) -> None:
    points = street(np.random.default_rng(1), plane, 4000)
    bev = rasterize(points, CONFIG, plane=np.array(plane))
    expected = reference(points, np.array(plane), CONFIG)
    differing = np.abs(bev.raster - expected) > 1e-4
    assert (expected[1:].sum(axis=(1, 2)) > 50).all()
    assert differing.mean() <= 1e-4


def test_a_cloud_three_times_over_has_the_same_raster_and_thinning_only_removes() -> None:
    rng = np.random.default_rng(2)
    points = street(rng, (0.03, 0.01, -1.7))
    bev = rasterize(points, CONFIG)
    tripled = np.repeat(points, 3, axis=0)[rng.permutation(3 * len(points))]
    again = rasterize(tripled, CONFIG)
    np.testing.assert_array_equal(again.plane, bev.plane)
    np.testing.assert_array_equal(again.raster, bev.raster)
    thinned = rasterize(points[rng.random(len(points)) < 0.2], CONFIG, plane=bev.plane)
    assert (thinned.raster <= bev.raster).all()
    assert 0 < thinned.raster[1:].sum() < bev.raster[1:].sum()


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_quarter_turn_of_the_points_is_a_quarter_turn_of_the_raster(quarter: int) -> None:
    points = street(np.random.default_rng(3))
    remainder = np.mod(points[:, :2] / CONFIG.resolution, 1.0)
    points = points[(np.abs(remainder - 0.5) < 0.499).all(axis=1)]  # a border belongs to one cell, whatever the turn
    turned = points.copy()
    for _ in range(quarter):
        turned[:, 0], turned[:, 1] = -turned[:, 1], turned[:, 0].copy()
    straight = rasterize(points, CONFIG, plane=FLAT).raster
    np.testing.assert_array_equal(
        rasterize(turned, CONFIG, plane=FLAT).raster, np.rot90(straight, quarter, axes=(1, 2))
    )


def test_torch_and_numba_fill_the_same_cells() -> None:
    rng = np.random.default_rng(4)
    differing = 0
    for plane in ((0.02, -0.05, -1.7), (-0.2, 0.1, -0.9), (0.0, 0.0, -2.2)):
        points = street(rng, plane)
        bev = rasterize(points, CONFIG)
        R = torch.from_numpy(bev.R_level_body.astype(np.float32))
        raster, levelled = rasterize_torch(torch.from_numpy(points), R, float(np.float32(bev.ground)), CONFIG)
        np.testing.assert_allclose(levelled.numpy(), bev.points, atol=1e-4)
        assert bev.raster[1:].sum() > 500
        differing += int((np.abs(raster.numpy() - bev.raster) > 1e-4).sum())
    assert differing / (3 * bev.raster.size) <= 1e-4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device at hand")
def test_cuda_and_cpu_fill_the_same_cells() -> None:
    points = street(np.random.default_rng(5), (0.02, -0.05, -1.7), 100_000)
    cpu, cuda = rasterize(points, CONFIG), rasterize(points, CONFIG, "cuda")
    np.testing.assert_array_equal(cpu.plane, cuda.plane)
    assert cuda.raster.device.type == "cuda"
    assert (np.abs(cuda.raster.cpu().numpy() - cpu.raster) > 1e-4).mean() <= 1e-4


@settings(max_examples=40, deadline=None)
@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(-3.0, -0.4), st.integers(0, 1000))
def test_a_known_plane_is_found(a: float, b: float, c: float, seed: int) -> None:
    points = street(np.random.default_rng(seed), (a, b, c), 8000)
    plane = fit_ground(points)
    np.testing.assert_allclose(plane[:2], [a, b], atol=0.02)
    assert plane[2] == pytest.approx(c, abs=0.15)


@settings(max_examples=50, deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.floats(-3, 0))
def test_levelling_turns_the_plane_to_the_horizontal(a: float, b: float, c: float) -> None:
    R, ground = levelling(np.array([a, b, c]))
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    on_plane = np.array([[x, y, a * x + b * y + c] for x, y in [(0, 0), (5, 1), (-3, 8)]])
    np.testing.assert_allclose((on_plane @ R.T)[:, 2], ground, atol=1e-12)
    # The smallest rotation: its axis is horizontal, so that it turns the heading no more than it must.
    axis = Rotation.from_matrix(R).as_rotvec()
    assert abs(axis[2]) < 1e-12


def test_the_ground_near_the_body_counts_and_not_the_one_over_the_edge() -> None:
    rng = np.random.default_rng(6)
    points = street(rng)
    points = points[points[:, 0] < 12]
    deep = np.column_stack(
        [rng.uniform(12, 40, 3000), rng.uniform(-40, 40, 3000), np.full(3000, -10.7), np.zeros(3000)]
    )
    plane = fit_ground(np.concatenate([points, deep.astype(np.float32)]))
    assert plane[2] == pytest.approx(-1.7, abs=0.15)
    assert np.hypot(*plane[:2]) < 0.03


def test_a_table_under_the_sensor_is_not_the_floor() -> None:
    rng = np.random.default_rng(7)
    floor = np.column_stack([rng.uniform(-5, 5, (4000, 2)), rng.normal(-1.1, 0.01, 4000)])
    floor = floor[np.abs(floor[:, :2]).max(axis=1) > 1.2]
    table = np.column_stack([rng.uniform(-0.8, 0.8, (2000, 2)), rng.normal(-0.35, 0.01, 2000)])
    walls = np.column_stack([rng.choice([-5.0, 5.0], 3000), rng.uniform(-5, 5, 3000), rng.uniform(-1.1, 1.5, 3000)])
    points = np.concatenate([floor, table, walls])
    plane = fit_ground(points)
    assert plane[2] == pytest.approx(-1.1, abs=0.1)
    assert rasterize(points, CONFIG).raster[1, 79:81, 79:81].all(), "the table is an object"


@pytest.mark.parametrize(
    "name", ["ceiling", "upside_down", "one_point", "one_cell", "column", "far", "two_points", "noise"]
)
def test_a_scan_without_ground_still_gives_a_sensible_raster(name: str) -> None:
    rng = np.random.default_rng(8)
    cloud = {
        "ceiling": np.column_stack([rng.uniform(-8, 8, (3000, 2)), rng.normal(2.5, 0.02, 3000)]),
        "upside_down": street(rng) * np.array([1, -1, -1, 1]),
        "one_point": np.array([[5.0, 1.0, 0.7]]),
        "one_cell": rng.uniform((5.2, 1.2, 0.2), (6.2, 2.2, 1.2), (500, 3)),
        "column": np.column_stack([np.full(500, 5.0), np.full(500, 1.0), np.linspace(-1, 4, 500)]),
        "far": rng.uniform(35, 39, (500, 3)) - [0, 0, 36],
        "two_points": np.array([[5.0, 1.0, 0.7], [5.0, 1.0, 2.7]]),
        "noise": rng.uniform(-20, 20, (3000, 3)),
    }[name]
    bev = rasterize(cloud, CONFIG)
    assert np.isfinite(bev.raster).all() and np.isfinite(bev.points).all() and np.isfinite(bev.plane).all()
    assert bev.raster[1:].sum() > 0
    assert np.degrees(np.arctan(np.hypot(*bev.plane[:2]))) < 39
    again = rasterize(cloud[rng.permutation(len(cloud))], CONFIG)
    np.testing.assert_array_equal(again.raster, bev.raster)


@pytest.mark.parametrize(
    ("name", "height", "spread", "share"),
    [
        ("kitti00_hdl64", 1.79, 0.2, 0.99),
        ("mulran_riverside_a_os1_64", 1.70, 0.3, 0.97),
        ("campus_velodyne32", 2.35, 0.3, 0.9),
        ("hall_indoor_360", 1.75, 0.3, 0.97),
        ("courtyard_livox_avia", 1.34, 0.3, 0.80),
        ("loop_mid360", 1.06, 0.3, 0.80),
    ],
)
def test_the_sensor_keeps_its_height_along_a_real_drive(name: str, height: float, spread: float, share: float) -> None:
    scans = load_sequence(data_file(f"{name}.npz")).scans
    heights = np.array([-levelling(fit_ground(scan))[1] for scan in scans[:: max(1, len(scans) // 100)]])
    assert (np.abs(heights - height) < spread).mean() >= share


@pytest.mark.parametrize("points", [np.zeros((4, 2)), np.zeros(3), np.zeros((0, 3)), np.full((5, 3), np.nan)])
def test_points_that_are_none_are_refused(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="points"):
        rasterize(points, CONFIG)


def test_an_image_comes_back() -> None:
    raster = rasterize(street(np.random.default_rng(9)), CONFIG).raster
    exact = to_image(raster, "32FC5")
    assert len(exact) == 160 * 160 * 5 * 4
    pixel = np.frombuffer(exact, "<f4").reshape(160, 160, 5)[30, 70]
    np.testing.assert_array_equal(pixel, raster[:, 30, 70])
    np.testing.assert_array_equal(from_image(exact, "32FC5", CONFIG), raster)
    coarse = from_image(bytearray(to_image(raster, "8UC5")), "8UC5", CONFIG)
    np.testing.assert_array_equal(coarse[1:], raster[1:])
    np.testing.assert_allclose(coarse[0], raster[0], atol=12 / 255 / 2 + 1e-5)
    tall = np.zeros_like(raster)
    tall[:, 3, 4] = [12.0, 0, 0, 0, 1]
    assert np.frombuffer(to_image(tall, "8UC5"), np.uint8).reshape(160, 160, 5)[3, 4].tolist() == [255, 0, 0, 0, 255]


@pytest.mark.parametrize(
    ("data", "encoding", "sentence"),
    [
        (b"\0" * 160 * 160 * 5, "mono8", "32FC5 or 8UC5, not 'mono8'"),
        (b"\0" * 160 * 160 * 4, "8UC4", "not '8UC4'"),
        (b"\0" * 160 * 160 * 4, "8UC5", "must hold 128000 bytes"),
        (b"", "32FC5", "must hold 512000 bytes"),
        (b"\xff" * 160 * 160 * 20, "32FC5", "not finite"),
    ],
)
def test_a_foreign_image_is_refused_in_a_sentence(data: bytes, encoding: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        from_image(data, encoding, CONFIG)


def test_a_foreign_raster_makes_no_image() -> None:
    with pytest.raises(ValueError, match=r"must be \(5, 160, 160\)"):
        to_image(np.zeros((5, 100, 100), np.float32), "8UC5")


def test_the_preview_is_dark_where_nothing_is_and_brighter_the_higher() -> None:
    raster = np.zeros((5, 160, 160), np.float32)
    for column, h in enumerate((0.5, 2.0, 4.0, 8.0, 12.0)):
        raster[0, 10, column] = h
        raster[1, 10, column] = 1
    picture = preview(raster)
    assert picture.shape == (160, 160, 3) and picture.dtype == np.uint8
    brightness = picture[10, :6].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(brightness[:5]) > 5).all()
    assert brightness[5] < 20 < brightness[0]
