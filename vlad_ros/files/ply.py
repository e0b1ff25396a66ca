# SPDX-License-Identifier: Apache-2.0
"""Point clouds as PLY files: read as text or binary, written binary and little-endian, as CloudCompare, MeshLab, Open3D
and Blender read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlad_ros.atomic import replacing
from vlad_ros.types import F32, F64

FAR = 8192.0  # m from the origin; beyond, float32 is coarser than half a millimetre
CHUNK = 1_000_000  # points
FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4", "float32": "f4"}
TYPES |= {"double": "f8", "float64": "f8"}
LONGEST = 65536  # bytes of a header


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


def xyz_chunks(path: Path, size: int) -> Iterator[np.ndarray]:
    """x y z (N, 3) float64 of a file's vertices, `size` at a time. ValueError where it cannot be read."""
    try:
        order, points, names, kinds, begin = _header(path)
        at = [names.index(axis) for axis in "xyz"]
        if not order:
            with open(path, "rb") as file:
                file.seek(begin)
                rows = np.loadtxt(file, np.float64, usecols=at, max_rows=points, ndmin=2)
            if len(rows) < points:
                raise ValueError(f"{points} vertices are told, {len(rows)} are there")
            yield from (rows[first : first + size] for first in range(0, points, size))
            return
        row = np.dtype([(f"{n}", order + kind) for n, kind in enumerate(kinds)])
        table = np.memmap(path, row, "r", begin, points)
    except (KeyError, ValueError, IndexError, OSError) as error:
        raise ValueError(f"{path}: not a readable PLY file ({error})") from error
    for first in range(0, points, size):
        some = table[first : first + size]
        yield np.column_stack([some[str(column)].astype(np.float64) for column in at])


def _header(path: Path) -> tuple[str, int, list[str], list[str], int]:
    """Byte order, empty for text; number of vertices; their properties and types; where the data begin."""
    with open(path, "rb") as file:
        content = file.read(LONGEST)
    end = content.find(b"end_header")
    if not content.startswith(b"ply") or end < 0:
        raise ValueError("it has no PLY header")
    lines = [line.split() for line in content[:end].decode("ascii", "replace").splitlines()]
    (order,) = [FORMATS[words[1]] for words in lines if words[:1] == ["format"]]
    elements = [at for at, words in enumerate(lines) if words[:1] == ["element"]]
    if not elements or lines[elements[0]][1] != "vertex":
        raise ValueError("its first element is not vertex")
    last = elements[1] if len(elements) > 1 else len(lines)
    properties = [words for words in lines[elements[0] : last] if words[:1] == ["property"]]
    kinds = [TYPES[words[1]] for words in properties]
    return order, int(lines[elements[0]][2]), [words[2] for words in properties], kinds, content.index(b"\n", end) + 1
