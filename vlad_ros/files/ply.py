# SPDX-License-Identifier: Apache-2.0
"""Point clouds as PLY files, binary and little-endian: CloudCompare, MeshLab, Open3D and Blender read them."""

from __future__ import annotations

import os

import numpy as np

from vlad_ros.atomic import replacing
from vlad_ros.types import F32, F64

FAR = 8192.0  # m from the origin; beyond, float32 is coarser than half a millimetre
CHUNK = 1_000_000  # points


def write_ply(path: str | os.PathLike[str], points: F32, origin: F64, intensity: bool = True) -> None:
    """Write `points` (N, 4) x y z [m] relative to `origin` (3,), and their intensity unless it means nothing; at
    once or not at all. Coordinates are float, or double where float would be too coarse. OSError if it cannot be
    written."""
    far = bool(len(points)) and float(np.abs(points[:, :3] + origin).max()) > FAR
    kind = "<f8" if far else "<f4"
    row = np.dtype([(axis, kind) for axis in "xyz"] + [("intensity", "<f4")] * intensity)
    names = "".join(f"property {'float' if row[name] == '<f4' else 'double'} {name}\n" for name in row.names or ())
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{names}end_header\n"
    with replacing(path, durable=True) as temporary, open(temporary, "wb") as file:
        file.write(header.encode())
        for begin in range(0, len(points), CHUNK):
            chunk = points[begin : begin + CHUNK]
            rows = np.empty(len(chunk), row)
            for column, name in enumerate(row.names or ()):
                rows[name] = chunk[:, column] + (origin[column] if column < 3 else 0.0)
            file.write(rows.tobytes())
