# SPDX-License-Identifier: Apache-2.0
"""A growing cloud is what explicit loops over voxels make of all clouds at once."""

from __future__ import annotations

import numpy as np
import pytest

from vlad_ros.cloud import growing
from vlad_ros.cloud.growing import GrowingCloud
from vlad_ros.poses import from_xyz_rpy

RNG = np.random.default_rng(2)
CLOUDS = [  # the fourth column says which point it is
    np.c_[RNG.uniform(-5, 5, (400, 3)), np.arange(400) + 400 * k].astype(np.float32) for k in range(7)
]
POSES = [from_xyz_rpy((*RNG.uniform(-3, 3, 3), 0.0, 0.0, float(RNG.uniform(-3, 3)))) for _ in CLOUDS]


@pytest.mark.parametrize("pending", (0, 1000, 10**6))
def test_the_first_point_of_each_voxel_is_left(monkeypatch: pytest.MonkeyPatch, pending: int) -> None:
    monkeypatch.setattr(growing, "PENDING", pending)
    cloud, voxel, first = GrowingCloud(0.5), 0.5, {}
    for points, T in zip(CLOUDS, POSES, strict=True):
        cloud.add(points, T)
        moved = points[:, :3].astype(np.float64) @ T[:3, :3].T + T[:3, 3] - POSES[0][:3, 3]
        for at, intensity in zip(moved, points[:, 3], strict=True):
            first.setdefault(tuple(np.floor(at / voxel).astype(int)), (*at, intensity))
    kept, expected = ({int(row[3]): row for row in rows} for rows in (cloud.points(), first.values()))
    np.testing.assert_array_equal(cloud.origin, POSES[0][:3, 3])
    same = kept.keys() & expected.keys()
    assert len(same) >= 0.995 * max(len(kept), len(expected))  # float32 may decide for a neighbouring voxel
    for number in same:
        np.testing.assert_allclose(kept[number], expected[number], atol=1e-4)


def test_far_from_the_frame_s_origin_it_is_as_exact() -> None:
    away = from_xyz_rpy((5e6, 4e5, 100.0, 0.0, 0.0, 0.0))
    near, far = GrowingCloud(0.5), GrowingCloud(0.5)
    for points, T in zip(CLOUDS, POSES, strict=True):
        near.add(points, T)
        far.add(points, away @ T)
    np.testing.assert_allclose(far.points(), near.points(), atol=1e-4)
    np.testing.assert_allclose(far.origin - near.origin, away[:3, 3], atol=1e-6)
