# SPDX-License-Identifier: Apache-2.0
"""The cost of the node's process, at the bench's smallest setting."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def cost(*words: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    """What `bench/cost.py` prints."""
    argv = [sys.executable, "bench/cost.py", "--rows", "simulated", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.ros
@pytest.mark.slow
def test_two_checkouts_hear_the_same_drive_and_both_are_in_the_table(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(ROOT / "vlad_ros", other / "vlad_ros", ignore=shutil.ignore_patterns("__pycache__"))
    # The other node is told apart by a default that only its checkout has.
    config = other / "vlad_ros" / "config.py"
    changed = config.read_text().replace(
        "keyframe_distance: float = option(1.0,", "keyframe_distance: float = option(4.0,"
    )
    assert changed != config.read_text()
    config.write_text(changed)
    out = tmp_path / "cost.csv"
    done = cost("--scans", "12", "--tree", str(other), "--csv", str(out), temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    with open(out, newline="") as file:
        theirs, ours = csv.DictReader(file)
    assert (ours["scans"], ours["lost"], theirs["lost"]) == ("12", "0", "0")
    assert int(theirs["keyframes"]) < int(ours["keyframes"])
    for row in (theirs, ours):
        assert float(row["CPU [s/km]"]) == pytest.approx(float(row["CPU [s]"]) / float(row["km"]), rel=0.1)
        assert 100 < float(row["MiB at start"]) <= float(row["MiB at most"])
    assert "| simulated | ratio |" in done.stdout


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    done = cost("--scans", "12", "--tree", str(tmp_path), temporary=tmp_path)
    assert done.returncode == 2 and f"{tmp_path}: no checkout of vlad_ros" in done.stderr
