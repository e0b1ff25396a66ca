# SPDX-License-Identifier: Apache-2.0
"""Map clouds and trajectories of other tools: read exactly, anywhere on Earth, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlad_ros.files import pcd, ply
from vlad_ros.files.map_cloud import read_map_cloud, read_trajectory
from vlad_ros.files.ply import write_ply
from vlad_ros.poses import from_xyz_rpy, to_quaternion

UTM = np.array([691_000.0, 5_335_000.0, 520.0])  # m; float32 is half a metre off there
XYZ = np.random.default_rng(0).uniform(-40, 40, (500, 3)) + UTM


def write_pcd(path: Path, kind: str, xyz: np.ndarray = XYZ, extra: str = "") -> Path:
    """Fields in another order than usual, one of them with several values."""
    rows = np.zeros(len(xyz), [("n", "<u2"), ("f", "<f4", (2,)), ("y", "<f8"), ("x", "<f8"), ("z", "<f8")])
    rows["f"] = 7.0
    for axis, column in zip("xyz", xyz.T, strict=True):
        rows[axis] = column
    header = (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS n f y x z\nSIZE 2 4 8 8 8\nTYPE U F F F F\nCOUNT 1 2 1 1 1\n"
        f"WIDTH {len(xyz)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(xyz)}\nDATA {kind}\n"
    )
    text = "".join(f"0 7 7 {y!r} {x!r} {z!r}\n" for x, y, z in xyz.tolist())
    path.write_bytes(header.encode() + (text.encode() if kind == "ascii" else rows.tobytes()))
    return path


def write_ply_as(path: Path, order: str) -> Path:
    letters = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[order]
    header = (
        f"ply\nformat {order} 1.0\ncomment by hand\nelement vertex {len(XYZ)}\nproperty uchar red\n"
        "property double x\nproperty double y\nproperty float64 z\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    if order == "ascii":
        body = "".join(f"9 {x!r} {y!r} {z!r}\n" for x, y, z in XYZ.tolist()).encode() + b"3 0 1 2\n"
    else:
        rows = np.zeros(len(XYZ), [("r", "u1"), ("xyz", letters + "f8", (3,))])
        rows["xyz"] = XYZ
        body = rows.tobytes() + b"\x03" + bytes(12)
    path.write_bytes(header.encode() + body)
    return path


@pytest.mark.parametrize("form", ["pcd ascii", "pcd binary", "ply ascii", "ply little", "ply big", "npy", "las"])
def test_points_are_read_to_the_millimetre(form, tmp_path):
    if form.startswith("pcd"):
        path = write_pcd(tmp_path / "a.pcd", form.split()[1])
    elif form.startswith("ply"):
        order = {"ascii": "ascii", "little": "binary_little_endian", "big": "binary_big_endian"}[form.split()[1]]
        path = write_ply_as(tmp_path / "a.PLY", order)
    elif form == "npy":
        path = tmp_path / "a.npy"
        np.save(path, np.c_[XYZ, np.zeros((len(XYZ), 3))])
    else:
        laspy = pytest.importorskip("laspy")
        path, las = tmp_path / "a.las", laspy.create(point_format=0)
        las.header.offsets, las.header.scales = UTM, (0.0001,) * 3
        las.x, las.y, las.z = XYZ.T
        las.write(path)
    cloud = read_map_cloud(path, 0.01)
    assert cloud.read == len(XYZ) == len(cloud.points) and cloud.points.dtype == np.float32
    np.testing.assert_allclose(cloud.points[:, :3] + cloud.origin, XYZ, atol=5e-4)


def test_it_is_thinned_across_the_chunks_that_it_is_read_in(tmp_path, monkeypatch):
    monkeypatch.setattr("vlad_ros.files.map_cloud.CHUNK", 7)
    for path in (write_pcd(tmp_path / "a.pcd", "binary"), write_pcd(tmp_path / "b.pcd", "ascii")):
        once = read_map_cloud(path, 10.0)
        assert once.read == 500 and 200 < len(once.points) < 400  # of 8^3 cubes some are empty
        cells = np.floor(once.points[:, :3] / 10.0).astype(int)
        assert len(np.unique(cells, axis=0)) == len(cells)


def test_our_own_clouds_are_read_back(tmp_path):
    points = np.random.default_rng(1).uniform(-9, 9, (300, 4)).astype(np.float32)
    write_ply(tmp_path / "a.ply", points, UTM)
    np.testing.assert_allclose(
        np.concatenate(list(ply.xyz_chunks(tmp_path / "a.ply", 99))), points[:, :3] + UTM, atol=1e-3
    )


def test_what_is_no_number_is_left_out(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, 0, 0], [np.nan, 0, 0], [1, 2, np.inf], [3.0, 4.0, 5.0]]))
    assert read_map_cloud(tmp_path / "a.npy", 0.1).read == 2


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path):
    whole = write_pcd(tmp_path / "whole.pcd", "binary").read_bytes()
    files = {
        "none.pcd": (None, "there is no such file"),
        "a.xyz": (b"0 0 0", "not a known kind of map"),
        "half.pcd": (whole[: len(whole) // 2], "not a readable PCD"),
        "text.pcd": (write_pcd(tmp_path / "t.pcd", "ascii").read_bytes()[:9000], "are there"),
        "noise.pcd": (b"\x00\xff" * 500, "no line DATA"),
        "packed.pcd": (whole.replace(b"DATA binary", b"DATA binary_compressed"), "compressed"),
        "few.pcd": (whole.replace(b"FIELDS n f y x z", b"FIELDS n f y x"), "not a readable PCD"),
        "noise.ply": (b"ply\n" + b"\x00\xff" * 500, "no PLY header"),
        "half.ply": (write_ply_as(tmp_path / "w.ply", "binary_little_endian").read_bytes()[:3000], "readable PLY"),
        "half.npy": (b"\x93NUMPY\x01\x00v", "not a readable array"),
        "noise.las": (b"LASFnothing", "las"),
        "empty.npy": (np.zeros((0, 3)), "no points"),
        "flat.npy": (np.zeros(9), "must be numbers (N, 3)"),
    }
    for name, (content, why) in files.items():
        if isinstance(content, np.ndarray):
            np.save(tmp_path / name, content)
        elif content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"^[^\n]+$") as refused:
            read_map_cloud(tmp_path / name, 0.25)
        assert why in str(refused.value) and name in str(refused.value), refused.value


def test_a_missing_laspy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "laspy", None)
    (tmp_path / "a.las").write_bytes(b"LASF")
    with pytest.raises(ValueError, match="pip install"):
        read_map_cloud(tmp_path / "a.las", 0.25)


def test_trajectories_of_both_kinds(tmp_path):
    poses = np.stack([from_xyz_rpy((x, -x, 0.1, 0.02, -0.01, 0.3 * x)) for x in range(5)])
    tum, kitti = tmp_path / "a.tum", tmp_path / "a.txt"
    rows = [[100.0 + n, *T[:3, 3], *to_quaternion(T)] for n, T in enumerate(poses)]
    tum.write_text("# stamp x y z\n" + "\n".join(" ".join(map(repr, map(float, row))) for row in rows))
    np.savetxt(kitti, poses[:, :3].reshape(5, 12))
    for path in (tum, kitti):
        np.testing.assert_allclose(read_trajectory(path), poses, atol=1e-6)


@pytest.mark.parametrize(
    "text", ["", "1 2 3\n", "a b c d e f g h\n", "0 0 0 0 1 1 1 1\n", "0 " * 12, "0 nan 0 0 0 0 0 1\n", "1 2\n1 2 3\n"]
)
def test_what_is_no_trajectory_is_said(text, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(ValueError, match=r"^[^\n]*a\.txt: not a readable trajectory"):
        read_trajectory(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="not a readable trajectory"):
        read_trajectory(tmp_path / "none.txt")


def test_a_header_may_be_long_and_have_comments(tmp_path):
    path = write_pcd(tmp_path / "a.pcd", "binary")
    path.write_bytes(b"# " + b"x" * 3000 + b"\n" + path.read_bytes())
    assert sum(map(len, pcd.xyz_chunks(path, 100))) == 500
