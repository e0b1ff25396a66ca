# SPDX-License-Identifier: Apache-2.0
"""The sequence format: a drive's scans, and its poses and stamps where known, in one `.npz`.

Arrays: ``xyz`` int16 (sum_n, 3), times ``scale`` [m]; ``offsets`` int64 (scans + 1), scan i is
``xyz[offsets[i]:offsets[i + 1]]``; optional ``intensity`` float16 (sum_n,), ``poses`` float64 (scans, 4, 4)
T_map_sensor, ``stamps`` float64 [s].
"""

from __future__ import annotations

import itertools
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.atomic import replacing
from vlad_ros.stamps import nanoseconds
from vlad_ros.types import F32, F64

MAX_RANGE_INT16 = 32767


@dataclass(frozen=True, eq=False)
class Sequence:
    """Scans ``(N, 4) float32`` x y z intensity [m] in the sensor frame; ``poses`` (S, 4, 4) T_map_sensor or None;
    ``stamps`` (S,) float64 [s] or None."""

    name: str
    scans: list[F32]
    poses: F64 | None = None
    stamps: F64 | None = None

    def __len__(self) -> int:
        return len(self.scans)

    def poses_to(self, purpose: str) -> F64:
        """The poses (S, 4, 4); ValueError saying that there are none to `purpose` by."""
        if self.poses is None:
            raise ValueError(f"{self.name}: has no poses to {purpose} by")
        return self.poses

    def stamps_ns(self, rate: float = 10.0) -> list[int]:
        """Integer nanoseconds of each scan; where the file has no stamps, evenly at `rate` from one second on."""
        if self.stamps is None:
            return [nanoseconds(1.0 + i / rate) for i in range(len(self))]
        return [nanoseconds(s) for s in self.stamps]


def load_sequence(path: str | os.PathLike[str]) -> Sequence:
    """Read a sequence file. ValueError names the file and what is wrong with it; nothing is unpickled."""
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such sequence file") from error
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npz sequence ({error})") from error
    missing = [key for key in ("xyz", "scale", "offsets") if key not in arrays]
    if missing:
        raise ValueError(f"{path}: not a sequence file, {', '.join(missing)} missing")
    offsets = arrays["offsets"]
    if len(offsets) < 1 or offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] != len(arrays["xyz"]):
        raise ValueError(f"{path}: offsets do not cover the {len(arrays['xyz'])} points")
    for key in ("poses", "stamps"):
        if key in arrays and len(arrays[key]) != len(offsets) - 1:
            raise ValueError(f"{path}: {len(arrays[key])} {key} for {len(offsets) - 1} scans")
    points = np.zeros((len(arrays["xyz"]), 4), np.float32)
    points[:, :3] = arrays["xyz"].astype(np.float32) * np.float32(arrays["scale"])
    if "intensity" in arrays:
        points[:, 3] = arrays["intensity"]
    scans = [points[a:b] for a, b in itertools.pairwise(offsets)]
    return Sequence(path.stem, scans, arrays.get("poses"), arrays.get("stamps"))


def save_sequence(path: str | os.PathLike[str], sequence: Sequence, scale: float = 0.005) -> None:
    """Write a sequence file; points beyond ``32767 * scale`` metres are a ValueError, never wrapped around."""
    points = np.concatenate(sequence.scans) if sequence.scans else np.zeros((0, 4), np.float32)
    quantised = np.round(points[:, :3] / scale)
    if len(points) and np.abs(quantised).max() > MAX_RANGE_INT16:
        raise ValueError(f"{path}: points beyond {MAX_RANGE_INT16 * scale:.0f} m do not fit scale {scale}")
    arrays: dict[str, Any] = {
        "xyz": quantised.astype(np.int16),
        "scale": np.float32(scale),
        "offsets": np.cumsum([0] + [len(scan) for scan in sequence.scans]),
        "intensity": points[:, 3].astype(np.float16),
    }
    if sequence.poses is not None:
        arrays["poses"] = sequence.poses
    if sequence.stamps is not None:
        arrays["stamps"] = sequence.stamps
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
