# SPDX-License-Identifier: Apache-2.0
"""Sweeps of a body in steady motion, and messages of points that say when they were measured."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.linalg import expm

from vlad_ros.stamps import SECOND

MS = 1_000_000
STAMP = 1_700_000_000 * SECOND + 123_456_789
FLOAT32, FLOAT64, UINT32 = 7, 8, 6


def moving(twist: np.ndarray, seconds: np.ndarray | float) -> np.ndarray:
    """T_odom_body (..., 4, 4) of a steady twist, by the general matrix exponential."""
    x, y, z, a, b, c = twist
    T = expm(
        np.array([[0, -c, b, x], [c, 0, -a, y], [-b, a, 0, z], [0, 0, 0, 0]]) * np.asarray(seconds)[..., None, None]
    )
    T[..., 3, :] = 0, 0, 0, 1
    return T


def cloud(field: str | None, kind: int, times: Any, **changes: Any) -> SimpleNamespace:
    """One row of points x = 0, 1, ... with such a field, at byte 16, and the whole message's other attributes."""
    code = {FLOAT32: "f", FLOAT64: "d", UINT32: "I"}[kind]
    rows = [
        struct.pack("<ffff", i, 5, 0, 1) + struct.pack(f"<{code}", time).ljust(8, b"\0") for i, time in enumerate(times)
    ]
    fields = [SimpleNamespace(name=name, offset=4 * k, datatype=FLOAT32, count=1) for k, name in enumerate("xyzi")]
    if field:
        fields.append(SimpleNamespace(name=field, offset=16, datatype=kind, count=1))
    message = dict(
        fields=fields, data=b"".join(rows), height=1, width=len(rows), point_step=24, row_step=24 * len(rows),
        is_bigendian=False,
    )  # fmt: skip
    return SimpleNamespace(**(message | changes))
