# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md: every command of it, in its order, on a bag of a circuit; its pictures, reasons and parameters."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from circuit import circuit
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.config import ImportConfig
from vlad_ros.files.bags import sequence_scans, write_bag
from vlad_ros.files.sequence import Sequence
from vlad_ros.parameter_table import parameter_fields
from vlad_ros.runs.tables import read_run
from vlad_ros.types import RejectReason

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
DESK = [line for line in COMMANDS if line.split()[:2] in (["vlad", "run"], ["vlad", "report"], ["vlad", "plot"])]
LIVE = [line for line in COMMANDS if line not in DESK]
(PARAMETERS,) = [block for kind, block in BLOCKS if kind == "yaml"]
RATE = "10"  # times real time


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Where the reader works: two bags of the same circuit, a day apart, and weights that find it."""
    folder, today = tmp_path_factory.mktemp("tutorial"), circuit()
    assert today.stamps is not None
    tomorrow = Sequence("tomorrow", today.scans, today.poses, today.stamps + 86400.0)
    for name, drive in (("BAG", today), ("TOMORROW", tomorrow)):
        write_bag(folder / name, sequence_scans(drive, 10.0), ImportConfig())
    save_untrained(folder / "w.safetensors", today.scans[:6], 0.5)
    return folder


def test_every_command_at_the_desk(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(folder)
    assert [line.split()[1] for line in DESK] == ["run", "report", "plot", "run", "report"]
    for line in DESK:
        words = line.split()[1:]
        if words[0] == "run":
            words += ["--weights", "w.safetensors", "--device", "cpu", "--top-k", "3"]
        if words[0] == "report":
            words += ["--pictures", "1"]
        assert cli.main(words) == 0, line
    said = capsys.readouterr().out
    (shown,) = [block for kind, block in BLOCKS if kind == "text"]
    for row in shown.splitlines()[1:]:
        assert f"\n{row.split()[0]} " in said, row
    assert (folder / "RUN" / "report.html").exists() and (folder / "why.png").exists()
    assert read_run("RUN").closures.accepted.sum() > 20
    assert read_run("STRICT").about["configuration"]["recognizer"]["min_probability"] == 0.99


@pytest.mark.ros
def test_every_command_with_the_node(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent), prepend=os.pathsep)
    (folder / "mine.yaml").write_text(PARAMETERS + '    weights: "w.safetensors"\n    device: "cpu"\n')
    with contextlib.ExitStack() as stack:
        reader = Reader(folder, stack)
        for line in LIVE:
            reader.type(line)
        today = ("launch", "replay", "watch", "rviz2", "save_map", "copy", "info", "prune")
        assert reader.done == [*today, "launch", "echo", "replay", "relocalize"]
        assert len(reader.poses) >= 3, "the vehicle has not found itself"


class Reader:
    """Types the commands; what `ros2` would do is done here, for its tools are no wheels."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        from ros_harness import Robot

        self._folder, self._stack = folder, stack
        self._robot = stack.enter_context(Robot())
        self._node: Any = None
        self.done: list[str] = []
        self.poses: list[Any] = []

    def type(self, line: str) -> None:
        """One command of the tutorial."""
        words = line.replace("$PWD", str(self._folder)).split()
        if words[:2] == ["ros2", "launch"]:
            self._launch(dict(word.split(":=") for word in words[4:]))
        elif words[:3] == ["ros2", "service", "call"]:
            self._call(words[3], words[4])
        elif words[:3] == ["ros2", "topic", "echo"]:
            self._echo(words[3])
        elif words[0] == "rviz2":  # no wheel; what it would show, test_live_views compares with the running node
            assert (DOCS.parent / line.rsplit("vlad_ros)/", 1)[1]).is_file(), line
            self.done.append("rviz2")
        else:
            self._vlad(words)

    def _launch(self, arguments: dict[str, str]) -> None:
        from launched import launch_node

        if self._node is not None:
            self._node.stop()
        self._node = self._stack.enter_context(launch_node(self._folder, {}, **arguments))
        self._robot.wait_active(self._node, 180.0)
        self.done.append("launch")

    def _call(self, service: str, kind: str) -> None:
        node, name = service[1:].split("/")
        assert (node, kind) == ("vlad", "std_srvs/srv/Trigger")
        success, sentence = self._robot.ask(name)
        assert success, sentence
        self.done.append(name)

    def _echo(self, topic: str) -> None:
        from geometry_msgs.msg import PoseWithCovarianceStamped
        from rclpy.qos import QoSProfile
        from ros_harness import wait_for

        node = self._robot.node
        wait_for(lambda: node.count_publishers(topic), f"nobody publishes {topic}")
        node.create_subscription(PoseWithCovarianceStamped, topic, self.poses.append, QoSProfile(depth=100))
        self.done.append("echo")

    def _vlad(self, words: list[str]) -> None:
        if words[1] == "map":
            assert cli.main(words[1:]) == 0
            self.done.append(words[2])
            return
        more = {"replay": ["--rate", RATE], "watch": ["--once"]}[words[1]]
        ended = subprocess.run(
            [sys.executable, "-m", "vlad_ros.cli", *words[1:], *more], capture_output=True, text=True, timeout=240
        )
        assert ended.returncode == 0, ended.stderr
        if words[1] == "replay":
            self._robot.wait_quiet()
        if words[1] == "watch":
            assert "active" in ended.stdout and "keyframes" in ended.stdout
        self.done.append(words[1])


def test_it_shows_pictures() -> None:
    assert len(re.findall(r"!\[.+\]\((\w+\.png)\)", TEXT)) >= 3  # that they are there, test_docs says


def test_its_reasons_are_those_of_the_node() -> None:
    rows = re.findall(r"^\| (.+?) \|.*\|.*\|$", TEXT, re.MULTILINE)[2:]
    words = [reason.words for reason in RejectReason]
    assert len(rows) >= 6
    for row in rows:
        assert any(known.startswith(row.removesuffix(" ...")) for known in words), row


def test_its_parameters_exist() -> None:
    names = {field.name for field in parameter_fields()}
    assert set(yaml.safe_load(PARAMETERS)["/**"]["ros__parameters"]) <= names
    assert {"verification_budget", "top_k", "accumulation_m", "min_probability"} <= names
