# SPDX-License-Identifier: Apache-2.0
"""`vlad map rebuild`: a map described again with other weights, from the clouds that it stores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.new_map import fill
from vlad_ros.types import Bar, Geometry, Keyframe

if TYPE_CHECKING:
    from vlad_ros.model.describer import Describer


def rebuild(database: KeyframeDatabase, describer: Describer, bar: Bar = iter) -> KeyframeDatabase:
    """A new database whose descriptors, keypoints and features `describer` computes from the stored clouds.

    Driving the route again is better: the stored clouds are thinned, so that scans of a dense sensor are less similar
    to descriptors made from them than to those of whole clouds; and a keyframe stores one cloud, so that a local map's
    keyframe has its single scan's descriptor made from the local map, too. `bar` wraps the iteration over the ids,
    for a progress bar. ValueError for a map of rasters given from outside, or with keyframes that have no points.
    """
    if database.kind != "points":
        raise ValueError("the map was made from rasters given from outside, which it does not keep; record it anew")
    ids = database.ids().tolist()
    empty = sum(geometry is None or not len(geometry.cloud) for geometry in map(database.geometry, ids))
    if empty:
        raise ValueError(f"{empty} of the map's {len(database)} keyframes have no points to describe; record it anew")
    built = KeyframeDatabase(describer.dim, model_hash=describer.model_hash, bev=describer.bev)
    fill(built, database, ((id, _described_anew(database.whole(id), describer)) for id in bar(ids)))
    return built


def _described_anew(keyframe: Keyframe, describer: Describer) -> Keyframe:
    geometry = keyframe.geometry
    if geometry is None:  # ruled out above
        return keyframe
    seen = describer.see(_cloud(geometry))
    return dataclasses.replace(
        keyframe,
        descriptor=seen.descriptor,
        scan_descriptor=None if keyframe.scan_descriptor is None else seen.descriptor,
        geometry=dataclasses.replace(seen.geometry(), cloud=geometry.cloud),  # not thinned a second time
    )


def _cloud(geometry: Geometry) -> np.ndarray:
    """(N, 4) float32, as scans come in; the stored cloud has no intensity, so that is 0."""
    points = np.zeros((len(geometry.cloud), 4), np.float32)
    points[:, :3] = geometry.points
    return points
