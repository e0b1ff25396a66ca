# SPDX-License-Identifier: Apache-2.0
"""Columns of a map file: unknown values are NaN, variable-length data is concatenated with offsets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlad_ros.types import F64, Geometry

Columns = dict[str, "np.ndarray | list[np.ndarray]"]
UNKNOWN = np.full((4, 4), np.nan)


class KeyframeRow(NamedTuple):
    """What the database knows of a keyframe besides descriptors and geometry; the fields are those of `Keyframe`."""

    session: int
    stamp: int
    is_local_map: bool
    partial: bool
    T_odom_base: F64 | None
    travel: float | None


def pack_transforms(transforms: Iterable[F64 | None]) -> F64:
    """(N, 4, 4), NaN where a transform is unknown."""
    known = [UNKNOWN if T is None else T for T in transforms]
    return np.array(known, np.float64).reshape(-1, 4, 4)


def unpack_transforms(packed: F64) -> list[F64 | None]:
    """The inverse of `pack_transforms`."""
    return [None if np.isnan(T[0, 0]) else T for T in packed]


def pack_rows(rows: Sequence[KeyframeRow]) -> Columns:
    """One column per field."""
    return {
        "sessions": np.array([row.session for row in rows], np.uint32),
        "stamps": np.array([row.stamp for row in rows], np.int64),
        "is_local_map": np.array([row.is_local_map for row in rows], np.uint8),
        "partial": np.array([row.partial for row in rows], np.uint8),
        "T_odom_base": pack_transforms(row.T_odom_base for row in rows),
        "travel": np.array([np.nan if row.travel is None else row.travel for row in rows], np.float64),
    }


def unpack_rows(arrays: Mapping[str, np.ndarray]) -> list[KeyframeRow]:
    """The inverse of `pack_rows`."""
    columns = (
        arrays["sessions"].tolist(),
        arrays["stamps"].tolist(),
        arrays["is_local_map"].astype(bool).tolist(),
        arrays["partial"].astype(bool).tolist(),
        unpack_transforms(arrays["T_odom_base"]),
        [None if np.isnan(metres) else metres for metres in arrays["travel"].tolist()],
    )
    return [KeyframeRow(*values) for values in zip(*columns, strict=True)]


def pack_geometries(geometries: Sequence[Geometry | None]) -> Columns:
    """Keypoints, features and clouds one after the other, in pieces that are the geometries' own memory; a keyframe
    without geometry has no T_level_body."""
    present = [geometry for geometry in geometries if geometry is not None]
    size = present[0].features.shape[1] if present else 1
    keypoints = [0 if geometry is None else len(geometry.keypoints) for geometry in geometries]
    points = [0 if geometry is None else len(geometry.cloud) for geometry in geometries]
    return {
        "keypoints": [geometry.keypoints for geometry in present] or [np.empty((0, 2), np.float32)],
        "features": [geometry.features for geometry in present] or [np.empty((0, size), np.int8)],
        "keypoint_offsets": np.cumsum([0, *keypoints], dtype=np.int64),
        "cloud": [geometry.cloud for geometry in present] or [np.empty((0, 3), np.int16)],
        "cloud_offsets": np.cumsum([0, *points], dtype=np.int64),
        "T_level_body": pack_transforms(None if g is None else g.T_level_body for g in geometries),
    }


def unpack_geometries(arrays: Mapping[str, np.ndarray]) -> list[Geometry | None]:
    """The inverse of `pack_geometries`; the geometries are views of the arrays, nothing is copied."""
    keypoints, features, cloud = arrays["keypoints"], arrays["features"], arrays["cloud"]
    spans = zip(
        itertools.pairwise(arrays["keypoint_offsets"].tolist()),
        itertools.pairwise(arrays["cloud_offsets"].tolist()),
        unpack_transforms(arrays["T_level_body"]),
        strict=True,
    )
    return [
        None if T is None else Geometry(keypoints[slice(*k)], features[slice(*k)], cloud[slice(*p)], T)
        for k, p, T in spans
    ]


def check_geometry(geometry: Geometry, feature_size: int | None) -> None:
    """ValueError unless shapes and types are those of `Geometry`, its numbers finite, and its features of the length
    that the map's other features have (None: there are none)."""
    features = geometry.features
    wanted: tuple[tuple[str, np.ndarray, type, tuple[int, ...]], ...] = (
        ("keypoints", geometry.keypoints, np.float32, (len(features), 2)),
        ("features", features, np.int8, (len(features), feature_size or (features.shape[1:] or (1,))[0])),
        ("cloud", geometry.cloud, np.int16, (len(geometry.cloud), 3)),
        ("T_level_body", geometry.T_level_body, np.float64, (4, 4)),
    )
    for name, array, dtype, shape in wanted:
        if array.dtype != dtype or array.shape != shape:
            kind = np.dtype(dtype).name
            raise ValueError(f"{name} must be {kind} of shape {shape}, not {array.dtype} of shape {array.shape}")
    if not np.all(np.isfinite(geometry.keypoints)) or not np.all(np.isfinite(geometry.T_level_body)):
        raise ValueError("keypoints and T_level_body of a keyframe must be finite")
