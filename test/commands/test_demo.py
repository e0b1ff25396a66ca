# SPDX-License-Identifier: Apache-2.0
"""The demo: its truth by hand, its picture, and the whole of it with a small drive through the real node."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.commands import demo_drive as demo
from vlad_ros.files.sequence import Sequence
from vlad_ros.graph.graph_file import read_tum, write_tum
from vlad_ros.poses import from_xyz_rpy, inverse


def laps(n: int = 30, count: int = 3, radius: float = 20.0) -> Sequence:
    """`count` laps of a circle between heaps, one scan of 4 m and one second each; the last lap the other way round."""
    rng = np.random.default_rng(3)
    heaps = [rng.normal(c, (1.5, 1.5, 1.0), (150, 3)) for c in rng.uniform(-40, 40, (30, 3)) * (1, 1, 0)]
    world = np.concatenate([*heaps, np.c_[rng.uniform(-50, 50, (2000, 2)), np.full(2000, -1.6)]])
    poses = []
    for lap in range(count):
        for k in range(n):
            angle = 2 * math.pi * (k if lap < count - 1 else n - k) / n
            yaw = angle + (math.pi / 2 if lap < count - 1 else -math.pi / 2)
            poses.append(from_xyz_rpy((radius * math.cos(angle), radius * math.sin(angle), 0.0, 0.0, 0.0, yaw)))
    scans = [np.c_[(world - p[:3, 3]) @ p[:3, :3], np.zeros(len(world))].astype(np.float32) for p in poses]
    return Sequence("laps", scans, np.stack(poses), 1.0 + np.arange(len(poses)) * 1.0)


def test_the_truth_knows_revisits_and_their_exclusion() -> None:
    """30 scans a lap: scan i lies where scan i - 30 was, 30 s and 125 m ago; its neighbours are too young."""
    drive = laps(count=2 + 1)
    truth, stamps = demo.Truth(drive), drive.stamps_ns()
    assert truth.distance(stamps[3], stamps[33]) == pytest.approx(0.0, abs=1e-9)
    assert truth.distance(stamps[0], stamps[15]) == pytest.approx(40.0)
    assert not any(truth.is_revisit(stamp, stamps) for stamp in stamps[:29])
    assert all(truth.is_revisit(stamp, stamps) for stamp in stamps[31:60])
    assert not truth.is_revisit(stamps[33], [stamps[20]]), "only keyframes count"


def test_the_summary_by_hand() -> None:
    drive = laps()
    truth, stamps = demo.Truth(drive), drive.stamps_ns()

    def edge(query: int, match: int, probability: float, metres: float = 0.0) -> demo.JudgedEdge:
        """With the true transform, but for `metres` along x."""
        assert drive.poses is not None
        T = inverse(drive.poses[match]) @ drive.poses[query]
        T[0, 3] += metres
        return truth.edge(stamps[query], stamps[match], probability, T)

    edges = [edge(33, 3, 0.9), edge(33, 4, 0.8), edge(34, 20, 0.9, 3.0), edge(34, 4, 0.7), edge(2, 17, 0.6, -9.0)]
    summary = demo.summarise(truth, stamps[:36], edges, lost=0)
    assert summary.precision == pytest.approx(3 / 5)
    assert summary.revisits == sum(truth.is_revisit(s, stamps[:36]) for s in stamps[:36])
    assert summary.recognised == 1, "only the best edge of a keyframe counts: 33 is right, 34 is wrong"
    assert edges[0].sentence(1).endswith("0.0 m apart, 0.00 m and 0.0 deg off   probability 0.900   true, and 1 more")


def shift(metres: float) -> np.ndarray:
    """What to add to 4 x 4 poses, so that every other one is this far to one side, the rest to the other."""
    out = np.zeros((90, 4, 4))
    out[::2, 0, 3], out[1::2, 0, 3] = metres, -metres
    return out


def test_the_trajectory_before_and_after_by_hand(tmp_path: Path) -> None:
    """Scans 10 to 69 are nodes; odometry is beside itself by 2 m, the pose graph's by 0.1 m, in a frame turned and
    moved."""
    truth = demo.Truth(laps())
    stamps, nodes, T = list(truth.index), slice(10, 70), from_xyz_rpy((30.0, -5.0, 2.0, 0.0, 0.0, 1.0))
    write_tum(tmp_path / "t.tum", np.array(stamps[nodes]), T @ (truth.poses + shift(0.1))[nodes])
    corrected = demo.compare(truth, T @ (truth.poses + shift(2.0)), tmp_path / "t.tum")
    assert corrected.rmse_before == pytest.approx(2.0, rel=0.01) and corrected.rmse_after == pytest.approx(
        0.1, rel=0.01
    )
    assert sorted(corrected.rows()) == stamps[nodes]
    np.testing.assert_allclose(corrected.rows()[stamps[10]][2:], truth.positions[10, :2] + (0.1, 0.0), atol=0.02)
    assert corrected.line() == "trajectory 2.00 m RMSE by odometry alone, 0.10 m with the loops"


@pytest.mark.parametrize("with_graph", (False, True))
def test_the_picture_is_made_from_the_saved_files(tmp_path: Path, with_graph: bool) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from vlad_ros.plots.demo import FALSE, LINES, TRUE, draw

    drive = laps()
    truth, stamps = demo.Truth(drive), drive.stamps_ns()
    edges = [demo.JudgedEdge(stamps[i], stamps[i - 30], 0.9, 0.0, 0.02, 0.1) for i in range(35, 50)]
    edges.append(demo.JudgedEdge(stamps[55], stamps[10], 0.8, 39.0, 39.0, 0.0))
    corrected = None
    if with_graph:
        write_tum(tmp_path / "t.tum", np.array(stamps[5:80]), truth.poses[5:80] + shift(0.1)[5:80])
        corrected = demo.compare(truth, truth.poses + shift(2.0), tmp_path / "t.tum")
    demo.write_results(tmp_path, truth, demo.summarise(truth, stamps, edges, 0), "0" * 64, 1, corrected)
    draw(tmp_path, tmp_path / "demo.png")
    pixels = matplotlib.image.imread(tmp_path / "demo.png")[..., :3]
    for colour in (TRUE, FALSE, *(line["color"] for line in LINES.values() if with_graph)):
        near = np.abs(pixels - matplotlib.colors.to_rgb(colour)).max(axis=2) < 0.02
        assert near.sum() > 30, f"{colour} is missing from the picture"
    assert json.loads((tmp_path / "metrics.json").read_text())["precision"] == pytest.approx(15 / 16)


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    weights = save_untrained(tmp_path / "w.safetensors", laps().scans[:4], 0.0)
    assert cli.main(["demo", "--out", str(tmp_path), "--weights", str(weights)]) == 2
    assert "not an earlier demo's" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "precious"


@pytest.mark.ros
def test_the_demo_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small drive and weights that accept everything: each part runs, nothing is lost, every keyframe is heard."""
    pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
    pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")
    drive = laps(n=40, radius=10.0)
    weights = save_untrained(tmp_path / "w.safetensors", drive.scans[:10], 0.0)
    monkeypatch.setattr(demo, "simulate", lambda seed: drive)
    for name in ("ROS_LOG_DIR", "ROS_AUTOMATIC_DISCOVERY_RANGE", "AMENT_PREFIX_PATH"):
        monkeypatch.setenv(name, "")  # so that what the demo sets is taken back
        monkeypatch.delenv(name)
    out = tmp_path / "out"
    assert cli.main(["demo", "--out", str(out), "--weights", str(weights), "--rate", "20"]) == 0
    text = capsys.readouterr().out
    numbers = json.loads((out / "metrics.json").read_text())
    assert numbers["messages_lost"] == 0 and numbers["keyframes"] == len(drive)
    assert numbers["revisits"] > 60 and numbers["edges"] > 30  # a busy computer has no time to verify them all
    announced = [line for line in text.splitlines() if line.startswith("loop ")]
    assert len(announced) > 30 and "m apart" in announced[0] and "probability" in announced[0]
    assert "precision" in text and (out / "demo.png").stat().st_size > 10_000
    stamps, _ = read_tum(out / "trajectory.tum")
    assert stamps.tolist() == drive.stamps_ns()
    assert numbers["rmse_before_m"] > 0.1 and f"{numbers['rmse_after_m']:.2f} m with the loops" in text


@pytest.mark.ros
def test_without_gtsam_it_goes_on_without_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
    drive = laps(n=15, radius=10.0)
    weights = save_untrained(tmp_path / "w.safetensors", drive.scans[:10], 0.0)
    monkeypatch.setattr(demo, "simulate", lambda seed: drive)
    monkeypatch.setitem(sys.modules, "gtsam", None)  # as Python itself marks a module that must not be found
    assert cli.main(["demo", "--out", str(tmp_path / "out"), "--weights", str(weights), "--rate", "20"]) in (0, 1)
    text = capsys.readouterr().out
    assert "without the trajectory: the pose graph needs gtsam, which is not installed" in text
    assert "vlad.launch.py" in text and "RMSE" not in text and "recall" in text
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["rmse_after_m"] is None


@pytest.mark.slow
@pytest.mark.ros
def test_the_demo_as_it_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
    from vlad_ros.model.weights import default_weights_path

    if not default_weights_path().exists():
        pytest.skip("no trained weights in this checkout")
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 0, capsys.readouterr().out
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert numbers["messages_lost"] == 0 and numbers["precision"] >= 0.9 and numbers["recall"] >= 0.5
    if numbers["rmse_after_m"] is not None:
        assert numbers["rmse_after_m"] < 0.6 * numbers["rmse_before_m"]
