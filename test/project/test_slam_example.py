# SPDX-License-Identifier: Apache-2.0
"""The SLAM example: alignment and optimisation against known trajectories, and the whole of it on a small drive."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from synthetic_run import SECOND, drifting, laps, loop
from untrained import save_untrained

from vlad_ros.poses import from_xyz_rpy
from vlad_ros.types import F64

pytest.importorskip("gtsam", reason="GTSAM is not installed (it has no wheel for CPython 3.10)")
pytest.importorskip("kiss_icp", reason="kiss-icp is not installed")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def slam() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / "slam.py"
    spec = importlib.util.spec_from_file_location("slam", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["slam"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def driven(slam: ModuleType, poses: F64, odometry: F64) -> object:
    """What the odometry remembers of a drive."""
    seen = slam.Odometry()
    seen.stamps = [(k + 1) * SECOND for k in range(len(poses))]
    seen.poses, seen.truth = list(odometry), list(poses)
    return seen


def test_alignment_undoes_a_rigid_motion_and_nothing_else(slam: ModuleType) -> None:
    truth = laps(1)
    moved = from_xyz_rpy((5.0, -3.0, 2.0, 0.1, -0.2, 2.5)) @ truth
    np.testing.assert_allclose(slam.aligned(moved, truth), truth[:, :3, 3], atol=1e-9)
    assert slam.rmse(slam.aligned(moved, truth), truth) < 1e-9
    larger = truth.copy()
    larger[:, :3, 3] *= 1.1  # a scale that is wrong stays wrong: 10 % of the distances from the centre
    off = np.sqrt(np.mean(np.sum((0.1 * (truth[:, :3, 3] - truth[:, :3, 3].mean(axis=0))) ** 2, axis=1)))
    assert slam.rmse(slam.aligned(larger, truth), truth) == pytest.approx(off, rel=1e-6)


def test_loops_bring_the_trajectory_back_and_the_picture_tells(slam: ModuleType, tmp_path: Path) -> None:
    poses, rng = laps(), np.random.default_rng(0)
    odometry = driven(slam, poses, drifting(poses, 0))
    edges = [loop(j - 80, j, poses, rng) for j in range(80, 240, 2)]
    loops = [slam.Loop(e.match_stamp, e.query_stamp, e.T_match_query, e.covariance) for e in edges]
    metrics = slam.write_results(tmp_path, odometry, slam.optimise(odometry, loops, tmp_path), loops)
    assert metrics["rmse_before_m"] > 1.0 and metrics["rmse_after_m"] <= 0.3
    slam.draw(tmp_path)
    with open(tmp_path / "trajectory.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    true = np.array([[float(row[f"true_{axis}_m"]) for axis in "xyz"] for row in rows])
    after = np.array([[float(row[f"after_{axis}_m"]) for axis in "xyz"] for row in rows])
    np.testing.assert_allclose(true, poses[:, :3, 3], atol=1e-4)
    assert np.sqrt(np.mean(np.sum((after - true) ** 2, axis=1))) == pytest.approx(metrics["rmse_after_m"], abs=1e-3)
    assert (tmp_path / "slam.png").stat().st_size > 20_000


def test_without_true_poses_there_is_a_picture_and_no_error(slam: ModuleType, tmp_path: Path) -> None:
    poses = laps(1)
    odometry = driven(slam, poses, poses)
    odometry.truth = [None] * len(poses)  # type: ignore[attr-defined]
    assert set(slam.write_results(tmp_path, odometry, poses, [])) == {"scans", "loops"}
    slam.draw(tmp_path)
    assert (tmp_path / "slam.png").stat().st_size > 10_000


@pytest.mark.parametrize("how", ["offline", pytest.param("node", marks=pytest.mark.ros)])
def test_the_whole_of_it(
    how: str, slam: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small drive: odometry, bag, recogniser, graph, picture; what is printed is what was saved."""
    from circuit import circuit

    if how == "node":
        pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
        for name in ("ROS_LOG_DIR", "ROS_AUTOMATIC_DISCOVERY_RANGE", "AMENT_PREFIX_PATH"):
            monkeypatch.setenv(name, "")  # so that what the example sets is taken back
            monkeypatch.delenv(name)
    drive = circuit()
    weights = save_untrained(tmp_path / "w.safetensors", drive.scans[:6], 0.5)

    def small(seed: int) -> object:
        assert drive.poses is not None
        each = zip(drive.stamps_ns(), drive.scans, [None] * len(drive), drive.poses, strict=True)
        return slam.Source(drive.name, "none", len(drive), (slam.PlayedScan(*scan) for scan in each), Counter())

    monkeypatch.setattr(slam, "simulated", small)
    out = tmp_path / "out"
    options = ["--offline"] if how == "offline" else ["--rate", "10"]
    assert slam.main(["--out", str(out), "--weights", str(weights), *options]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    printed = capsys.readouterr().out
    assert metrics["scans"] == len(drive) and metrics["loops"] >= 15
    assert f"{metrics['scans']} scans, {metrics['loops']} loop edges" in printed
    before, after = re.search(r"RMSE +([\d.]+) m before, ([\d.]+) m after", printed).groups()  # type: ignore[union-attr]
    assert float(before) == pytest.approx(metrics["rmse_before_m"], abs=0.006)
    assert float(after) == pytest.approx(metrics["rmse_after_m"], abs=0.006)
    assert (out / "slam.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["nowhere.npz"], "no such sequence file"), (["nowhere"], "not a readable rosbag2")],
)
def test_what_is_not_there(
    words: list[str], sentence: str, slam: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slam.main([str(tmp_path / words[0]), "--out", str(tmp_path / "out"), "--offline"]) == 2
    assert sentence in capsys.readouterr().err
