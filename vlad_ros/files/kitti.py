# SPDX-License-Identifier: Apache-2.0
"""KITTI odometry folders: velodyne/*.bin and, where present, times.txt, poses.txt and calib.txt."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlad_ros.files.bags import StampedScan
from vlad_ros.files.names import numbered
from vlad_ros.poses import check_rigid, inverse
from vlad_ros.stamps import SECOND, nanoseconds
from vlad_ros.types import F32, F64

COLUMNS = 4  # x y z reflectance, float32
OTHERS = (3, 5, 6, 7)  # columns that files of other datasets have
ENOUGH = 100  # numbers; with fewer, the columns are not checked
CLEARLY = 5.0  # standard errors
FARTHEST, FEW = 1e5, 0.01  # m; beyond any sensor's range, and the tolerated share of such numbers


def scan_files(folder: str | os.PathLike[str]) -> list[Path]:
    """The scan files, in numeric order. ValueError if there are none, or if the size of one does not fit x y
    z reflectance points."""
    files = numbered((Path(folder) / "velodyne").glob("*.bin"))
    if not files:
        raise ValueError(f"{folder}: no velodyne/*.bin in it, not a KITTI odometry folder")
    for file in files:
        _check_size(file)
    return files


def read_bin(file: Path) -> F32:
    """The points (N, 4) of one file, x y z reflectance. ValueError if its columns are different."""
    _check_size(file)
    numbers = np.fromfile(file, "<f4")
    if np.mean(np.abs(numbers, where=np.isfinite(numbers), out=np.zeros_like(numbers)) > FARTHEST) > FEW:
        raise ValueError(f"{file}: its numbers are not coordinates; save x y z reflectance as float32")
    if (columns := _columns(numbers)) != COLUMNS:
        raise ValueError(
            f"{file}: it looks like {columns} numbers a point (nuScenes has 5): save four, x y z reflectance"
        )
    return numbers.reshape(-1, COLUMNS)


def _check_size(file: Path) -> None:
    size = file.stat().st_size
    if size == 0 or size % (4 * COLUMNS):
        number = f"{size // 4} numbers" if size % 4 == 0 else f"{size} bytes"
        raise ValueError(f"{file}: {number} are no x y z intensity quadruples of float32")


def _columns(numbers: F32) -> int:
    """Number of columns per point: the step at which the numbers are most alike.

    Two draws from one column differ on average by less than those from two columns (the energy distance is never
    negative: Szekely and Rizzo, 2013), and neighbours in a sweep differ even less.
    """
    if len(numbers) < ENOUGH:
        return COLUMNS
    near = np.nan_to_num(np.clip(numbers, -1e3, 1e3), nan=0.0).astype(np.float64)
    apart = {step: np.abs(near[step:] - near[:-step])[: len(near) - max(OTHERS)] for step in (COLUMNS, *OTHERS)}
    best = min(
        (step for step in OTHERS if len(numbers) % step == 0), key=lambda step: apart[step].mean(), default=COLUMNS
    )
    closer = apart[COLUMNS] - apart[best]
    return best if closer.mean() > CLEARLY * closer.std() / np.sqrt(len(closer)) else COLUMNS


def kitti_scans(folder: str | os.PathLike[str], rate: float) -> Iterator[StampedScan]:
    """The scans of a KITTI odometry folder.

    `poses.txt` (or the benchmark's ``../../poses/<sequence>.txt``) holds T_world_camera; with `Tr` = T_camera_velodyne
    of calib.txt the sensor's pose is ``inverse(Tr) T_world_camera Tr``, in a map that is the first scan's frame. Stamps
    start at one second, because a stamp of zero means "unknown" in ROS. ValueError names what does not fit, before
    the first scan if possible.
    """
    folder = Path(folder)
    files = scan_files(folder)
    poses, times = kitti_poses(folder), _times(folder / "times.txt")
    rows = {
        name: _rows(folder, files, name, len(table))
        for name, table in (("poses", poses), ("times", times))
        if table is not None
    }
    seconds = np.arange(len(files)) / rate if times is None else times[rows["times"]]
    for i, file in enumerate(files):
        pose = None if poses is None else poses[rows["poses"][i]]
        yield StampedScan(SECOND + nanoseconds(seconds[i]), read_bin(file), pose)


def _rows(folder: Path, files: list[Path], name: str, count: int) -> list[int]:
    """The row of each scan in a table of `count` rows: one after the other, or by the number that the file is called
    where some of the drive's scans were left out."""
    if count == len(files):
        return list(range(count))
    numbers = [int(file.stem) if file.stem.isdecimal() else count for file in files]
    if count < len(files) or max(numbers) >= count:
        raise ValueError(f"{folder}: {count} {name} for {len(files)} scans")
    return numbers


def kitti_poses(folder: Path) -> F64 | None:
    """T_map_velodyne (S, 4, 4) of a KITTI odometry folder, or None without poses; ValueError without `Tr`."""
    path = folder / "poses.txt"
    if not path.exists():
        path = folder.resolve().parent.parent / "poses" / f"{folder.resolve().name}.txt"
    rows = _numbers(path)
    if rows is None:
        return None
    T_world_camera = _matrices(rows, path)
    T_camera_velodyne = _camera_velodyne(folder / "calib.txt")
    return inverse(T_camera_velodyne) @ T_world_camera @ T_camera_velodyne


def _camera_velodyne(path: Path) -> F64:
    """`Tr` of calib.txt, matched exactly: other names share this prefix."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    by_name = {words[0].removesuffix(":"): words[1:] for words in map(str.split, lines) if words}
    try:
        numbers = np.array([float(word) for word in by_name.get("Tr", ())])
    except ValueError as error:
        raise ValueError(f"{path}: Tr: {error}") from error
    if len(numbers) != 12:
        there = f" (it has {', '.join(by_name)})" if by_name else ""
        raise ValueError(
            f"{path}: no line 'Tr:' with 12 numbers{there}; the camera's poses cannot be moved to the LiDAR"
        )
    return check_rigid(np.vstack([numbers.reshape(3, 4), (0, 0, 0, 1)]), f"{path}: Tr")


def _times(path: Path) -> F64 | None:
    """Seconds (S,), increasing; None if there is no such file."""
    table = _numbers(path)
    if table is None:
        return None
    seconds = table[:, 0]
    if table.shape[1] != 1 or not np.isfinite(seconds).all():
        raise ValueError(f"{path}: one number of seconds a line is wanted")
    if len(back := np.flatnonzero(np.diff(seconds) <= 0)):
        k = int(back[0])
        raise ValueError(f"{path}: line {k + 2} ({seconds[k + 1]:g}) is not later than the one before ({seconds[k]:g})")
    return np.asarray(seconds, np.float64)


def _numbers(path: Path) -> F64 | None:
    """(rows, columns) of a text file, None where there is none."""
    if not path.exists():
        return None
    try:
        text = path.read_text(errors="replace")
        if not text.strip():
            raise ValueError("it is empty; remove it to go without")
        return np.loadtxt(text.splitlines(), ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _matrices(rows: F64, path: Path) -> F64:
    """(S, 4, 4) of (S, 12) row-major 3x4 matrices; ValueError unless all are rigid."""
    if rows.shape[1] != 12:
        raise ValueError(f"{path}: {rows.shape[1]} numbers a line where a 3x4 matrix has 12")
    out = np.tile(np.eye(4), (len(rows), 1, 1))
    out[:, :3] = rows.reshape(-1, 3, 4)
    for k, T in enumerate(out, 1):
        check_rigid(T, f"{path}: line {k}")
    return out
