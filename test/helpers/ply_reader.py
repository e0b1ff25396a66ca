# SPDX-License-Identifier: Apache-2.0
"""Reads a PLY file by its own header alone, as the format's description says (Turk, 1994)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

LETTERS = {"float": "f", "double": "d", "uchar": "B", "int": "i"}


def read_ply(path: Path) -> tuple[dict[str, str], np.ndarray]:
    """The vertices' properties with their types, in order, and their values (N, P)."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    (element,) = [line.split() for line in lines if line.startswith("element")]
    properties = {line.split()[2]: line.split()[1] for line in lines if line.startswith("property")}
    row = struct.Struct("<" + "".join(LETTERS[kind] for kind in properties.values()))
    values = list(row.iter_unpack(body))
    assert element[1] == "vertex" and len(values) == int(element[2])
    return properties, np.array(values).reshape(-1, len(properties))
