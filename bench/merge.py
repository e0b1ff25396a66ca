#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Maps of different days merged: which are placed, how rightly, and which are kept apart.

    python bench/merge.py --folder merged --csv merge.csv

Simulated towns, driven on two days by drifting odometry, each with its own sensor, parked cars and side of the road;
the second day shares 20, 50 or 100 % of its way with the first, in the same direction or the other. Strangers: the
first days of two towns. Aliased worlds: the two drives never meet, but are between copies of the same blocks, trees or
pillars. `loop_mid360` (in the folder that VLAD_DATA names): its first half and its second. "Off": how far the second
day's keyframes lie from where they truly are, seen from the nearest of the first day's, median and greatest.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from table import stream

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.files.sequence import Sequence, load_sequence
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.inputs import open_maps
from vlad_ros.maps.merge import merge
from vlad_ros.model.weights import read_metadata
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import inverse
from vlad_ros.simulation.aliased_drives import aliased_drive
from vlad_ros.simulation.aliased_worlds import ALIASED
from vlad_ros.simulation.days import DRIFT, SPACING, Day, make_day, overlapping
from vlad_ros.simulation.routes import plan_route
from vlad_ros.simulation.sensors import Sensor, dome, spinning
from vlad_ros.simulation.world import World
from vlad_ros.simulation.worlds import make_world
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64


class Town(NamedTuple):
    """A world's kind and seed, the shape of the way through it, and the sensors of the two days."""

    kind: str
    seed: int
    shape: str
    first: Sensor
    second: Sensor


TOWNS = {
    "street": Town("street", 5, "line", spinning(32), spinning(16)),
    "campus": Town("campus", 6, "loop", spinning(64), dome()),
    "street 2": Town("street", 105, "line", dome(), spinning(32)),
    "campus 2": Town("campus", 105, "line", spinning(16), spinning(128)),
    "park": Town("park", 105, "loop", spinning(64), spinning(32)),
    "carpark": Town("carpark", 105, "loop", dome(), spinning(16)),
    "indoor": Town("indoor", 105, "line", spinning(16), dome()),
    "plaza": Town("plaza", 105, "line", spinning(32), spinning(64)),
    "riverside": Town("riverside", 105, "line", spinning(64), spinning(16)),
}
SHARES = (0.2, 0.5, 1.0)
SIZE, LENGTH, LONGEST = 420.0, 250.0, 140  # m, m, scans
ALIAS_SEED, ALIAS_LENGTH, ALIAS_SPACING = 1000, 280.0, 1.4
BESIDE = 8.0  # m; keyframes of both days this near to each other are compared
HEADER = (
    "maps",
    "keyframes",
    "loops",
    "places / rival",
    "recognised",
    "odometries off [m], [deg]",
    "off [m]",
    "seconds",
)


def town_day(kind: str, share: float, name: str) -> Day:
    """The first day ("a") in a town, or the second, in the same direction ("b") or the other ("r")."""
    town = TOWNS[kind]
    world, way = _way(town)
    first, second = (part[:LONGEST] if share == 1.0 else part for part in overlapping(way, share))
    if name == "a":
        return make_day(world, first, town.first, 1, aside=0.7)
    if name == "b":
        return make_day(world, second, town.second, 2, aside=-0.7)
    return make_day(world, second, town.second, 3, back=True, aside=0.7)


def _way(town: Town) -> tuple[World, F64]:
    for each in range(town.seed, town.seed + 50):
        try:
            world = make_world(town.kind, each, size=SIZE)
            return world, plan_route(world, each, SPACING, (), 0.0, LENGTH, town.shape).poses
        except ValueError:
            continue
    raise ValueError(f"none of 50 {town.kind} worlds has such a way")


def aliased_day(kind: str, share: float, name: str) -> Day:
    """The first ("a") or the last ("b") 45 % of a drive that never comes back to itself."""
    sensor = spinning(32, 450)
    for each in range(ALIAS_SEED, ALIAS_SEED + 60):
        try:
            drive = aliased_drive(kind, each, sensor=sensor, loops=False, spacing=ALIAS_SPACING, length=ALIAS_LENGTH)
        except ValueError:
            continue
        number = len(drive)
        part = slice(int(0.45 * number)) if name == "a" else slice(int(0.55 * number), number)
        return _cut(drive, part, each + ord(name))
    raise ValueError(f"none of 60 {kind} worlds has such a way")


def half(kind: str, share: float, name: str) -> Day:
    """That of a sequence: the first ("a") or the second."""
    drive = load_sequence(Path(os.environ["VLAD_DATA"]) / f"{kind}.npz")
    middle = len(drive) // 2
    return _cut(drive, slice(middle) if name == "a" else slice(middle, len(drive)), ord(name))


def _cut(drive: Sequence, part: slice, seed: int) -> Day:
    poses = drive.poses_to("cut")[part]
    return Day(
        Sequence(drive.name, drive.scans[part], poses), inverse(poses[0]) @ drifting_odometry(poses, *DRIFT, seed)
    )


def make_map(recognizer: PlaceRecognizer, day: Day, path: Path) -> None:
    """A scan a second into a map, with its true poses beside it."""
    recognizer.clear_map()
    for number, (scan, T) in enumerate(zip(day.drive.scans, day.odometry, strict=True), 1):
        recognizer.step(scan, number * SECOND, None, T)
    recognizer.finish()
    np.save(f"{path}.truth.npy", day.drive.poses)
    recognizer.save_map(path)


def off(path: tuple[Path, Path], merged: KeyframeDatabase) -> F64:
    """Of each keyframe of the second day that has one of the first beside it: the error [m] of their relative pose."""
    truth = [np.load(f"{one}.truth.npy") for one in path]
    told, true = [], []
    for session, poses in zip(merged.sessions, truth, strict=True):
        ids = merged.ids(session).tolist()
        told.append([merged.T_map_base(id) for id in ids])
        true.append(poses[[merged.keyframe(id).stamp // SECOND - 1 for id in ids]])
    errors = []
    for T_told, T_true in zip(told[1], true[1], strict=True):
        apart = np.linalg.norm(true[0][:, :2, 3] - T_true[:2, 3], axis=1)
        nearest = int(np.argmin(apart))
        if apart[nearest] < BESIDE and T_told is not None:
            error = inverse(inverse(true[0][nearest]) @ T_true) @ inverse(told[0][nearest]) @ T_told
            errors.append(float(np.linalg.norm(error[:3, 3])))
    return np.array(errors)


def row(name: str, paths: tuple[Path, Path]) -> list[str]:
    """Two maps merged."""
    begun = time.process_time()
    merged = merge(open_maps(paths), read_metadata(None).calibrated(None))
    seconds = time.process_time() - begun
    meeting = merged.meetings[1]
    numbers = [str(meeting.places) + f" / {meeting.rival}", f"{meeting.recognised:.2f}"]
    if meeting.refusal:
        return [name, str(len(merged.database)), "kept apart", *numbers, "-", "-", f"{seconds:.0f}"]
    errors = off(paths, merged.database)
    wrong = f"{np.median(errors):.2f} / {errors.max():.2f}" if len(errors) else "WRONG: they never meet"
    agree = f"{np.median(meeting.metres):.2f}, {np.median(meeting.degrees):.1f}"
    return [name, str(len(merged.database)), str(len(meeting.loops)), *numbers, agree, wrong, f"{seconds:.0f}"]


Drives = Callable[[str, float, str], Day]


def rows(arguments: argparse.Namespace) -> Iterator[list[str]]:
    """The table, line by line; maps that are in the folder are not made again."""
    recognizer = PlaceRecognizer.from_pretrained(None, "cpu", RecognizerConfig(max_edges=1))

    def pair(names: str, drive: Drives, kind: str, share: float = 0.0) -> tuple[Path, Path]:
        paths = [arguments.folder / f"{kind}_{100 * share:.0f}_{name}.map" for name in names]
        for name, path in zip(names, paths, strict=True):
            if not path.exists():
                make_map(recognizer, drive(kind, share, name), path)
        return paths[0], paths[1]

    for kind in arguments.towns:
        for share in arguments.shares:
            for names, way in (("ab", "same direction"), ("ar", "other direction")):
                yield row(f"{kind}, {share:.0%} shared, {way}", pair(names, town_day, kind, share))
    if os.environ.get("VLAD_DATA"):
        yield row("loop_mid360, its halves", pair("ab", half, "loop_mid360"))
    for kinds in itertools.combinations(arguments.strangers, 2):
        first, second = (pair("aa", town_day, kind, arguments.shares[0])[0] for kind in kinds)
        yield row(f"{kinds[0]} and {kinds[1]}, strangers", (first, second))
    for kind in arguments.aliased:
        yield row(f"{kind}, aliased, none shared", pair("ab", aliased_day, kind))


def main() -> int:
    """Print the table; keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the maps are kept")
    parser.add_argument("--towns", nargs="*", default=list(TOWNS), choices=list(TOWNS))
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES, choices=SHARES)
    parser.add_argument("--strangers", nargs="*", default=list(TOWNS), choices=list(TOWNS), help="each two of them")
    parser.add_argument("--aliased", nargs="*", default=list(ALIASED), choices=list(ALIASED))
    parser.add_argument("--csv", type=Path, help="write the table here too")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    stream(HEADER, rows(arguments), arguments.csv)
    return 0


if __name__ == "__main__":
    sys.exit(main())
