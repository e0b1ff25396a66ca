# SPDX-License-Identifier: Apache-2.0
"""Whether a geometry is one that a map can hold."""

from __future__ import annotations

import numpy as np

from vlad_ros.mapping.codec import check_sizes
from vlad_ros.types import Geometry


def check_geometry(geometry: Geometry, feature_size: int | None) -> None:
    """ValueError unless shapes and types are those of `Geometry`, its numbers finite, its features of the length that
    the map's other features have (None: there are none), and it is not too large."""
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
    check_sizes(len(features), features.shape[1], len(geometry.cloud))
    if not np.all(np.isfinite(geometry.keypoints)) or not np.all(np.isfinite(geometry.T_level_body)):
        raise ValueError("keypoints and T_level_body of a keyframe must be finite")
