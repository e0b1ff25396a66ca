# SPDX-License-Identifier: Apache-2.0
"""PLY files, read back by another reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ply_reader import read_ply

from vlad_ros.files import ply
from vlad_ros.files.ply import write_ply

POINTS = np.random.default_rng(1).uniform(-50, 50, (1000, 4)).astype(np.float32)


@pytest.mark.parametrize("intensity", (True, False))
def test_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, intensity: bool) -> None:
    monkeypatch.setattr(ply, "CHUNK", 300)  # several, the last one not full
    write_ply(tmp_path / "a.ply", POINTS, np.array([10.0, -20.0, 0.5]), intensity)
    properties, values = read_ply(tmp_path / "a.ply")
    assert list(properties) == ["x", "y", "z", "intensity"][: 3 + intensity] and set(properties.values()) == {"float"}
    np.testing.assert_allclose(values[:, :3], POINTS[:, :3] + (10.0, -20.0, 0.5), atol=1e-5)
    if intensity:
        np.testing.assert_array_equal(values[:, 3], POINTS[:, 3])


def test_far_from_the_origin_nothing_is_rounded(tmp_path: Path) -> None:
    """UTM coordinates: float32 would round them to half a metre."""
    origin = np.array([5_432_109.876, -432_100.123, 250.0])
    write_ply(tmp_path / "utm.ply", POINTS, origin)
    properties, values = read_ply(tmp_path / "utm.ply")
    assert list(properties.values()) == ["double"] * 3 + ["float"]
    np.testing.assert_allclose(values[:, :3], POINTS[:, :3].astype(np.float64) + origin, atol=1e-6)


def test_no_points_are_a_file_without_vertices(tmp_path: Path) -> None:
    write_ply(tmp_path / "none.ply", np.empty((0, 4), np.float32), np.zeros(3))
    assert len(read_ply(tmp_path / "none.ply")[1]) == 0


def test_an_older_file_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ply(tmp_path / "a.ply", POINTS, np.zeros(3))
    before = (tmp_path / "a.ply").read_bytes()
    with pytest.raises(IndexError):
        write_ply(tmp_path / "a.ply", POINTS[:, :3], np.zeros(3))  # fails after the header
    assert (tmp_path / "a.ply").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["a.ply"]
    with pytest.raises(OSError):
        write_ply(tmp_path / "no" / "folder.ply", POINTS, np.zeros(3))
