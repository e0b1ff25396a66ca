# SPDX-License-Identifier: Apache-2.0
"""`vlad map from-cloud`: a map of places from a cloud that another tool has made, for a robot to find itself in.

Virtual keyframes lie on the drivable ground, or along a trajectory. Each is what a local map there would have seen, for
a plain crop of the cloud shows what is behind the houses, too, and looks like no drive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vlad_ros.drive.travel import path_length
from vlad_ros.files.map_cloud import MapCloud
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.drivable import drivable, headings, spread
from vlad_ros.maps.visibility import Tiles, seen_from
from vlad_ros.model.describer import Describer
from vlad_ros.model.kept_geometry import RADIUS
from vlad_ros.poses import from_xyz_rpy, inverse, transform
from vlad_ros.types import F32, F64, Bar, Keyframe

VOXEL = 0.25  # m, as local maps are thinned
FAR = RADIUS  # m that is seen
EYES = np.array([0.0, -2.0, 2.0, -4.0, 4.0])  # m along the way from the keyframe; the first is itself
TILE = 20.0  # m
FEW = 200  # points; who sees less sees nothing


class Stand(NamedTuple):
    """A virtual keyframe: T_cloud_base (4, 4), and the points (E, 3) [m] along the way that it is seen from."""

    T_cloud_base: F64
    eyes: F64


def on_the_ground(points: F32, spacing: float, height: float) -> list[Stand]:
    """Stands `spacing` [m] apart on the drivable ground of `points` (N, 4), the body `height` [m] above it. ValueError
    where there is none."""
    ground = drivable(points)
    places = spread(ground, spacing)
    stands = []
    for (x, y), yaw in zip(places, headings(ground, places), strict=True):
        along = np.array([x, y]) + EYES[:, None] * [np.cos(yaw), np.sin(yaw)]
        cells = ground.at(along)
        eyes = np.column_stack([along, ground.height[cells] + height])[ground.free[cells]]
        stands.append(Stand(from_xyz_rpy((*eyes[0], 0.0, 0.0, float(yaw))), eyes))
    return stands


def along_trajectory(poses: F64, spacing: float) -> list[Stand]:
    """Stands `spacing` [m] apart along `poses` (N, 4, 4) T_cloud_base, seen from where it passes around them."""
    travel = path_length(poses)
    firsts = np.unique(np.searchsorted(travel, np.arange(0.0, travel[-1] + 1e-6, spacing)))
    stands = []
    for at in firsts:
        around = np.clip(travel[at] + EYES, 0.0, travel[-1])
        eyes = np.column_stack([np.interp(around, travel, poses[:, axis, 3]) for axis in range(3)])
        stands.append(Stand(poses[at], eyes))
    return stands


def from_cloud(
    cloud: MapCloud, stands: list[Stand], describer: Describer, name: str, bar: Bar = iter
) -> KeyframeDatabase:
    """A map of one session called `name`, in the frame of `cloud`: a keyframe each of `stands`, whose poses are
    relative to the cloud's origin, with stamps 1, 2, 3 .. ns and no travel. A keyframe's descriptor is of what all its
    eyes see, its single scan's of what the first does. `bar` wraps the iteration. ValueError where nothing is seen."""
    database = KeyframeDatabase(describer.dim, model_hash=describer.model_hash, bev=describer.bev)
    tiles, number = Tiles(cloud.points, TILE), 0
    for at in bar(list(range(len(stands)))):
        stand = stands[at]
        near = tiles.near(stand.T_cloud_base[:2, 3], FAR + float(np.abs(EYES).max()))
        single, seen = (near[seen_from(near, eyes, FAR, VOXEL)] for eyes in (stand.eyes[:1], stand.eyes))
        if len(single) < FEW:
            continue
        number += 1
        scan, view = (describer.see(transform(some, inverse(stand.T_cloud_base))) for some in (single, seen))
        T = stand.T_cloud_base.copy()
        T[:3, 3] += cloud.origin
        database.add(Keyframe(0, number, view.descriptor, scan.descriptor, True, False, T, None, view.geometry()))
    if not number:
        raise ValueError("nothing is seen from any place on the way; does the trajectory lie in the cloud's frame?")
    database.name_session(0, name)
    return database
