# SPDX-License-Identifier: Apache-2.0
"""Bags against what went in, KITTI's geometry against the camera's view of a point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from real_data import data_file
from scipy.spatial.transform import Rotation

from vlad_ros.config import ImportConfig
from vlad_ros.files import bags
from vlad_ros.files.kitti import kitti_poses, kitti_scans
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.poses import from_quaternion, from_xyz_rpy
from vlad_ros.stamps import stamp_of


def small_sequence(poses: bool = True, stamps: bool = True, n: int = 5) -> Sequence:
    rng = np.random.default_rng(0)
    scans = [rng.normal(0, 10, (100 + i, 4)).astype(np.float32) for i in range(n)]
    turns = np.stack([from_xyz_rpy((float(i), 2.0 * i, 0.1, 0.02 * i, -0.01, 0.7 * i)) for i in range(n)])
    seconds = 1_700_000_000.0 + np.arange(n) * 0.25
    return Sequence("small", scans, turns if poses else None, seconds if stamps else None)


def clouds_and_odometry(path: Path) -> tuple[list, list]:
    messages = list(bags.read_messages(path))
    return [m for t, m in messages if t == "/points"], [m for t, m in messages if t == "/odom"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_goes_in_comes_out(tmp_path: Path, storage: str) -> None:
    sequence = small_sequence()
    config = ImportConfig(storage=storage)
    assert bags.write_bag(tmp_path / "bag", bags.sequence_scans(sequence, config.rate), config) == 5
    assert list((tmp_path / "bag").glob("*.mcap" if storage == "mcap" else "*.db3"))
    clouds, odometry = clouds_and_odometry(tmp_path / "bag")
    assert len(clouds) == len(odometry) == 5
    for i, (cloud, odom) in enumerate(zip(clouds, odometry, strict=True)):
        assert stamp_of(cloud) == stamp_of(odom) == sequence.stamps_ns()[i]
        assert [f.name for f in cloud.fields] == ["x", "y", "z", "intensity"]
        assert (cloud.header.frame_id, odom.header.frame_id, odom.child_frame_id) == ("lidar", "odom", "lidar")
        assert (cloud.height, cloud.width, cloud.row_step) == (1, len(sequence.scans[i]), 16 * cloud.width)
        np.testing.assert_array_equal(cloud.data.view("<f4").reshape(-1, 4), sequence.scans[i])
        p, q = odom.pose.pose.position, odom.pose.pose.orientation
        pose = from_quaternion(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
        assert sequence.poses is not None
        np.testing.assert_allclose(pose, sequence.poses[i], atol=1e-12)


def test_odometry_comes_before_its_cloud(tmp_path: Path) -> None:
    bags.write_bag(tmp_path / "bag", bags.sequence_scans(small_sequence(), 10.0), ImportConfig())
    assert [topic for topic, _ in bags.read_messages(tmp_path / "bag")] == ["/odom", "/points"] * 5


def test_without_poses_no_odometry_and_without_stamps_the_rate(tmp_path: Path) -> None:
    sequence = small_sequence(poses=False, stamps=False)
    bags.write_bag(tmp_path / "bag", bags.sequence_scans(sequence, 4.0), ImportConfig())
    clouds, odometry = clouds_and_odometry(tmp_path / "bag")
    assert odometry == []
    np.testing.assert_array_equal(np.diff([stamp_of(c) for c in clouds]), 250_000_000)
    with bags.open_bag(tmp_path / "bag") as reader:
        assert [connection.topic for connection in reader.connections] == ["/points"]


def test_scans_are_streamed(tmp_path: Path) -> None:
    """The writer never asks for a scan before it has let go of the one before the last."""
    import weakref

    alive: list[weakref.ref] = []

    def scans():
        for scan in bags.sequence_scans(small_sequence(n=6), 10.0):
            fresh = bags.StampedScan(scan.stamp, scan.points.copy())
            alive.append(weakref.ref(fresh))
            yield fresh
            del fresh
            assert sum(ref() is not None for ref in alive) <= 2

    assert bags.write_bag(tmp_path / "bag", scans(), ImportConfig()) == 6


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        bags.write_bag(tmp_path / "bag", [], ImportConfig())


@pytest.mark.parametrize("content", [None, "not: a bag"])
def test_what_is_no_bag_is_refused(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "metadata.yaml").write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        list(bags.read_messages(tmp_path))


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


def test_a_real_sequence_keeps_its_scans(tmp_path: Path) -> None:
    sequence = load_sequence(data_file("kitti00_hdl64_fullres.npz"))
    bags.write_bag(tmp_path / "bag", bags.sequence_scans(sequence, 10.0), ImportConfig())
    clouds, odometry = clouds_and_odometry(tmp_path / "bag")
    assert odometry == [] and len(clouds) == len(sequence) == 16
    np.testing.assert_array_equal(clouds[7].data.view("<f4").reshape(-1, 4), sequence.scans[7])


def test_a_sequence_survives_the_file_and_the_bag(tmp_path: Path) -> None:
    sequence = small_sequence()
    save_sequence(tmp_path / "small.npz", sequence)
    loaded = load_sequence(tmp_path / "small.npz")
    bags.write_bag(tmp_path / "bag", bags.sequence_scans(loaded, 10.0), ImportConfig())
    clouds, odometry = clouds_and_odometry(tmp_path / "bag")
    np.testing.assert_allclose(clouds[2].data.view("<f4").reshape(-1, 4)[:, :3], sequence.scans[2][:, :3], atol=0.003)
    q = odometry[3].pose.pose.orientation
    assert sequence.poses is not None
    np.testing.assert_allclose(
        Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), sequence.poses[3, :3, :3], atol=1e-9
    )
