# SPDX-License-Identifier: Apache-2.0
"""The cloud of a map: every keyframe's points at its corrected pose, and nothing of those that have none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from map_rows import geometry, keyframe, make
from ply_reader import read_ply
from scipy.spatial import cKDTree

from vlad_ros.maps.kept_cloud import VOXEL, save_kept
from vlad_ros.poses import from_xyz_rpy


def test_points_lie_at_the_corrected_poses(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = [keyframe(rng, stamp=k + 1, travel=float(k)) for k in range(4)]
    rows = [dataclasses.replace(row, geometry=geometry(rng, points=200)) for row in rows]
    rows[1] = dataclasses.replace(rows[1], geometry=None)
    rows[2] = dataclasses.replace(rows[2], T_odom_base=None, travel=None)
    database = make(rows)
    corrected = from_xyz_rpy((100.0, 50.0, 3.0, 0.1, 0.0, 2.0))
    database.place(3, corrected)
    said = save_kept(database, database.ids(), tmp_path / "map.ply")
    properties, points = read_ply(tmp_path / "map.ply")
    assert list(properties) == ["x", "y", "z"] and said.startswith(
        f"{len(points)} points that 2 keyframes keep, coarse"
    )
    expected = []
    for row, T in ((rows[0], np.eye(4)), (rows[3], corrected)):
        cloud = row.geometry.cloud * 0.005
        expected.append(cloud @ T[:3, :3].T + T[:3, 3])
    tree, wanted = cKDTree(points), np.concatenate(expected)
    assert cKDTree(wanted).query(points)[0].max() < 1e-3, "points that no keyframe has"
    assert tree.query(wanted)[0].max() <= VOXEL * np.sqrt(3), "places that are left out"


def test_without_poses_there_is_no_cloud(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    database = make([dataclasses.replace(keyframe(rng, stamp=1), geometry=geometry(rng))])
    with pytest.raises(ValueError, match="it needs odometry"):
        save_kept(database, database.ids(), tmp_path / "map.ply")
    assert not list(tmp_path.iterdir())
