# SPDX-License-Identifier: Apache-2.0
"""A map as one cloud: what its keyframes keep for verification, at their poses in the map. It is coarse: some thousand
points each, thinned to 0.4 m."""

from __future__ import annotations

import os

from vlad_ros.cloud.decode import four_columns
from vlad_ros.cloud.growing import GrowingCloud
from vlad_ros.files.ply import write_ply
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.types import Ints

VOXEL = 0.2  # m


def save_kept(database: KeyframeDatabase, ids: Ints, path: str | os.PathLike[str]) -> str:
    """Write the points of the keyframes `ids` that have a pose as one PLY file, the first point in each voxel; what was
    done. The database may grow meanwhile in another thread. ValueError where none has points and a pose, OSError if the
    file cannot be written."""
    cloud, number = GrowingCloud(VOXEL), 0
    for id in ids.tolist():
        T_map_base = database.T_map_base(id) if database.rows.is_present(id) else None
        geometry = None if T_map_base is None else database.geometry(id)
        if T_map_base is not None and geometry is not None and len(geometry.cloud):
            cloud.add(four_columns(geometry.points), T_map_base)
            number += 1
    points, origin = cloud.points(), cloud.origin
    if origin is None:
        raise ValueError("no keyframe has a pose in the map and points, so there is no cloud: it needs odometry")
    write_ply(path, points, origin, intensity=False)
    return f"{len(points)} points that {number} keyframes keep, coarse, in {os.path.realpath(path)}"
