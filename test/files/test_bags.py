# SPDX-License-Identifier: Apache-2.0
"""Bags against what went in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from real_data import data_file
from scipy.spatial.transform import Rotation

from vlad_ros.config import ImportConfig
from vlad_ros.files import bags
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


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("there", ["nothing", "parent"])
def test_what_a_failed_writing_leaves(tmp_path: Path, storage: str, there: str) -> None:
    """Nothing: neither the bag nor the folders made for it; what lay there before stays."""

    def scans():
        yield from bags.sequence_scans(small_sequence(), 10.0)
        raise KeyboardInterrupt

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    path = tmp_path / ("mine" if there == "parent" else "new") / "deep" / "bag"
    with pytest.raises(KeyboardInterrupt):
        bags.write_bag(path, scans(), ImportConfig(storage=storage))
    assert [file.name for file in sorted(tmp_path.rglob("*"))] == ["mine", "thesis.tex"]
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="exists already"):
        bags.write_bag(tmp_path / "bag", scans(), ImportConfig(storage=storage))
    assert (tmp_path / "bag" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk(tmp_path: Path, storage: str) -> None:
    """Played by a limit on the size of files, in a process of its own."""
    save_sequence(tmp_path / "drive.npz", small_sequence(n=200))
    code = (
        "import resource, sys; from vlad_ros import cli; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    words = [
        sys.executable,
        "-c",
        code,
        "import",
        str(tmp_path / "drive.npz"),
        str(tmp_path / "bag"),
        "--storage",
        storage,
    ]
    done = subprocess.run(words, capture_output=True, text=True)
    error = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and error.startswith("vlad import: ") and "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["drive.npz"]


@pytest.mark.parametrize("stamp", [-1, 2**31 * 10**9, 2**62])
def test_stamps_that_no_message_can_carry(tmp_path: Path, stamp: int) -> None:
    scans = [bags.StampedScan(10**9, np.ones((3, 4), np.float32)), bags.StampedScan(stamp, np.ones((3, 4), np.float32))]
    with pytest.raises(ValueError, match=rf"scan 1: no message can carry the stamp {stamp} ns"):
        bags.write_bag(tmp_path / "bag", scans, ImportConfig())
    assert not (tmp_path / "bag").exists()
