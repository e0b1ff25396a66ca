# SPDX-License-Identifier: Apache-2.0
"""The soak, at its smallest setting."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")

ROOT = Path(__file__).resolve().parents[2]


def soak(*words: str) -> subprocess.CompletedProcess[str]:
    """What `bench/soak.py` prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "bench/soak.py", *words], cwd=ROOT, capture_output=True, text=True, env=environment
    )


@pytest.mark.ros
@pytest.mark.slow
def test_a_soak_of_seconds_loses_nothing_and_leaves_samples_and_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "soak.csv"
    done = soak("--keyframes", "25", "--seconds", "9", "--street", "40", "--every", "0.5", "--csv", str(out))
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["clouds"]) == 90 and int(rows[-1]["keyframes"]) >= 15
    assert float(rows[-1]["resident [MiB]"]) > 100 and "a keyframe keeps" in done.stdout
    out.with_suffix(".png").unlink()
    assert soak("--draw", str(out)).returncode == 0 and out.with_suffix(".png").exists()
