# SPDX-License-Identifier: Apache-2.0
"""docs/fleet.md: its commands do what it says, at their smallest settings; its arithmetic adds up."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fleet_server import FleetServer
from map_rows import keyframe, make

from vlad_ros.cli import main
from vlad_ros.mapping.database import KeyframeDatabase

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "fleet.md").read_text()
COMMANDS = re.findall(r"`(vlad fleet [^`]+)`", TEXT)


def test_the_tools_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("milvus_lite")
    monkeypatch.chdir(tmp_path)
    database = make([keyframe(np.random.default_rng(0), 0, i, travel=float(i)) for i in range(5)])
    database.save("town.map")
    server = FleetServer(tmp_path)
    server.start()
    try:
        assert [command.split()[2] for command in COMMANDS] == ["push", "info", "pull"]
        drive = f"red/{database.identities[0][0]}"
        for command in COMMANDS:
            words = command.replace("http://127.0.0.1:19530", server.uri).replace("ROBOT/SESSION", drive).split()[1:]
            assert main(words) == 0
        assert drive in capsys.readouterr().out
    finally:
        server.kill()
    assert len(KeyframeDatabase.open("drive.map")) == 5


def test_the_launch_argument_and_the_servers_reach_what_they_are_for() -> None:
    pytest.importorskip("rclpy")
    from launch_recorder import resolve

    (command,) = re.findall(r"^ros2 launch vlad_ros vlad.launch.py (.*)$", TEXT, re.MULTILINE)
    ((argv, _),) = resolve(ROOT / "launch" / "vlad.launch.py", **dict(word.split(":=") for word in command.split()))
    assert "fleet_uri:='http://127.0.0.1:19530'" in argv and "robot:='red'" in argv
    (server,) = re.findall(r"^milvus-lite (server .*)$", TEXT, re.MULTILINE)
    assert "--host 127.0.0.1" in server
    options = set(re.findall(r"`MILVUS_(\w+)`", TEXT))
    from vlad_ros.fleet.server import OPTIONS

    assert options == {option.upper() for option in OPTIONS}


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    """What a bench prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=environment)


def test_the_table_by_size(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    done = bench("bench/fleet_rows.py", "--rows", "64", "100", "--queries", "3", "--csv", str(tmp_path / "rows.csv"))
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rows"] for row in rows] == ["64", "100"] and done.stdout.splitlines()[0] in TEXT


def test_the_arithmetic_adds_up() -> None:
    lines = re.findall(r"^\| [^|]+ \| `([^`]+)` \| ([\d.,]+)[^|]* \|", TEXT, re.MULTILINE)
    assert len(lines) > 8
    for formula, number in lines:
        assert eval(formula, {}) == pytest.approx(float(number.replace(",", "")), rel=0.01), formula


@pytest.mark.proof
@pytest.mark.ros
def test_robots_meet_and_nothing_is_lost(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    done = bench("bench/fleet.py", "--robots", "2", "--rate", "3", "--picture", str(tmp_path / "fleet.png"))
    assert done.returncode == 0, done.stderr
    (described, held) = map(int, re.findall(r"keyframes described (\d+), in the fleet (\d+)", done.stdout)[0])
    assert described == held > 100 and "precision 1.000" in done.stdout
    assert (tmp_path / "fleet.png").exists() and done.stdout.splitlines()[0] in TEXT
