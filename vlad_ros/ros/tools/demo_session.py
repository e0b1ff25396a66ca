# SPDX-License-Identifier: Apache-2.0
"""The demo's live part: the node started as the launch file would, the bag played into it, its edges heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.commands.demo_drive import Edge, Truth
from vlad_ros.config import ReplayConfig
from vlad_ros.ros.outputs.messages import stamps_of, transform_of
from vlad_ros.ros.tools import replay
from vlad_ros.ros.tools.node_client import Watch, launch_node

# What the node counts although nothing was lost.
HARMLESS = ("session_opened", "no_odometry", "odometry_jump")


def announce(
    bag: Path, folder: Path, truth: Truth, weights: str | None, rate: float, say: Callable[[str], None]
) -> tuple[list[int], list[Edge], int]:
    """Play `bag` into a fresh node. The stamps of all keyframes, all accepted edges, and how many messages were lost.

    RuntimeError, with the end of the node's log, where it does not become active.
    """
    edges: list[Edge] = []

    def hear(stamp: int, rows: np.ndarray) -> None:
        accepted = [_edge(row, truth) for row in rows if row["accepted"]]
        if accepted:
            say(accepted[0].sentence(len(accepted) - 1))
        edges.extend(accepted)

    parameters = {"weights": str(Path(weights).resolve())} if weights else {}
    stamps, lost = listen(bag, folder, hear, parameters, rate, say)
    return stamps, edges, lost


def listen(
    bag: Path,
    folder: Path,
    hear: Callable[[int, np.ndarray], None],
    parameters: Mapping[str, Any],
    rate: float,
    say: Callable[[str], None],
) -> tuple[list[int], int]:
    """Play `bag` into a fresh node with these `parameters`, `hear(stamp, rows)` what it announces. The stamps of all
    keyframes, and how many messages were lost. RuntimeError as in `announce`."""
    arguments = {"points": "/points", "odom": "/odom", "use_sim_time": "true"}
    with Watch(on_closures=hear) as watch, launch_node(folder, parameters, **arguments) as node:
        say("waiting for the node: vlad.launch.py " + " ".join(f"{k}:={v}" for k, v in arguments.items()))
        watch.wait_active(node)
        played = replay.play(watch.node, bag, ReplayConfig(rate=rate), say=say)
        watch.wait_quiet()
        watch.deactivate()
        lost = played.published["/points"] - int(watch.diagnostics.get("clouds received", 0))
        for reason, count in watch.counts().items():
            if reason not in HARMLESS:
                say(f"the node counts {reason}: {count}")
                lost += count
    return [stamp for stamp, _, _ in watch.descriptors], lost


def _edge(row: np.void, truth: Truth) -> Edge:
    return truth.edge(*stamps_of(row), float(row["probability"]), transform_of(row))
