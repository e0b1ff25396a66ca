# SPDX-License-Identifier: Apache-2.0
"""Scans out of every kind of file, against the points that were written; whatever is wrong is one sentence."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from bag_builder import spoil
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.config import ImportConfig
from vlad_ros.files.bags import sequence_scans, write_bag
from vlad_ros.files.scan_file import read_scan
from vlad_ros.files.sequence import Sequence, save_sequence
from vlad_ros.types import F32

PCD = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS {fields}
SIZE {sizes}
TYPE {types}
COUNT {counts}
WIDTH {n}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {n}
DATA {data}
"""


def pcd(fields: str, data: str) -> bytes:
    """The header of one point of three floats."""
    return PCD.format(fields=fields, sizes="4 4 4", types="F F F", counts="1 1 1", n=1, data=data).encode()


def npy(array: np.ndarray) -> bytes:
    """What numpy saves."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz() -> bytes:
    """Several arrays, where one is wanted."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros((4, 3)), b=np.zeros((4, 3)))
    return buffer.getvalue()


def points(seed: int = 0, n: int = 40) -> F32:
    rng = np.random.default_rng(seed)
    return np.c_[rng.integers(-2000, 2000, (n, 3)) * 0.005, rng.integers(0, 100, n)].astype(np.float32)


def test_scans_of_a_sequence_and_of_a_bag(tmp_path: Path) -> None:
    drive = Sequence("drive", [points(k) for k in range(3)])
    save_sequence(tmp_path / "drive.npz", drive)
    write_bag(tmp_path / "bag", sequence_scans(drive, 10.0), ImportConfig())
    for index in (0, 2):
        np.testing.assert_allclose(read_scan(f"{tmp_path}/drive.npz:{index}"), drive.scans[index], atol=1e-4)
        np.testing.assert_array_equal(read_scan(f"{tmp_path}/bag:{index}"), drive.scans[index])
    np.testing.assert_array_equal(read_scan(f"{next((tmp_path / 'bag').glob('*.mcap'))}:1"), drive.scans[1])
    for source, sentence in (("drive.npz", "holds 3 scans"), ("drive.npz:3", "no scan 3"), ("bag:3", "no cloud 3")):
        with pytest.raises(ValueError, match=sentence):
            read_scan(tmp_path / source)


def test_clouds_of_their_own(tmp_path: Path) -> None:
    cloud = points()
    cloud.tofile(tmp_path / "kitti.bin")
    np.save(tmp_path / "four.npy", cloud)
    np.save(tmp_path / "three.npy", cloud[:, :3].astype(np.float64))
    np.testing.assert_array_equal(read_scan(tmp_path / "kitti.bin"), cloud)
    np.testing.assert_array_equal(read_scan(tmp_path / "four.npy"), cloud)
    np.testing.assert_array_equal(read_scan(tmp_path / "three.npy"), cloud * (1, 1, 1, 0))


def test_pcd_files_text_and_binary(tmp_path: Path) -> None:
    """A colour before the coordinates and a descriptor of three numbers after them are stepped over."""
    cloud = points()
    header = {
        "fields": "rgb x y z intensity fpfh",
        "sizes": "4 4 4 4 1 4",
        "types": "U F F F U F",
        "counts": "1 1 1 1 1 3",
    }
    dtype = [("rgb", "<u4"), ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("i", "u1"), ("fpfh", "<f4", 3)]
    rows = np.zeros(len(cloud), dtype)
    for name, column in zip("xyzi", cloud.T, strict=True):
        rows[name] = column
    rows["rgb"], rows["fpfh"] = 4_000_000_000, 7.5
    binary = PCD.format(**header, n=len(cloud), data="binary").encode() + rows.tobytes()
    (tmp_path / "binary.pcd").write_bytes(binary)
    np.testing.assert_array_equal(read_scan(tmp_path / "binary.pcd"), cloud)
    text = "\n".join(" ".join(map(str, [*list(row)[:-1], *row["fpfh"]])) for row in rows)
    (tmp_path / "text.pcd").write_text(PCD.format(**header, n=len(cloud), data="ascii") + text + "\n")
    np.testing.assert_allclose(read_scan(tmp_path / "text.pcd"), cloud, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pcd", b"not a header", "no line DATA"),
        ("b.pcd", pcd("x y z", "binary"), "bytes"),
        ("c.pcd", pcd("x y z", "binary_compressed"), "compressed"),
        ("d.pcd", pcd("x y i", "ascii") + b"1 2 3\n", "no field z"),
        ("e.pcd", b"FIELDS x y z\nDATA ascii\n", "not a readable PCD"),
        ("f.bin", b"12345678", "no x y z intensity quadruples"),
        ("g.npy", b"junk", "not a readable array"),
        ("h.ply", b"ply", "not a known kind of scan"),
        ("i.npz", b"PK", "not a readable .npz"),
        ("j.npy", npy(np.array(["a", "b"])), "not a readable array"),
        ("k.npy", npy(np.array([{}, []], object)), "not a readable array"),
        ("l.npy", npy(np.zeros((4, 2))), "not a readable array"),
        ("m.npy", npz(), "not a readable array"),
        ("n.npy", npy(np.zeros((9, 3)))[:-50], "not a readable array"),
        ("o.npy", npy(np.zeros((9, 3))).replace(b"(9, 3)", b"(9**9**9, 3)"), "not a readable array"),
        ("p.pcd", pcd("x y z", "ascii").replace(b"COUNT 1", b"COUNT 99999999999999999999"), "not a readable PCD"),
        ("q.bin", b"1" * 33, "33 bytes are no x y z intensity quadruples"),
    ],
)
def test_bad_files_are_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    source = f"{tmp_path / name}:0" if name.endswith("npz") else str(tmp_path / name)
    with pytest.raises(ValueError, match=sentence) as error:
        read_scan(source)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_single_scan_has_no_index_and_a_missing_one_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", points())
    with pytest.raises(ValueError, match="leave out :3"):
        read_scan(f"{tmp_path}/a.npy:3")
    with pytest.raises(ValueError, match="no such file"):
        read_scan(tmp_path / "b.npy")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="not a readable rosbag2"):
        read_scan(f"{tmp_path}/folder:0")


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**31), cut=st.floats(0, 1), name=st.sampled_from(["a.pcd", "b.pcd", "c.npy", "d.bin"]))
def test_no_damage_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cut: float, name: str
) -> None:
    """Bytes replaced or cut off, in the headers above all."""
    cloud = points(n=3)
    whole = {
        "a.pcd": pcd("x y z", "ascii").replace(b"POINTS 1", b"POINTS 3") + b"1 2 3\n" * 3,
        "b.pcd": pcd("x y z", "binary") + cloud[:1, :3].tobytes(),
        "c.npy": npy(cloud),
        "d.bin": cloud.tobytes(),
    }[name]
    path = tmp_path_factory.getbasetemp() / f"damaged_{name}"
    path.write_bytes(spoil(whole, seed) if seed % 2 else whole[: int(cut * len(whole))])
    try:
        assert read_scan(path).shape[1] == 4
    except ValueError as error:
        assert path.name in str(error)
