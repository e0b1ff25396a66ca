# SPDX-License-Identifier: Apache-2.0
"""Zero returns and the vehicle's own body never survive; missing returns that a sensor draws are named."""

from __future__ import annotations

import numpy as np
import pytest

from vlad_ros.cloud.crop import crop_rows, missing_returns, outside
from vlad_ros.cloud.decode import CloudError


def scene(rng: np.random.Generator, number: int = 3000) -> np.ndarray:
    """A floor and boxes around a sensor 1.7 m above it, noisy (N, 4)."""
    floor = np.column_stack([rng.uniform(-40, 40, (number, 2)), rng.normal(-1.7, 0.02, number), np.ones(number)])
    walls = np.column_stack([np.full(number, 20.0) + rng.normal(0, 0.02, number), rng.uniform(-40, 40, number)])
    walls = np.column_stack([walls, rng.uniform(-1.7, 5.0, number), np.ones(number)])
    return np.concatenate([floor, walls]).astype(np.float32)


def test_points_and_their_rows_are_cropped_about_the_sensor() -> None:
    points = np.array([[0, 0, 0, 1], [0.5, 0, 0, 2], [3, 0, 0, 3], [0, 200, 0, 4], [0, 0, 5, 5]], np.float32)
    kept, rows = crop_rows(points.copy(), np.arange(10, 15, dtype=np.int32), 1.0, 100.0)
    assert kept[:, 3].tolist() == [3, 5] and rows.tolist() == [12, 14]
    with pytest.raises(CloudError, match="none of the 2 points lies"):
        crop_rows(points[:2].copy(), np.arange(2, dtype=np.int32), 1.0, 100.0)


def test_the_body_box() -> None:
    points = np.array([[0, 0, 0], [1, 1, 1], [1.01, 0, 0], [-5, 0, 0], [0.5, -0.5, 0.5]], np.float32)
    assert outside(points, (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)).tolist() == [False, False, True, True, False]
    assert outside(points, ()).all()


def test_a_real_scene_draws_no_missing_returns() -> None:
    for seed in range(10):
        assert missing_returns(scene(np.random.default_rng(seed))) == ""


def test_a_perfect_simulated_floor_is_none_either() -> None:
    points = scene(np.random.default_rng(0))
    points[:3000, 2] = -1.7
    assert missing_returns(points) == ""


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_sphere_or_a_plane_at_the_range_limit_is_named(share: float) -> None:
    rng = np.random.default_rng(1)
    points = scene(rng)
    number = round(share / (1 - share) * len(points))
    rays = rng.normal(size=(number, 3))
    sphere = 120.0 * rays / np.linalg.norm(rays, axis=1, keepdims=True)
    plane = np.column_stack([np.full(number, 100.0), rng.uniform(-90, 90, (number, 2))])
    for drawn, what in ((sphere, "range 120.0 m"), (plane, "x 100.0 m")):
        mixed = np.concatenate([points, np.column_stack([drawn, np.zeros(number)])]).astype(np.float32)
        assert what in missing_returns(rng.permutation(mixed)) and "max_range" in missing_returns(mixed)


@pytest.mark.filterwarnings("error")
def test_points_as_far_as_a_float_reaches() -> None:
    points = scene(np.random.default_rng(0))
    points[::7, 0] = 3e38
    assert missing_returns(points) == ""
