# SPDX-License-Identifier: Apache-2.0
"""The sequence format: a drive's scans, and its poses and stamps where known, in one `.npz`.

Arrays: ``xyz`` int16 (sum_n, 3), times ``scale`` [m]; ``offsets`` int64 (scans + 1), scan i is
``xyz[offsets[i]:offsets[i + 1]]``; optional ``intensity`` float16 (sum_n,), ``poses`` float64 (scans, 4, 4)
T_map_sensor, ``stamps`` float64 [s].
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlad_ros.atomic import replacing
from vlad_ros.poses import check_rigid
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
        """The poses (S, 4, 4); ValueError if there are none, which `purpose` needs."""
        if self.poses is None:
            raise ValueError(f"{self.name}: has no poses to {purpose} by")
        return self.poses

    def stamps_ns(self, rate: float = 10.0) -> list[int]:
        """Integer nanoseconds of each scan; without stamps in the file, evenly spaced at `rate`, starting at 1 s."""
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
    except Exception as error:  # any error of numpy, zipfile or zlib on a damaged file
        raise ValueError(f"{path}: not a readable .npz sequence ({error})") from error
    missing = [key for key in ("xyz", "scale", "offsets") if key not in arrays]
    if missing:
        raise ValueError(f"{path}: not a sequence file, {', '.join(missing)} missing")
    try:
        return _sequence(path.stem, arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _sequence(name: str, arrays: dict[str, np.ndarray]) -> Sequence:
    """Build the sequence from a file's arrays, after checking them."""
    xyz, offsets, scale = (arrays[key] for key in ("xyz", "offsets", "scale"))
    _expect("xyz", xyz, (None, 3), "iuf")
    _expect("offsets", offsets, (None,), "iu")
    if scale.size != 1 or scale.dtype.kind not in "iuf" or not np.isfinite(scale).all():
        raise ValueError(f"scale must be one number of metres, not {scale.dtype} {scale.shape}")
    if len(offsets) < 1 or offsets[0] != 0 or np.any(np.diff(offsets) < 0) or offsets[-1] != len(xyz):
        raise ValueError(f"offsets do not cover the {len(xyz)} points")
    count = len(offsets) - 1
    for key in ("poses", "stamps"):
        if key in arrays and len(np.atleast_1d(arrays[key])) != count:
            raise ValueError(f"{len(np.atleast_1d(arrays[key]))} {key} for {count} scans")
    points = np.zeros((len(xyz), 4), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        points[:, :3] = xyz.astype(np.float32) * np.float32(scale)
    if "intensity" in arrays:
        _expect("intensity", arrays["intensity"], (len(xyz),), "iuf")
        points[:, 3] = arrays["intensity"]
    scans = [points[a:b] for a, b in itertools.pairwise(offsets)]
    return Sequence(name, scans, _poses(arrays.get("poses"), count), _stamps(arrays.get("stamps"), count))


def _expect(name: str, array: np.ndarray, shape: tuple[int | None, ...], kinds: str) -> None:
    """ValueError unless `array` has the shape (None: any) and is of these kinds."""
    fits = array.ndim == len(shape) and all(want in (None, is_) for want, is_ in zip(shape, array.shape, strict=True))
    if not fits or array.dtype.kind not in kinds:
        raise ValueError(
            f"{name} must be numbers of shape {shape}, not {array.dtype} {array.shape}".replace("None", "N")
        )


def _poses(poses: np.ndarray | None, count: int) -> F64 | None:
    """(count, 4, 4), rigid."""
    if poses is None:
        return None
    _expect("poses", poses, (count, 4, 4), "iuf")
    for i, T in enumerate(poses):
        check_rigid(T, f"pose {i}")
    return np.asarray(poses, np.float64)


def _stamps(stamps: np.ndarray | None, count: int) -> F64 | None:
    """(count,) seconds that fit in a message stamp."""
    if stamps is None:
        return None
    _expect("stamps", stamps, (count,), "iuf")
    for i in np.flatnonzero(~((stamps >= 0) & (stamps < 2**31))):
        raise ValueError(f"stamp {i} must be seconds from 0 to 2**31, not {stamps[i]}")
    return np.asarray(stamps, np.float64)


def save_sequence(path: str | os.PathLike[str], sequence: Sequence, scale: float = 0.005) -> None:
    """Write a sequence file; points beyond ``32767 * scale`` metres are a ValueError and never wrap around."""
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
