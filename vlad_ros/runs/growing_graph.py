# SPDX-License-Identifier: Apache-2.0
"""The pose graph of a run, as its node would have built it along the drive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vlad_ros.drive.jumps import Continuity
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.runs.tables import Run

PATIENCE = 60.0  # s for what the pose graph leaves for later


def growing_graph(run: Run) -> Iterator[tuple[LiveGraph, list[int]]]:
    """After each keyframe with a pose, and once more at the end: the graph (always the same one), and the keyframe of
    each of its nodes. ValueError where gtsam is not installed."""
    keyframes, closures = run.keyframes, run.closures
    graph, continuity, part = LiveGraph(PoseGraphConfig()), Continuity(), 0
    nodes: list[int] = []
    usable = closures.accepted & np.isfinite(closures.covariance).all(axis=(1, 2))
    loops: dict[int, list[int]] = {}
    for row in np.flatnonzero(usable).tolist():
        loops.setdefault(int(closures.query[row]), []).append(row)
    keys = list(zip(keyframes.session.tolist(), keyframes.stamp.tolist(), strict=True))
    for k in np.flatnonzero(np.isfinite(keyframes.T_odom_base[:, 0, 0])).tolist():
        session, stamp = keys[k]
        if nodes and keys[nodes[-1]][0] != session:
            continuity.clear()
        part += continuity.breaks_at(stamp, keyframes.T_odom_base[k])
        if graph.add_node(stamp, keyframes.T_odom_base[k], part):
            nodes.append(k)
        for row in loops.get(k, ()):
            match = keys[closures.match[row]]
            graph.add_loop(LoopEdge(match, keys[k], closures.T_match_query[row], closures.covariance[row]))
        yield graph, nodes
    graph.upkeep(PATIENCE)
    yield graph, nodes
