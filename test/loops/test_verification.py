# SPDX-License-Identifier: Apache-2.0
"""Loops verified on known transforms, ambiguous ones told, and a verdict, never an exception, for anything else."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.cloud.ground import fit_ground, levelling
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.evaluation.edges import edge_error
from vlad_ros.loops.keypoint_alignment import MIN_INLIERS, align, match_features
from vlad_ros.loops.verification import Verifier
from vlad_ros.model.describer import Describer
from vlad_ros.model.kept_geometry import LYING, STANDING, _principal, compact_cloud
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.poses import from_xyz_rpy, inverse, transform
from vlad_ros.simulation.pairs import make_pairs
from vlad_ros.types import F32, F64, Geometry, Verification

Features = np.ndarray


def unit(count: int, rng: np.random.Generator) -> Features:
    """Random features (count, 128) int8."""
    features = rng.normal(size=(count, 128))
    return np.round(127 * features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.int8)


def in_plane(x: float, y: float, yaw: float) -> F64:
    return from_xyz_rpy((x, y, 0.0, 0.0, 0.0, yaw))


def flat(xy: F64, T: F64) -> F32:
    """Keypoints (K, 2) moved by T."""
    return transform(np.concatenate([xy, np.zeros((len(xy), 1))], axis=1), T)[:, :2].astype(np.float32)


def level(points: F32) -> F64:
    """T_level_body of a cloud."""
    T = np.eye(4)
    T[:3, :3], ground = levelling(fit_ground(points))
    T[2, 3] = -ground
    return T


@settings(deadline=None, max_examples=40)
@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(-math.pi, math.pi), st.integers(0, 1000))
def test_any_transform_is_found_among_outliers(x: float, y: float, yaw: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    places, features = rng.uniform(-40, 40, (60, 2)), unit(60, rng)
    T = in_plane(x, y, yaw)
    moved = flat(places, T) + rng.normal(0, 0.1, (60, 2)).astype(np.float32)
    moved[30:] = rng.uniform(-40, 40, (30, 2))  # half of the matches are wrong
    shuffled = rng.permutation(60)
    matches = match_features(features, features[shuffled])
    found = align(places.astype(np.float32), moved[shuffled], matches)
    assert found is not None
    assert math.hypot(found.x - x, found.y - y) < 0.5
    assert abs(math.remainder(found.yaw - yaw, 2 * math.pi)) < 0.05
    assert len(set(matches.pairs[found.is_inlier, 0]) & set(range(30))) >= 25 and found.is_inlier.sum() < 36
    assert found.ambiguity < 0.5


def test_matches_are_those_of_two_loops() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(20, rng), unit(25, rng)
    similarity = [[int(p.astype(int) @ q.astype(int)) for q in b] for p in a]
    expected = {
        (i, j)
        for i in range(20)
        for j in range(25)
        if similarity[i][j] == max(similarity[i]) and similarity[i][j] == max(row[j] for row in similarity)
    }
    assert set(map(tuple, match_features(a, b).pairs.tolist())) == expected


@pytest.mark.parametrize("alike", [True, False])
def test_row_of_equal_trees_is_ambiguous(alike: bool) -> None:
    """Trees 6 m apart in two rows: with features that are all but equal the row can be shifted by one tree."""
    rng = np.random.default_rng(1)
    trees = np.array([(6.0 * k, side) for k in range(-6, 7) for side in (-5.0, 5.0)])
    kinds = unit(len(trees), rng)
    if alike:
        kinds = np.repeat(unit(2, rng)[None], 13, axis=0).reshape(-1, 128)
    noisy = [np.clip(kinds + rng.integers(-4, 5, kinds.shape), -127, 127).astype(np.int8) for _ in range(2)]
    found = align(trees.astype(np.float32), flat(trees, in_plane(1.0, 2.0, 0.3)), match_features(*noisy))
    assert found is None or (found.ambiguity > 0.7) == alike


@pytest.fixture(scope="module")
def street() -> tuple[Geometry, Geometry, F64]:
    """A simulated pair, keypoints drawn from its standing points with features that name the place."""
    pair = next(pair for pair in make_pairs(4, 5, False) if pair.kind == "street")
    rng = np.random.default_rng(2)
    L_query, L_match = level(pair.query), level(pair.match)
    keypoints = rng.uniform(-30, 30, (80, 2))
    features = unit(80, rng)
    T = L_match @ pair.T_match_query @ inverse(L_query)
    query = Geometry(keypoints.astype(np.float32), features, compact_cloud(pair.query, L_query), L_query)
    moved = flat(keypoints, T) + rng.normal(0, 0.2, (80, 2)).astype(np.float32)
    return query, Geometry(moved, features, compact_cloud(pair.match, L_match), L_match), pair.T_match_query


def test_true_loop_is_found_and_refined(street: tuple[Geometry, Geometry, F64]) -> None:
    query, match, T = street
    found = Verifier().verify(query, match)
    assert found.T_match_query is not None and found.covariance is not None
    metres, degrees = edge_error(found.T_match_query, np.eye(4), T)
    assert metres < 0.1 and degrees < 0.5
    assert found.inliers == found.is_inlier.sum() > 70 and found.matches == len(found.pairs) == 80
    assert found.overlap > 0.3 and 0 < found.residual < 0.4 and found.ambiguity < 0.8


def test_turned_and_tilted_bodies_change_nothing_but_the_frame(street: tuple[Geometry, Geometry, F64]) -> None:
    """The same points in bodies that are mounted otherwise: the edge moves with them."""
    query, match, _ = street
    B = from_xyz_rpy((0.5, -0.3, 0.4, 0.1, -0.2, 2.5))  # T_body_new
    points = transform(query.points, inverse(B))
    other = dataclasses.replace(
        query, cloud=np.round(points / 0.005).astype(np.int16), T_level_body=query.T_level_body @ B
    )
    straight, turned = Verifier().verify(query, match), Verifier().verify(other, match)
    assert straight.T_match_query is not None and turned.T_match_query is not None
    metres, degrees = edge_error(turned.T_match_query, np.eye(4), straight.T_match_query @ B)
    assert metres < 0.02 and degrees < 0.1


def test_swapped_pair_gives_the_inverse(street: tuple[Geometry, Geometry, F64]) -> None:
    query, match, _ = street
    forth, back = Verifier().verify(query, match), Verifier().verify(match, query)
    assert forth.T_match_query is not None and back.T_match_query is not None
    metres, degrees = edge_error(inverse(back.T_match_query), np.eye(4), forth.T_match_query)
    assert metres < 0.05 and degrees < 0.3
    assert forth.overlap == pytest.approx(back.overlap, abs=0.05)


def sane(found: Verification) -> None:
    """The contract for anything at all."""
    assert (found.T_match_query is None) == (found.covariance is None)
    assert np.isfinite([found.overlap, found.residual, found.ambiguity]).all()
    assert 0 <= found.overlap <= 1 and 0 <= found.ambiguity <= 1
    assert len(found.pairs) == len(found.is_inlier) == found.matches >= found.inliers
    if found.T_match_query is not None and found.covariance is not None:
        assert np.isfinite(found.T_match_query).all() and np.isfinite(found.covariance).all()
        np.testing.assert_allclose(found.T_match_query[:3, :3] @ found.T_match_query[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.all(np.linalg.eigvalsh(found.covariance) > 0)


def cloud(name: str) -> np.ndarray:
    """Adversarial clouds (N, 3) int16."""
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(np.arange(-30, 30), np.arange(-30, 30), [0]), axis=-1).reshape(-1, 3) * 100
    clouds = {
        "empty": np.zeros((0, 3)),
        "one point": np.array([[100, 200, 50]]),
        "one place": np.tile([[100, 200, 50]], (500, 1)),
        "line": np.stack([np.arange(-500, 500) * 10, np.zeros(1000), np.zeros(1000)], axis=1),
        "plane": grid,
        "wall": grid[:, [0, 2, 1]],
        "noise": rng.integers(-8000, 8000, (800, 3)),
        "edge of int16": rng.choice([-32768, 32767], (200, 3)),
    }
    return clouds[name].astype(np.int16)


NAMES = ("empty", "one point", "one place", "line", "plane", "wall", "noise", "edge of int16")


@pytest.mark.parametrize("right", NAMES)
@pytest.mark.parametrize("left", NAMES)
def test_any_clouds_give_a_verdict(left: str, right: str) -> None:
    rng = np.random.default_rng(4)
    keypoints, features = rng.uniform(-30, 30, (40, 2)).astype(np.float32), unit(40, rng)
    pair = [Geometry(keypoints, features, cloud(name), np.eye(4)) for name in (left, right)]
    found = Verifier().verify(*pair)
    sane(found)
    if left == right == "plane":
        assert found.covariance is not None and np.sqrt(np.diag(found.covariance)[[0, 1]]).min() > 1.0


@pytest.mark.parametrize("count", [0, 1, 2, MIN_INLIERS - 1, MIN_INLIERS])
def test_few_keypoints_are_no_loop_until_there_are_enough(count: int) -> None:
    rng = np.random.default_rng(5)
    xy, features = rng.uniform(-30, 30, (count, 2)).astype(np.float32), unit(count, rng)
    geometry = Geometry(xy, features, cloud("noise"), np.eye(4))
    found = Verifier().verify(geometry, geometry)
    sane(found)
    assert (found.T_match_query is None) == (count < MIN_INLIERS)


def test_identical_and_mirrored_scans(street: tuple[Geometry, Geometry, F64]) -> None:
    query, _, _ = street
    same = Verifier().verify(query, query)
    sane(same)
    assert same.T_match_query is not None and same.overlap > 0.99
    np.testing.assert_allclose(same.T_match_query, np.eye(4), atol=1e-3)
    flip = np.array([1, -1, 1])
    mirrored = dataclasses.replace(
        query, keypoints=query.keypoints * np.float32([1, -1]), cloud=(query.cloud * flip).astype(np.int16)
    )
    found = Verifier().verify(query, mirrored)
    sane(found)
    assert found.inliers < 20  # of 80: no turn brings a mirror image onto its original


def test_principal_axes_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        spread = rng.normal(size=(10, 3)) * rng.choice([1.0, 0.1, 0.01, 0.0], 3)
        C = spread.T @ spread
        values, axes = np.linalg.eigh(C)
        second, first, axis = _principal(C)
        assert np.allclose([second, first], values[1:], atol=1e-6 * max(1.0, values[2]))
        if values[2] > 1.1 * values[1]:
            assert abs(axis @ axes[:, 2]) == pytest.approx(1.0, abs=1e-4)


def test_compact_cloud_is_small_level_with_the_points_and_free_of_scan_lines() -> None:
    pair = next(make_pairs(1, 6, True))
    T = level(pair.query)
    kept = compact_cloud(pair.query, T)
    assert kept.dtype == np.int16 and 500 < len(kept) <= STANDING + LYING
    assert kept.nbytes <= 24_000
    circle = np.linspace(0, 2 * math.pi, 2000, endpoint=False)
    ring = np.stack([30 * np.cos(circle), 30 * np.sin(circle), np.full(2000, 3.0)], axis=1)
    assert len(compact_cloud(ring.astype(np.float32), np.eye(4))) == 0
    pole = np.stack([np.full(40, 5.0), np.full(40, 5.0), np.linspace(0.5, 12, 40)], axis=1)
    assert len(compact_cloud(pole.astype(np.float32), np.eye(4))) > 20
    assert len(compact_cloud(np.zeros((0, 4), np.float32), np.eye(4))) == 0


def test_describer_keeps_keypoints_where_they_are() -> None:
    torch.manual_seed(0)
    describer = Describer(PlaceNetwork(ModelConfig(), BevConfig()), "untrained")
    pair = next(make_pairs(1, 7, False))
    bev = describer.rasterize(pair.query)
    description = describer.describe_all(bev)
    kept = describer.geometry(bev, description, pair.query)
    np.testing.assert_array_equal(describer.describe(bev), describer.descriptor(description))
    assert 0 < len(kept.keypoints) == len(kept.features) <= 250 and kept.nbytes <= 60_000
    np.testing.assert_allclose(np.linalg.norm(kept.features.astype(float) / 127, axis=1), 1.0, atol=0.07)
    levelled = transform(kept.points, kept.T_level_body.astype(np.float32))
    standing = np.asarray(bev.points)[:, :2][np.asarray(bev.points)[:, 2] > 0.35]
    nearest = np.abs(kept.keypoints[:, None] - standing[None]).max(axis=2).min(axis=1)
    assert nearest.max() <= 0.26  # half a cell
    assert abs(np.median(levelled[levelled[:, 2] < 0.3, 2])) < 0.15
