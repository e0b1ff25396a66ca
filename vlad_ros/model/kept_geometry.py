# SPDX-License-Identifier: Apache-2.0
"""The cloud that a keyframe stores for verification: few points, evenly spread, most of them above the ground."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import small_gicp

from vlad_ros.cloud.raster import Bev
from vlad_ros.types import F32, F64, POINT_SCALE

RADIUS = 60.0  # m around the body
GROUND = 0.3  # m above the fitted plane; below it a point is ground
VOXEL = 0.4  # m
GROUND_VOXEL = 1.0  # m; enough to hold height, roll and pitch
STANDING, LYING = 2400, 1000  # points kept at most, above the ground and on it
COARSER = 1.25  # factor of the voxel's side, repeated until the points are few enough
NEIGHBOURS = 10  # whose spread tells whether a point lies on a line
LINE = 0.05  # second over first variance of the neighbours; below it they lie on a line
UPRIGHT = 0.8  # cosine to the vertical; such a line is a pole or an edge


def T_level_body(bev: Bev) -> F64:
    """(4, 4) from the body into the levelled frame of `bev`."""
    T = np.eye(4)
    T[:3, :3] = bev.R_level_body
    T[2, 3] = -bev.ground
    return T


def _thin(points: F64, voxel: float, most: int) -> F64:
    """The mean per voxel, (M, 3); what is left is thinned again by larger ones until there are at most `most`. The
    first `voxel` has this side [m]."""
    while len(points):
        points = np.asarray(small_gicp.voxelgrid_sampling(points, voxel).points())[:, :3]
        if len(points) <= most:
            break
        voxel *= COARSER
    return points


def _without_lines(points: F64, up: F64) -> F64:
    """Without the points on single scan lines: they have no surface normal, and the lines of two scans would be
    registered to each other. Lines along `up` stay: they are poles and edges, never scan lines."""
    if len(points) <= NEIGHBOURS:
        return points
    index, _ = small_gicp.KdTree(points).batch_knn_search(points, NEIGHBOURS)
    around = points[np.asarray(index)]
    around -= around.mean(axis=1, keepdims=True)
    variances, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
    is_line = variances[:, 1] < LINE * variances[:, 2]
    return points[~is_line | (np.abs(axes[:, :, 2] @ up) > UPRIGHT)]


def compact_cloud(points: F32, T_level_body: F64) -> npt.NDArray[np.int16]:
    """The (N, 3) int16 cloud of `types.Geometry`, from `points` (M, >=3) [m] in the body frame."""
    near = points[(points[:, 0] ** 2 + points[:, 1] ** 2) < RADIUS**2, :3].astype(np.float64)
    height = near @ T_level_body[2, :3] + T_level_body[2, 3]
    kept = np.concatenate(
        [_thin(near[height >= GROUND], VOXEL, STANDING), _thin(near[height < GROUND], GROUND_VOXEL, LYING)]
    )
    limit = np.iinfo(np.int16).max * POINT_SCALE
    kept = kept[np.abs(kept[:, 2]) < limit]
    return np.round(_without_lines(kept, T_level_body[2, :3]) / POINT_SCALE).astype(np.int16)
