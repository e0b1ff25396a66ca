# SPDX-License-Identifier: Apache-2.0
"""vlad run: sequences and bags are played as the node would meet them, and what cannot be played is one sentence."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bag_builder import Message, write
from circuit import circuit
from ply_reader import read_ply
from real_data import data_file
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.spatial import cKDTree
from synthetic_run import SECOND
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.config import EvaluationConfig, ImportConfig, RunConfig
from vlad_ros.files.bags import CLOUD, ODOMETRY, TYPES, cloud_message, odometry_message, sequence_scans, write_bag
from vlad_ros.files.sequence import Sequence, save_sequence
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.model.weights import load_weights
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.runs.sources import open_source
from vlad_ros.runs.tables import Run, read_run
from vlad_ros.types import F64

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the circuit as a sequence and as a bag, and weights that find it."""
    folder, sequence = tmp_path_factory.mktemp("drive"), circuit()
    save_sequence(folder / "circuit.npz", sequence)
    write_bag(folder / "bag", sequence_scans(sequence, 10.0), ImportConfig())
    save_untrained(folder / "w.safetensors", sequence.scans[:6], 0.5)
    return folder


def vlad_run(drive: Path, source: str, out: Path, *options: str) -> Run:
    words = ["run", str(drive / source), "-o", str(out), "--weights", str(drive / "w.safetensors"), "--device", "cpu"]
    assert cli.main([*words, "--top-k", "3", "--verification-budget", "0", *options]) == 0
    return read_run(out)


@pytest.fixture(scope="module")
def played(drive: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The circuit with its true poses as odometry."""
    return vlad_run(drive, "circuit.npz", tmp_path_factory.mktemp("played") / "run")


def test_a_sequence_is_played(played: Run, drive: Path) -> None:
    """Every scan is a keyframe (1.8 m); the second lap is one of revisits, and is found."""
    keyframes, about = played.keyframes, played.about
    assert len(keyframes) == 68 and keyframes.is_local_map.all()
    assert about["source"] == "circuit" and "odometry: the true poses;" in about["protocol"]
    assert keyframes.is_revisit[34:].all() and not keyframes.is_revisit[:30].any()
    network, metadata = load_weights(drive / "w.safetensors")
    assert about["weights_sha256"] == metadata.sha256
    assert about["configuration"]["recognizer"]["keyframe_distance"] == 1.0
    best = {int(q): int(m) for q, m in zip(played.closures.query[::-1], played.closures.match[::-1], strict=True)}
    off = [min((q - best[q]) % 34, (best[q] - q) % 34) for q in range(40, 66)]
    assert np.median(off) <= 2, "the most probable candidate of a keyframe comes first"
    assert {"search", "verify"} <= set(played.timing) and np.nanmin(played.timing["verify"]) >= 0
    kept = KeyframeDatabase.load(
        played.map_path, dim=network.config.descriptor_dim, model_hash=metadata.sha256, bev=metadata.bev
    )
    assert len(kept) == 68 and kept.keyframe(67).stamp == keyframes.stamp[67]


def off_the_world(path: Path) -> tuple[F64, F64]:
    """How far [m] a cloud's points lie from the circuit's, and these, up to 25 m from the middle, from the cloud's."""
    drive = circuit()
    assert drive.poses is not None
    world = drive.scans[0][:, :3] @ drive.poses[0, :3, :3].T + drive.poses[0, :3, 3]
    properties, values = read_ply(path)
    assert list(properties) == ["x", "y", "z", "intensity"]
    near = world[np.linalg.norm(world[:, :2], axis=1) < 25.0]
    return cKDTree(world).query(values[:, :3])[0], cKDTree(values[:, :3]).query(near)[0]


def test_the_scans_are_joined_in_a_cloud(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By true odometry the whole world, and nothing beside it; by odometry that drifts what the loops make of it."""
    vlad_run(drive, "circuit.npz", tmp_path / "run", "--cloud", str(tmp_path / "a.ply"), "--no-drift")
    assert re.search(r"^cloud      \d+ points of 68 scans, placed by odometry", capsys.readouterr().out, re.MULTILINE)
    beside, missing = off_the_world(tmp_path / "a.ply")
    assert np.quantile(beside, 0.99) < 0.05 and missing.max() < 0.1 * np.sqrt(3) + 0.05
    vlad_run(drive, "bag", tmp_path / "bag", "--cloud", str(tmp_path / "b.ply"))
    beside, missing = off_the_world(tmp_path / "b.ply")
    assert np.quantile(beside, 0.99) < 0.05 and missing.max() < 0.1 * np.sqrt(3) + 0.05


def test_without_gtsam_a_cloud_is_placed_by_odometry(drive: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "gtsam", None)  # as Python itself marks a module that must not be found
    vlad_run(drive, "circuit.npz", tmp_path / "run", "--cloud", str(tmp_path / "a.ply"))
    assert "placed by odometry alone: the pose graph needs gtsam" in capsys.readouterr().out
    assert np.quantile(off_the_world(tmp_path / "a.ply")[0], 0.99) < 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    (
        (("--cloud", "no/such/folder.ply"), "its folder is not there"),
        (("--cloud", "a.ply", "--no-odometry"), "needs odometry"),
    ),
)
def test_a_cloud_that_cannot_be_is_refused_before_the_drive(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    assert cli.main(["run", str(drive / "circuit.npz"), "-o", str(tmp_path / "run"), *options]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_drifting_and_without_odometry(drive: Path, tmp_path: Path, played: Run) -> None:
    drifting = vlad_run(drive, "circuit.npz", tmp_path / "drift", "--drift", "--drift-scale", "0.05")
    off = np.linalg.norm((drifting.keyframes.T_odom_base - drifting.keyframes.T_world_base)[:, :3, 3], axis=1)
    assert off[0] == 0.0 and off[:34].max() > 0.5 and "drifting by 5.0%" in drifting.about["protocol"]
    np.testing.assert_allclose(drifting.keyframes.T_world_base, played.keyframes.T_world_base, atol=1e-9)
    without = vlad_run(drive, "circuit.npz", tmp_path / "none", "--no-odometry", "--every-scan", "--top-k", "2")
    assert np.isnan(without.keyframes.T_odom_base).all() and not without.keyframes.is_local_map.any()
    assert len(without.keyframes) == 68 and without.has_truth and "single scans" in without.about["protocol"]
    assert np.bincount(without.closures.query).max() == 2


def test_a_bag_is_played_as_the_sequence_it_was_made_from(drive: Path, tmp_path: Path, played: Run) -> None:
    bag = vlad_run(drive, "bag", tmp_path / "bag")
    assert not bag.has_truth and bag.about["source"] == "bag" and "/odom" in bag.about["protocol"]
    assert bag.keyframes.stamp.tolist() == played.keyframes.stamp.tolist()
    np.testing.assert_allclose(bag.keyframes.T_odom_base, played.keyframes.T_odom_base, atol=1e-9)
    alone = vlad_run(drive, "bag", tmp_path / "alone", "--no-odometry", "--every-scan")
    assert len(alone.keyframes) == 68 and np.isnan(alone.keyframes.T_odom_base).all()


@pytest.mark.parametrize("on", [True, False])
def test_a_bag_is_deskewed_as_the_node_does(on: bool, tmp_path: Path) -> None:
    """A wall 20 m ahead, measured over 0.1 s from a vehicle at 10 m/s: at the stamp all of it is 20 m away."""
    late = np.linspace(0.0, 0.1, 11).astype(np.float32)
    seen = np.zeros((11, 5), np.float32)
    seen[:, 0], seen[:, 1], seen[:, 4] = 20.0 - 10.0 * late, np.arange(-5, 6), late
    cloud = cloud_message(2 * SECOND, seen[:, :4], "lidar")
    field = TYPES.types["sensor_msgs/msg/PointField"]
    cloud.fields.append(field(name="time", offset=16, datatype=7, count=1))
    cloud.point_step, cloud.row_step, cloud.data = 20, 220, seen.reshape(-1).view(np.uint8)
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        points = writer.add_connection("/points", CLOUD, typestore=TYPES)
        odometry = writer.add_connection("/odom", ODOMETRY, typestore=TYPES)
        writer.write(points, 2 * SECOND, TYPES.serialize_cdr(cloud, CLOUD))
        for k in range(-2, 5):
            T = from_xyz_rpy((k * 0.5, 0.0, 0.0, 0.0, 0.0, 0.0))
            stamp = 2 * SECOND + k * SECOND // 20
            message = odometry_message(stamp, T, "odom", "lidar")
            writer.write(odometry, stamp + SECOND, TYPES.serialize_cdr(message, ODOMETRY))
    source = open_source(tmp_path / "bag", RunConfig(deskew=on), EvaluationConfig())
    (scan,) = source.scans
    expected = np.full(11, 20.0) if on else seen[:, 0]
    np.testing.assert_allclose(scan.points[:, 0], expected, atol=1e-3)
    assert scan.T_odom_base is not None and not source.counters


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nowhere.npz", [], "no such sequence file"),
        ("nowhere", [], "not a readable rosbag2"),
        (
            "bag",
            ["--points-topic", "/velodyne"],
            "no topic /velodyne of type sensor_msgs/msg/PointCloud2.*are: /points",
        ),
        ("bag", ["--odom-topic", "/o"], "--no-odometry"),
        ("bag", ["--drift"], "--drift is for sequence files"),
        ("circuit.npz", ["--drift", "--no-odometry"], "leave one of them out"),
        ("circuit.npz", ["--top-k", "0"], "top_k must lie in"),
        ("circuit.npz", ["--max-range", "5", "--min-range", "6"], "not one keyframe"),
    ],
)
def test_what_cannot_be_played(
    source: str, options: list[str], words: str, drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ["--weights", str(drive / "w.safetensors"), "--device", "cpu"]
    assert cli.main(["run", str(drive / source), "-o", str(tmp_path / "run"), *weights, *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(words, error), error


@pytest.mark.parametrize("source", ["circuit.npz", "bag"])
def test_what_a_failed_run_leaves(source: str, drive: Path, tmp_path: Path, played: Run) -> None:
    """Nothing where nothing was; an earlier run as it was."""
    words = ["run", str(drive / source), "--weights", str(drive / "w.safetensors"), "--device", "cpu"]
    hopeless = [*words, "--max-range", "5", "--min-range", "6"]
    assert cli.main([*hopeless, "-o", str(tmp_path / "new" / "run")]) == 2
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(played.path, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert cli.main([*hopeless, "-o", str(tmp_path / "run")]) == 2
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_what_a_killed_run_has_left_is_no_obstacle(drive: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / ".unfinished").mkdir(parents=True)
    (tmp_path / "run" / ".unfinished" / "keyframes.csv").write_text("half")
    run = vlad_run(drive, "circuit.npz", tmp_path / "run", "--every-scan")
    assert len(run.keyframes) == 68 and not (tmp_path / "run" / ".unfinished").exists()


def test_what_could_not_be_used_is_said_once_and_counted(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr as it comes, in health.csv second by second, and with the numbers at the end."""

    def harmed() -> Iterator[Message]:
        sequence = circuit()
        assert sequence.poses is not None
        for k, stamp in enumerate(sequence.stamps_ns()):
            odometry = odometry_message(stamp, sequence.poses[k], "odom", "base_link")
            cloud = cloud_message(stamp, sequence.scans[k], "lidar")
            if k in (7, 9):
                odometry.pose.pose.orientation.w = odometry.pose.pose.orientation.z = 0.0
            if k == 11:
                cloud.fields = cloud.fields[1:]
            if k == 13:
                cloud.header.stamp.sec = -5
            if k == 15:
                cloud.data = np.full((cloud.width, 4), 1000.0, "<f4").reshape(-1).view(np.uint8)
            yield "/odom", stamp, odometry
            yield "/points", stamp, cloud

    write(tmp_path / "bag", harmed())
    words = ["run", str(tmp_path / "bag"), "-o", str(tmp_path / "run"), "--weights", str(drive / "w.safetensors")]
    options = ["--device", "cpu", "--base-frame", "base_link", "--mounting-xyz-rpy", "0", "0", "-0.0", "0", "0", "0"]
    assert cli.main([*words, *options, "--top-k", "3", "--verification-budget", "0"]) == 0
    out, err = capsys.readouterr()
    counted = {"bad_odometry": 2, "cloud_fields": 1, "zero_stamp": 1, "cloud_out_of_range": 1, "not_deskewed": 65}
    health = read_run(tmp_path / "run").health
    for reason, count in counted.items():
        assert health[f"counted_{reason}"][-1] == count and health[f"counted_{reason}"][0] in (0, 1)
        assert len(re.findall(rf"^counted    {count} {reason}: \w.*$", out, re.M)) == 1
    for words_ in ("bad_odometry: ", "cloud_fields: ", "zero_stamp: ", "clouds are not deskewed: "):
        assert err.count(words_) == 1
    about = read_run(tmp_path / "run").about
    assert about["configuration"]["run"]["mounting_xyz_rpy"] == [0.0] * 6
    assert any(line.startswith("2 bad_odometry: ") for line in about["counted"])


def test_frames_are_for_bags(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(drive / "circuit.npz"), "-o", str(tmp_path / "run"), "--base-frame", "base_link"]
    assert cli.main(words) == 2
    assert "are for bags" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_folder_of_somebody_else_is_not_touched(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    words = ["run", str(drive / "circuit.npz"), "-o", str(tmp_path), "--weights", str(drive / "w.safetensors")]
    assert cli.main(words) == 2
    assert "not an earlier run's" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_real_drive_keeps_the_contract(tmp_path: Path, drive: Path) -> None:
    """Sixty scans of a real sensor: stamps, poses and folder as for simulated ones."""
    from vlad_ros.files.sequence import load_sequence

    whole = load_sequence(data_file("loop_mid360.npz"))
    assert whole.poses is not None and whole.stamps is not None
    save_sequence(drive / "short.npz", Sequence("short", whole.scans[:60], whole.poses[:60], whole.stamps[:60]))
    run = vlad_run(drive, "short.npz", tmp_path / "run")
    index = {stamp: i for i, stamp in enumerate(whole.stamps_ns())}
    rows = [index[stamp] for stamp in run.keyframes.stamp.tolist()]
    assert len(rows) > 10 and rows == sorted(set(rows))
    poses: F64 = whole.poses[rows]
    np.testing.assert_allclose(run.keyframes.T_world_base, poses, atol=1e-6)
