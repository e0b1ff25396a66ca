#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The pose graph: how soon a loop is known, by the number of nodes; and what wrong loops do to the trajectory.

    python bench/graph.py latency --nodes 1000 10000
    python bench/graph.py robustness --seeds 100 101 102
    python bench/graph.py broken --seeds 100 101 102

Latency: a drive through a town of blocks, a node a metre, a loop wherever it has been before. The first nodes are taken
as from a resumed file, then `--steps` keyframes come one by one, each with its loop; the time of each loop until the
correction that TF sends is known. Robustness: the drives of test/helpers/graph_drives.py. Broken: the same drives,
whose odometry loses itself 30 m behind the beginning of the third round's loops; the next three loops are wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from table import stream
from tqdm import tqdm

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "test" / "helpers")]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from graph_drives import (  # noqa: E402
    FAULTS,
    SIGMAS,
    Edge,
    broken,
    corrupted,
    loops,
    misled,
    odometry,
    rmse,
    smooth,
    town,
)

from vlad_ros.graph.chain import Node  # noqa: E402
from vlad_ros.graph.consistency import Loop  # noqa: E402
from vlad_ros.graph.drives import FIRM, Anchor  # noqa: E402
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge  # noqa: E402
from vlad_ros.graph_config import PoseGraphConfig  # noqa: E402
from vlad_ros.poses import exp, from_xyz_rpy, inverse  # noqa: E402
from vlad_ros.types import F64  # noqa: E402

BLOCK, MS = 60.0, 1_000_000
UPKEEP = 3  # nodes, 0.6 s, between two upkeeps; the node has one each 0.5 s
TURNS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
COLUMNS = ("nodes", "loops", "timed", "loop to TF p50 / p99 / max [ms]", "of it processor", "node", "upkeep")
THIRD, INTO = 750.0, 30.0  # m of travel: before the third round; between its first loop and where odometry breaks
ROWS = ("as they are", "10 % wrong", "10 % wrong, a street first")


def stamp(k: int) -> int:
    """A node each 0.2 s, 1 m apart."""
    return (k + 1) * 200 * MS


def city(nodes: int, seed: int) -> F64:
    """True poses (nodes, 4, 4), 1 m apart: at random through a grid of blocks, never turning back."""
    rng, side = np.random.default_rng(seed), max(3, round(np.sqrt(nodes / 300)))
    at, heading, corners = np.zeros(2, int), 0, [np.zeros(2, int)]
    while len(corners) * BLOCK < nodes + 2 * BLOCK:
        ways = [(heading + turn) % 4 for turn in (0, 1, -1) if np.all((at + TURNS[(heading + turn) % 4]) // side == 0)]
        heading = int(rng.choice(ways)) if ways else (heading + 1) % 4
        if not ways:
            continue
        at = at + TURNS[heading]
        corners.append(at)
    line = np.array(corners) * BLOCK
    xy = np.column_stack(
        [smooth(np.interp(np.arange(nodes), BLOCK * np.arange(len(line)), line[:, k])) for k in (0, 1)]
    )
    xy += np.column_stack([smooth(rng.normal(0.0, 1.0, nodes)) for _ in range(2)]) * 0.3
    ahead = np.gradient(xy, axis=0)
    yaw = np.arctan2(ahead[:, 1], ahead[:, 0])
    return np.stack([from_xyz_rpy((x, y, 0.0, 0.0, 0.0, turn)) for (x, y), turn in zip(xy, yaw, strict=True)])


def revisits(poses: F64, seed: int) -> dict[int, Edge]:
    """By its query: a right edge to the nearest earlier pose within 3 m, more than 50 m of travel before."""
    rng, xy = np.random.default_rng(seed), poses[:, :2, 3]
    found = {}
    for j, near in enumerate(cKDTree(xy).query_ball_point(xy, 3.0)):
        earlier = [i for i in near if i < j - 50]
        if earlier:
            i = min(earlier, key=lambda k: float(np.linalg.norm(xy[k] - xy[j])))
            T = exp(-SIGMAS * rng.normal(size=6)) @ inverse(poses[i]) @ poses[j]
            found[j] = Edge(i, j, T, np.diag(SIGMAS**2))
    return found


def resumed(poses: F64, odo: F64, edges: list[Edge]) -> LiveGraph:
    """A graph that has these nodes and believes these loops, a cluster each 100 of them."""
    graph = LiveGraph(PoseGraphConfig())
    for k, T in enumerate(odo):
        graph.chain.add(Node(0, stamp(k), T, float(k), 0))
    graph.placed, graph.sessions, graph.anchors = {0}, {0: 0}, [Anchor(0, odo[0], FIRM)]
    chosen, cluster = [], 0
    for before, edge in zip([edges[0], *edges], edges, strict=False):
        cluster += max(abs(edge.i - before.i), edge.j - before.j) > 20
        chosen.append((Loop(edge.i, edge.j, edge.T, edge.covariance), cluster, True))
    graph.rebuild_with(inverse(poses[0]) @ poses, chosen)
    return graph


def latency(nodes: int, steps: int, seed: int) -> list[str]:
    """A row of the table: nodes and loops in the graph, live loops, and milliseconds of each live loop (wall, and of
    the processor alone), each live node, and each upkeep."""
    poses = city(nodes + steps, seed)
    odo, edges = odometry(poses, seed), revisits(poses, seed)
    graph = resumed(poses[:nodes], odo[:nodes], [edge for j, edge in edges.items() if j < nodes])
    graph.upkeep(budget=60.0)
    times: dict[str, list[float]] = {"loop": [], "processor": [], "node": [], "upkeep": []}

    def timed(name: str, action: Callable[[], object]) -> None:
        wall, processor = time.perf_counter(), time.thread_time()
        action()
        times[name].append(1e3 * (time.perf_counter() - wall))
        if name == "loop":
            times["processor"].append(1e3 * (time.thread_time() - processor))

    for k in tqdm(range(nodes, nodes + steps), desc=f"{nodes} nodes", disable=None):
        timed("node", lambda k=k: graph.add_node(stamp(k), odo[k]))
        if k in edges:
            keys = (0, stamp(edges[k].i)), (0, stamp(k))
            edge = LoopEdge(*keys, edges[k].T, edges[k].covariance)
            timed("loop", lambda edge=edge: (graph.add_loop(edge), graph.T_map_odom))
        if k % UPKEEP == 0:
            timed("upkeep", graph.upkeep)
    believed = sum(loop.on for loop in graph.beliefs.loops)
    return [str(nodes + steps), str(believed), str(len(times["loop"])), *map(spread, times.values())]


def robustness(seed: int, step: int) -> list[str]:
    """A row of the table for a drive: RMSE [m] of odometry, and of the graph with the edges of each of `ROWS`."""
    poses = town(seed)[::step]
    odo, edges = odometry(poses, seed), loops(poses, seed, spacing=1)
    cells = [str(seed), str(len(edges)), f"{rmse(odo, poses):.2f}"]
    kinds = (edges, corrupted(edges, poses, seed), corrupted(edges, poses, seed, first=True))
    return cells + [played(odo, some, poses) for some in kinds]


def played(odo: F64, edges: list[Edge], poses: F64) -> str:
    """A cell of the table: RMSE [m] of the graph of a drive, and the edges that it believes."""
    graph, wrong = LiveGraph(PoseGraphConfig()), {(edge.i, edge.j): edge.wrong for edge in edges}
    by_query = {edge.j: edge for edge in edges}
    for k, T in enumerate(odo):
        graph.add_node(stamp(k), T)
        graph.upkeep()
        if k in by_query:
            edge = by_query[k]
            graph.add_loop(LoopEdge((0, stamp(edge.i)), (0, stamp(k)), edge.T, edge.covariance))
    graph.upkeep(budget=60.0)
    believed = [wrong[loop.i, loop.j] for loop in graph.beliefs.loops if loop.on]
    return f"{rmse(graph.poses(), poses):.3f}; {sum(believed)} wrong, {len(believed) - sum(believed)} right"


def breaks(seed: int, step: int) -> list[str]:
    """A row of the table for a drive: with sound odometry, and for each of `FAULTS` RMSE [m] of odometry and graph."""
    poses = town(seed)[::step]
    odo, edges = odometry(poses, seed), loops(poses, seed, spacing=1)
    third = next(edge.j for edge in edges if edge.j * step > THIRD)
    cells = [str(seed), str(len(edges)), f"{rmse(odo, poses):.2f}", played(odo, edges, poses)]
    for fault, (_, steps) in FAULTS.items():
        at = third + round(INTO / step)
        lost = broken(odo, at, fault)
        cells += [f"{rmse(lost, poses):.1f}", played(lost, misled(edges, lost, at + steps), poses)]
    return cells


def spread(times: list[float]) -> str:
    """p50 / p99 / max of `times` [ms]."""
    p50, p99 = np.quantile(times, (0.5, 0.99))
    return f"{p50:.1f} / {p99:.1f} / {max(times):.1f}"


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("latency", "robustness", "broken"))
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--step", type=int, default=3, help="metres between the nodes of the robustness drives")
    args = parser.parse_args()
    if args.what == "latency":
        stream(COLUMNS, (latency(nodes, args.steps, args.seeds[0]) for nodes in args.nodes), None)
    elif args.what == "robustness":
        stream(("seed", "loops", "odometry", *ROWS), (robustness(seed, args.step) for seed in args.seeds), None)
    else:
        head = [name for fault in FAULTS for name in (f"odometry, {fault}", f"graph, {fault}")]
        rows = (breaks(seed, args.step) for seed in args.seeds)
        stream(("seed", "loops", "odometry", "graph", *head), rows, None)


if __name__ == "__main__":
    main()
