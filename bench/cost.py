#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the whole node costs: CPU seconds of its process a kilometre and a keyframe, memory, and the time to start.

    python bench/cost.py --rows simulated                                  # a simulated drive of 120,000-point scans
    VLAD_DATA=folder python bench/cost.py                                  # all rows
    python bench/cost.py --rows simulated --tree ../before                 # beside another checkout's node
    python bench/cost.py --rows simulated --scans 50 --param keyframe_distance=2.0

The node runs in a process of its own, as the launch file starts it (OMP_WAIT_POLICY=PASSIVE), and hears the drive over
DDS at its recorded pace, as from a robot's drivers: no simulated clock, nothing acknowledged. Its queue is so long that
what it does not manage in time it does later. CPU is the process' own user and system time from the first scan until
it is deactivated, so that other programs disturb it little. With --starts the first start, which compiles, is measured
too, into an empty cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from table import markdown, write_csv
from tqdm import tqdm

from vlad_ros.config import EvaluationConfig, ImportConfig, ReplayConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.files.bags import sequence_scans, write_bag
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.simulation.routes import Route, plan_route, record
from vlad_ros.simulation.sensors import spinning
from vlad_ros.simulation.worlds import make_world

ROOT = Path(__file__).resolve().parent.parent
KEPT = Path(tempfile.gettempdir()) / "vlad_ros_bench"  # the simulated drive, for the next time
REAL = {"kitti00": "kitti00_hdl64.npz", "loop_mid360": "loop_mid360.npz"}
ROWS = (*REAL, "simulated")
SPEED = 10.0  # m/s, of kitti00, whose scans have no stamps
SPACING, PERIOD = 1.5, 0.375  # m and s between the simulated scans: a lap takes longer than exclude_time
COLUMNS = 2000  # of 64 beams: 120,000 points on average
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 3600.0  # s to work off what waits
ACTIVE = re.compile(r"\[(\d+\.\d+)\] \[vlad\]: active$", re.MULTILINE)
DIGITS = {"CPU [s]": 1, "CPU [s/km]": 1, "CPU [ms/keyframe]": 0, "wall [s]": 0, "MiB at start": 0, "MiB at most": 0}
DIGITS |= {"start [s]": 1, "first start [s]": 1}


@dataclass(frozen=True)
class Tree:
    """A checkout of the project whose node is measured."""

    path: Path

    @property
    def commit(self) -> str:
        """Its abbreviated commit; "?" where git knows none."""
        git = ["git", "-C", str(self.path), "describe", "--always", "--dirty"]
        return subprocess.run(git, capture_output=True, text=True).stdout.strip() or "?"

    def imported(self) -> str:
        """The file that a process started in it imports the package from."""
        say = [sys.executable, "-c", "import vlad_ros; print(vlad_ros.__file__)"]
        environment = {**os.environ, **self.environment}
        return subprocess.run(say, cwd=self.path, env=environment, capture_output=True, text=True).stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        """What makes a child process import from it."""
        return {"PYTHONPATH": str(self.path)}


def simulated(scans: int) -> Sequence:
    """Two laps around the blocks of a town, 120,000 points a scan, or the first `scans` of them; made once."""
    path = KEPT / f"drive_{COLUMNS}_{scans or 'all'}.npz"
    if not path.exists():
        KEPT.mkdir(exist_ok=True)
        world = make_world("street", 1, size=300.0)
        route = plan_route(world, 1, SPACING, ("same",), 2.0, 140.0)
        part = Route(route.poses[: scans or None], route.leg[: scans or None])
        drive = record(world, part, 1, spinning(64, COLUMNS), SPACING, path.stem, revisits=1)
        save_sequence(path, replace(drive, stamps=1.0 + PERIOD * np.arange(len(drive))))
    return load_sequence(path)


def travel(drive: Sequence) -> np.ndarray:
    """Metres along the drive (S,)."""
    steps = np.linalg.norm(np.diff(drive.poses_to("measure")[:, :3, 3], axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def drive_of(row: str, scans: int) -> Sequence:
    """The row's first `scans` scans (0: all), stamped."""
    drive = load_sequence(Path(os.environ["VLAD_DATA"]) / REAL[row]) if row in REAL else simulated(scans)
    if row == "kitti00":
        drive = replace(drive, stamps=1.0 + travel(drive) / SPEED)
    if scans and drive.poses is not None and drive.stamps is not None:
        drive = Sequence(drive.name, drive.scans[:scans], drive.poses[:scans], drive.stamps[:scans])
    return drive


def bag_of(drive: Sequence, folder: Path) -> Path:
    """The drive as a bag, with drifting odometry."""
    noise, config, path = EvaluationConfig(), ImportConfig(), folder / "bag"
    odometry = drifting_odometry(drive.poses_to("measure"), noise.drift_scale, noise.drift_yaw, noise.seed)
    write_bag(path, sequence_scans(drive, config.rate, odometry), config)
    return path


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int, line: str) -> float:
    """MiB: VmRSS, what is resident, or VmHWM, the most that was."""
    found = re.search(rf"^{line}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")


@contextlib.contextmanager
def running(
    tree: Tree, folder: Path, parameters: dict[str, Any], extra: dict[str, str], paced: bool = False
) -> Iterator[tuple[Any, ...]]:
    """A client, the active node of `tree`, and the seconds it took to become active; only a `paced` one tells a replay
    what it has taken."""
    from vlad_ros.ros.environment import RUNTIME, dds_profile
    from vlad_ros.ros.outputs.taken import TOPIC
    from vlad_ros.ros.tools.node_client import NodeClient
    from vlad_ros.ros.tools.node_process import NodeProcess, node_command

    environment = RUNTIME | dds_profile() | tree.environment | extra
    argv = node_command({"queue_size": 1000, **parameters}) + ([] if paced else ["-r", f"~/{TOPIC}:=/unheard"])
    with NodeClient() as watch:
        log = Path(tempfile.mkdtemp(dir=folder)) / "node.log"
        began = time.time()
        with NodeProcess(argv, environment, log, tree.path) as node:
            watch.wait_active(node)
            said = ACTIVE.search(log.read_text())
            yield watch, node, float(said[1]) - began if said else float("nan")


def measure(tree: Tree, drive: Sequence, bag: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The cells of a row."""
    from vlad_ros.ros.tools import replay
    from vlad_ros.ros.tools.demo_session import losses

    cells: dict[str, Any] = {}
    extra: dict[str, str] = {}
    if args.starts:
        extra["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=bag.parent)
        with running(tree, bag.parent, args.param, extra) as (_, _, seconds):
            cells["first start [s]"] = seconds
    with running(tree, bag.parent, args.param, extra) as (watch, node, seconds):
        pid = node.process.pid
        start, before, began = memory(pid, "VmRSS"), cpu_seconds(pid), time.monotonic()
        played = replay.play(watch.node, bag, ReplayConfig(rate=args.rate), say=tqdm.write)
        watch.wait_quiet(timeout=PATIENCE)
        watch.deactivate()
        spent, wall = cpu_seconds(pid) - before, time.monotonic() - began
        keyframes, kilometres = len(watch.descriptors), float(travel(drive)[-1]) / 1e3
        return {
            "scans": len(drive),
            "keyframes": keyframes,
            "lost": sum(losses(watch, played).values()),
            "km": round(kilometres, 3),
            "CPU [s]": spent,
            "CPU [s/km]": spent / kilometres,
            "CPU [ms/keyframe]": 1e3 * spent / keyframes if keyframes else float("nan"),
            "wall [s]": wall,
            "MiB at start": start,
            "MiB at most": memory(pid, "VmHWM"),
            "start [s]": seconds,
            **cells,
        }


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """The row as it is printed."""
    return {name: f"{value:.{DIGITS[name]}f}" if name in DIGITS else value for name, value in row.items()}


def ratio(row: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The line below two trees' rows: this one's figures as shares of the other's."""
    shares = {name: f"{row[name] / other[name]:.2f}" for name in DIGITS if name in row}
    return {name: "" for name in row} | {"row": row["row"], "tree": "ratio"} | shares


def parameter(text: str) -> tuple[str, Any]:
    """`name=value` as a node's parameter."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"name=value is wanted, not {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--scans", type=int, default=0, help="only the first so many scans; 0: all")
    parser.add_argument("--tree", type=Path, help="another checkout, whose node is measured beside this one's")
    parser.add_argument("--rate", type=float, default=1.0, help="times the recorded pace")
    parser.add_argument("--param", type=parameter, action="append", default=[], help="name=value, of this tree's node")
    parser.add_argument("--starts", action="store_true", help="measure the first start, too")
    parser.add_argument("--csv", type=Path, help="write the rows here, too")
    args = parser.parse_args()
    if set(args.rows) & set(REAL) and not os.environ.get("VLAD_DATA"):
        parser.error("VLAD_DATA must name the folder with the sequences")
    if args.tree and not Path(Tree(args.tree.resolve()).imported()).is_relative_to(args.tree.resolve()):
        parser.error(f"{args.tree}: no checkout of vlad_ros")
    args.param = dict(args.param)
    return args


def main() -> int:
    """Measure, print, keep as CSV. Exit status 1 where scans were lost."""
    args = arguments()
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    trees = [Tree(path.resolve()) for path in (args.tree, ROOT) if path]
    rows, shown = [], []
    for name in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            drive = drive_of(name, args.scans)
            bag = bag_of(drive, Path(folder))
            for tree in trees:
                rows.append({"row": name, "tree": tree.commit} | measure(tree, drive, bag, args))
                shown.append(rounded(rows[-1]))
            if len(trees) == 2:
                shown.append(ratio(rows[-1], rows[-2]))
    pace = f"at {args.rate:g} times the recorded pace"
    print(f"{len(os.sched_getaffinity(0))} cores, {pace}, {args.param or 'default settings'}\n\n{markdown(shown)}")
    if args.csv:
        write_csv(args.csv, rows)
    return int(any(row["lost"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
