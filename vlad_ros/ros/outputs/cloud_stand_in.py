# SPDX-License-Identifier: Apache-2.0
"""`create_cloud` of sensor_msgs_py, or, if that is not installed (no registry has it), a minimal substitute."""

from __future__ import annotations

import array
import sys
from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header


def stand_in(header: Header, fields: list[PointField], points: np.ndarray) -> PointCloud2:
    """An unorganised cloud of the structured array `points` (N,), whose dtype agrees with `fields`."""
    step = points.dtype.itemsize
    cloud = PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=sys.byteorder == "big",
        point_step=step,
        row_step=step * len(points),
        is_dense=False,
    )
    # An array.array is passed on unchanged; a numpy array would be copied element by element.
    cloud.data = array.array("B", points.tobytes())
    return cloud


def _find() -> Any:
    try:
        from sensor_msgs_py.point_cloud2 import create_cloud
    except ImportError:
        return stand_in
    return create_cloud


create_cloud = _find()
