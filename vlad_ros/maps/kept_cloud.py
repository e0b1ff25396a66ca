# SPDX-License-Identifier: Apache-2.0
"""A map as one cloud: what its keyframes keep for verification, at their poses in the map. It is coarse: some thousand
points each, thinned to 0.4 m."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlad_ros.cloud.decode import four_columns
from vlad_ros.cloud.growing import GrowingCloud
from vlad_ros.files.ply import write_ply
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.types import F64, POINT_SCALE

VOXEL = 0.2  # m


class Kept(NamedTuple):
    """The cloud of a keyframe, as `Geometry` keeps it (N, 3), and its pose in the map (4, 4)."""

    cloud: npt.NDArray[np.int16]
    T_map_base: F64


def kept_clouds(database: KeyframeDatabase) -> list[Kept]:
    """Of all keyframes that have both, in their order. ValueError where none has."""
    found = []
    for id in database.ids().tolist():
        geometry, T_map_base = database.geometry(id), database.T_map_base(id)
        if geometry is not None and len(geometry.cloud) and T_map_base is not None:
            found.append(Kept(geometry.cloud, T_map_base.copy()))
    if not found:
        raise ValueError("no keyframe has a pose in the map and points, so there is no cloud: it needs odometry")
    return found


def save_kept(kept: list[Kept], path: str | os.PathLike[str]) -> str:
    """Write them as one PLY file, the first point in each voxel; what was done. OSError if it cannot be written."""
    cloud = GrowingCloud(VOXEL)
    for one in kept:
        cloud.add(four_columns(one.cloud * np.float32(POINT_SCALE)), one.T_map_base)
    points, origin = cloud.points(), cloud.origin
    assert origin is not None  # there is one at least
    write_ply(path, points, origin, intensity=False)
    return f"{len(points)} points that {len(kept)} keyframes keep, coarse, in {os.path.realpath(path)}"
