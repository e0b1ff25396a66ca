#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A long drive as fast as the node takes it, without loss: memory, processor, latency and diagnostics over it.

    python bench/soak.py                                              # an hour of stamps, 10,000 keyframes
    python bench/soak.py --keyframes 2000 --seconds 720 --minutes 10  # a part; ends after ten minutes at most
    python bench/soak.py --draw docs/soak.csv                         # only the picture, docs/soak.png

A vehicle drives up and down a simulated street, so that every place is seen again and again; its scans (32 beams) are
made on the way, its odometry comes at 400 Hz. The node runs in a process of its own and paces the replay
(`vlad replay --lossless`). The slope of the memory is fitted behind the first third and printed beside what a
keyframe keeps. Exit status 1 where messages were lost.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from cost import ROOT, Tree, cpu_seconds, memory, parameter, running
from table import read_csv, write_csv
from tqdm import tqdm

from vlad_ros.config import RecognizerConfig, ReplayConfig
from vlad_ros.files.bags import CLOUD, ODOMETRY, TYPES, cloud_message, odometry_message
from vlad_ros.poses import interpolate, inverse, transform
from vlad_ros.simulation.routes import Route, plan_route, record
from vlad_ros.simulation.sensors import spinning
from vlad_ros.simulation.worlds import make_world
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64

SPACING = 1.0  # m between the simulated scans
SHORTEST = 100.0  # m; a shorter street is a part of this one
START = 1000 * SECOND
BEFORE = 1 / 3  # of the samples; the slope is fitted to those behind them


class Street:
    """A simulated street of about `length` m, driven up and down."""

    def __init__(self, length: float) -> None:
        world = make_world("street", 1, size=400.0)
        route = plan_route(world, 1, SPACING, (), 2.0, max(length, SHORTEST))
        number = max(3, round(length / SPACING))
        part = Route(route.poses[:number], route.leg[:number])
        drive = record(world, part, 1, spinning(32, 450), SPACING, "soak")
        self._scans, self._poses = drive.scans, drive.poses_to("soak")
        steps = np.linalg.norm(np.diff(self._poses[:, :3, 3], axis=0), axis=1)
        self._along = np.concatenate([[0.0], np.cumsum(steps)])
        self._random = np.random.default_rng(0)

    def poses(self, metres: F64) -> F64:
        """T_odom_body (N, 4, 4) after so many metres (N,) of driving."""
        end = self._along[-1]
        at = end - np.abs(metres % (2 * end) - end)
        k = np.clip(np.searchsorted(self._along, at, "right") - 1, 0, len(self._along) - 2)
        share = (at - self._along[k]) / (self._along[k + 1] - self._along[k])
        return interpolate(self._poses[k], self._poses[k + 1], share)

    def scan(self, T: F64) -> F32:
        """What is seen at a pose: the nearest simulated scan, moved there, less a tenth of its points."""
        k = int(np.argmin(np.linalg.norm(self._poses[:, :3, 3] - T[:3, 3], axis=1)))
        points = self._scans[k][self._random.random(len(self._scans[k])) < 0.9]
        return transform(points, inverse(T) @ self._poses[k])


class Drive:
    """The drive as the replay reads a bag: made while it is played, until `end` on the steady clock."""

    def __init__(self, street: Street, args: argparse.Namespace) -> None:
        self._street, self._args = street, args
        self.scans, self.end = round(args.seconds * args.rate), time.monotonic() + 60.0 * args.minutes
        self.start_time, self.end_time = START, START + round(args.seconds * SECOND)
        counts = {("/points", CLOUD): self.scans, ("/odom", ODOMETRY): round(args.seconds * args.odometry)}
        ext = SimpleNamespace(offered_qos_profiles=[])
        self.connections = [
            SimpleNamespace(topic=topic, msgtype=kind, msgcount=count, ext=ext)
            for (topic, kind), count in counts.items()
        ]

    def messages(self, connections: Collection[Any]) -> Iterator[tuple[Any, int, bytes]]:
        """(connection, time [ns], serialised message)."""
        points, odom = self.connections
        metres = self._args.keyframes * RecognizerConfig().keyframe_distance / self.scans
        between = max(1, round(self._args.odometry / self._args.rate))
        for k in range(self.scans):
            if time.monotonic() > self.end:
                return
            shares = k + np.arange(between) / between
            poses = self._street.poses(metres * shares)
            for share, T in zip(shares, poses, strict=True):
                stamp = START + round(share / self._args.rate * SECOND)
                yield odom, stamp, TYPES.serialize_cdr(odometry_message(stamp, T, "odom", "lidar"), ODOMETRY)
                if share == k:
                    cloud = cloud_message(stamp, self._street.scan(T), "lidar")
                    yield points, stamp, TYPES.serialize_cdr(cloud, CLOUD)


def kept(street: Street, number: int = 40) -> float:
    """Bytes that a keyframe keeps in memory, the mean of the first `number`; its descriptor twice, for the search."""
    from vlad_ros.pipeline import PlaceRecognizer

    place, found = PlaceRecognizer.from_pretrained(device="cpu"), []
    for k, T in enumerate(street.poses(np.arange(float(number)))):
        found += place.step(street.scan(T), START + k * SECOND // 2, T_odom_base=T)
    keyframes = [one.keyframe for one in (*found, *place.finish())]
    total = 0
    for keyframe in keyframes:
        shape = keyframe.geometry
        parts = [keyframe.descriptor, keyframe.descriptor, keyframe.scan_descriptor, keyframe.T_odom_base]
        parts += [] if shape is None else [shape.keypoints, shape.features, shape.cloud, shape.T_level_body]
        total += sum(part.nbytes for part in parts if part is not None)
    return total / len(keyframes)


class Sampler(threading.Thread):
    """A row every few seconds, until `stop`."""

    def __init__(self, watch: Any, pid: int, every: float) -> None:
        super().__init__(daemon=True)
        self.rows: list[dict[str, float]] = []
        self._watch, self._pid, self._every, self._level = watch, pid, every, 0
        self._began, self._stop_now = time.monotonic(), threading.Event()
        self._hear_level()

    def _hear_level(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray

        def hear(message: DiagnosticArray) -> None:
            for status in filter(self._watch.is_ours, message.status):
                self._level = int.from_bytes(status.level, "little")

        self._watch.node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)

    def run(self) -> None:
        while not self._stop_now.wait(self._every):
            self.sample()

    def stop(self) -> None:
        self._stop_now.set()
        self.join()

    def sample(self) -> None:
        """Take a row now."""
        values = self._watch.diagnostics
        p50, _, p99 = values.get("latency cloud to candidate p50 / p99 [ms]", "nan / nan").partition(" / ")
        newest = self._watch.descriptors[-1][0] if self._watch.descriptors else START
        row = {
            "time [s]": round(time.monotonic() - self._began, 1),
            "stamp [s]": round((newest - START) / SECOND, 1),
            "clouds": int(values.get("clouds received", 0)),
            "keyframes": len(self._watch.descriptors),
            "resident [MiB]": round(memory(self._pid, "VmRSS"), 1),
            "CPU [s]": round(cpu_seconds(self._pid), 1),
            "diagnostics level": self._level,
            "cloud to candidate p50 [ms]": float(p50),
            "cloud to candidate p99 [ms]": float(p99),
        }
        self.rows.append(row)


def soak(street: Street, args: argparse.Namespace) -> tuple[list[dict[str, float]], dict[str, int]]:
    """The samples, and what was lost or counted, by reason."""
    from vlad_ros.ros.tools import replay

    with (
        tempfile.TemporaryDirectory() as folder,
        running(Tree(ROOT), Path(folder), args.param, {}, paced=True) as found,
    ):
        watch, node, _ = found
        sampler = Sampler(watch, node.process.pid, args.every)
        sampler.start()
        drive = Drive(street, args)
        player = replay.Player(watch.node, drive, ReplayConfig(lossless=True), (), tqdm.write)
        try:
            player.wait_for_subscribers()
            player.play(progress=True)
        finally:
            player.pace.close()
        watch.wait_quiet(timeout=600.0)
        sampler.stop()
        way = player.report.published["/points"] - int(watch.diagnostics.get("clouds received", 0))
        return sampler.rows, {"lost on the way": way + player.report.lost["/odom"], **watch.counts()}


def slope(rows: list[dict[str, float]]) -> tuple[float, float]:
    """Resident memory by keyframe behind the first part of the samples: bytes a keyframe, and MiB at none."""
    late = rows[int(len(rows) * BEFORE) :]
    numbers, sizes = ([row[name] for row in late] for name in ("keyframes", "resident [MiB]"))
    if len(late) < 2 or numbers[0] == numbers[-1]:
        return float("nan"), float("nan")
    per, start = np.polyfit(numbers, sizes, 1)
    return float(per) * 2**20, float(start)


def draw(rows: list[dict[str, float]], path: Path) -> None:
    """Memory, processor, latency and diagnostics over the keyframes."""
    from matplotlib.figure import Figure

    from vlad_ros.plots.style import BLUE, GREY, ORANGE, VERMILION, save

    column = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    x = column["keyframes"]
    figure = Figure(figsize=(9.0, 7.5), layout="constrained")
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    per, start = slope(rows)
    top.plot(x, column["resident [MiB]"], color=BLUE, label="resident")
    top.plot(x, start + per / 2**20 * x, color=GREY, ls="--", label=f"{per / 1e3:.0f} kB a keyframe")
    top.set(ylabel="memory [MiB]", title=f"{x[-1]:.0f} keyframes, {column['stamp [s]'][-1]:.0f} s of stamps")
    cores = np.diff(column["CPU [s]"]) / np.maximum(np.diff(column["time [s]"]), 0.1)
    middle.plot(x[1:], cores, color=BLUE, label="cores in use")
    middle.plot(x, column["diagnostics level"], color=VERMILION, drawstyle="steps", label="diagnostics: 0 OK, 1 WARN")
    middle.set(ylabel="cores, level", ylim=(-0.1, None))
    for name, colour in (("p50", BLUE), ("p99", ORANGE)):
        bottom.plot(x, column[f"cloud to candidate {name} [ms]"], color=colour, label=f"cloud to candidate, {name}")
    bottom.set(ylabel="latency [ms]", xlabel="keyframes", ylim=(0, None))
    for axes in (top, middle, bottom):
        axes.grid(alpha=0.3)
        axes.legend(loc="best", frameon=False)
    save(figure, path)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframes", type=int, default=10_000, help="a metre apart")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of stamps")
    parser.add_argument("--minutes", type=float, default=600.0, help="end after so many, whatever is left")
    parser.add_argument("--rate", type=float, default=10.0, help="scans a second of stamps")
    parser.add_argument("--odometry", type=float, default=400.0, help="messages a second of stamps")
    parser.add_argument("--street", type=float, default=300.0, help="its length [m]")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between two samples")
    parser.add_argument("--param", type=parameter, action="append", default=[], help="name=value, of the node")
    parser.add_argument("--csv", type=Path, default=Path("soak.csv"))
    parser.add_argument("--draw", type=Path, metavar="CSV", help="only draw an earlier run's picture")
    args = parser.parse_args()
    args.param = {"queue_size": 10, **dict(args.param)}
    return args


def main() -> int:
    """Play, sample, write the CSV and, from it, the picture beside it."""
    args = arguments()
    if args.draw:
        draw(read_csv(args.draw), args.draw.with_suffix(".png"))
        return 0
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    street = Street(args.street)
    size = kept(street)
    rows, counts = soak(street, args)
    write_csv(args.csv, rows)
    draw(read_csv(args.csv), args.csv.with_suffix(".png"))
    last, (per, _), fine = rows[-1], slope(rows), sum(not row["diagnostics level"] for row in rows)
    print(
        f"{last['keyframes']:.0f} keyframes, {last['clouds']:.0f} clouds, {last['stamp [s]']:.0f} s of stamps in "
        f"{last['time [s]']:.0f} s; {last['CPU [s]']:.0f} s of CPU\n"
        f"memory: {last['resident [MiB]']:.0f} MiB at the end, {per / 1e3:.1f} kB a keyframe; a keyframe keeps "
        f"{size / 1e3:.1f} kB\n"
        f"diagnostics: OK in {fine} of {len(rows)} samples; counted: {counts}"
    )
    return int(counts["lost on the way"] > 0)


if __name__ == "__main__":
    sys.exit(main())
