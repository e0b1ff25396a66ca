# SPDX-License-Identifier: Apache-2.0
"""`vlad demo`: a simulated drive with revisits in both directions, through the real nodes, in two minutes."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlad_ros.commands.demo_drive import JudgedEdge, Summary, Truth


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folder, weights, speed and seed."""
    parser.add_argument(
        "--out", default="demo", metavar="FOLDER", help="folder of the results, replaced (default: demo)"
    )
    parser.add_argument("--weights", metavar="FILE", help="weights file; the shipped ones when left out")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded speed (default: 1.0)")
    parser.add_argument("--seed", type=int, default=1, help="which town and drive (default: 1)")


def run(args: argparse.Namespace) -> int:
    """Exit status 1 where nothing was announced or messages were lost."""
    from vlad_ros.commands import demo_drive as demo
    from vlad_ros.model.weights import read_metadata
    from vlad_ros.plots.demo import draw

    began = time.monotonic()
    sha256 = read_metadata(args.weights).sha256
    folder = Path(args.out)
    prepare(folder)
    print("simulating a drive: around the blocks, the same way again, and back in the opposite direction")
    drive = demo.simulate(args.seed)
    odometry = demo.write_drive(drive, folder / "bag")
    print(f"{folder / 'bag'}: {len(drive)} scans, rosbag2 (mcap)")
    truth, tum = demo.Truth(drive), _trajectory_file(folder)
    summary = _listen(args, folder, truth, tum)
    corrected = demo.compare(truth, odometry, tum) if tum else None
    demo.write_results(folder, truth, summary, sha256, args.seed, corrected)
    draw(folder, folder / "demo.png")
    lines = [*summary.lines(), *([corrected.line()] if corrected else [])]
    print("\n".join([*lines, f"picture    {folder / 'demo.png'}, after {time.monotonic() - began:.0f} s"]))
    if summary.lost:
        print("the node lost messages: close other programs, or play more slowly (--rate 0.5)", file=sys.stderr)
    elif not summary.edges:
        print("no loop was announced", file=sys.stderr)
    return 0 if summary.edges and summary.lost == 0 else 1


def _listen(args: argparse.Namespace, folder: Path, truth: Truth, tum: Path | None) -> Summary:
    """Play the bag into the nodes, and judge what they announce."""
    from tqdm import tqdm

    from vlad_ros.commands import demo_drive as demo
    from vlad_ros.ros.outputs.messages import stamps_of, transform_of
    from vlad_ros.ros.tools.demo_session import listen

    edges: list[JudgedEdge] = []

    def hear(stamp: int, rows: Any) -> None:
        accepted = [
            truth.edge(*stamps_of(row), float(row["probability"]), transform_of(row)) for row in rows if row["accepted"]
        ]
        if accepted:
            tqdm.write(accepted[0].sentence(len(accepted) - 1))
        edges.extend(accepted)

    parameters = {"weights": str(Path(args.weights).resolve())} if args.weights else {}
    try:
        keyframes, lost = listen(folder / "bag", folder, hear, parameters, args.rate, tqdm.write, tum)
    except RuntimeError as error:  # a node did not start, and its log says why
        raise ChildProcessError(str(error)) from error
    return demo.summarise(truth, keyframes, edges, lost)


def _trajectory_file(folder: Path) -> Path | None:
    """Where the pose graph is to leave its trajectory; None, and said, where it cannot run."""
    from vlad_ros.graph.smoother import find_gtsam

    try:
        find_gtsam()
    except ValueError as error:
        print(f"without the trajectory: {error}")
        return None
    return folder / "trajectory.tum"


def prepare(folder: Path) -> None:
    """Empty the folder, and choose a DDS domain of this process, so that no robot nearby hears the demo."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "bag").exists():
        raise ValueError(f"{folder} is not empty and not an earlier demo's; name another folder with --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_LOG_DIR", str(folder.resolve() / "ros"))
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
