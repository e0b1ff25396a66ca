# SPDX-License-Identifier: Apache-2.0
"""A scan as input to the drive: cleaned points, stamp and pose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vlad_ros.cloud.crop import clean, outside
from vlad_ros.cloud.decode import CloudError
from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.poses import check_rigid
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64


@dataclass(frozen=True, eq=False)
class Scan:
    """`points` (N, 4) [m] in the body frame, the stamp [ns], the raster (C, H, W) given with it and `T_odom_base`
    (4, 4), both None if absent."""

    points: F32
    stamp: int
    raster: F32 | None = None
    T_odom_base: F64 | None = None


class Place(NamedTuple):
    """Position of a scan along its drive: `travel` [m] and `T_odom_base` are None without odometry."""

    stamp: int
    T_odom_base: F64 | None
    travel: float | None


def check_scan(
    points: np.ndarray,
    stamp: int,
    raster: F32 | None,
    T_odom_base: F64 | None,
    config: RecognizerConfig,
    bev: BevConfig,
    cropped: bool = False,
) -> Scan:
    """A scan of checked input, its points cropped as `config` says unless they are `cropped` (`BodyPoints`).

    CloudError (a ValueError) for an unusable cloud, ValueError for a stamp that is not a 63-bit integer, a transform
    that is not rigid, or a raster that is not finite or not of the size and channels of `bev`.
    """
    points = crop(points, config, bev, cropped)
    if not isinstance(stamp, (int, np.integer)) or not 0 <= stamp < 2**63:
        raise ValueError(f"stamp must be an integer number of nanoseconds, not {stamp!r}")
    if raster is not None:
        raster = np.asarray(raster, np.float32)
        shape = (bev.channels, bev.size, bev.size)
        if raster.shape != shape or not np.all(np.isfinite(raster)):
            raise ValueError(f"BEV must be finite numbers of shape {shape}, not of shape {raster.shape}")
    return Scan(points, int(stamp), raster, None if T_odom_base is None else check_rigid(T_odom_base))


@stage("crop")
def crop(points: np.ndarray, config: RecognizerConfig, bev: BevConfig, cropped: bool = False) -> F32:
    """The finite points (N, 4) between `min_range` and `max_range` of their origin and outside of `body_box`, or all of
    them if they are already `cropped`; CloudError if none lies in the raster."""
    if cropped:
        points = clean(points, 0.0, np.inf)
    else:
        points = clean(points, config.min_range, config.max_range)
        points = points[outside(points, config.body_box)]
    half = bev.extent / 2
    if not np.any((np.abs(points[:, 0]) < half) & (np.abs(points[:, 1]) < half)):
        raise CloudError("out_of_range", f"none of the points lies in the raster, {half:g} m to each side")
    return points
