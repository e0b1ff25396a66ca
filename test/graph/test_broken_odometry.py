# SPDX-License-Identifier: Apache-2.0
"""Odometry that has lost itself, against loops that agree behind it; and aliased streets, which must not break it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from graph_drives import Edge, loops, odometry, rmse, town

pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")

from vlad_ros.graph.graph_file import resume, save_graph  # noqa: E402
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge  # noqa: E402
from vlad_ros.graph_config import PoseGraphConfig  # noqa: E402
from vlad_ros.poses import from_xyz_rpy, inverse  # noqa: E402
from vlad_ros.types import F64  # noqa: E402

CONFIG = PoseGraphConfig()
SCANS = 5  # in which odometry loses itself
MS = 1_000_000
FAULTS = {
    "turn": from_xyz_rpy((0.0, 0.0, 0.0, 0.0, 0.0, np.radians(115.0) / SCANS)),
    "leap": from_xyz_rpy((50.0 / SCANS, 0.0, 0.0, 0.0, 0.0, 0.0)),
}


class World(NamedTuple):
    """A drive, a node a metre: around a block and half of it again, where the loops are."""

    poses: F64
    odometry: F64
    edges: list[Edge]


def world(seed: int) -> World:
    away = town(seed)
    poses = np.concatenate([away[:400], away[820:1000]])
    return World(poses, odometry(poses, seed), loops(poses, seed))


def broken(odo: F64, at: int, fault: F64) -> F64:
    """The odometry with a fault in each of `SCANS` steps, the first one into the node `at`."""
    out, T = odo.copy(), np.eye(4)
    for k in range(at, len(odo)):
        T = T @ fault if k < at + SCANS else T
        out[k] = out[k - 1] @ inverse(odo[k - 1]) @ odo[k] @ (fault if k < at + SCANS else np.eye(4))
    return out


def misled(edges: list[Edge], odo: F64, at: int, number: int = 3) -> list[Edge]:
    """The first loops behind `at` replaced by what this odometry says, which makes them believed."""
    out, rng = list(edges), np.random.default_rng(at)
    behind = [k for k, edge in enumerate(edges) if edge.j >= at + SCANS][:number]
    for k in behind:
        edge = edges[k]
        off = from_xyz_rpy((*rng.normal(0.0, 0.1, 3), 0.0, 0.0, 0.0))
        out[k] = Edge(edge.i, edge.j, off @ inverse(odo[edge.i]) @ odo[edge.j], edge.covariance, wrong=True)
    return out


def stamp(k: int) -> int:
    return (k + 1) * 300 * MS


def drive(odo: F64, edges: list[Edge], most: float = 0.0) -> LiveGraph:
    """Feed a drive, each loop right after its query's node, and look after each whether TF's correction is the graph's.
    """
    graph, by_query = LiveGraph(CONFIG), {edge.j: edge for edge in edges}
    for k, T in enumerate(odo):
        graph.add_node(stamp(k), T)
        if k in by_query:
            edge = by_query[k]
            graph.add_loop(LoopEdge((0, stamp(edge.i)), (0, stamp(k)), edge.T, edge.covariance))
        graph.upkeep()
    graph.upkeep(budget=30.0)
    return graph


def believed(graph: LiveGraph, edges: list[Edge]) -> tuple[int, int]:
    """Wrong and right ones."""
    wrong = {(edge.i, edge.j): edge.wrong for edge in edges}
    on = [wrong[loop.i, loop.j] for loop in graph.beliefs.loops if loop.on]
    return sum(on), len(on) - sum(on)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_loops_that_agree_win_over_odometry_that_broke(fault: str, seed: int) -> None:
    poses, sound, edges = world(seed)
    at = edges[0].j + 4
    odo = broken(sound, at, FAULTS[fault])
    some = misled(edges, odo, at)
    graph, best = drive(odo, some), rmse(drive(sound, edges).poses(), poses)
    print(fault, seed, at, best, rmse(odo, poses), rmse(graph.poses(), poses), believed(graph, some), len(some), graph.take_news(), [k for k in range(1, len(odo)) if graph.chain.nodes[k].part != graph.chain.nodes[k-1].part])
