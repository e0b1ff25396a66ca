# SPDX-License-Identifier: Apache-2.0
"""Odometry that has lost itself, against loops that agree behind it; and aliased streets, which must not break it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from graph_drives import FAULTS, Edge, block, broken, loops, misled, odometry, rmse

pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")

from vlad_ros.drive.jumps import Continuity
from vlad_ros.graph.graph_file import resume, save_graph
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.types import F64

CONFIG = PoseGraphConfig()
MS = 1_000_000


class World(NamedTuple):
    """A drive, a node a metre: around a block and half of it again, where the loops are."""

    poses: F64
    odometry: F64
    edges: list[Edge]


def world(seed: int) -> World:
    poses = block(seed)
    return World(poses, odometry(poses, seed), loops(poses, seed))


def stamp(k: int) -> int:
    return (k + 1) * 300 * MS


def feed(graph: LiveGraph, k: int, T: F64, by_query: dict[int, Edge], part: int = 0) -> None:
    """A node and, right after it, its loop."""
    graph.add_node(stamp(k), T, part)
    if k in by_query:
        edge = by_query[k]
        graph.add_loop(LoopEdge((0, stamp(edge.i)), (0, stamp(k)), edge.T, edge.covariance))


def drive(odo: F64, edges: list[Edge]) -> LiveGraph:
    """Jumps are found as in the node."""
    graph, by_query = LiveGraph(CONFIG), {edge.j: edge for edge in edges}
    continuity, part = Continuity(), 0
    for k, T in enumerate(odo):
        part += continuity.breaks_at(stamp(k), T)
        feed(graph, k, T, by_query, part)
        graph.upkeep()
    graph.upkeep(budget=30.0)
    return graph


def believed(graph: LiveGraph, edges: list[Edge]) -> tuple[int, int]:
    """How many wrong and right ones."""
    wrong = {(edge.i, edge.j) for edge in edges if edge.wrong}
    on = [(loop.i, loop.j) in wrong for loop in graph.beliefs.loops if loop.on]
    return sum(on), len(on) - sum(on)


def broken_at(graph: LiveGraph) -> list[int]:
    """The nodes to which a step leads that is not believed."""
    parts = np.array([node.part for node in graph.chain.nodes])
    return (np.flatnonzero(np.diff(parts)) + 1).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_loops_that_agree_win_over_odometry_that_broke(fault: str, seed: int) -> None:
    """A turn is found by the loops, a leap already by the odometry itself."""
    poses, sound, edges = world(seed)
    at = edges[0].j + 4
    odo = broken(sound, at, fault)
    some = misled(edges, odo, at + FAULTS[fault][1])
    graph, best = drive(odo, some), rmse(drive(sound, edges).poses(), poses)
    assert rmse(odo, poses) > 10 * best and rmse(graph.poses(), poses) < 1.5 * best
    wrong, right = believed(graph, some)
    assert wrong == 0 and right >= 0.95 * (len(edges) - 3)
    assert graph.counters["odometry_broken"] == (fault == "turn")
    assert ("odometry is not believed at" in " ".join(graph.take_news())) == (fault == "turn")
    steps = broken_at(graph)
    assert steps and at - 5 <= steps[0] and steps[-1] < at + 10


def test_the_correction_jumps_at_once_and_a_file_keeps_the_break(tmp_path: Path) -> None:
    poses, sound, edges = world(0)
    at = edges[0].j + 4
    odo = broken(sound, at, "turn")
    some = {edge.j: edge for edge in misled(edges, odo, at + 5)}
    graph, jumps = LiveGraph(CONFIG), []
    for k, T in enumerate(odo):
        feed(graph, k, T, some)
        before = graph.T_map_odom
        graph.upkeep()
        after = graph.T_map_odom
        assert before is not None and after is not None
        if graph.counters["odometry_broken"] > len(jumps):
            jumps.append(float(np.linalg.norm(((after - before) @ T)[:3, 3])))
            np.testing.assert_allclose((after @ T)[:3, 3], poses[k, :3, 3], atol=5.0)
    assert len(jumps) == 1 and jumps[0] > 20.0  # m
    graph.upkeep(budget=30.0)
    save_graph(graph, tmp_path / "graph")
    again = resume(tmp_path / "graph", CONFIG)
    assert broken_at(again) == broken_at(graph) and len(broken_at(again)) == 1
    np.testing.assert_allclose(again.poses(), graph.poses(), atol=5e-3)
    again.add_node(stamp(10**6), np.eye(4))  # a second session, whose odometry is sound
    assert again.chain.nodes[-1].part == 0


def test_a_jump_that_is_told_behind_a_break_is_another_one() -> None:
    _, sound, edges = world(0)
    odo = broken(sound, edges[0].j + 4, "turn")
    graph = drive(odo, edges)
    graph.add_node(stamp(len(odo)), odo[-1])
    assert broken_at(graph) == broken_at(graph)[:1]
    graph.add_node(stamp(len(odo) + 1), odo[-1] @ from_xyz_rpy((9.0, 0.0, 0.0, 0.0, 0.0, 0.0)), part=1)
    graph.add_node(stamp(len(odo) + 2), odo[-1] @ from_xyz_rpy((9.5, 0.0, 0.0, 0.0, 0.0, 0.0)), part=1)
    assert broken_at(graph)[1:] == [len(odo) + 1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_long_aliased_street_does_not_break_sound_odometry(seed: int) -> None:
    """All loops of the first 70 m lead to a street that looks like the right one, 120 m aside."""
    poses, odo, edges = world(seed)
    offset = from_xyz_rpy((0.0, 120.0, 0.0, 0.0, 0.0, 0.0))
    street = [edge for edge in edges if edge.j < edges[0].j + 70]
    poses_of_first = poses[street[0].i]
    moved = poses_of_first @ offset @ inverse(poses_of_first)  # one offset of the world, whatever the match's heading
    wrong = [Edge(e.i, e.j, inverse(poses[e.i]) @ moved @ poses[e.i] @ e.T, e.covariance, wrong=True) for e in street]
    assert len(wrong) > 30
    graph = drive(odo, wrong + edges[len(street) :])
    assert not graph.counters["odometry_broken"] and believed(graph, wrong)[0] == 0
    assert rmse(graph.poses(), poses) < 1.1 * rmse(drive(odo, edges[len(street) :]).poses(), poses)


def test_a_short_street_breaks_nothing_though_the_tracks_would_meet() -> None:
    """Wrong loops of 40 m that turn the vehicle by 115 degrees where it stands."""
    poses, odo, edges = world(0)
    some = [edge for edge in edges if edge.j < edges[0].j + 40]
    pivot = poses[some[0].j]
    turned = pivot @ from_xyz_rpy((0.0, 0.0, 0.0, 0.0, 0.0, np.radians(115.0))) @ inverse(pivot)
    wrong = [Edge(e.i, e.j, inverse(poses[e.i]) @ turned @ poses[e.j], e.covariance, wrong=True) for e in some]
    graph = drive(odo, wrong + edges[len(some) :])
    assert not graph.counters["odometry_broken"] and believed(graph, wrong)[0] == 0
