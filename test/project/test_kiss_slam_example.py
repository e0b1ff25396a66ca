# SPDX-License-Identifier: Apache-2.0
"""examples/kiss_slam.py, where the wheel of KISS-SLAM is installed: its graph takes our loops as they are meant."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vlad_ros.poses import exp, from_xyz_rpy, inverse, log

pytest.importorskip("kiss_slam", reason="kiss-slam is not installed: pip install kiss-slam==0.0.2, by hand")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def places() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / "kiss_slam.py"
    spec = importlib.util.spec_from_file_location("places", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_optimiser_means_by_our_information_what_we_mean_by_our_covariance(places: ModuleType) -> None:
    """Two loops between the same two maps: what comes out is their mean, each direction weighed on the match's side."""
    rng = np.random.default_rng(0)
    T = from_xyz_rpy((30.0, -20.0, 3.0, 0.1, -0.2, 2.0))
    shapes = [rng.normal(size=(6, 6)) * np.array([0.3, 0.1, 0.05, 0.01, 0.02, 0.005])[:, None] for _ in range(2)]
    covariances = [shape @ shape.T + 1e-6 * np.eye(6) for shape in shapes]
    off = [1e-4 * rng.normal(size=6) for _ in range(2)]
    optimizer = places.Weighed(places.configuration().pose_graph_optimizer)
    optimizer.add_variable(0, np.eye(4))
    optimizer.fix_variable(0)
    optimizer.add_variable(1, T)
    for d, C in zip(off, covariances, strict=True):
        measured = exp(d) @ T
        optimizer.add_factor(1, 0, measured, places.g2o_information(C, measured))
    with places.quietly():
        optimizer.optimize()
    weights = [np.linalg.inv(C) for C in covariances]
    mean = np.linalg.solve(sum(weights), sum(W @ d for W, d in zip(weights, off, strict=True)))
    found = log(optimizer.estimates()[1] @ inverse(T))
    np.testing.assert_allclose(found, mean, atol=5e-6)
    assert np.abs(mean - np.mean(off, axis=0)).max() > 1e-4  # the weights matter


def test_a_drive_becomes_a_trajectory(
    places: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from circuit import circuit
    from untrained import save_untrained

    from vlad_ros.files.sequence import save_sequence
    from vlad_ros.graph.graph_file import read_tum

    drive = circuit()
    save_sequence(tmp_path / "circuit.npz", drive)
    weights = save_untrained(tmp_path / "w.safetensors", drive.scans[:6], 0.5)
    out = tmp_path / "out.tum"
    monkeypatch.setattr(places, "SPLITTING", 8.0)
    assert places.main([str(tmp_path / "circuit.npz"), "-o", str(out), "--weights", str(weights)]) == 0
    printed = capsys.readouterr().out
    scans, maps, loops = map(int, re.search(r"(\d+) scans, (\d+) local maps, (\d+) loops", printed).groups())  # type: ignore[union-attr]
    assert scans == len(drive) and maps >= 3 and loops >= 15
    stamps, poses = read_tum(out)
    assert stamps.tolist() == drive.stamps_ns()
    truth = drive.poses_to("test")
    error = places.rmse(places.aligned(poses, truth), truth)
    assert error < 0.3 and f"{error:.2f} m" in printed


def test_what_is_not_there(places: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert places.main([str(tmp_path / "nowhere.npz"), "-o", str(tmp_path / "out.tum")]) == 2
    assert "no such sequence file" in capsys.readouterr().err
    assert not (tmp_path / "out.tum").exists()
