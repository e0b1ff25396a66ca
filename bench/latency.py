#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From a cloud's bytes to its published edges: milliseconds of each stage, of the rest, and of the whole.

    python bench/latency.py [--points 20000 120000] [--keyframes 0 10000] [--scans 40] [--csv latency.csv]

The simulated drive of bench/cost.py goes through what the node's worker does, every scan a keyframe: the first lap into
the map, then the last scans, measured, in a session of their own. So each of these is at a revisit, and its candidates
are verified. "single scan": without odometry. "local map": with it; a scan closes the window of one keyframe and opens
that of another, which is described twice, alone and joined. The map is filled up to --keyframes by keyframes with the
first lap's geometry and descriptors so far off that they are found only where nothing better is; with 0 it is empty, so
that nothing is found and nothing verified. Clouds have a time for each point and are deskewed where there is odometry.

The stages are those of the package's own ledger (vlad_ros/stopwatch.py), `whole` is a clock around all of it, `rest` is
what lies in no stage. Each row is measured in a process of its own; OpenMP waits without spinning.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from cost import drive_of
from table import markdown, write_csv
from tqdm import tqdm

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.drive.body_points import BodyPoints
from vlad_ros.drive.frames import Frames
from vlad_ros.drive.pairing import Inputs
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.drive.pose_source import NoOdometry, TopicOdometry
from vlad_ros.files.bags import CLOUD, TYPES, cloud_message
from vlad_ros.loops.described import Described
from vlad_ros.loops.warm_up import warm_up
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.ros.environment import RUNTIME
from vlad_ros.stopwatch import Ledger, stage
from vlad_ros.types import F32, F64, Keyframe

VIEWS = ("single scan", "local map")
STAGES = ("receive", "decode", "deskew", "crop", "local map", "ground", "raster", "network", "neighbourhoods")
STAGES += ("geometry", "search", "verify", "accept", "publish")
STEP = 375_000_000  # ns between two scans
SWEEP = 100_000_000  # ns; the vehicle stands while it lasts, as when the scan was simulated
WARM_UP = 8  # scans; more than half a local map's window
CONFIG = RecognizerConfig(exclude_time=3600.0, verification_budget=60.0)  # other sessions only


def cloud_bytes(stamp: int, points: F32) -> bytes:
    """A serialised PointCloud2 of `points` (N, 4) with a field `t` [ns]."""
    message = cloud_message(stamp, points, "lidar")
    rows = np.zeros((len(points), 20), np.uint8)
    rows[:, :16] = message.data.reshape(-1, 16)
    rows[:, 16:] = np.linspace(0, SWEEP, len(points)).astype("<u4")[:, None].view(np.uint8)
    field = TYPES.types["sensor_msgs/msg/PointField"](name="t", offset=16, datatype=6, count=1)
    step = {"point_step": 20, "row_step": 20 * len(points)}
    message = dataclasses.replace(message, fields=[*message.fields, field], data=rows.reshape(-1), **step)
    return bytes(TYPES.serialize_cdr(message, CLOUD))


class Way:
    """The way of a message through the node, without DDS."""

    def __init__(self, weights: str | None, local: bool) -> None:
        from rclpy.serialization import deserialize_message, serialize_message
        from sensor_msgs.msg import PointCloud2
        from std_msgs.msg import Header

        from vlad_ros.ros.outputs import messages

        self._receive = stage("receive")(lambda raw: deserialize_message(raw, PointCloud2))
        self._serialize, self._header, self._messages = serialize_message, Header, messages
        self.recognizer = PlaceRecognizer.from_pretrained(weights, "cpu", CONFIG)
        warm_up(self.recognizer.describer)
        config = NodeConfig(odom_source="topic" if local else "none")
        self._released: list[PendingScan] = []
        poses = TopicOdometry() if local else NoOdometry()
        self.inputs = Inputs(config, poses, self._released.append, self._refuse)
        self._reader = BodyPoints(config, CONFIG, Frames(config, None, self._refuse), lambda _: None, self._refuse)

    @staticmethod
    def _refuse(why: str) -> None:
        raise ValueError(f"the bench's own scans are used as they are, but: {why}")

    def go(self, raw: bytes, stamp: int) -> list[Described]:
        """One cloud, as `ros.worker.Worker` processes it; the keyframes that it completes."""
        self._pair(PendingScan(self._receive(raw), stamp, 0.0, is_keyframe=True))
        (scan,) = self._released
        self._released.clear()
        points, pose = self._reader.points(scan), self._reader.pose(scan)
        described = self.recognizer.step(points, scan.stamp, None, pose, True, cropped=True)
        for item in described:
            self._publish(item)
        return described

    @stage("receive")
    def _pair(self, scan: PendingScan) -> None:
        self.inputs.add_scan(scan)

    @stage("publish")
    def _publish(self, item: Described) -> None:
        header = self._header(stamp=self._messages.to_time(item.keyframe.stamp), frame_id="lidar")
        database = self.recognizer.database
        self._serialize(self._messages.descriptor_message(header, item.keyframe.descriptor))
        self._serialize(
            self._messages.closures_message(header, item.closures, lambda id: database.keyframe(id).T_odom_base)
        )


def fill(recognizer: PlaceRecognizer, count: int) -> None:
    """Fill the map up to `count` keyframes: the geometry of those in it, descriptors of elsewhere."""
    rng, database = np.random.default_rng(0), recognizer.database
    known: list[Keyframe] = [database.whole(id) for id in range(len(database))]
    for i in range(len(known), count):
        keyframe = known[i % len(known)]
        far = elsewhere(keyframe.descriptor, rng)
        scan = None if keyframe.scan_descriptor is None else elsewhere(keyframe.scan_descriptor, rng)
        stamp = known[-1].stamp + i
        database.add(dataclasses.replace(keyframe, stamp=stamp, descriptor=far, scan_descriptor=scan))


def elsewhere(descriptor: F32, rng: np.random.Generator) -> F32:
    """A unit descriptor of another place: `descriptor` and twice as much noise."""
    row = descriptor + 2.0 * np.linalg.norm(descriptor) * rng.standard_normal(len(descriptor)) / len(descriptor) ** 0.5
    return (row / np.linalg.norm(row)).astype(np.float32)


def thinned(points: F32, count: int, rng: np.random.Generator) -> F32:
    """`count` points at random, or all."""
    return points if len(points) <= count else points[np.sort(rng.choice(len(points), count, replace=False))]


def clouds(count: int, points: int) -> Iterator[tuple[int, bytes, F64]]:
    """Stamp, message and pose of the scans of the first lap, then of the last `count` ones."""
    drive, rng = drive_of("simulated", 0), np.random.default_rng(0)
    poses = drive.poses_to("measure")
    chosen = (*range(len(drive) // 2), *range(len(drive) - count, len(drive)))
    for number, i in enumerate(chosen, 1):
        yield STEP * number, cloud_bytes(STEP * number, thinned(drive.scans[i], points, rng)), poses[i]


def measure(args: argparse.Namespace, view: str, points: int, keyframes: int) -> dict[str, Any]:
    """A row of the table, in this process."""
    way = Way(args.weights, view == "local map")
    messages = list(clouds(WARM_UP + args.scans, points))
    ledgers, wholes, verified = [], [], []
    for left, (stamp, raw, T) in zip(range(len(messages), 0, -1), messages, strict=True):
        if left == WARM_UP + args.scans:
            begin_revisit(way.recognizer, keyframes)
        for after in (0, SWEEP) if view == "local map" else ():
            way.inputs.add_odometry(stamp + after, T, "lidar")
        began = time.perf_counter()
        with Ledger() as ledger:
            described = way.go(raw, stamp)
        wholes.append(1e3 * (time.perf_counter() - began))
        ledgers.append(ledger.milliseconds)
        verified.append(sum(c.evidence is not None for item in described for c in item.closures))
    last = slice(-args.scans, None)
    cells = columns(ledgers[last], np.array(wholes[last]))
    return {"verified": round(float(np.mean(verified[last])), 1), **cells}


def begin_revisit(recognizer: PlaceRecognizer, keyframes: int) -> None:
    """The first lap is over: its keyframes and others are the map, or (0) it is empty."""
    recognizer.finish()
    if keyframes:
        fill(recognizer, keyframes)
        recognizer.open_session()
    else:
        recognizer.clear_map()


def columns(ledgers: list[dict[str, float]], whole: F64) -> dict[str, list[float] | float]:
    """p50 and p95 [ms] of each stage, of the rest, and of the `whole` (scans,), and the sum of the p50s before it."""
    names = dict.fromkeys([*STAGES, *(name for ledger in ledgers for name in ledger)])
    times = {name: np.array([ledger.get(name, 0.0) for ledger in ledgers]) for name in names}
    times["rest"] = whole - sum(times.values())
    cells = {name: [float(q) for q in np.quantile(values, (0.5, 0.95))] for name, values in times.items()}
    total = sum(p50 for p50, _ in cells.values())
    return {**cells, "sum": total, "whole": [float(q) for q in np.quantile(whole, (0.5, 0.95))]}


def in_a_process(arguments: list[str]) -> dict[str, Any]:
    """The row of `--row`, from a process of its own, in the node's environment."""
    env = RUNTIME | os.environ
    answer = subprocess.run([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, env=env)
    if answer.returncode:
        raise ChildProcessError(f"the row {' '.join(arguments)} could not be measured")
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row's cells as they are printed, p50 / p95."""
    cells: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            cells[name] = f"{value[0]:.1f} / {value[1]:.1f}" if max(value) > 0.0 else ""
        else:
            cells[name] = f"{value:.1f}" if name == "sum" else value
    return cells


def main() -> int:
    """Measure all rows, print the table, keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[20_000, 120_000], help="points a scan, at most")
    parser.add_argument("--keyframes", type=int, nargs="+", default=[0, 10_000], help="keyframes in the map; 0: empty")
    parser.add_argument("--views", nargs="+", choices=VIEWS, default=list(VIEWS))
    parser.add_argument("--cores", type=int, nargs="+", help="that the process is bound to (default: all it finds)")
    parser.add_argument("--scans", type=int, default=40, help="scans measured in each row")
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    parser.add_argument("--csv", type=Path, help="write the rows here, too")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    plan = list(itertools.product(args.cores or [len(cores)], args.views, args.points, args.keyframes))
    if args.row:
        core, view, points, keyframes = plan[0]
        os.sched_setaffinity(0, cores[:core])
        print(json.dumps(measure(args, view, points, keyframes)))
        return 0
    rows = []
    for core, view, points, keyframes in tqdm(plan, unit="row", disable=None):
        words = ["--row", "--cores", core, "--views", view, "--points", points, "--keyframes", keyframes]
        words += ["--scans", args.scans, *(["--weights", args.weights] if args.weights else [])]
        row = {"cores": core, "view": view, "points": points, "keyframes": keyframes}
        rows.append(row | in_a_process([str(word) for word in words]))
    print(f"milliseconds, p50 / p95 of {args.scans} scans\n\n{markdown([shown(row) for row in rows])}")
    if args.csv:
        write_csv(args.csv, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
