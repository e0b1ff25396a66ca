#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A whole small SLAM: LiDAR odometry, the node's loop edges, a pose graph, and the trajectory before and after.

    python examples/slam.py                          # a simulated drive
    python examples/slam.py SEQUENCE.npz             # or any sequence file
    python examples/slam.py BAG --points-topic /velodyne_points --offline

`kiss-icp` chains scan after scan, so its trajectory drifts. Clouds and odometry go into a bag, the bag into the node,
as on a robot; `--offline` takes the same recogniser without ROS. `gtsam` then brings the node's edges and the odometry
together. Plain least squares: no robust kernel, no outlier rejection.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from tqdm import tqdm

from vlad_ros.commands.demo import prepare
from vlad_ros.config import EvaluationConfig, ExportConfig, ImportConfig, RunConfig
from vlad_ros.evaluation.trajectory import aligned, rmse
from vlad_ros.files.bags import StampedScan, write_bag
from vlad_ros.graph.edge_formats import GraphEdge, PoseGraph, odometry_edges, write_graph
from vlad_ros.plots import style
from vlad_ros.runs.sources import PlayedScan, Source, open_source
from vlad_ros.types import F64

LENGTH, SPACING, SPEED = 500.0, 2.0, 8.0  # m, m, m/s of the simulated drive
SIGHT = 50.0  # m that odometry sees of it; with all of the blocks in its map it would close the loop by itself

LINES: dict[str, dict[str, Any]] = {  # how the picture draws each trajectory
    "true": {"color": style.GREY, "lw": 4.0, "alpha": 0.6},
    "before": {"color": style.VERMILION, "lw": 1.5, "ls": "--"},
    "after": {"color": style.BLUE, "lw": 1.5},
}


@dataclass(frozen=True, eq=False)
class Loop:
    """An accepted edge between the scans of two stamps [ns]."""

    match: int
    query: int
    T_match_query: F64
    covariance: F64


def progress(scans: Iterator[PlayedScan], source: Source, what: str) -> Iterator[PlayedScan]:
    """The scans, with a bar where a person is looking."""
    return iter(tqdm(scans, total=source.count, unit="scan", desc=what, file=sys.stderr, disable=None))


def simulated(seed: int) -> Source:
    """Once around some blocks of a town, and back the other way, with a 16-beam sensor."""
    from vlad_ros.simulation.routes import make_drive
    from vlad_ros.simulation.sensors import spinning

    drive = make_drive(
        "street",
        seed,
        sensor=spinning(16, 450),
        seed=seed,
        spacing=SPACING,
        revisits=("opposite",),
        lateral_offset=1.0,
        length=LENGTH,
    )
    stamps = np.round((1.0 + np.arange(len(drive)) * SPACING / SPEED) * 1e9).astype(np.int64).tolist()
    truth = np.empty((0, 4, 4)) if drive.poses is None else drive.poses
    scans = (PlayedScan(*each) for each in zip(stamps, drive.scans, [None] * len(drive), truth, strict=True))
    return Source(drive.name, "none", len(drive), iter(scans), Counter())


class Odometry:
    """kiss-icp over scans without times of their points; remembers stamps, poses and true poses as they pass. It looks
    `max_range` metres far, where None as far as it does by default, and begins with the speed of `step` metres a
    scan."""

    def __init__(self, max_range: float | None = None, step: float = 0.0) -> None:
        from kiss_icp.config import KISSConfig
        from kiss_icp.kiss_icp import KissICP

        config = KISSConfig()
        config.data.deskew = False
        config.data.max_range = max_range or config.data.max_range
        config.mapping.voxel_size = 1.0  # m, as kiss-icp chooses it itself for most sensors
        self._icp = KissICP(config)
        self._icp.last_delta[0, 3] = step
        self.stamps: list[int] = []
        self.poses: list[F64] = []
        self.truth: list[F64 | None] = []

    def register(self, source: Source) -> Iterator[StampedScan]:
        """The scans of `source`, each with where odometry puts it."""
        for scan in progress(source.scans, source, "odometry"):
            self._icp.register_frame(scan.points[:, :3].astype(np.float64), np.empty(0))
            self.stamps.append(scan.stamp)
            self.poses.append(self._icp.last_pose.copy())
            self.truth.append(scan.T_world_base)
            yield StampedScan(scan.stamp, scan.points, self.poses[-1])


def loops_of_the_node(bag: Path, folder: Path, weights: str | None, rate: float) -> list[Loop]:
    """Play the bag to the node, in a process of its own, and hear the edges that it announces."""
    from vlad_ros.covariance_conventions import from_upper_triangle
    from vlad_ros.ros.outputs.messages import COVARIANCE, stamps_of, transform_of
    from vlad_ros.ros.tools.demo_session import listen

    loops: list[Loop] = []

    def hear(stamp: int, rows: np.ndarray) -> None:
        accepted = rows[rows["accepted"] == 1]
        if len(accepted):  # one edge a keyframe, the most probable: the others see the same scan
            row = accepted[0]
            covariance = from_upper_triangle(np.array([row[name] for name in COVARIANCE]))
            loops.append(Loop(stamps_of(row)[1], stamp, transform_of(row), covariance))

    parameters = {"weights": str(Path(weights).resolve())} if weights else {}
    _, lost = listen(bag, folder, hear, parameters, rate, tqdm.write)
    if lost:
        print(f"{lost} messages were lost: close other programs, or play more slowly (--rate 0.5)", file=sys.stderr)
    return loops


def loops_offline(bag: Path, folder: Path, weights: str | None) -> list[Loop]:
    """The same without ROS: `vlad run` of the bag, and the edges in the folder that it leaves."""
    from vlad_ros.pipeline import PlaceRecognizer
    from vlad_ros.runs.player import play

    config, judge = RunConfig(), EvaluationConfig()
    source = open_source(bag, config, judge)
    recognizer = PlaceRecognizer.from_pretrained(weights)
    closures = play(
        recognizer, source, folder / "run", config, judge, lambda scans: progress(scans, source, "places")
    ).closures
    accepted = np.flatnonzero(closures.accepted)
    _, first = np.unique(closures.query[accepted], return_index=True)  # the most probable one of each keyframe
    stamps = closures.match_stamp.tolist(), closures.query_stamp.tolist()
    return [
        Loop(stamps[0][k], stamps[1][k], closures.T_match_query[k], closures.covariance[k]) for k in accepted[first]
    ]


def optimise(odometry: Odometry, loops: list[Loop], folder: Path) -> F64:
    """Poses (S, 4, 4) that agree best with odometry and loops, the first scan's held where it is.

    Every scan is a node. The graph goes through the file that `vlad export --format gtsam` would write.
    """
    import gtsam

    index = {stamp: i for i, stamp in enumerate(odometry.stamps)}
    edges = [GraphEdge(index[loop.match], index[loop.query], loop.T_match_query, loop.covariance) for loop in loops]
    poses = np.stack(odometry.poses)
    chain = odometry_edges(poses, np.zeros(len(poses), int), ExportConfig())
    write_graph(folder / "graph.g2o", PoseGraph(poses, chain, edges), "gtsam")
    graph, initial = gtsam.readG2o(str(folder / "graph.g2o"), True)
    graph.add(gtsam.PriorFactorPose3(0, initial.atPose3(0), gtsam.noiseModel.Isotropic.Sigma(6, 1e-4)))
    result = gtsam.LevenbergMarquardtOptimizer(graph, initial).optimize()
    return np.stack([result.atPose3(i).matrix() for i in range(len(poses))])


def write_results(folder: Path, odometry: Odometry, optimised: F64, loops: list[Loop]) -> dict[str, float | int]:
    """trajectory.csv, loops.csv and metrics.json; the picture is made from these. Returns the metrics."""
    before, after = np.stack(odometry.poses), optimised
    known = [T for T in odometry.truth if T is not None]
    columns: list[F64] = [before[:, :3, 3], after[:, :3, 3]]
    metrics: dict[str, float | int] = {"scans": len(before), "loops": len(loops)}
    if len(known) == len(before):
        truth = np.stack(known)
        columns = [aligned(before, truth), aligned(after, truth), truth[:, :3, 3]]
        metrics |= {"rmse_before_m": rmse(columns[0], truth), "rmse_after_m": rmse(columns[1], truth)}
    names = [f"{name}_{axis}_m" for name in ("before", "after", "true")[: len(columns)] for axis in "xyz"]
    with open(folder / "trajectory.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["stamp_ns", *names])
        table.writerows([s, *r] for s, r in zip(odometry.stamps, np.hstack(columns).round(4).tolist(), strict=True))
    with open(folder / "loops.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["match_stamp_ns", "query_stamp_ns"])
        table.writerows([loop.match, loop.query] for loop in loops)
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    return metrics


def draw(folder: Path) -> None:
    """slam.png from the saved files: from above, the height, and how far both are off, over the drive."""
    with open(folder / "trajectory.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "loops.csv", newline="") as file:
        ends = [(int(r["match_stamp_ns"]), int(r["query_stamp_ns"])) for r in csv.DictReader(file)]
    metrics = json.loads((folder / "metrics.json").read_text())
    names = [name for name in LINES if f"{name}_x_m" in rows[0]]
    xyz = {name: np.array([[float(r[f"{name}_{axis}_m"]) for axis in "xyz"] for r in rows]) for name in names}
    index = {int(r["stamp_ns"]): i for i, r in enumerate(rows)}
    seconds = (np.array(list(index)) - min(index)) * 1e-9
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 5.4), layout="constrained")
    edges = [xyz["after"][[index[match], index[query]], :2] for match, query in ends]
    axes[0].add_collection(LineCollection(edges, colors=style.ORANGE, linewidths=1.0))
    for name in names:
        axes[0].plot(*xyz[name][:, :2].T, **LINES[name])
        axes[1].plot(seconds, xyz[name][:, 2], **LINES[name])
    axes[0].plot(*xyz["after"][0, :2], color="black", marker="^", ms=8, ls="none")
    axes[0].set(title="from above", xlabel="x [m]", ylabel="y [m]", aspect="equal", adjustable="datalim")
    axes[1].set(title="height", xlabel="time [s]", ylabel="z [m]")
    if "true" in names:
        for name in ("before", "after"):
            axes[2].plot(seconds, np.linalg.norm(xyz[name] - xyz["true"], axis=1), **LINES[name])
        title = f"RMSE {metrics['rmse_before_m']:.2f} m before, {metrics['rmse_after_m']:.2f} m after"
        axes[2].set(title=title, xlabel="time [s]", ylabel="distance from the true position [m]", ylim=(0, None))
    handles = [Line2D([], [], **LINES[name], label=name) for name in names]
    handles.append(Line2D([], [], color=style.ORANGE, lw=1.0, label=f"{len(edges)} loop edges"))
    handles.append(Line2D([], [], color="black", marker="^", ms=8, ls="none", label="start"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    style.save(figure, folder / "slam.png")
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Exit status 1 where no loop was announced."""
    parser = argparse.ArgumentParser(description="LiDAR odometry, loop edges and a pose graph, before and after.")
    parser.add_argument("source", nargs="?", help="SEQUENCE.npz or rosbag2; a simulated drive when left out")
    parser.add_argument("--out", default="slam", help="folder of the results; replaced (default: slam)")
    parser.add_argument("--points-topic", default=RunConfig.points_topic, help="topic of the clouds in a bag")
    parser.add_argument("--offline", action="store_true", help="the recogniser without ROS instead of the node")
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    parser.add_argument("--rate", type=float, default=1.0, help="the node hears the bag this much faster")
    parser.add_argument("--seed", type=int, default=1, help="which town and drive are simulated")
    args = parser.parse_args(argv)
    folder = Path(args.out)
    try:
        prepare(folder)
        config = RunConfig(points_topic=args.points_topic, odometry=False)
        source = open_source(args.source, config, EvaluationConfig()) if args.source else simulated(args.seed)
        odometry = Odometry() if args.source else Odometry(SIGHT, SPACING)  # the simulation begins at full speed
        write_bag(folder / "bag", odometry.register(source), ImportConfig())
        if args.offline:
            loops = loops_offline(folder / "bag", folder, args.weights)
        else:
            loops = loops_of_the_node(folder / "bag", folder, args.weights, args.rate)
    except (ValueError, RuntimeError) as error:
        print(f"slam.py: {error}", file=sys.stderr)
        return 2
    metrics = write_results(folder, odometry, optimise(odometry, loops, folder), loops)
    draw(folder)
    print(f"{source.name}: {metrics['scans']} scans, {metrics['loops']} loop edges")
    if "rmse_after_m" in metrics:
        print(f"RMSE     {metrics['rmse_before_m']:.2f} m before, {metrics['rmse_after_m']:.2f} m after")
    print(f"picture  {folder / 'slam.png'}")
    return 0 if loops else 1


if __name__ == "__main__":
    sys.exit(main())
