#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What other programs cost on the same scans: CPU milliseconds a scan and seconds a kilometre.

    python -m venv peers && peers/bin/pip install map-closures==2.2.0 kiss-icp==1.3.0
    VLAD_DATA=folder python bench/peers.py --python peers/bin/python

kitti00 (20,000 points a scan) and loop_mid360, in one process for each program, one after the other, with two threads
at most. kiss-icp makes odometry, and needs every scan; MapClosures joins the scans by it and looks for loops once
in 100 m, as its own pipeline does; Scan Context describes every scan and compares it with all earlier ones;
PlaceRecognizer is given the poses. Each but kiss-icp is without what makes the odometry.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from cost import drive_of, travel
from table import stream
from tqdm import tqdm

from vlad_ros.evaluation import scan_context
from vlad_ros.files.sequence import Sequence
from vlad_ros.pipeline import PlaceRecognizer

ROWS = ("kitti00", "loop_mid360")
# kiss-icp and MapClosures have a Python of their own; the loop is that of map_closures.pipeline.
INSIDE = """
import sys, time
import numpy as np
from kiss_icp.config import KISSConfig
from kiss_icp.kiss_icp import KissICP
from map_closures.config import MapClosuresConfig
from map_closures.map_closures import MapClosures
from map_closures.voxel_map import VoxelMap

scans, config, closer = np.load(sys.argv[1]), KISSConfig(), MapClosuresConfig()
config.mapping.voxel_size, config.data.max_range, config.data.deskew = 1.0, 100.0, False  # scans without times
odometry, maps = KissICP(config), MapClosures(closer)
local = VoxelMap(voxel_size=closer.density_map_resolution, max_distance=100.0)
start, number, times = np.eye(4), 0, [0.0, 0.0]
for name in scans.files:
    scan = scans[name].astype(np.float64)
    at = [time.process_time()]
    frame, _ = odometry.register_frame(scan, np.zeros(len(scan)))
    at.append(time.process_time())
    T = np.linalg.inv(start) @ odometry.last_pose
    local.integrate_frame(frame, T)
    if np.linalg.norm(T[:3, 3]) > 100.0 or name == scans.files[-1]:
        maps.get_closures(number, local.point_cloud())
        local.remove_far_away_points(T[:3, 3])
        kept = local.point_cloud()
        local.clear()
        local.integrate_frame(kept, np.linalg.inv(T))
        start, number = odometry.last_pose.copy(), number + 1
    at.append(time.process_time())
    times = [spent + step for spent, step in zip(times, np.diff(at))]
print(*times)
"""


def theirs(python: Path, drive: Sequence) -> tuple[float, float]:
    """CPU seconds of kiss-icp and of MapClosures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scans.npz"
        np.savez(path, **{f"{i:06}": scan[:, :3] for i, scan in enumerate(drive.scans)})
        told = subprocess.run([str(python), "-c", INSIDE, str(path)], check=True, stdout=subprocess.PIPE, text=True)
    odometry, closures = map(float, told.stdout.splitlines()[-1].split())
    return odometry, closures


def by_scan_context(drive: Sequence) -> float:
    """CPU seconds of Scan Context with its search."""
    kept = np.zeros((len(drive), scan_context.RINGS, scan_context.SECTORS), np.float32)
    begin = time.process_time()
    for i, scan in enumerate(tqdm(drive.scans, desc="Scan Context", leave=False, disable=None)):
        kept[i] = scan_context.describe(scan)
        if i:
            scan_context.similarity(kept[i : i + 1], kept[:i]).argmax()
    return time.process_time() - begin


def ours(drive: Sequence) -> float:
    """CPU seconds of the whole pipeline at its defaults, verification and geometry included, without ROS."""
    place, poses = PlaceRecognizer.from_pretrained(None, "cpu"), drive.poses_to("measure")
    stamps = drive.stamps_ns()
    begin = time.process_time()
    for scan, stamp, T in zip(tqdm(drive.scans, leave=False, disable=None), stamps, poses, strict=True):
        place.step(scan, stamp, T_odom_base=T)
    place.finish()
    return time.process_time() - begin


def rows(python: Path, scans: int) -> Iterator[list[str]]:
    """The table, row by row."""
    for name in ROWS:
        drive = drive_of(name, scans)
        odometry, closures = theirs(python, drive)
        spent = {"kiss-icp": odometry, "MapClosures": closures, "Scan Context": by_scan_context(drive)}
        for program, cpu in {**spent, "vlad_ros": ours(drive)}.items():
            yield [name, program, f"{1000 * cpu / len(drive):.1f}", f"{1000 * cpu / travel(drive)[-1]:.1f}"]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="of the environment with kiss-icp and map-closures")
    parser.add_argument("--scans", type=int, default=0, help="of each drive; 0: all")
    args = parser.parse_args()
    if not os.environ.get("VLAD_DATA"):
        print("peers: VLAD_DATA must name the folder with the sequences", file=sys.stderr)
        return 2
    stream(("drive", "program", "CPU [ms/scan]", "CPU [s/km]"), rows(args.python, args.scans), None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
