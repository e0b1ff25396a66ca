# SPDX-License-Identifier: Apache-2.0
"""How long the way from a cloud's bytes to its raster takes, stage by stage, on one thread.

    VLAD_DATA=folder python bench/front.py [--repeats 100]

`kitti00_hdl64_fullres` is tiled up to 130,000 points a scan; it has no poses, so its 16 scans stand for a drive with
one every 0.5 m, which leaves more voxels than a real one. `loop_mid360` is joined by its own poses.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from vlad_ros.cloud.crop import clean
from vlad_ros.cloud.decode import decode_message
from vlad_ros.cloud.ground import fit_ground
from vlad_ros.cloud.raster import rasterize
from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.drive.local_map import LocalMap
from vlad_ros.files.sequence import Sequence, load_sequence
from vlad_ros.types import F32, F64

POINTS = 130_000
CONFIG = RecognizerConfig()
POINT = np.dtype(
    {
        "names": ["x", "y", "z", "intensity", "ring", "time"],
        "formats": ["<f4", "<f4", "<f4", "<f4", "<u2", "<f4"],
        "offsets": [0, 4, 8, 16, 20, 24],
        "itemsize": 32,
    }
)


def message(points: F32) -> SimpleNamespace:
    """A PointCloud2 in all but type, laid out as PCL does."""
    rows = np.zeros(len(points), POINT)
    for column, name in enumerate(("x", "y", "z", "intensity")):
        rows[name] = points[:, column]
    kinds = {"f4": 7, "u2": 4}
    fields = [
        SimpleNamespace(name=name, offset=offset, datatype=kinds[kind.str[1:]], count=1)
        for name, (kind, offset) in ((name, POINT.fields[name]) for name in POINT.names)
    ]
    return SimpleNamespace(
        fields=fields, data=rows.tobytes(), height=1, width=len(rows), point_step=32, row_step=32 * len(rows),
        is_bigendian=False,
    )  # fmt: skip


def tiled(sequence: Sequence) -> list[F32]:
    """Scans of exactly POINTS points: each filled up from the next."""
    neighbours = zip(sequence.scans, [*sequence.scans[1:], sequence.scans[0]], strict=True)
    return [np.concatenate(pair)[:POINTS] for pair in neighbours]


def straight_drive(scans: list[F32], spacing: float = 0.5, count: int = 31) -> tuple[list[F32], F64]:
    """`count` scans `spacing` apart, forth and back through `scans`, and their poses."""
    there_and_back = [*scans, *scans[-2:0:-1]]
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = spacing * np.arange(count)
    return [there_and_back[k % len(there_and_back)] for k in range(count)], poses


def measure(label: str, work: Callable[[], object], repeats: int) -> None:
    """Print a row of the table: wall clock, and the thread's own time, which a busy machine does not stretch."""
    work()
    wall, own = [], []
    for _ in range(repeats):
        start, start_own = time.perf_counter(), time.thread_time()
        work()
        wall.append(1e3 * (time.perf_counter() - start))
        own.append(1e3 * (time.thread_time() - start_own))
    columns = (np.percentile(times, q) for times in (wall, own) for q in (50, 99))
    print(f"| {label} | " + " | ".join(f"{value:.2f}" for value in columns) + " |", flush=True)


def bench(name: str, scans: list[F32], drive: list[F32], poses: F64, repeats: int) -> None:
    """The rows of one sequence: `scans` are decoded and rastered, `drive` with its `poses` is joined."""
    scan = max(scans, key=len)
    points = clean(scan, CONFIG.min_range, CONFIG.max_range)
    cloud, bev = message(scan), BevConfig()
    label = f"{name}, {len(scan):,} points"
    measure(f"{label}: decode", lambda: decode_message(cloud), repeats)
    measure(f"{label}: crop", lambda: clean(scan, CONFIG.min_range, CONFIG.max_range), repeats)
    measure(f"{label}: ground", lambda: fit_ground(points), repeats)
    measure(f"{label}: ground and raster", lambda: rasterize(points, bev), repeats)
    measure(f"{label}: keep for the local map", lambda: LocalMap(CONFIG).add(points, 0, np.eye(4), 0.0, True), repeats)
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    travels = np.concatenate([[0.0], np.cumsum(steps)])
    middle = int(np.searchsorted(travels, travels[-1] / 2))
    local = LocalMap(CONFIG)
    for k in range(len(drive)):
        if abs(travels[k] - travels[middle]) <= 2 * CONFIG.accumulation_m:
            kept = clean(drive[k], CONFIG.min_range, CONFIG.max_range)
            local.add(kept, k, poses[k], float(travels[k]), k == middle)
    joined = local.join(middle)
    label = f"{name}, {joined.span:.1f} m, {len(joined.points):,} voxels"
    measure(f"{label}: join", lambda: local.join(middle), repeats)
    measure(f"{label}: join and raster", lambda: rasterize(local.join(middle).points, bev), repeats)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=100, help="runs of each stage (default %(default)s)")
    repeats = parser.parse_args().repeats
    if "VLAD_DATA" not in os.environ:
        print("set VLAD_DATA to the folder of the sequences", file=sys.stderr)
        return 2
    folder = Path(os.environ["VLAD_DATA"])
    print("| stage | p50 [ms] | p99 [ms] | thread p50 [ms] | thread p99 [ms] |\n|---|---|---|---|---|")
    scans = tiled(load_sequence(folder / "kitti00_hdl64_fullres.npz"))
    bench("kitti00_hdl64_fullres", scans, *straight_drive(scans), repeats)
    loop = load_sequence(folder / "loop_mid360.npz")
    bench("loop_mid360", loop.scans, loop.scans, loop.poses_to("join scans"), repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
