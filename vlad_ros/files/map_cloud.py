# SPDX-License-Identifier: Apache-2.0
"""A map that another tool has made: its cloud (.pcd, .ply, .las, .laz, .npy) and its trajectory (TUM or KITTI)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vlad_ros.cloud.growing import GrowingCloud
from vlad_ros.files import pcd, ply
from vlad_ros.poses import check_all_rigid, decode
from vlad_ros.types import F32, F64, PathLike

CHUNK = 2_000_000  # points read at once
FARTHEST = 1e8  # m; no map lies farther from its origin


class MapCloud(NamedTuple):
    """The points (N, 4) float32 [m] relative to `origin` (3,) float64, the first in each voxel; `read`: how many there
    were."""

    points: F32
    origin: F64
    read: int


def read_map_cloud(path: PathLike, voxel: float) -> MapCloud:
    """The cloud in a file, thinned to `voxel` [m] as it is read. ValueError says what is wrong with it, or which
    package reads it."""
    path = Path(path)
    readers = {".pcd": pcd.xyz_chunks, ".ply": ply.xyz_chunks, ".las": _las, ".laz": _las, ".npy": _npy}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: not a known kind of map; use one of {', '.join(readers)}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    cloud, origin, read = GrowingCloud(voxel), None, 0
    try:
        for chunk in readers[path.suffix.lower()](path, CHUNK):
            finite = chunk[(np.abs(chunk) < FARTHEST).all(axis=1)]  # nor is what is not finite
            read += len(finite)
            if not len(finite):
                continue
            if origin is None:
                origin = np.floor(np.median(finite, axis=0))
            cloud.add(np.pad(finite - origin, ((0, 0), (0, 1))).astype(np.float32), np.eye(4))
    except MemoryError as error:
        raise ValueError(f"{path}: there is not enough memory for it; thin it before") from error
    if origin is None:
        raise ValueError(f"{path}: there are no points in it")
    return MapCloud(cloud.points(), origin, read)


def _npy(path: Path, size: int) -> Iterator[np.ndarray]:
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        if table.ndim != 2 or table.shape[1] < 3 or table.dtype.kind not in "fiu":
            raise ValueError(f"points must be numbers (N, 3) or wider, not {table.dtype} {table.shape}")
    except Exception as error:  # any error that numpy raises on a damaged file
        raise ValueError(f"{path}: not a readable array of points ({error})") from error
    for first in range(0, len(table), size):
        yield np.asarray(table[first : first + size, :3], np.float64)


def _las(path: Path, size: int) -> Iterator[np.ndarray]:
    try:
        import laspy
    except ImportError as error:
        raise ValueError(
            f"{path}: .las is read by laspy, which is not installed: pip install 'laspy[lazrs]'"
        ) from error
    try:
        with laspy.open(path) as file:
            for chunk in file.chunk_iterator(size):
                yield np.column_stack([np.asarray(getattr(chunk, axis), np.float64) for axis in "xyz"])
    except Exception as error:  # whatever laspy and its back-ends raise on a damaged file
        raise ValueError(f"{path}: not a readable LAS file ({error})") from error


def read_trajectory(path: PathLike) -> F64:
    """The poses (N, 4, 4) of a TUM file (stamp, x y z, quaternion x y z w) or a KITTI one (rows of a 3x4 matrix).
    ValueError says what is wrong with it."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
        if not any(line.strip() for line in lines):
            raise ValueError("it is empty")
        rows = np.loadtxt(lines, np.float64, ndmin=2)
        if not len(rows) or rows.shape[1] not in (8, 12):
            raise ValueError(f"{rows.shape[1]} numbers a line, TUM has 8 and KITTI 12")
        if rows.shape[1] == 8:
            return decode(rows[:, 1:4], rows[:, 4:])
        poses = np.tile(np.eye(4), (len(rows), 1, 1))
        poses[:, :3] = rows.reshape(-1, 3, 4)
        return check_all_rigid(poses, "a pose")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable trajectory ({error})") from error
