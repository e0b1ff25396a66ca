# SPDX-License-Identifier: Apache-2.0
"""The protocols and the baseline against hand-made cases and the reference implementation."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from real_data import data_file

from vlad_ros.config import EvaluationConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation import metrics, protocols, scan_context
from vlad_ros.evaluation.task import local_maps
from vlad_ros.files.sequence import Sequence, load_sequence


def reference(name: str) -> ModuleType:
    """A module of the reference implementation, kept beside the real data or in VLAD_REFERENCE."""
    folder = os.environ.get("VLAD_REFERENCE") or str(Path(os.environ.get("VLAD_DATA", "")).parent / "reference")
    path = Path(folder) / f"{name}.py"
    if not path.is_absolute() and not path.exists():
        pytest.skip("neither VLAD_REFERENCE nor VLAD_DATA is set: no reference implementation at hand")
    if not path.exists():
        pytest.skip(f"no reference implementation at {path}")
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def out_and_back(n: int = 40, step: float = 1.0) -> np.ndarray:
    """(2n, 4, 4) poses along x and back again, half a metre aside, heading reversed."""
    poses = np.tile(np.eye(4), (2 * n, 1, 1))
    poses[:n, 0, 3] = np.arange(n) * step
    poses[n:, 0, 3] = np.arange(n)[::-1] * step
    poses[n:, 1, 3] = 0.5
    poses[n:, :2, :2] = -np.eye(2)
    return poses


def headings(poses: np.ndarray) -> np.ndarray:
    return np.arctan2(poses[:, 1, 0], poses[:, 0, 0])


def test_a_perfect_method_on_a_drive_out_and_back() -> None:
    poses = out_and_back()
    positions = poses[:, :3, 3]
    similarity = -np.linalg.norm(positions[:, None] - positions[None], axis=2)
    outcome = protocols.causal(similarity, positions, gap=10, radius=2.0, headings=headings(poses))
    assert not outcome.is_query[:40].any() and outcome.is_query[46:].all()
    assert outcome.correct()[outcome.is_query].all()
    np.testing.assert_array_equal(outcome.reverse, outcome.is_query)
    assert (outcome.best[:11] == -1).all() and outcome.best[11] == 0
    assert (outcome.best[60:] == 79 - np.arange(60, 80)).all()


def test_the_gap_is_strict() -> None:
    """Frame i may match j < i - gap: with gap 3 frame 4 may match 0 and frame 3 nothing."""
    outcome = protocols.causal(np.zeros((5, 5)), np.zeros((5, 3)), gap=3, radius=1.0)
    np.testing.assert_array_equal(outcome.best, [-1, -1, -1, -1, 0])
    np.testing.assert_array_equal(outcome.is_query, [False] * 4 + [True])


def test_the_radius_itself_is_near_enough() -> None:
    outcome = protocols.cross(np.ones((1, 1)), np.zeros((1, 3)), np.array([[5.0, 0, 0]]), radius=5.0)
    assert outcome.correct().all()


def test_minus_infinity_is_no_candidate() -> None:
    """A method may decline: a query whose right answer it does not propose is missed, not found by its place."""
    similarity = np.array([[0.5, -np.inf, -np.inf], [-np.inf] * 3])
    outcome = protocols.cross(similarity, np.zeros((2, 3)), np.array([[9.0, 0, 0], [0, 0, 0], [9, 9, 9]]), radius=1.0)
    np.testing.assert_array_equal(outcome.best, [0, -1])
    assert outcome.is_query.all() and not outcome.correct(3).any()


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        protocols.judge(np.zeros((2, 3)), np.ones((2, 2), bool), np.ones((2, 3), bool))


@pytest.mark.parametrize("seed", range(4))
def test_causal_equals_the_reference(seed: int) -> None:
    module = reference("protocol")
    rng = np.random.default_rng(seed)
    time = np.linspace(0, 6 * np.pi, 300)
    positions = np.c_[30 * np.sin(time), 20 * np.cos(1.5 * time + seed), rng.normal(0, 0.1, 300)]
    angle = np.arctan2(np.gradient(positions[:, 1]), np.gradient(positions[:, 0]))
    descriptors = np.c_[np.cos(positions[:, :2] / 9), np.sin(positions[:, :2] / 9), rng.normal(0, 0.25, (300, 6))]
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    best, similarity = module.causal_best(descriptors, 20)
    expected = module.score(positions, best, similarity, 20, 4.0, angle)
    outcome = protocols.causal(descriptors @ descriptors.T, positions, 20, 4.0, angle)
    numbers = metrics.summarise(outcome)
    np.testing.assert_array_equal(outcome.best, best)
    assert 0 < expected["recall@1"] < 1, "the case must not be trivial"
    for ours, theirs in {
        "frames": "frames",
        "queries": "queries",
        "recall@1": "recall@1",
        "F1max": "F1max",
        "AP": "AP",
        "recall@P100": "recall@P100",
        "reverse_queries": "reverse_queries",
        "reverse_recall@1": "recall@1_reverse",
    }.items():
        assert numbers[ours] == pytest.approx(expected[theirs], abs=1e-9), ours


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_sparse_draws_exactly_the_reference_queries(stride: int) -> None:
    module = reference("protocol")
    rng = np.random.default_rng(7)
    scans = [rng.normal(0, 20, (int(rng.integers(1500, 9000)), 4)).astype(np.float32) for _ in range(19)]
    keep, queries, thinned, _ = protocols.sparse_split(scans, stride, seed=3)
    expected_keep, expected_queries, expected = module.sparse_split(scans, stride, 3)
    np.testing.assert_array_equal(keep, expected_keep)
    np.testing.assert_array_equal(queries, expected_queries)
    for ours, theirs in zip(thinned, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    similarity = rng.normal(size=(len(queries), len(keep)))
    positions = np.c_[np.arange(19) * 1.5, np.zeros((19, 2))]
    numbers = metrics.summarise(protocols.cross(similarity, positions[queries], positions[keep], 4.0))
    want = module.sparse_recall(positions, expected_keep, expected_queries, similarity, 4.0)
    assert {key: numbers[key] for key in want} == pytest.approx(want)


def test_sparse_needs_a_stride() -> None:
    with pytest.raises(ValueError, match="stride must be at least 2, not 1"):
        protocols.sparse_split([], 1)


def test_scan_context_equals_the_reference() -> None:
    module = reference("scan_context")
    rng = np.random.default_rng(1)
    clouds = [rng.normal(0, (25, 25, 2), (400, 3)).astype(np.float32) for _ in range(12)]
    ours = np.stack([scan_context.describe(cloud) for cloud in clouds])
    theirs = [module.describe(cloud) for cloud in clouds]
    np.testing.assert_array_equal(ours, np.stack(theirs))
    np.testing.assert_allclose(
        scan_context.similarity(ours[:5], ours), module.similarity(theirs[:5], theirs), atol=1e-6
    )


def test_scan_context_does_not_care_about_turns() -> None:
    rng = np.random.default_rng(2)
    cloud = rng.normal(0, (25, 25, 2), (2000, 3)).astype(np.float32)
    turn = np.radians(6 * 17)
    turned = cloud.copy()
    turned[:, :2] = cloud[:, :2] @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]], np.float32)
    contexts = np.stack([scan_context.describe(c) for c in (cloud, turned, np.roll(cloud, 1, axis=1))])
    similarity = scan_context.similarity(contexts[:1], contexts)[0]
    assert similarity[1] > 0.97 > similarity[2]


def test_the_baseline_on_a_real_drive() -> None:
    """loop_mid360 against the reference, and against its published row to one answer in a hundred."""
    sequence = load_sequence(data_file("loop_mid360.npz"))
    assert sequence.poses is not None
    contexts = np.stack([scan_context.describe(scan) for scan in sequence.scans])
    similarity = scan_context.similarity(contexts, contexts)
    outcome = protocols.causal(similarity, sequence.poses[:, :3, 3], 56, 5.0, headings(sequence.poses))
    numbers = metrics.summarise(outcome)
    assert (numbers["queries"], numbers["reverse_queries"]) == (313, 199)
    assert numbers["recall@1"] == pytest.approx(0.802, abs=0.01)
    assert numbers["reverse_recall@1"] == pytest.approx(0.849, abs=0.01)
    assert numbers["F1max"] == pytest.approx(0.611, abs=0.01)

    # The reference searches one by one, so it gets a part: 150 scans of the start, and 100 where it is seen again.
    part = np.r_[0:150, 640:740]
    best, score = reference("scan_context").causal_best(list(contexts[part]), 56)
    ours = protocols.causal(similarity[np.ix_(part, part)], sequence.poses[part, :3, 3], 56, 5.0)
    expected = reference("protocol").score(sequence.poses[part, :3, 3], best, score, 56, 5.0)
    np.testing.assert_array_equal(ours.best, best)
    numbers = metrics.summarise(ours)
    assert [numbers[key] for key in ("queries", "recall@1", "F1max", "AP")] == pytest.approx(
        [expected[key] for key in ("queries", "recall@1", "F1max", "AP")]
    )


def test_odometry_drifts_as_much_as_it_should() -> None:
    """Straight on for 400 m: 1 % of every step's length, and headings that spread by 0.5 degree in 10 m."""
    poses = np.tile(np.eye(4), (401, 1, 1))
    poses[:, 0, 3] = np.arange(401.0)
    drives = [drifting_odometry(poses, 0.01, 0.5, seed) for seed in range(60)]
    lengths = np.array([path_length(drive)[-1] for drive in drives])
    errors = lengths / 400 - 1
    np.testing.assert_allclose(np.abs(errors), 0.01, atol=0.002)
    assert errors.min() < 0 < errors.max()
    spread = np.degrees(np.std([headings(drive)[-1] for drive in drives]))
    assert 0.7 * 0.5 * np.sqrt(40) < spread < 1.3 * 0.5 * np.sqrt(40)
    np.testing.assert_array_equal(drives[3], drifting_odometry(poses, 0.01, 0.5, 3))
    np.testing.assert_array_equal(drives[0][0], poses[0])


def test_local_maps_are_centred_on_their_scan() -> None:
    """Each scan sees one landmark of its own: a map holds those of 5 m before and after, in the scan's frame."""
    poses = out_and_back(15)
    landmarks = np.c_[poses[:, :2, 3], 3.0 + 0.3 * np.arange(30)]  # straight above, each at its own height
    scans = [np.array([[0.0, 0.0, 3.0 + 0.3 * i, i]], np.float32) for i in range(30)]
    config = EvaluationConfig(local_maps=True, drift_scale=0.0, drift_yaw=0.0)
    maps = list(local_maps(Sequence("tower", scans, poses), config))
    distance = path_length(poses)
    assert len(maps) == 30
    for i, points in enumerate(maps):
        seen = points[:, 3].astype(int)
        assert seen[0] == i
        near = set(np.flatnonzero(np.abs(distance - distance[i]) <= 4.9))
        assert near <= set(seen) <= set(np.flatnonzero(np.abs(distance - distance[i]) <= 5.1))
        expected = (landmarks[seen] - poses[i, :3, 3]) @ poses[i, :3, :3]
        np.testing.assert_allclose(points[:, :3], expected, atol=0.05)


def test_no_drift_is_the_truth() -> None:
    poses = out_and_back()
    noisy = drifting_odometry(poses, 0.0, 0.0)
    np.testing.assert_allclose(noisy[:, :3, :3], poses[:, :3, :3], atol=1e-12)
    assert np.abs(noisy - poses).max() < 0.005 * 4 * np.sqrt(80)
