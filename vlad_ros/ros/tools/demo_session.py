# SPDX-License-Identifier: Apache-2.0
"""The demo's live part: start the node as the launch file does, play the bag into it, receive its edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.config import ReplayConfig
from vlad_ros.ros.tools import replay
from vlad_ros.ros.tools.node_client import NodeClient
from vlad_ros.ros.tools.node_process import start_node

# Counters that can increase although nothing was lost; what was lost on the way, the replay sends again, or counts.
HARMLESS = ("session_opened", "pause", "no_odometry", "odometry_jump", "points_lost", "odom_lost")


def listen(
    bag: Path,
    folder: Path,
    hear: Callable[[int, np.ndarray], None],
    parameters: Mapping[str, Any],
    rate: float,
    say: Callable[[str], None],
) -> tuple[list[int], int]:
    """Play `bag` into a fresh node with these `parameters`; `hear(stamp, rows)` gets its edges. Returns stamps of all
    keyframes, and the number of lost messages. RuntimeError, with the end of the node's log, if it does not become
    active."""
    with NodeClient(on_closures=hear) as watch, start_node(folder, {"use_sim_time": True, **parameters}) as node:
        say("waiting for the node: ros2 launch vlad_ros vlad.launch.py points:=/points odom:=/odom use_sim_time:=true")
        watch.wait_active(node)
        played = replay.play(watch.node, bag, ReplayConfig(rate=rate), say=say)
        watch.wait_quiet()
        watch.deactivate()
        lost = losses(watch, played)
        for reason, count in lost.items():
            say(f"lost: {reason}: {count}")
    return [stamp for stamp, _, _ in watch.descriptors], sum(lost.values())


def losses(watch: NodeClient, played: replay.Report) -> Counter[str]:
    """The messages that a deactivated node has not used, by reason: on the way to it, or as it counts them."""
    way = played.published["/points"] - int(watch.diagnostics.get("clouds received", 0)) + played.lost["/odom"]
    return +Counter({"on the way": way, **{name: n for name, n in watch.counts().items() if name not in HARMLESS}})
