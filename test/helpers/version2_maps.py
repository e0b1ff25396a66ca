# SPDX-License-Identifier: Apache-2.0
"""Write maps of format version 2 (safetensors): the program only reads them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.types import F64, Keyframe

BLANK = b"0" * 64


def write_version2(path: Path, database: KeyframeDatabase) -> None:
    """The map `database`, as version 2."""
    write_arrays(path, columns(database), metadata(database))


def metadata(database: KeyframeDatabase) -> dict[str, str]:
    """How the map was made."""
    return {**database.store.make, "format": "vlad_ros_map", "version": "2"}


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], told: Mapping[str, str]) -> None:
    """Any arrays, with a right checksum: the SHA-256 of the file with blank digits in its place."""
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = save(arrays, {**told, "sha256": BLANK.decode()})
    at = content.index(b'"sha256":"') + len(b'"sha256":"')
    assert content[at : at + 64] == BLANK
    path.write_bytes(content[:at] + hashlib.sha256(content).hexdigest().encode() + content[at + 64 :])


def columns(database: KeyframeDatabase) -> dict[str, np.ndarray]:
    """Unknown values are NaN, what has a variable length is concatenated, with offsets."""
    ids = range(len(database))
    rows = [database.whole(id) for id in ids]
    local = [row for row in rows if row.is_local_map]
    nothing = np.zeros(database.dim, np.float32)
    scans = [nothing if row.scan_descriptor is None else row.scan_descriptor for row in local]
    descriptors = (len(local), database.dim), (len(rows) - len(local), database.dim)
    return {
        "local_descriptors": np.array([row.descriptor for row in local], np.float32).reshape(descriptors[0]),
        "local_scan_descriptors": np.array(scans, np.float32).reshape(descriptors[0]),
        "single_scan_descriptors": np.array(
            [row.descriptor for row in rows if not row.is_local_map], np.float32
        ).reshape(descriptors[1]),
        "T_map_base": _transforms([database.corrections.told(id) for id in ids]),
        "session_ids": np.array(list(database.sessions), np.uint32),
        "session_T_map_odom": _transforms(list(database.sessions.values())),
        "sessions": np.array([row.session for row in rows], np.uint32),
        "stamps": np.array([row.stamp for row in rows], np.int64),
        "is_local_map": np.array([row.is_local_map for row in rows], np.uint8),
        "partial": np.array([row.partial for row in rows], np.uint8),
        "T_odom_base": _transforms([row.T_odom_base for row in rows]),
        "travel": np.array([np.nan if row.travel is None else row.travel for row in rows], np.float64),
        **_geometries(rows),
    }


def _geometries(rows: list[Keyframe]) -> dict[str, np.ndarray]:
    present = [row.geometry for row in rows if row.geometry is not None]
    size = present[0].features.shape[1] if present else 1
    keypoints = [0 if row.geometry is None else len(row.geometry.keypoints) for row in rows]
    points = [0 if row.geometry is None else len(row.geometry.cloud) for row in rows]
    return {
        "keypoints": np.concatenate([np.empty((0, 2), np.float32), *(g.keypoints for g in present)]),
        "features": np.concatenate([np.empty((0, size), np.int8), *(g.features for g in present)]),
        "keypoint_offsets": np.cumsum([0, *keypoints], dtype=np.int64),
        "cloud": np.concatenate([np.empty((0, 3), np.int16), *(g.cloud for g in present)]),
        "cloud_offsets": np.cumsum([0, *points], dtype=np.int64),
        "T_level_body": _transforms([None if row.geometry is None else row.geometry.T_level_body for row in rows]),
    }


def _transforms(transforms: list[F64 | None]) -> F64:
    unknown = np.full((4, 4), np.nan)
    return np.array([unknown if T is None else T for T in transforms], np.float64).reshape(-1, 4, 4)
