#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""KISS-SLAM with our loops: `vlad_ros` in the place of its MapClosures, with our covariances in its pose graph.

    pip install kiss-slam==0.0.2                      # needs open3d; Debian: apt install libusb-1.0-0 libgl1
    python examples/kiss_slam.py SEQUENCE.npz
    python examples/kiss_slam.py BAG --points-topic /velodyne_points -o trajectory.tum

KISS-SLAM chains scans with kiss-icp, cuts the drive into local maps, and joins those in a g2o graph. Here each scan
goes into our recogniser as well, with the pose that kiss-icp gives it; each edge that it accepts is carried from its
two scans to their local maps, with the drift of the ways between, and enters KISS-SLAM's own graph.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
# or else kiss_slam would be this file

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from vlad_ros.config import EvaluationConfig, ExportConfig, RunConfig  # noqa: E402
from vlad_ros.covariance_conventions import g2o_information  # noqa: E402
from vlad_ros.evaluation.trajectory import aligned, rmse  # noqa: E402
from vlad_ros.graph.edge_formats import odometry_edges  # noqa: E402
from vlad_ros.graph.graph_file import write_tum  # noqa: E402
from vlad_ros.graph.node_edges import compose  # noqa: E402
from vlad_ros.loops.described import Described  # noqa: E402
from vlad_ros.pipeline import PlaceRecognizer  # noqa: E402
from vlad_ros.poses import inverse  # noqa: E402
from vlad_ros.runs.sources import open_source  # noqa: E402
from vlad_ros.types import F64, LoopClosure  # noqa: E402

try:
    from kiss_slam.config import KissSLAMConfig, load_config
    from kiss_slam.pose_graph_optimizer import PoseGraphOptimizer
    from kiss_slam.slam import KissSLAM
except ModuleNotFoundError as error:
    remedy = "pip install kiss-slam==0.0.2 (it needs open3d; Debian: apt install libusb-1.0-0 libgl1)"
    raise ModuleNotFoundError(f"examples/kiss_slam.py needs KISS-SLAM: {remedy}") from error

SPLITTING = 20.0  # m of a local map, 100 in KISS-SLAM: our loops join scans, and a node near a scan hears them better


def configuration() -> KissSLAMConfig:
    """KISS-SLAM's own defaults, for scans whose points have no times."""
    config = load_config(None)
    config.odometry.preprocessing.deskew = False
    return config


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """KISS-SLAM prints each closure that it looks at."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def drift(T: F64) -> F64:
    """Covariance (6, 6) of odometry over the way `T`, on its left, as `vlad export` writes it."""
    return odometry_edges(np.stack([np.eye(4), T]), np.zeros(2, int), ExportConfig())[0].covariance


def finished(slam: KissSLAM) -> F64:
    """T_map_base (S, 4, 4) of all scans, as KISS-SLAM's own pipeline ends a drive."""
    with quietly():
        slam.generate_new_node()
        slam.local_map_graph.erase_last_local_map()
        return np.stack(slam.fine_grained_optimization()[0])


class Weighed(PoseGraphOptimizer):
    """KISS-SLAM gives its odometry the identity for information, whatever its length; here it is as sure as it is."""

    def add_factor(self, source: int, target: int, T_target_source: F64, information: F64) -> None:
        """A factor between two local maps, with g2o's information (6, 6)."""
        if np.array_equal(information, np.eye(6)):
            information = g2o_information(drift(T_target_source), T_target_source)
        super().add_factor(source, target, T_target_source, information)


class PlacesInKissSLAM(KissSLAM):
    """KISS-SLAM whose loops come from `recognizer`: feed `process`, then take `finish`.

    `T_odom_base`: of each scan, by odometry alone; `loops`: what the recogniser accepted.
    """

    def __init__(self, config: KissSLAMConfig, recognizer: PlaceRecognizer) -> None:
        super().__init__(config)
        self.local_map_splitting_distance = SPLITTING
        self.optimizer = Weighed(config.pose_graph_optimizer)
        self.optimizer.add_variable(0, np.eye(4))
        self.optimizer.fix_variable(0)
        self.recognizer = recognizer
        self.T_odom_base: list[F64] = []
        self.loops: list[LoopClosure] = []
        self._T_odom_map = np.eye(4)  # where the current local map begins, by odometry alone
        self._seen: dict[int, tuple[int, F64]] = {}  # stamp -> local map, T_map_base in it

    def compute_closures(self, query_id: int, query: F64) -> None:
        """Nothing: MapClosures is not asked when a local map ends, loops enter when their keyframes are described."""

    def process(self, points: np.ndarray, stamp: int) -> None:
        """A scan (N, >= 3) [m] at `stamp` [ns]. ValueError as of `PlaceRecognizer.step`."""
        here = self.local_map_graph.last_local_map
        with quietly():
            self.process_scan(points[:, :3].astype(np.float64), np.empty(0))
        T_map_base = here.local_trajectory[-1]
        self._seen[stamp] = int(here.id), T_map_base
        self.T_odom_base.append(self._T_odom_map @ T_map_base)
        if self.local_map_graph.last_local_map is not here:  # the scan was the last one of its local map
            self._T_odom_map = self.T_odom_base[-1]
        self._add(self.recognizer.step(points, stamp, T_odom_base=self.T_odom_base[-1]))

    def finish(self) -> F64:
        """T_map_base (S, 4, 4) of all scans, with the last keyframes' loops."""
        self._add(self.recognizer.finish())
        return finished(self)

    def _add(self, described: list[Described]) -> None:
        """Add the accepted loops of these keyframes to the graph, and optimise it."""
        loops = [loop for one in described for loop in one.closures if loop.accepted]
        self.loops += loops
        joined = [loop for loop in loops if self._join(loop)]
        if joined:
            with quietly():
                self.optimize_pose_graph()

    def _join(self, loop: LoopClosure) -> bool:
        """Carry a loop from its scans to their local maps; False where both are in one."""
        (match, T_map_match), (query, T_map_query) = self._seen[loop.match_stamp], self._seen[loop.query_stamp]
        if match == query or loop.T_match_query is None or loop.covariance is None:
            return False
        T_query_map = inverse(T_map_query)
        covariances = drift(T_map_match), loop.covariance, drift(T_query_map)
        T, covariance = compose(T_map_match, loop.T_match_query, T_query_map, covariances)
        self.optimizer.add_factor(query, match, T, g2o_information(covariance, T))
        self.closures.append((match, query))
        return True


def main(argv: list[str] | None = None) -> int:
    """Exit status 2 for a source that cannot be read."""
    parser = argparse.ArgumentParser(description="KISS-SLAM with our loops in the place of its own.")
    parser.add_argument("source", help="SEQUENCE.npz or rosbag2")
    parser.add_argument("-o", "--out", default="kiss_slam.tum", help="trajectory (TUM; default: kiss_slam.tum)")
    parser.add_argument("--points-topic", default=RunConfig.points_topic, help="topic of the clouds in a bag")
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    args = parser.parse_args(argv)
    try:
        config = RunConfig(points_topic=args.points_topic, odometry=False)
        source = open_source(args.source, config, EvaluationConfig())
        slam = PlacesInKissSLAM(configuration(), PlaceRecognizer.from_pretrained(args.weights))
        stamps, truth = [], []
        for scan in tqdm(source.scans, total=source.count, unit="scan", file=sys.stderr, disable=None):
            slam.process(scan.points, scan.stamp)
            stamps.append(scan.stamp)
            truth.append(scan.T_world_base)
        poses = slam.finish()
        write_tum(args.out, np.array(stamps), poses)
    except ValueError as error:
        print(f"kiss_slam.py: {error}", file=sys.stderr)
        return 2
    print(f"{source.name}: {len(poses)} scans, {len(slam.local_map_graph.graph)} local maps, {len(slam.loops)} loops")
    known = [T for T in truth if T is not None]
    if len(known) == len(poses):
        print(f"RMSE     {rmse(aligned(poses, np.stack(known)), np.stack(known)):.2f} m")
    print(f"poses    {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
