#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From a cloud's bytes to its candidates: milliseconds of each stage and of the whole, and peak memory.

    VLAD_DATA=folder python bench/latency.py [--keyframes 1 1000 10000 100000] [--csv latency.csv]

The 16 full scans of kitti00_hdl64_fullres (100,000..127,000 points) go through the pipeline again and again, every one
a keyframe, against a map that already holds so many others. "single scan": as recorded, without poses. "local map":
with odometry made up, one metre a scan, so that each scan closes the window of one keyframe and opens that of another;
it is described twice, alone and joined. One core is what the process is bound to; all cores are what it finds.
Every row is measured in a process of its own, which is what the peak memory is about. OpenMP waits without spinning
(OMP_WAIT_POLICY=PASSIVE) unless the environment says otherwise.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEQUENCE = "kitti00_hdl64_fullres.npz"
WARM_UP = 12  # scans; more than a local map's window
STAGES = ("decode", "crop", "raster", "network", "local map", "search", "add")


class Stopwatch:
    """Seconds by stage; methods are measured in place, so that what is timed is what runs."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._scan: defaultdict[str, float] = defaultdict(float)

    def watch(self, owner: Any, method: str, stage: str) -> None:
        """From now on count the time in `owner.method` to `stage`."""
        setattr(owner, method, self.timed(getattr(owner, method), stage))

    def timed(self, function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        """`function`, its time counted to `stage`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._scan[stage] += time.perf_counter() - begin

        return call

    def next_scan(self, keep: bool) -> None:
        """Close the books of one scan."""
        for stage, seconds in self._scan.items():
            if keep:
                self.seconds[stage].append(seconds)
        self._scan.clear()


def fill(recognizer: Any, count: int, local: bool) -> None:
    """`count` random keyframes of an earlier session."""
    import numpy as np

    from vlad_ros.types import Keyframe

    rng = np.random.default_rng(0)
    for i in range(count):
        row = rng.standard_normal(recognizer.describer.dim, np.float32)
        row /= np.linalg.norm(row)
        recognizer.database.add(Keyframe(0, i, row, row, local, False, np.eye(4), float(i)))
    recognizer.session = recognizer.database.next_session()


def measure(path: Path, weights: str | None, count: int, local: bool, scans: int) -> dict[str, Any]:
    """One row, in this process."""
    import numpy as np

    from vlad_ros.cloud.decode import decode_message
    from vlad_ros.files.bags import cloud_message
    from vlad_ros.files.sequence import load_sequence
    from vlad_ros.pipeline import PlaceRecognizer

    messages = [cloud_message(0, scan, "lidar") for scan in load_sequence(path).scans]
    recognizer = PlaceRecognizer.from_pretrained(weights, "cpu")
    fill(recognizer, count, local)
    watch = Stopwatch()
    drive, describer, database = recognizer._drive, recognizer.describer, recognizer.database
    for owner, method, stage in (
        (describer, "read", "crop"),
        (describer, "rasterize", "raster"),
        (describer, "describe_all", "network"),
        (drive._local_map, "add", "local map"),
        (drive._local_map, "join", "local map"),
        (database, "search", "search"),
        (database, "add", "add"),
    ):
        watch.watch(owner, method, stage)

    def whole(message: Any, i: int) -> None:
        T = np.eye(4)
        T[0, 3] = float(i)
        points = watch.timed(decode_message, "decode")(message)
        recognizer.step(points, 10**8 * (i + 1), None, T if local else None, True)

    for i in range(WARM_UP + scans):
        watch.timed(whole, "cloud to candidate")(messages[i % len(messages)], i)
        watch.next_scan(keep=i >= WARM_UP)
    row: dict[str, Any] = {"peak memory [MiB]": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
    for stage, seconds in watch.seconds.items():
        row[stage] = [float(q) for q in np.quantile(1e3 * np.array(seconds), (0.5, 0.99))]
    return row


def in_a_process(arguments: list[str]) -> dict[str, Any]:
    """The same, in a process of its own."""
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    answer = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, env=environment)
    if answer.returncode:
        raise ValueError(f"measuring failed:\n{answer.stderr}")
    return dict(json.loads(answer.stdout.splitlines()[-1]))


def markdown(rows: list[dict[str, Any]]) -> str:
    """p50 / p99 in milliseconds."""
    header = ["cores", "view", "keyframes", *STAGES, "cloud to candidate", "peak memory [MiB]"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [row[name] for name in header if name in ("cores", "view", "keyframes")]
        for stage in (*STAGES, "cloud to candidate"):
            cells.append("{:.1f} / {:.1f}".format(*row[stage]) if stage in row else "")
        lines.append("| " + " | ".join(map(str, [*cells, row["peak memory [MiB]"]])) + " |")
    return "\n".join(lines)


def main() -> int:
    """Measure all rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframes", type=int, nargs="+", default=[1, 1000, 10_000, 100_000])
    parser.add_argument("--scans", type=int, default=100, help="scans measured in each row")
    parser.add_argument("--weights", help="weights file; the shipped ones when left out")
    parser.add_argument("--csv", help="write the rows here, too")
    parser.add_argument("--row", nargs=2, metavar=("CORES", "VIEW"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    data = os.environ.get("VLAD_DATA")
    if not data:
        print("latency: VLAD_DATA must name the folder with the sequences", file=sys.stderr)
        return 2
    if args.row:
        if args.row[0] == "1":
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        local = args.row[1] == "local map"
        print(json.dumps(measure(Path(data) / SEQUENCE, args.weights, args.keyframes[0], local, args.scans)))
        return 0
    table(args)
    return 0


def table(args: argparse.Namespace) -> None:
    """All rows, the table, the CSV."""
    from tqdm import tqdm

    cores = ["1", str(len(os.sched_getaffinity(0)))]
    rows = []
    plan = list(itertools.product(cores, ("single scan", "local map"), args.keyframes))
    for core, view, count in tqdm(plan, unit="row", disable=None):
        arguments = ["--row", core, view, "--keyframes", str(count), "--scans", str(args.scans)]
        arguments += ["--weights", args.weights] if args.weights else []
        rows.append({"cores": core, "view": view, "keyframes": count} | in_a_process(arguments))
    print(f"milliseconds, p50 / p99 of {args.scans} scans\n\n{markdown(rows)}")
    if args.csv:
        with open(args.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
