#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trajectories of whole SLAM systems side by side: odometry alone, KISS-SLAM, KISS-SLAM with our loops, our pose graph.

    pip install kiss-slam==0.0.2 retro-slam==0.0.1    # kiss-slam needs open3d; Debian: apt install libusb-1.0-0 libgl1
    python bench/slam_table.py --out slam_table       # an hour or two; run it again and it goes on where it was
    python bench/slam_table.py --out slam_table --draw street docs/slam_street.png

Six simulated drives of about 700 m through the first worlds from seed 7000 on that have the route, and `loop_mid360`
from the folder that VLAD_DATA names. All systems get the same scans and nothing else, with the settings that they
come with; none is deskewed. RMSE is of all scans, after a rigid alignment. A closure is right within 1 m and 5 degrees
of the true poses of the two scans that it joins: in KISS-SLAM and Retro-SLAM those that begin their maps, in ours the
keyframes. The CPU seconds are of all threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from table import markdown, write_csv
from tqdm import tqdm

from vlad_ros.atomic import replacing
from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation.edges import edge_error, is_right
from vlad_ros.evaluation.trajectory import aligned, rmse, rmse_degrees
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.graph.pose_graph import LiveGraph, LoopEdge
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.plots import style
from vlad_ros.poses import from_quaternion
from vlad_ros.simulation.aliased_drives import aliased_drive
from vlad_ros.simulation.routes import make_drive
from vlad_ros.simulation.sensors import dome, spinning
from vlad_ros.types import F64, LoopClosure

SEED, SPACING, SPEED = 7000, 2.0, 6.0  # m, m/s
SPIN = spinning(16, 450)
AROUND = {"spacing": SPACING, "length": 350.0, "revisits": ("opposite",)}
HALLS = {"spacing": SPACING, "length": 70.0, "revisits": ("opposite", "same") * 4, "shape": "line"}
KINDS: dict[str, Callable[[int], Sequence]] = {
    "street": lambda seed: make_drive("street", seed, seed=seed, sensor=SPIN, **AROUND),
    "park": lambda seed: make_drive("park", seed, seed=seed, sensor=dome(), **AROUND),
    "blocks": lambda seed: aliased_drive("blocks", seed, sensor=SPIN, loops=True, spacing=SPACING, length=230.0),
    "campus": lambda seed: make_drive("campus", seed, seed=seed, sensor=SPIN, **AROUND),
    "carpark": lambda seed: make_drive("carpark", seed, seed=seed, sensor=SPIN, **HALLS),
    "indoor": lambda seed: make_drive("indoor", seed, seed=seed, sensor=dome(), **HALLS),
}
REAL = "loop_mid360"


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A system on a drive: `poses` (S, 4, 4), `ends` (L, 2) the scans that closures join, `right` (L,), CPU seconds."""

    poses: F64
    ends: np.ndarray
    right: np.ndarray
    seconds: float


def drive(name: str, folder: Path) -> Sequence:
    """The drive, made once and kept in the folder; SystemExit where it is not to be had."""
    if name == REAL:
        return load_sequence(Path(os.environ.get("VLAD_DATA", ".")) / f"{REAL}.npz")
    path = folder / f"{name}.npz"
    for seed in range(SEED, SEED + 20):
        if path.exists():
            break
        try:
            made = KINDS[name](seed)
        except ValueError:
            continue
        stamps = 1.0 + path_length(made.poses_to("bench")) / SPEED
        made = dataclasses.replace(made, stamps=stamps + 1e-3 * np.arange(len(stamps)))  # turns on the spot take time
        save_sequence(path, made)
        (folder / f"{name}.txt").write_text(f"seed {seed}, {path_length(made.poses_to('bench'))[-1]:.0f} m\n")
    return load_sequence(path)


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
    edges = {(int(line[1]), int(line[2])): np.array(line[3:10], float) for line in lines if "EDGE" in line[0]}  # T_i_j
    keys = [int(np.argmin(np.linalg.norm(poses[:, :3, 3] - T[:3, 3], axis=1))) for T in slam.keyposes]
    scans = []
    for closure in slam.loop_closures:
        a, b = closure.ref_scan_id, closure.query_scan_id
        i, j = (a, b) if (a, b) in edges else (b, a)
        scans.append((keys[i], keys[j], from_quaternion(edges[i, j][:3], edges[i, j][3:])))
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
    """T_map_base (S, 4, 4): each scan a node, each loop added when its keyframe is."""
    graph, by_query = LiveGraph(PoseGraphConfig()), {loop.query_stamp: loop for loop in loops}
    for stamp, T in zip(stamps, T_odom_base, strict=True):
        graph.add_node(stamp, T)
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


def kept(folder: Path, name: str, system: str) -> Path:
    """The file of a system's result on a drive."""
    return folder / f"{name}, {system}.npz"


def read(path: Path) -> Result:
    """A result from its file."""
    with np.load(path, allow_pickle=False) as data:
        return Result(data["poses"], data["ends"], data["right"], float(data["seconds"]))


def run(name: str, folder: Path) -> list[dict[str, object]]:
    """The rows of a drive; what has no result yet is run, and left out where it is not installed."""
    made, rows = drive(name, folder), []
    for systems, method in METHODS.items():
        if not all(kept(folder, name, system).exists() for system in systems):
            try:
                results = method(made)
            except ModuleNotFoundError as error:
                tqdm.write(f"{', '.join(systems)}: left out, {error}", file=sys.stderr)
                continue
            for system, result in results.items():
                with replacing(kept(folder, name, system)) as temporary, open(temporary, "wb") as file:
                    np.savez_compressed(file, **dataclasses.asdict(result))
        rows += [row(name, system, made, read(kept(folder, name, system))) for system in systems]
    return rows


def row(name: str, system: str, made: Sequence, result: Result) -> dict[str, object]:
    """A row of the table."""
    truth = made.poses_to("bench")
    return {
        "drive": name,
        "system": system,
        "RMSE [m]": f"{rmse(aligned(result.poses, truth), truth):.2f}",
        "[deg]": f"{rmse_degrees(result.poses, truth):.2f}",
        "right": int(result.right.sum()),
        "wrong": int((~result.right).sum()),
        "CPU [s]": round(result.seconds),
    }


def draw(name: str, folder: Path, path: Path) -> None:
    """The trajectories from above, with their closures, each beside the true one; from the results in the folder."""
    made = drive(name, folder)
    truth = made.poses_to("bench")
    there = [system for systems in METHODS for system in systems if kept(folder, name, system).exists()]
    figure, axes = plt.subplots(1, len(there), figsize=(3.6 * len(there), 4.4), layout="constrained", squeeze=False)
    for ax, system in zip(axes[0], there, strict=True):
        result = read(kept(folder, name, system))
        xy = aligned(result.poses, truth)[:, :2]
        ax.plot(*truth[:, :2, 3].T, color=style.GREY, lw=4.0, alpha=0.6)
        for right, colour in ((True, style.TRUE), (False, style.FALSE)):
            lines = xy[result.ends[result.right == right]]
            ax.add_collection(LineCollection(lines, colors=colour, linewidths=1.0, zorder=3))
        ax.plot(*xy.T, color=style.BLACK, lw=1.2)
        error = rmse(aligned(result.poses, truth), truth)
        ax.set(title=f"{system}\n{error:.2f} m", aspect="equal", adjustable="datalim", xlabel="x [m]")
    axes[0, 0].set_ylabel("y [m]")
    handles = [
        Line2D([], [], color=style.GREY, lw=4.0, alpha=0.6, label="true"),
        Line2D([], [], color=style.BLACK, lw=1.2, label="estimated"),
        Line2D([], [], color=style.TRUE, label="right closure"),
        Line2D([], [], color=style.FALSE, label="wrong closure"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    style.save(figure, path)
    plt.close(figure)


def main() -> None:
    """Print the table in Markdown, and keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("slam_table"), help="folder of drives, results, table.csv")
    parser.add_argument("--drives", nargs="+", choices=(*KINDS, REAL), default=[*KINDS, REAL])
    parser.add_argument("--draw", nargs=2, metavar=("DRIVE", "FILE.png"), help="only the picture of a drive")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.draw:
        draw(args.draw[0], args.out, Path(args.draw[1]))
        return
    rows: list[dict[str, object]] = []
    for name in args.drives:
        rows += run(name, args.out)
        write_csv(args.out / "table.csv", rows)
    print(markdown(rows))


if __name__ == "__main__":
    main()
