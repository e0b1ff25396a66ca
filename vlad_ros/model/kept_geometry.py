# SPDX-License-Identifier: Apache-2.0
"""The cloud that a keyframe stores for verification: few points, evenly spread, most of them above the ground."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import small_gicp

from vlad_ros.cloud.raster import Bev
from vlad_ros.jit import kernel
from vlad_ros.types import F32, F64, POINT_SCALE, Bools, Ints

RADIUS = 60.0  # m around the body
GROUND = 0.3  # m above the fitted plane; below it a point is ground
VOXEL = 0.4  # m
GROUND_VOXEL = 1.0  # m; enough to hold height, roll and pitch
STANDING, LYING = 2000, 800  # points kept at most, above the ground and on it
STEP = 7  # of the kept coordinates, in POINT_SCALE: 3.5 cm
BLOCK = 16 * STEP  # side of the blocks by which the points are ordered, so that neighbours follow each other
FEATURE_STEP = 6  # of the kept features, in 127ths
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


@kernel
def _principal(C: F64) -> tuple[float, float, F64]:
    """Second and first eigenvalue of the symmetric `C` (3, 3), in closed form (Smith, 1961), and the first's axis."""
    q = (C[0, 0] + C[1, 1] + C[2, 2]) / 3.0
    B = C - q * np.eye(3)
    p = math.sqrt((B * B).sum() / 6.0)
    if p == 0.0:
        return q, q, np.array([1.0, 0.0, 0.0])
    B /= p
    half = 0.5 * (B[0] * np.cross(B[1], B[2])).sum()
    angle = math.acos(min(1.0, max(-1.0, half))) / 3.0
    first, last = 2.0 * math.cos(angle), 2.0 * math.cos(angle + 2.0 * math.pi / 3.0)
    for i in range(3):
        B[i, i] -= first
    axis, longest = B[0], -1.0  # two rows of what is left span the plane across the axis
    for i in range(3):
        across = np.cross(B[i], B[(i + 1) % 3])
        length = (across * across).sum()
        if length > longest:
            axis, longest = across, length
    return q - p * (first + last), q + p * first, axis / math.sqrt(max(longest, 1e-300))


@kernel
def _off_lines(points: F64, index: Ints, up: F64) -> Bools:
    """(N,) whether a point's neighbours `index` (N, K) do not lie on a line, or on one along `up`."""
    out = np.empty(len(points), np.bool_)
    for n in range(len(points)):
        mean = np.zeros(3)
        for k in index[n]:
            mean += points[k]
        mean /= index.shape[1]
        C = np.zeros((3, 3))
        for k in index[n]:
            for i in range(3):
                for j in range(3):
                    C[i, j] += (points[k, i] - mean[i]) * (points[k, j] - mean[j])
        second, first, axis = _principal(C)
        out[n] = second >= LINE * first or abs((axis * up).sum()) > UPRIGHT
    return out


def _without_lines(points: F64, up: F64) -> F64:
    """Without the points on single scan lines: they have no surface normal, and the lines of two scans would be
    registered to each other. Lines along `up` stay: they are poles and edges, never scan lines."""
    if len(points) <= NEIGHBOURS:
        return points
    index, _ = small_gicp.KdTree(points).batch_knn_search(points, NEIGHBOURS)
    return points[_off_lines(points, np.asarray(index, np.int64), up)]


def compact_cloud(points: F32, T_level_body: F64) -> npt.NDArray[np.int16]:
    """The (N, 3) int16 cloud of `types.Geometry`, from `points` (M, >=3) [m] in the body frame."""
    near = points[(points[:, 0] ** 2 + points[:, 1] ** 2) < RADIUS**2, :3].astype(np.float64)
    height = near @ T_level_body[2, :3] + T_level_body[2, 3]
    kept = np.concatenate(
        [_thin(near[height >= GROUND], VOXEL, STANDING), _thin(near[height < GROUND], GROUND_VOXEL, LYING)]
    )
    limit = (np.iinfo(np.int16).max - STEP) * POINT_SCALE
    kept = kept[np.abs(kept[:, 2]) < limit]
    cloud = np.round(_without_lines(kept, T_level_body[2, :3]) / (STEP * POINT_SCALE)).astype(np.int16) * np.int16(STEP)
    return cloud[np.lexsort((cloud // BLOCK).T[::-1])]


def compact_features(features: F32) -> npt.NDArray[np.int8]:
    """The (K, C) int8 features of `types.Geometry`, from unit ones (K, C)."""
    most = np.iinfo(np.int8).max // FEATURE_STEP
    steps = np.round(features * np.float32(127.0 / FEATURE_STEP)).clip(-most, most)
    return steps.astype(np.int8) * np.int8(FEATURE_STEP)
