# SPDX-License-Identifier: Apache-2.0
"""A node in its own process, with the parameters and the environment that the launch file gives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from vlad_ros.ros.environment import RUNTIME, dds_profile

NONE: Mapping[str, str] = {}
CORRECTIONS = {"keyframes": "vlad_graph/corrections"}  # remapping of the node beside a pose graph


class NodeProcess:
    """A node in its own process, started in `folder` (None: here); its output goes to `log`. Ended by SIGINT, after
    20 s by SIGKILL."""

    def __init__(self, argv: list[str], env: dict[str, str], log: Path, folder: Path | None = None) -> None:
        self.log = log
        self._file = open(log, "ab")  # noqa: SIM115 - lives as long as the process
        environment = {**os.environ, **env}
        self.process = subprocess.Popen(argv, env=environment, cwd=folder, stdout=self._file, stderr=subprocess.STDOUT)

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """End the process; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self._file.close()
        return code

    def tail(self, lines: int = 15) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def node_command(
    parameters: Mapping[str, Any], remappings: Mapping[str, str] = NONE, name: str = "vlad", module: str = "node"
) -> list[str]:
    """The command that starts the node `name`, with autostart and these parameters on top of the defaults."""
    argv = [sys.executable, "-m", f"vlad_ros.ros.{module}", "--ros-args", "-r", f"__node:={name}"]
    for topic, other in remappings.items():
        argv += ["-r", f"{topic}:={other}"]
    for parameter, value in {"autostart": True, **parameters}.items():
        argv += ["-p", f"{parameter}:={json.dumps(value)}"]
    return argv


def start_node(folder: Path, parameters: Mapping[str, Any], remappings: Mapping[str, str] = NONE) -> NodeProcess:
    """The node, in the environment that the launch file gives it; its log is `folder`/node.log."""
    wanted = {name: value for name, value in (RUNTIME | dds_profile()).items() if name not in os.environ}
    return NodeProcess(node_command(parameters, remappings), wanted, folder / "node.log")


def start_graph(folder: Path, parameters: Mapping[str, Any]) -> NodeProcess:
    """The pose graph's node, as slam.launch.py starts it beside the node, which then is to hear `CORRECTIONS`; its log
    is `folder`/graph.log."""
    heard = {name: f"vlad/{name}" for name in ("keyframes", "loop_closures", "pose")}
    command = node_command(parameters, heard, "vlad_graph", "graph_node")
    return NodeProcess(command, {}, folder / "graph.log")
