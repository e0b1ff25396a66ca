# SPDX-License-Identifier: Apache-2.0
"""KITTI folders: geometry against the camera's view of a point, files in the order of their numbers, faults by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import data_file

from vlad_ros import cli
from vlad_ros.files import bags
from vlad_ros.files.kitti import kitti_poses, kitti_scans, read_bin, scan_files
from vlad_ros.files.names import numbered
from vlad_ros.files.scan_file import read_scan
from vlad_ros.files.sequence import load_sequence
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.stamps import stamp_of


def kitti_folder(path: Path, n: int = 3, with_calibration: bool = True) -> tuple[list[np.ndarray], np.ndarray]:
    """A KITTI odometry folder of `n` scans: the points, and T_world_camera (n, 4, 4)."""
    (path / "velodyne").mkdir(parents=True)
    rng = np.random.default_rng(5)
    scans = [rng.normal(0, 20, (50, 4)).astype(np.float32) for _ in range(n)]
    for i, scan in enumerate(scans):
        scan.tofile(path / "velodyne" / f"{i:06d}.bin")
    poses = np.stack([from_xyz_rpy((0.2 * i, -0.1 * i, 1.1 * i, 0.0, 0.3 * i, 0.01 * i)) for i in range(n)])
    np.savetxt(path / "poses.txt", poses[:, :3].reshape(n, 12))
    np.savetxt(path / "times.txt", np.arange(n) * 0.1037)
    if with_calibration:
        row = " ".join(str(v) for v in T_CAMERA_VELODYNE[:3].ravel())
        (path / "calib.txt").write_text(f"P0: {'0 ' * 12}\nTr: {row}\n")
    return scans, poses


# A camera looks along z, right is x: velodyne's (forward, left, up) is the camera's (z, -x, -y); then a small offset.
T_CAMERA_VELODYNE = np.array([[0.0, -1, 0, 0.01], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]])


def test_kitti_poses_are_moved_to_the_lidar(tmp_path: Path) -> None:
    """A point seen by scan i lies at the same place of the camera's world, by the camera's way and by ours."""
    scans, T_world_camera = kitti_folder(tmp_path / "00")
    ours = list(kitti_scans(tmp_path / "00", 10.0))
    assert len(ours) == 3
    np.testing.assert_allclose(ours[0].T_odom_sensor, np.eye(4), atol=1e-12)
    for i, scan in enumerate(ours):
        np.testing.assert_array_equal(scan.points, scans[i])
        point = np.array([12.0, 3.0, -1.0, 1.0])
        in_world = T_world_camera[i] @ T_CAMERA_VELODYNE @ point
        assert scan.T_odom_sensor is not None
        np.testing.assert_allclose(T_CAMERA_VELODYNE @ scan.T_odom_sensor @ point, in_world, atol=1e-9)
    assert np.argmax(np.abs(ours[2].T_odom_sensor[:3, 3])) == 0, "the camera's forward z is the LiDAR's x"  # type: ignore[index]
    np.testing.assert_array_equal([s.stamp for s in ours], [10**9, 10**9 + 103_700_000, 10**9 + 207_400_000])


def test_kitti_poses_as_the_benchmark_lays_them_out(tmp_path: Path) -> None:
    folder = tmp_path / "sequences" / "07"
    kitti_folder(folder)
    (tmp_path / "poses").mkdir()
    (folder / "poses.txt").rename(tmp_path / "poses" / "07.txt")
    assert kitti_poses(folder) is not None
    (tmp_path / "poses" / "07.txt").unlink()
    assert all(scan.T_odom_sensor is None for scan in kitti_scans(folder, 10.0))


def test_kitti_folders_with_faults_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no velodyne/\*\.bin"):
        list(kitti_scans(tmp_path, 10.0))
    kitti_folder(tmp_path / "a", with_calibration=False)
    with pytest.raises(ValueError, match=r"calib\.txt: no line 'Tr:'"):
        list(kitti_scans(tmp_path / "a", 10.0))
    kitti_folder(tmp_path / "b")
    (tmp_path / "b" / "times.txt").write_text("0.0\n0.1\n")
    with pytest.raises(ValueError, match="2 times for 3 scans"):
        list(kitti_scans(tmp_path / "b", 10.0))
    kitti_folder(tmp_path / "c")
    (tmp_path / "c" / "velodyne" / "000001.bin").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"000001\.bin: 5 numbers"):
        list(kitti_scans(tmp_path / "c", 10.0))
    kitti_folder(tmp_path / "d")
    (tmp_path / "d" / "poses.txt").write_text("1 2 3\n" * 3)
    with pytest.raises(ValueError, match=r"poses\.txt: 3 numbers a line"):
        list(kitti_scans(tmp_path / "d", 10.0))


@given(st.lists(st.integers(0, 3000), unique=True, min_size=1, max_size=40), st.sampled_from(["", "scan_", "a1b"]))
def test_numbers_count_as_numbers(numbers: list[int], prefix: str) -> None:
    """In folders that never pad them, and in those that do."""
    for form in ("{}", "{:06d}"):
        names = [Path(prefix + form.format(number) + ".bin") for number in numbers]
        assert numbered(names) == [Path(prefix + form.format(number) + ".bin") for number in sorted(numbers)]


def test_unpadded_names_and_leftovers_of_a_copy(tmp_path: Path) -> None:
    """0, 1, 10, 11, 2, ... in the folder's order; and what macOS puts beside each file."""
    scans, _ = kitti_folder(tmp_path / "00", n=12)
    for i in range(12):
        (tmp_path / "00" / "velodyne" / f"{i:06d}.bin").rename(tmp_path / "00" / "velodyne" / f"{i}.bin")
        (tmp_path / "00" / "velodyne" / f"._{i}.bin").write_bytes(b"\0" * 4096)
    ours = list(kitti_scans(tmp_path / "00", 10.0))
    assert len(ours) == 12
    for i, scan in enumerate(ours):
        np.testing.assert_array_equal(scan.points, scans[i])
    assert cli.main(["import", str(tmp_path / "00"), str(tmp_path / "bag")]) == 0
    clouds = [message for topic, message in bags.read_messages(tmp_path / "bag") if topic == "/points"]
    np.testing.assert_array_equal(clouds[10].data.view("<f4").reshape(-1, 4), scans[10])
    assert [stamp_of(cloud) for cloud in clouds] == [scan.stamp for scan in ours]


def test_a_part_of_a_drive_finds_its_rows_by_number(tmp_path: Path) -> None:
    """Every third scan was kept: times and poses are still those of the file's number."""
    kitti_folder(tmp_path / "00", n=10)
    whole = list(kitti_scans(tmp_path / "00", 10.0))
    for i in range(10):
        if i % 3:
            (tmp_path / "00" / "velodyne" / f"{i:06d}.bin").unlink()
    part = list(kitti_scans(tmp_path / "00", 10.0))
    assert [scan.stamp for scan in part] == [scan.stamp for scan in whole[::3]]
    np.testing.assert_array_equal([scan.T_odom_sensor for scan in part], [scan.T_odom_sensor for scan in whole[::3]])
    (tmp_path / "00" / "velodyne" / "000009.bin").rename(tmp_path / "00" / "velodyne" / "last.bin")
    with pytest.raises(ValueError, match="10 poses for 4 scans"):
        list(kitti_scans(tmp_path / "00", 10.0))


def with_calibration(*lines: str):
    return lambda folder: (folder / "calib.txt").write_text("\n".join(lines))


def with_table(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def sheared(folder: Path) -> None:
    rows = np.loadtxt(folder / "poses.txt")
    rows[1, 0] += 0.2
    np.savetxt(folder / "poses.txt", rows)


def blind(folder: Path) -> None:
    rows = np.loadtxt(folder / "poses.txt")
    rows[2, 3] = np.nan
    np.savetxt(folder / "poses.txt", rows)


IDENTITY = "1 0 0 0 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (
            with_calibration(f"Tr_imu_velo: {IDENTITY}"),
            r"calib.txt: no line 'Tr:' with 12 numbers \(it has Tr_imu_velo\)",
        ),
        (with_calibration("Tr: 1 2 3"), "no line 'Tr:' with 12 numbers"),
        (with_calibration(f"Tr: {IDENTITY[:-1]}x"), "calib.txt: Tr: could not convert"),
        (with_calibration("Tr: 2 0 0 0 0 1 0 0 0 0 1 0"), "calib.txt: Tr is not a rigid transform"),
        (with_calibration(f"Tr: nan {IDENTITY[2:]}"), "calib.txt: Tr is not finite"),
        (sheared, "poses.txt: line 2 is not a rigid transform"),
        (blind, "poses.txt: line 3 is not finite"),
        (with_table("poses.txt", ""), "poses.txt: it is empty; remove it to go without"),
        (with_table("poses.txt", " \n\n"), "poses.txt: it is empty"),
        (with_table("poses.txt", f"{IDENTITY}\n{IDENTITY}\n"), "2 poses for 3 scans"),
        (with_table("poses.txt", f"{IDENTITY}\n{IDENTITY} 1\n"), "poses.txt: "),
        (with_table("poses.txt", "0 1 2 3 0 0 0 1\n" * 3), "8 numbers a line where a 3x4 matrix has 12"),
        (with_table("times.txt", ""), "times.txt: it is empty"),
        (with_table("times.txt", "0.0\n0.1\n"), "2 times for 3 scans"),
        (with_table("times.txt", "0.0\nnan\n0.2\n"), "times.txt: one number of seconds a line"),
        (with_table("times.txt", "0.0\n0.2\n0.1\n"), r"times.txt: line 3 \(0.1\) is not later"),
        (with_table("times.txt", "0\n0\n0\n"), "times.txt: line 2"),
        (with_table("times.txt", "2011-09-26 13:02:25.964389445\n" * 3), "times.txt: could not convert"),
        (with_table("velodyne/000001.bin", ""), "000001.bin: 0 numbers are no x y z intensity"),
        (with_table("velodyne/000002.bin", "x" * 33), "000002.bin: 33 bytes are no x y z intensity"),
    ],
)
def test_faults_are_one_sentence_and_leave_nothing(
    harm, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kitti_folder(tmp_path / "00")
    harm(tmp_path / "00")
    with pytest.raises(ValueError, match=words):
        list(kitti_scans(tmp_path / "00", 10.0))
    assert cli.main(["import", str(tmp_path / "00"), str(tmp_path / "new" / "bag")]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vlad import: ")]
    assert len(error) == 1 and not (tmp_path / "new").exists()


def test_tr_is_found_among_names_that_begin_like_it(tmp_path: Path) -> None:
    """Of KITTI's tracking benchmark and raw recordings; before it and after."""
    kitti_folder(tmp_path / "00")
    right = kitti_poses(tmp_path / "00")
    calibration = (tmp_path / "00" / "calib.txt").read_text()
    others = [f"{name}: 0 -1 0 5 1 0 0 5 0 0 1 5\n" for name in ("Tr_imu_velo", "Tr_velo_to_cam", "Tr_cam_to_road")]
    (tmp_path / "00" / "calib.txt").write_text("".join(others) + calibration + "".join(others))
    np.testing.assert_array_equal(kitti_poses(tmp_path / "00"), right)


def columns(points: np.ndarray, how: str) -> np.ndarray:
    """`points` (N, 4) as files of other datasets have them."""
    rng, n = np.random.default_rng(1), len(points)
    ring, late = rng.integers(0, 32, n), np.linspace(0, 0.1, n)
    return {
        "four": points,
        "four, intensity to 255": np.c_[points[:, :3], rng.integers(0, 256, n)],
        "three": points[:, :3],
        "five, ring": np.c_[points, ring],  # nuScenes
        "five, time": np.c_[points, late],
        "six": np.c_[points, ring, late],
    }[how]


@pytest.mark.parametrize("how", ["four", "four, intensity to 255", "three", "five, ring", "five, time", "six"])
@pytest.mark.parametrize(
    "name", ["kitti00_hdl64", "kitti00_hdl64_fullres", "campus_velodyne32", "mulran_riverside_a_os1_64", "loop_mid360"]
)
def test_columns_of_real_sensors(tmp_path: Path, name: str, how: str) -> None:
    """Four are read; others are refused, though their numbers divide by four. Whole scans and small parts of them."""
    sequence = load_sequence(data_file(f"{name}.npz"))
    for scan in sequence.scans[:: max(1, len(sequence) // 5)]:
        for count in (len(scan) // 20 * 20, 600):
            table = columns(scan[:count], how).astype("<f4")
            assert table.size % 4 == 0
            table.tofile(tmp_path / "scan.bin")
            if how.startswith("four"):
                np.testing.assert_array_equal(read_scan(tmp_path / "scan.bin"), table)
            else:
                with pytest.raises(ValueError, match=r"scan\.bin: it looks like \d numbers a point"):
                    read_scan(tmp_path / "scan.bin")


def test_five_numbers_a_point_are_not_imported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kitti_folder(tmp_path / "00")
    points = np.c_[rng.normal(0, 20, (100, 3)), rng.uniform(0, 255, 100), rng.integers(0, 32, 100)].astype("<f4")
    points.tofile(tmp_path / "00" / "velodyne" / "000001.bin")
    assert cli.main(["import", str(tmp_path / "00"), str(tmp_path / "bag")]) == 2
    assert not (tmp_path / "bag").exists()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 600))
def test_columns_that_are_all_alike_are_taken_for_four(tmp_path_factory, seed: int, points: int) -> None:
    """Nothing tells them apart then, and nothing is suspected."""
    table = np.random.default_rng(seed).normal(0, 20, (points, 4)).astype("<f4")
    path = tmp_path_factory.getbasetemp() / "alike.bin"
    table.tofile(path)
    np.testing.assert_array_equal(read_bin(path), table)


@pytest.mark.parametrize("count", [25, 5000])
def test_numbers_that_are_no_float32(tmp_path: Path, count: int) -> None:
    np.random.default_rng(0).normal(0, 20, (4 * count, 4)).astype("<f8").tofile(tmp_path / "doubles.bin")
    with pytest.raises(ValueError, match="not coordinates; save x y z"):
        read_bin(tmp_path / "doubles.bin")


def test_invalid_points_are_not_suspect(tmp_path: Path) -> None:
    """Organised clouds hold NaN, infinity or zeros where nothing came back."""
    table = np.random.default_rng(0).normal(0, 20, (4000, 4)).astype("<f4")
    table[::3, :3], table[1::9, :3], table[2::9] = np.nan, np.inf, 0.0
    table.tofile(tmp_path / "scan.bin")
    np.testing.assert_array_equal(read_bin(tmp_path / "scan.bin"), table)


def test_sizes_are_looked_at_before_anything_is_written(tmp_path: Path) -> None:
    kitti_folder(tmp_path / "00")
    (tmp_path / "00" / "velodyne" / "000002.bin").write_bytes(b"\0" * 20)
    with pytest.raises(ValueError, match=r"000002\.bin"):
        scan_files(tmp_path / "00")
