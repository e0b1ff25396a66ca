# SPDX-License-Identifier: Apache-2.0
"""bench/slam_table.py: its rows, its going on where it was, its picture; with systems that stand in."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from circuit import circuit

from vlad_ros.evaluation.trajectory import rmse_degrees
from vlad_ros.files.sequence import Sequence
from vlad_ros.poses import exp, from_xyz_rpy, inverse


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    folder = Path(__file__).resolve().parents[2] / "bench"
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location("slam_table", folder / "slam_table.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["slam_table"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(folder))
    return module


def test_attitudes_are_compared_after_the_alignment() -> None:
    truth = circuit().poses_to("test")
    moved = from_xyz_rpy((5.0, -3.0, 2.0, 0.1, -0.2, 2.5)) @ truth
    assert rmse_degrees(moved, truth) < 1e-4
    nodding = moved @ exp(np.array([0.0, 0.0, 0.0, 0.0, np.radians(2.0), 0.0]))
    assert rmse_degrees(nodding, truth) == pytest.approx(2.0, abs=1e-3)


def test_it_goes_on_where_it_was(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    systems = sys.modules["slam_systems"]

    def good(made: Sequence) -> dict[str, object]:
        calls.append("good")
        truth = made.poses_to("test")
        off = from_xyz_rpy((2.0, 0.0, 0.0, 0.0, 0.0, 0.0))
        edges = [(0, 34, inverse(truth[0]) @ truth[34]), (1, 35, inverse(truth[1]) @ truth[35] @ off)]
        return {
            "good": systems.Result(
                from_xyz_rpy((1.0, 2.0, 3.0, 0.0, 0.0, 1.0)) @ truth, *systems.judged(made, edges), 7
            )
        }

    def absent(made: Sequence) -> dict[str, object]:
        raise ModuleNotFoundError("No module named 'absent'")

    monkeypatch.setattr(bench, "METHODS", {("good",): good, ("absent",): absent})
    monkeypatch.setattr(bench, "KINDS", {"circuit": lambda seed: circuit()})
    words = ["slam_table.py", "--out", str(tmp_path), "--drives", "circuit"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", words)
        bench.main()
        with open(tmp_path / "table.csv", newline="") as file:
            (row,) = csv.DictReader(file)
        assert row == {
            **{"drive": "circuit", "system": "good", "RMSE [m]": "0.00", "[deg]": "0.00"},
            **{"right": "1", "wrong": "1", "CPU [s]": "7"},
        }
    assert calls == ["good"]  # the second time it was there
    printed = capsys.readouterr()
    assert "| circuit | good | 0.00 | 0.00 | 1 | 1 | 7 |" in printed.out and "absent: left out" in printed.err
    monkeypatch.setattr(sys, "argv", [*words[:3], "--draw", "circuit", str(tmp_path / "circuit.png")])
    bench.main()
    assert (tmp_path / "circuit.png").stat().st_size > 5_000
