# SPDX-License-Identifier: Apache-2.0
"""Sequence files against what was written; whatever else lies under such a name is one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_builder import spoil
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros import cli
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.poses import from_xyz_rpy

POSES = np.stack([from_xyz_rpy((float(i), 0.0, 0.1, 0.0, 0.01, 0.2 * i)) for i in range(3)])


def arrays(**changes: Any) -> dict[str, Any]:
    """Three scans of two points each, with all that a file may hold."""
    whole = {
        "xyz": np.arange(18, dtype=np.int16).reshape(6, 3),
        "scale": np.float32(0.01),
        "offsets": np.array([0, 2, 4, 6]),
        "intensity": np.arange(6, dtype=np.float16),
        "poses": POSES,
        "stamps": np.array([1.0, 1.1, 1.2]),
    }
    return {name: value for name, value in (whole | changes).items() if value is not None}


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "drive.npz", **arrays())
    sequence = load_sequence(tmp_path / "drive.npz")
    assert [len(scan) for scan in sequence.scans] == [2, 2, 2]
    expected = np.c_[np.arange(18).reshape(6, 3) * 0.01, np.arange(6)]
    np.testing.assert_allclose(np.concatenate(sequence.scans), expected, rtol=1e-6)
    np.testing.assert_array_equal(sequence.poses, POSES)
    assert sequence.stamps_ns() == [1_000_000_000, 1_100_000_000, 1_200_000_000]


def broken(at: tuple[int, ...], value: float) -> np.ndarray:
    poses = POSES.copy()
    poses[at] = value
    return poses


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"xyz": None}, "not a sequence file, xyz missing"),
        ({"xyz": np.zeros((6, 2), np.int16)}, r"xyz must be numbers of shape \(N, 3\), not int16 \(6, 2\)"),
        ({"xyz": np.full((6, 3), "a")}, "xyz must be numbers"),
        ({"scale": np.zeros(2)}, "scale must be one number"),
        ({"scale": np.float32(np.nan)}, "scale must be one number"),
        ({"offsets": np.array([0.0, 2.0, 4.0, 6.0])}, "offsets must be numbers of shape"),
        ({"offsets": np.int64(6)}, "offsets must be numbers of shape"),
        ({"offsets": np.array([], int)}, "offsets do not cover the 6 points"),
        ({"offsets": np.array([0, 4, 2, 6])}, "offsets do not cover"),
        ({"offsets": np.array([0, 2, 4, 7])}, "offsets do not cover"),
        ({"intensity": np.zeros(5, np.float16)}, r"intensity must be numbers of shape \(6,\)"),
        ({"poses": POSES[:2]}, "2 poses for 3 scans"),
        ({"poses": POSES[:, :3]}, r"poses must be numbers of shape \(3, 4, 4\)"),
        ({"poses": broken((1, 0, 0), 3.0)}, "pose 1 is not a rigid transform"),
        ({"poses": broken((2, 0, 3), np.nan)}, "pose 2 is not finite"),
        ({"poses": POSES * [[-1.0], [-1.0], [-1.0], [1.0]]}, "pose 0 is not a rigid transform"),
        ({"stamps": np.array([1.0])}, "1 stamps for 3 scans"),
        ({"stamps": np.float64(1.0)}, "1 stamps for 3 scans"),
        ({"stamps": np.array([1.0, np.nan, 1.2])}, "stamp 1 must be seconds from 0 to 2..31, not nan"),
        ({"stamps": np.array([-1.0, 1.0, 1.2])}, "stamp 0 must be seconds"),
        ({"stamps": np.array([1.7e18, 1.7e18, 1.7e18])}, "stamp 0 must be seconds"),
        ({"stamps": np.array(["a", "b", "c"])}, "stamps must be numbers"),
    ],
)
def test_what_is_wrong_with_it_is_one_sentence(
    changes: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "drive.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(ValueError, match=words) as error:
        load_sequence(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    assert cli.main(["import", str(path), str(tmp_path / "bag")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "bag").exists()


def test_other_things_under_that_name(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez(tmp_path / "pickled.npz", xyz=np.array([{}], object), scale=1.0, offsets=[0, 1])
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=r"\.npz: not a readable \.npz sequence"):
            load_sequence(path)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.floats(0, 1), which=st.booleans())
def test_no_damage_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cut: float, which: bool
) -> None:
    """Packed as `vlad` writes it: zip, zlib and numpy each have errors of their own."""
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    save_sequence(path, Sequence("drive", [np.ones((20, 4), np.float32)] * 3, POSES, np.array([1.0, 2.0, 3.0])))
    whole = path.read_bytes()
    path.write_bytes(spoil(whole, seed) if which else whole[: int(cut * len(whole))])
    try:
        assert len(load_sequence(path)) == 3
    except ValueError as error:
        assert str(error).startswith(str(path))
