#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a map from a cloud of a square kilometre costs: a simulated town, scanned all along its roads.

    python bench/large_map_cloud.py --side 200 --copies 5

`--copies 5` repeats the square five times five times: a square kilometre that needs not be scanned. Reading, ground and
places are done in full; of the keyframes a sample is made, and the whole is the sample's time and bytes times their
number. Times are the CPU's, on one thread; memory is the process's greatest, without the network's.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vlad_ros.cloud.growing import GrowingCloud
from vlad_ros.files import ply
from vlad_ros.files.map_cloud import read_map_cloud
from vlad_ros.maps.from_cloud import VOXEL, from_cloud, on_the_ground
from vlad_ros.model.describer import Describer
from vlad_ros.simulation.paths import arc_length, locate
from vlad_ros.simulation.sensors import cast, sensor_pose, spinning
from vlad_ros.simulation.worlds import make_world

SEED, APART, GRAIN = 3, 8.0, 0.1  # m between two scans; m between two points of the file
SENSOR = spinning(64)


def town(side: float, path: Path) -> float:
    """Scan a town of `side` [m] into a file; the metres of its roads."""
    world, rng = make_world("street", SEED, size=side), np.random.default_rng(SEED)
    cloud, metres = GrowingCloud(GRAIN), 0.0
    for road in tqdm(world.roads, unit="road", disable=None):
        length = arc_length(road)[-1]
        for x, y, yaw in locate(road, np.arange(0.0, length, APART)):
            if not (0 <= x <= side and 0 <= y <= side):
                continue
            metres += APART
            pose = (float(x), float(y), float(yaw))
            cloud.add(cast(world, SENSOR, pose, rng, (0.0, 0.0)), sensor_pose(world, SENSOR, pose))
    origin = cloud.origin
    assert origin is not None
    ply.write_ply(path, cloud.points(), origin, intensity=False)
    return metres


def repeated(path: Path, side: float, copies: int, out: Path) -> None:
    """The square of `path` beside itself, in both directions, as one array (N, 3) float32 in the file `out`."""
    square = np.concatenate([*ply.xyz_chunks(path, 2_000_000)]).astype(np.float32)
    table = np.lib.format.open_memmap(out, "w+", np.float32, (copies**2 * len(square), 3))
    for number in range(copies**2):
        shift = np.array([number % copies, number // copies, 0.0], np.float32) * np.float32(side)
        table[number * len(square) : (number + 1) * len(square)] = square + shift


def memory() -> float:
    """GB that the process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> int:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=float, default=1000.0, help="m")
    parser.add_argument("--spacing", type=float, default=3.0, help="m between keyframes")
    parser.add_argument("--sample", type=int, default=100, help="keyframes that are made")
    parser.add_argument("--copies", type=int, default=1, help="of the square, along each side")
    parser.add_argument("--cloud", type=Path, help="keep the simulated cloud in this .ply, or take it from there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    describer, _ = Describer.from_pretrained(None, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.cloud or Path(folder) / "town.ply"
        if not path.exists():
            print(f"{town(arguments.side, path):.0f} m of roads in a square of {arguments.side:.0f} m")
        if arguments.copies > 1:
            repeated(path, arguments.side, arguments.copies, Path(folder) / "towns.npy")
            path = Path(folder) / "towns.npy"
        print(f"file          {path.stat().st_size / 1e6:.0f} MB")
        begun, before = time.process_time(), memory()
        cloud = read_map_cloud(path, VOXEL)
    print(f"read          {cloud.read} points in {time.process_time() - begun:.0f} s, {len(cloud.points)} are left")
    begun = time.process_time()
    stands = on_the_ground(cloud.points, arguments.spacing, SENSOR.height)
    print(f"ground        {len(stands)} places, {arguments.spacing:g} m apart, in {time.process_time() - begun:.0f} s")
    rng = np.random.default_rng(0)
    some = [stands[i] for i in rng.choice(len(stands), min(arguments.sample, len(stands)), replace=False)]
    from_cloud(cloud, some[:2], describer, "warm-up")
    begun = time.process_time()
    made = from_cloud(cloud, some, describer, "town", lambda rows: tqdm(rows, unit="keyframe", disable=None))
    each = (time.process_time() - begun) / len(some)
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder) / "town.map")
        size = (Path(folder) / "town.map").stat().st_size / len(made)
    count = len(stands) * len(made) / len(some)
    print(f"keyframes     {each:.2f} s each: {each * len(stands) / 3600:.1f} h for {len(stands)}, on one thread")
    print(f"map           {size / 1e3:.1f} kB each: {size * count / 1e6:.0f} MB for {count:.0f}")
    print(f"memory        {memory():.2f} GB at most, {before:.2f} of them before the cloud was read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
