# SPDX-License-Identifier: Apache-2.0
"""The SLAM systems that bench/slam_table.py compares: each takes a drive's scans, and gives poses and closures."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from tqdm import tqdm

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.jumps import Continuity
from vlad_ros.evaluation.edges import edge_error, is_right
from vlad_ros.files.sequence import Sequence
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import from_quaternion
from vlad_ros.types import F64, LoopClosure


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A system on a drive: `poses` (S, 4, 4), `ends` (L, 2) the scans that closures join, `right` (L,), CPU seconds."""

    poses: F64
    ends: np.ndarray
    right: np.ndarray
    seconds: float


def example() -> ModuleType:
    """examples/kiss_slam.py."""
    spec = importlib.util.spec_from_file_location("places", Path(__file__).parents[1] / "examples" / "kiss_slam.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["places"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judged(made: Sequence, edges: list[tuple[int, int, F64]]) -> tuple[np.ndarray, np.ndarray]:
    """Ends (L, 2), and which (L,) are right, of `match, query, T_match_query` by numbers of scans."""
    truth = made.poses_to("bench")
    right = [is_right(*edge_error(T, truth[match], truth[query])) for match, query, T in edges]
    return np.array([edge[:2] for edge in edges], np.int64).reshape(-1, 2), np.array(right, bool)


def odometry(made: Sequence) -> dict[str, Result]:
    """kiss-icp as KISS-SLAM sets it."""
    from kiss_icp.kiss_icp import KissICP

    icp, poses, begin = KissICP(example().configuration().kiss_icp_config()), [], time.process_time()
    for points in tqdm(made.scans, desc="odometry", leave=False, disable=None):
        icp.register_frame(points[:, :3].astype(np.float64), np.empty(0))
        poses.append(icp.last_pose.copy())
    return {"odometry": Result(np.stack(poses), *judged(made, []), time.process_time() - begin)}


def kiss_slam(made: Sequence) -> dict[str, Result]:
    """As its own pipeline runs it."""
    from kiss_slam.slam import KissSLAM

    kiss, edges = example(), []
    slam, begin = KissSLAM(kiss.configuration()), time.process_time()
    compute = slam.closer.compute

    def remembered(*arguments: object) -> tuple[bool, int, int, F64]:
        good, source, target, T_target_source = compute(*arguments)
        if good:
            edges.append((int(target), int(source), np.array(T_target_source)))
        return good, source, target, T_target_source

    slam.closer.compute = remembered
    with kiss.quietly():
        for points in tqdm(made.scans, desc="KISS-SLAM", leave=False, disable=None):
            slam.process_scan(points[:, :3].astype(np.float64), np.empty(0))
    poses, seconds = kiss.finished(slam), time.process_time() - begin
    first = np.cumsum([0, *(len(one.local_trajectory) - 1 for one in slam.local_map_graph.local_maps())])
    scans = [(first[match], first[query], T) for match, query, T in edges]
    return {"KISS-SLAM": Result(poses, *judged(made, scans), seconds)}


def retro_slam(made: Sequence) -> dict[str, Result]:
    """As its own pipeline runs it; its closures as they stand in the graph that it writes."""
    from retro_slam.config import load_config
    from retro_slam.slam import RetroSLAM

    config = load_config(None)
    config.odometry.preprocessing.deskew = False
    slam, begin = RetroSLAM(config), time.process_time()
    for points in tqdm(made.scans, desc="Retro-SLAM", leave=False, disable=None):
        slam.process_scan(points[:, :3].astype(np.float64), np.empty(0))
    slam.exit()
    poses, seconds = slam.poses, time.process_time() - begin
    with tempfile.TemporaryDirectory() as folder:
        slam.write_pose_graph(f"{folder}/graph.g2o")
        lines = [line.split() for line in Path(folder, "graph.g2o").read_text().splitlines()]
    edges = [(int(line[1]), int(line[2]), np.array(line[3:10], float)) for line in lines if "EDGE" in line[0]]
    scans = [(i, j, from_quaternion(T[:3], T[3:])) for i, j, T in edges if abs(j - i) > 1]  # its nodes are the scans
    return {"Retro-SLAM": Result(poses, *judged(made, scans), seconds)}


def with_us(made: Sequence) -> dict[str, Result]:
    """KISS-SLAM with our loops; and our own pose graph with the same odometry and the same loops."""
    kiss, config = example(), RecognizerConfig(verification_budget=60.0)  # s, so that a busy machine changes nothing
    slam = kiss.PlacesInKissSLAM(kiss.configuration(), PlaceRecognizer.from_pretrained(config=config))
    begin = time.process_time()
    for points, stamp in zip(
        tqdm(made.scans, desc="with us", leave=False, disable=None), made.stamps_ns(), strict=True
    ):
        slam.process(points, stamp)
    slam_poses, seconds = slam.finish(), time.process_time() - begin
    index = {stamp: i for i, stamp in enumerate(made.stamps_ns())}
    ends, right = judged(
        made, [(index[one.match_stamp], index[one.query_stamp], one.T_match_query) for one in slam.loops]
    )
    begin = time.process_time()
    poses = our_graph(made.stamps_ns(), np.stack(slam.T_odom_base), slam.loops)
    ours = time.process_time() - begin
    return {
        "KISS-SLAM with us": Result(slam_poses, ends, right, seconds),
        "our pose graph": Result(poses, ends, right, seconds + ours),
    }


def our_graph(stamps: list[int], T_odom_base: F64, loops: list[LoopClosure]) -> F64:
    """T_map_base (S, 4, 4): each scan a node, each loop added when its keyframe is; jumps are found as in the node."""
    graph, by_query = LiveGraph(PoseGraphConfig()), {loop.query_stamp: loop for loop in loops}
    continuity, part = Continuity(), 0
    for stamp, T in zip(stamps, T_odom_base, strict=True):
        part += continuity.breaks_at(stamp, T)
        graph.add_node(stamp, T, part)
        if loop := by_query.get(stamp):
            keys = (0, loop.match_stamp), (0, loop.query_stamp)
            graph.add_loop(LoopEdge(*keys, loop.T_match_query, loop.covariance, loop.probability))
        graph.upkeep()
    graph.upkeep(60.0)
    return graph.poses()


METHODS: dict[tuple[str, ...], Callable[[Sequence], dict[str, Result]]] = {
    ("odometry",): odometry,
    ("KISS-SLAM",): kiss_slam,
    ("Retro-SLAM",): retro_slam,
    ("KISS-SLAM with us", "our pose graph"): with_us,
}
