# SPDX-License-Identifier: Apache-2.0
"""The demo's live part: start the nodes as the launch file does, play the bag into them, receive what they find."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from std_srvs.srv import Trigger

from vlad_ros.config import ReplayConfig
from vlad_ros.ros.tools import replay
from vlad_ros.ros.tools.node_client import DEPTH, START_S, NodeClient
from vlad_ros.ros.tools.node_process import CORRECTIONS, NodeProcess, start_graph, start_node

# Counters that can increase although nothing was lost; what was lost on the way, the replay sends again, or counts.
HARMLESS = ("session_opened", "pause", "no_odometry", "odometry_jump", "points_lost", "odom_lost")
CAUGHT_UP_S = 60.0  # for the pose graph to take the last loops


def listen(
    bag: Path,
    folder: Path,
    hear: Callable[[int, np.ndarray], None],
    parameters: Mapping[str, Any],
    rate: float,
    say: Callable[[str], None],
    trajectory: Path | None = None,
) -> tuple[list[int], int]:
    """Play `bag` into a fresh node with these `parameters`; `hear(stamp, rows)` gets its edges. Returns stamps of all
    keyframes, and the number of lost messages. With `trajectory` the pose graph runs beside it and leaves its
    trajectory in that file (TUM). RuntimeError, with the end of a node's log, if it does not become active."""
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(NodeClient(on_closures=hear))
        remapped = CORRECTIONS if trajectory else {}
        node = stack.enter_context(start_node(folder, {"use_sim_time": True, **parameters}, remapped))
        if trajectory is not None:
            settings = {"use_sim_time": True, "trajectory_path": str(trajectory.resolve())}
            graph = Graph(watch, stack.enter_context(start_graph(folder, settings)))
        launch = "slam" if trajectory else "vlad"
        say(f"waiting for ros2 launch vlad_ros {launch}.launch.py points:=/points odom:=/odom use_sim_time:=true")
        watch.wait_active(node)
        if trajectory is not None:
            graph.wait(lambda values: values.get("state") == "active", START_S)
        played = replay.play(watch.node, bag, ReplayConfig(rate=rate), say=say)
        watch.wait_quiet()
        watch.deactivate()
        if trajectory is not None:
            graph.save()
        lost = losses(watch, played)
        for reason, count in lost.items():
            say(f"lost: {reason}: {count}")
    return [stamp for stamp, _, _ in watch.descriptors], sum(lost.values())


def losses(watch: NodeClient, played: replay.Report) -> Counter[str]:
    """The messages that a deactivated node has not used, by reason: on the way to it, or as it counts them."""
    way = played.published["/points"] - int(watch.diagnostics.get("clouds received", 0)) + played.lost["/odom"]
    return +Counter({"on the way": way, **{name: n for name, n in watch.counts().items() if name not in HARMLESS}})


class Graph:
    """The pose graph's node, beside the one that `watch` is a client of."""

    def __init__(self, watch: NodeClient, process: NodeProcess) -> None:
        self._watch, self._process = watch, process
        self._values: dict[str, str] = {}
        watch.node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, DEPTH)

    def _hear(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "vlad_graph: pose graph":
                self._values = {value.key: value.value for value in status.values}

    def wait(self, done: Callable[[Mapping[str, str]], bool], timeout: float) -> None:
        """Until its diagnostics are as wanted; RuntimeError, with the end of its log, if it ends or takes too long."""
        end = time.monotonic() + timeout
        while not done(self._values):
            if self._process.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the pose graph has ended, or does not answer:\n{self._process.tail()}")
            time.sleep(0.05)

    def save(self) -> None:
        """Let it write its trajectory, once it has every loop that was announced. RuntimeError if it cannot."""
        announced = sum(int(np.sum(rows["accepted"])) for _, rows in self._watch.closures)
        known = "loops believed", "loops not believed", "loops waiting for their nodes"
        self.wait(lambda values: sum(int(values.get(name, 0)) for name in known) >= announced, CAUGHT_UP_S)
        answer = self._watch.call(Trigger, "/vlad_graph/save_trajectory", Trigger.Request())
        if not answer.success:
            raise RuntimeError(answer.message)
