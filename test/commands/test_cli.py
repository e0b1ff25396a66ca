# SPDX-License-Identifier: Apache-2.0
"""The command-line tool: its flags are the configurations, its errors are sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bag_builder import STORAGE, messages, write
from untrained import save_untrained

from vlad_ros import __version__, cli
from vlad_ros.config import EvaluationConfig, ImportConfig, ReplayConfig, RunConfig
from vlad_ros.files import bags
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.options import add_options, from_options
from vlad_ros.poses import from_xyz_rpy


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twice around the same circle of 50 m between 24 heaps: a sequence file with 2 x 20 scans."""
    rng = np.random.default_rng(3)
    world = np.concatenate(
        [rng.normal(c, (1.5, 1.5, 1.0), (200, 3)) for c in rng.uniform(-30, 30, (24, 3)) * (1, 1, 0)]
    )
    world = np.concatenate([world, np.c_[rng.uniform(-40, 40, (3000, 2)), np.full(3000, -1.6)]])
    poses, scans = [], []
    for angle in np.linspace(0, 4 * np.pi, 40, endpoint=False):
        pose = from_xyz_rpy((8 * np.cos(angle), 8 * np.sin(angle), 0.0, 0.0, 0.0, angle + np.pi / 2))
        local = (world - pose[:3, 3]) @ pose[:3, :3]
        scans.append(np.c_[local, np.zeros(len(local))].astype(np.float32))
        poses.append(pose)
    path = tmp_path_factory.mktemp("drive") / "drive.npz"
    save_sequence(path, Sequence("drive", scans, np.stack(poses)))
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, drive: Path) -> Path:
    return save_untrained(
        tmp_path_factory.mktemp("weights") / "untrained.safetensors", load_sequence(drive).scans[:10], 0.5
    )


def test_the_tool_starts_without_torch_or_ros() -> None:
    code = "import sys; from vlad_ros.cli import build_parser; build_parser('import'); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{module}'" in loaded for module in ("torch", "faiss", "rclpy", "rosbags", "matplotlib"))


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in cli.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"vlad {__version__}\n"


@pytest.mark.parametrize("kind", [EvaluationConfig, ImportConfig, ReplayConfig, RunConfig])
def test_flags_are_the_configuration(kind: type) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser, kind)
    assert from_options(kind, parser.parse_args([])) == kind()


def test_several_numbers_are_one_option() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser, RunConfig)
    words = ["--mounting-xyz-rpy", "1", "-2.5", "0", "0.1", "-0.2", "3", "--base-frame", "base_link"]
    assert from_options(RunConfig, parser.parse_args(words)).mounting_xyz_rpy == (1.0, -2.5, 0.0, 0.1, -0.2, 3.0)
    assert "(default: )" not in parser.format_help() and "(default: ())" not in parser.format_help()


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["import", "drive.npz", "bag", "--odom-topic", "/points"], "points_topic and odom_topic must differ"),
        (["evaluate", "nowhere.npz"], "vlad evaluate: nowhere.npz: no such sequence file"),
        (["evaluate", "nowhere.npz", "--radius", "-1"], "radius must lie in [0.01, 1000.0] m, not -1.0"),
        (["import", "nowhere.npz", "bag"], "vlad import: nowhere.npz: no such sequence file"),
        (["info", "nowhere.safetensors"], "nowhere.safetensors: no such weights file"),
    ],
)
def test_errors_are_one_sentence(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


def test_replay_refuses_what_is_no_bag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one sentence that says what helps: no bag, one that was not closed, one whose damage only playing finds."""
    pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
    (tmp_path / "none").mkdir()
    whole = write(tmp_path / "open", messages()).read_bytes()
    (tmp_path / "open" / "open.mcap").write_bytes(whole[:-500])
    damaged = write(tmp_path / "damaged", messages(), compress=STORAGE)
    damaged.write_bytes(damaged.read_bytes().replace(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfe"))
    for name, words in (("none", "not a readable rosbag2"), ("open", "mcap recover"), ("damaged", "mcap recover")):
        assert cli.main(["replay", str(tmp_path / name), "--wait", "0"]) == 2
        error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vlad replay: ")]
        assert len(error) == 1 and words in error[0]


@pytest.mark.ros
def test_replay_plays_a_bag(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
    assert cli.main(["import", str(drive), str(tmp_path / "bag"), "--storage", "sqlite3"]) == 0
    assert cli.main(["replay", str(tmp_path / "bag"), "--rate", "100", "--wait", "0", "--topics", "/odom"]) == 0
    text = capsys.readouterr().out
    assert "nobody has subscribed to /odom" in text and "40 messages in" in text


def test_import_makes_a_bag(drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", str(drive), str(tmp_path / "bag"), "--rate", "5", "--drift"]) == 0
    assert "40 scans on /points" in capsys.readouterr().out
    topics = [topic for topic, _ in bags.read_messages(tmp_path / "bag")]
    assert topics == ["/odom", "/points"] * 40
    assert cli.main(["import", str(drive), str(tmp_path / "bag")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_info_prints_the_metadata(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(weights)]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["calibration"]["loops"] == 0 and described["info"] == {"test": True}
    assert described["descriptor_dim"] == 32 * 4 and len(described["sha256"]) == 64


def test_evaluate_prints_the_protocol_beside_the_number(drive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second lap sees the same walls from the same places: the baseline knows them all."""
    assert cli.main(["evaluate", str(drive), "--gap", "10", "--radius", "1", "--descriptor", "scan-context"]) == 0
    text = capsys.readouterr().out
    assert "causal (revisits in one drive), gap 10 frames, radius 1 m, single scans" in text
    assert "recall@1     1.000  (95 %: 1.000..1.000)" in text


@pytest.mark.parametrize(("extra", "recall"), [([], 1.0), (["--local-maps"], 0.5)])
def test_evaluate_with_the_network(
    drive: Path, weights: Path, tmp_path: Path, extra: list[str], recall: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """The very same scan is known again; most local maps are, though their odometry drifts and nothing was trained."""
    argv = ["evaluate", str(drive), "--gap", "10", "--radius", "1", "--weights", str(weights), "--json"]
    assert cli.main([*argv, "--out", str(tmp_path / "run"), *extra]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["metrics"]["queries"] == 20 and document["metrics"]["recall@1"] >= recall
    assert document["seed"] == 0 and len(document["weights_sha256"]) == 64
    written = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert written["recall@1"] == {"value": document["metrics"]["recall@1"], "unit": "share, 0..1"}
    rows = (tmp_path / "run" / "queries.csv").read_text().splitlines()
    assert len(rows) == 41 and rows[0].startswith("frame,is_query")
    assert json.loads((tmp_path / "run" / "configuration.json").read_text())["configuration"]["gap"] == 10


def test_evaluate_sparse_and_across_sessions(drive: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", str(drive), "--weights", str(weights), "--json"]
    assert cli.main([*argv, "--protocol", "sparse", "--stride", "4", "--radius", "6"]) == 0
    sparse = json.loads(capsys.readouterr().out)
    assert sparse["metrics"]["queries"] == 10 and "one pass, interleaved" in sparse["protocol"]
    assert cli.main([*argv, "--map", str(drive), "--radius", "1"]) == 0
    cross = json.loads(capsys.readouterr().out)
    assert cross["metrics"]["recall@1"] == 1.0 and cross["map"] == "drive"


def test_each_head_is_compared_by_its_own_descriptor(drive: Path, weights: Path) -> None:
    from vlad_ros.cloud.raster import rasterize
    from vlad_ros.evaluation.describe import network_similarities
    from vlad_ros.model.weights import load_weights

    network, _ = load_weights(weights)
    scans = load_sequence(drive).scans[:3]
    found = network_similarities(network, scans, scans[:2])
    one_by_one = [network.describe([rasterize(scan, network.bev)]) for scan in scans]
    for name, attribute in {"fusion": "descriptor", "bev": "vlad_bev", "points": "vlad_fusion"}.items():
        vectors = np.concatenate([getattr(description, attribute).numpy() for description in one_by_one])
        np.testing.assert_allclose(found[name], vectors @ vectors[:2].T, atol=1e-5)


def test_evaluate_needs_poses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_sequence(tmp_path / "blind.npz", Sequence("blind", [np.ones((5, 4), np.float32)]))
    assert cli.main(["evaluate", str(tmp_path / "blind.npz")]) == 2
    assert "blind: has no poses to judge by" in capsys.readouterr().err
