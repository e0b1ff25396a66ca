# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what goes in comes out, true edges and missed loops are told by hand-made poses, and whatever is
wrong with a folder is one sentence."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import data_file
from rosbags.rosbag2 import StoragePlugin, Writer
from synthetic_run import SECOND, drifted_laps, drifting, laps, loop, record, unverified, write
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.bags import CLOUD, ODOMETRY, TYPES, cloud_message, odometry_message, sequence_scans, write_bag
from vlad_ros.config import EvaluationConfig, ImportConfig, RecognizerConfig, RunConfig
from vlad_ros.database import KeyframeDatabase
from vlad_ros.evaluation.edges import edge_error, is_right, revisits
from vlad_ros.geometry import from_xyz_rpy, inverse
from vlad_ros.model.weights import load_weights
from vlad_ros.run import CLOSURE_COLUMNS, Run, read_run
from vlad_ros.run_sources import open_source
from vlad_ros.sequence import Sequence, save_sequence
from vlad_ros.types import F64, RejectReason


def circuit(n: int = 34, count: int = 2, radius: float = 10.0) -> Sequence:
    """`count` laps of a circle between heaps, one scan of 1.8 m and one second each."""
    rng = np.random.default_rng(3)
    heaps = [rng.normal(c, (1.0, 1.0, 0.8), (150, 3)) for c in rng.uniform(-28, 28, (30, 3)) * (1, 1, 0)]
    world = np.concatenate([*heaps, np.c_[rng.uniform(-32, 32, (2000, 2)), np.full(2000, -1.6)]])
    poses = []
    for k in range(n * count):
        a = 2 * math.pi * k / n
        poses.append(from_xyz_rpy((radius * math.cos(a), radius * math.sin(a), 0.0, 0.0, 0.0, a + math.pi / 2)))
    scans = [np.c_[(world - p[:3, 3]) @ p[:3, :3], np.zeros(len(world))].astype(np.float32) for p in poses]
    return Sequence("circuit", scans, np.stack(poses), 100.0 + np.arange(len(poses)) * 1.0)


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


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    poses, rng = laps(), np.random.default_rng(1)
    odometry = drifting(poses, 0)
    first = loop(3, 83, poses, rng)
    closures = {83: [first, unverified(9, 83, poses, rng)], 170: [loop(5, 170, poses, rng, accepted=False)]}
    run = write(record(poses, odometry, closures), tmp_path / "run", source="laps", seed=7)
    assert run.has_truth and run.about["source"] == "laps" and run.about["seed"] == 7
    np.testing.assert_allclose(run.keyframes.T_odom_base, odometry, atol=1e-12)
    np.testing.assert_allclose(run.keyframes.T_world_base, poses, atol=1e-12)
    assert run.keyframes.stamp.tolist() == [(k + 1) * SECOND for k in range(240)]
    table = run.closures
    assert list(zip(table.query, table.match, strict=True)) == [(83, 3), (83, 9), (170, 5)]
    np.testing.assert_allclose(table.T_match_query[0], first.T_match_query, atol=1e-12)
    np.testing.assert_allclose(table.covariance[0], first.covariance, rtol=1e-12)
    assert np.isnan(table.T_match_query[1]).all() and np.isnan(table.covariance[1]).all()
    assert table.accepted.tolist() == [True, False, False]
    assert [RejectReason(r).name for r in table.reason] == ["NONE", "NO_ALIGNMENT", "NONE"]
    assert table.probability[0] == 0.97 and np.isnan(table.probability[1])
    assert table.evidence["inliers"][0] == 50 and np.isnan(table.evidence["odometry"][0])
    assert np.isnan(table.evidence["overlap"][1])
    np.testing.assert_allclose(run.timing["describe"], 20.0 + np.arange(240))
    assert run.health["accepted"][-1] == 1 and run.health["rejected_NO_ALIGNMENT"][-1] == 1
    assert run.health["counted_late_stamp"].tolist()[:12] == [1] * 10 + [2] * 2
    assert run.health["scans"][-1] == 240


def test_stamps_are_not_rounded(tmp_path: Path) -> None:
    """A float64 has 53 bits; stamps of today need 61."""
    poses = laps(1)[:2]
    recorder = record(poses, poses, {})
    stamp = 1_741_319_208_064_388_097
    recorder._keyframes[1] = recorder._keyframes[1].__class__(
        0, stamp, *(recorder._keyframes[1].descriptor,) * 2, T_odom_base=poses[1], travel=1.0
    )
    assert write(recorder, tmp_path / "run").keyframes.stamp[1] == stamp


@pytest.mark.parametrize(
    ("metres", "degrees", "right"), [(0.9, 0.0, True), (1.1, 0.0, False), (0.0, 4.9, True), (0.0, 5.1, False)]
)
def test_an_edge_is_right_within_one_metre_and_five_degrees(metres: float, degrees: float, right: bool) -> None:
    T_world_match = from_xyz_rpy((3.0, -4.0, 1.0, 0.1, 0.2, 2.0))
    T_world_query = from_xyz_rpy((5.0, -3.0, 1.2, 0.0, 0.1, -1.0))
    off = from_xyz_rpy((metres, 0.0, 0.0, 0.0, 0.0, math.radians(degrees)))
    error = edge_error(inverse(T_world_match) @ T_world_query @ off, T_world_match, T_world_query)
    assert error == pytest.approx((metres, degrees), abs=1e-6)
    assert is_right(*error) is right
    assert not is_right(math.nan, math.nan)


def test_revisits_by_hand() -> None:
    """Out 100 m and back, a keyframe each 10 m and 10 s: exclusion is by both time and travel."""
    x = [*range(0, 101, 10), *range(90, -1, -10)]
    poses = np.stack([from_xyz_rpy((float(v), 0.0, 0.0, 0.0, 0.0, 0.0)) for v in x])
    stamps, session = np.arange(len(x)) * 10 * SECOND, np.zeros(len(x), np.int64)

    def found(time: float, distance: float, sessions: np.ndarray = session) -> list[int]:
        return np.flatnonzero(
            revisits(poses, stamps, sessions, radius=5.0, exclude_time=time, exclude_distance=distance)
        ).tolist()

    assert found(20.0, 20.0) == list(range(11, 21))
    assert found(30.0, 20.0) == list(range(12, 21)), "the first on the way back comes 20 s after"
    assert found(0.0, 90.0) == list(range(15, 21)), "and the fifth 100 m after"
    assert found(1e9, 1e9, (np.arange(len(x)) > 10).astype(np.int64)) == list(range(11, 21)), "another session"


def test_metrics_by_hand(tmp_path: Path) -> None:
    """Three accepted edges, one of them 2 m off; two of 162 revisits closed rightly: all of the second
    and the third lap, and the last two keyframes of the first, which lie within 5 m of its start."""
    poses, rng = laps(), np.random.default_rng(1)
    right, other = loop(3, 83, poses, rng), loop(4, 84, poses, rng)
    assert right.T_match_query is not None
    wrong = loop(5, 83, poses, rng, T_match_query=from_xyz_rpy((2.0, 0, 0, 0, 0, 0)) @ right.T_match_query)
    recorder = record(poses, poses, {83: [right, wrong], 84: [other, unverified(50, 84, poses, rng)]})
    run = write(recorder, tmp_path / "run")
    values = {name: number["value"] for name, number in run.about["metrics"].items()}
    assert run.closures.is_right.tolist() == [True, False, True, False]
    assert values["precision"] == pytest.approx(2 / 3) and values["false_edges"] == 1
    assert values["revisits"] == run.keyframes.is_revisit.sum() == 162
    assert values["recall"] == pytest.approx(2 / 162)
    assert all(number["unit"] for number in run.about["metrics"].values())


def test_without_true_poses_nothing_is_judged(tmp_path: Path) -> None:
    poses, rng = laps(), np.random.default_rng(1)
    run = write(record(poses, poses, {83: [loop(3, 83, poses, rng)]}, truth=False), tmp_path / "run")
    assert not run.has_truth and "precision" not in run.about["metrics"]
    assert np.isnan(run.closures.error_m).all() and not run.keyframes.is_revisit.any()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifted_laps(tmp_path_factory.mktemp("whole"))[0].path


def missing(folder: Path) -> None:
    (folder / "closures.csv").unlink()


def unfinished(folder: Path) -> None:
    (folder / "run.json").unlink()


def older(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"format": "vlad_ros run", "version": 0}))


def foreign(folder: Path) -> None:
    (folder / "run.json").write_text("[1, 2]")


def empty(folder: Path) -> None:
    path = folder / "keyframes.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")


def cut(folder: Path) -> None:
    path = folder / "closures.csv"
    path.write_bytes(path.read_bytes()[:-40])


def renamed(folder: Path) -> None:
    path = folder / "closures.csv"
    path.write_text(path.read_text().replace("similarity", "likeness", 1))


def scribbled(folder: Path) -> None:
    path = folder / "keyframes.csv"
    path.write_text(path.read_text().replace("\n3,0,", "\n3,zero,", 1))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (missing, "closures.csv is missing"),
        (unfinished, "run.json is missing"),
        (older, "an older version"),
        (foreign, "not the record of a run"),
        (empty, "without keyframes"),
        (cut, "cut short"),
        (renamed, "no column 'similarity'"),
        (scribbled, "damaged"),
    ],
)
def test_a_damaged_run_is_one_sentence(harm: Callable[[Path], None], words: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    harm(tmp_path / "run")
    with pytest.raises(ValueError, match=words) as error:
        read_run(tmp_path / "run")
    assert str(tmp_path / "run") in str(error.value) and "\n" not in str(error.value)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such run; make one with vlad run"):
        read_run(tmp_path / "nowhere")


def test_a_failed_write_leaves_no_finished_run(tmp_path: Path) -> None:
    """The map cannot be saved: what an earlier run left there must not pass for this one."""
    recorder = record(laps(1), None, {})
    write(recorder, tmp_path / "run")

    def fail(path: Path) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        recorder.write(tmp_path / "run", {}, RecognizerConfig(), EvaluationConfig(), fail)
    with pytest.raises(ValueError, match=r"run.json is missing"):
        read_run(tmp_path / "run")


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
    assert {"search", "verify"} <= set(played.timing) and (played.timing["verify"] >= 0).all()
    kept = KeyframeDatabase.load(
        played.map_path, dim=network.config.descriptor_dim, model_hash=metadata.sha256, bev=metadata.bev
    )
    assert len(kept) == 68 and kept.keyframe(67).stamp == keyframes.stamp[67]


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


def test_a_folder_of_somebody_else_is_not_touched(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    words = ["run", str(drive / "circuit.npz"), "-o", str(tmp_path), "--weights", str(drive / "w.safetensors")]
    assert cli.main(words) == 2
    assert "not an earlier run's" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_units_stand_in_the_names() -> None:
    for name in CLOSURE_COLUMNS:
        if name.startswith(("edge_x", "edge_y", "edge_z", "error")):
            assert name.endswith(("_m", "_deg"))
        if name.startswith("cov_"):
            assert name.endswith(("_m2", "_m_rad", "_rad2"))
    assert "evidence_residual_m" in CLOSURE_COLUMNS and "query_stamp_ns" in CLOSURE_COLUMNS


def test_a_real_drive_keeps_the_contract(tmp_path: Path, drive: Path) -> None:
    """Sixty scans of a real sensor: stamps, poses and folder as for simulated ones."""
    from vlad_ros.sequence import load_sequence

    whole = load_sequence(data_file("loop_mid360.npz"))
    assert whole.poses is not None and whole.stamps is not None
    save_sequence(drive / "short.npz", Sequence("short", whole.scans[:60], whole.poses[:60], whole.stamps[:60]))
    run = vlad_run(drive, "short.npz", tmp_path / "run")
    index = {stamp: i for i, stamp in enumerate(whole.stamps_ns())}
    rows = [index[stamp] for stamp in run.keyframes.stamp.tolist()]
    assert len(rows) > 10 and rows == sorted(set(rows))
    poses: F64 = whole.poses[rows]
    np.testing.assert_allclose(run.keyframes.T_world_base, poses, atol=1e-6)
