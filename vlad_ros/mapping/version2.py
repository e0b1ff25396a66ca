# SPDX-License-Identifier: Apache-2.0
"""Maps of format version 2, safetensors files with a checksum over every byte: they are converted, and kept.

The checksum is in the file's own metadata: the SHA-256 of the file with those 64 digits set to zero. Its columns:
unknown values are NaN, what has a variable length is concatenated, with offsets.
"""

from __future__ import annotations

import filecmp
import hashlib
import itertools
import mmap
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
from safetensors import SafetensorError, safe_open

from vlad_ros.atomic import replacing, sync
from vlad_ros.mapping import tables
from vlad_ros.mapping.codec import are_rigid, pack_geometry
from vlad_ros.mapping.connection import refuse_mismatch, write_copy
from vlad_ros.mapping.geometry_check import check_geometry
from vlad_ros.mapping.lock import MapError
from vlad_ros.types import F64, Geometry, Keyframe, PathLike

FORMAT, VERSION = "vlad_ros_map", "2"
BLANK = b"0" * 64
CHECKSUM = re.compile(rb'"sha256"\s*:\s*"([0-9a-f]{64})"')
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
MAPS = UUID("5fd5a9b4-9c2c-4d0c-8e38-1d0a7c6f5b11")  # namespace of the sessions' UUIDs, made of the old file's checksum
MAKE = ("kind", "metric", "dim", "model_hash", "bev")
COLUMNS: dict[str, tuple[object, ...]] = {  # type, and shape but for the number of rows
    **dict.fromkeys(["local_descriptors", "local_scan_descriptors", "single_scan_descriptors"], ("f4", "dim")),
    **dict.fromkeys(["T_map_base", "session_T_map_odom", "T_odom_base", "T_level_body"], ("f8", 4, 4)),
    **dict.fromkeys(["session_ids", "sessions"], ("u4",)),
    **dict.fromkeys(["stamps", "keypoint_offsets", "cloud_offsets"], ("i8",)),
    **dict.fromkeys(["is_local_map", "partial"], ("u1",)),
    "travel": ("f8",),
    "keypoints": ("f4", 2),
    "features": ("i1", "features"),
    "cloud": ("i2", 3),
}


def convert(path: PathLike, out: PathLike, wanted: Mapping[str, str] | None = None) -> None:
    """Write the map at `path` anew at `out`. MapError when it is missing, damaged, no map, of another version, or not
    of the make `wanted`."""
    arrays, metadata = _read(Path(path))
    refuse_mismatch(path, metadata, wanted or {})
    try:
        _check_columns(arrays, int(metadata["dim"]))
        keyframes = list(_keyframes(arrays))
        numbers = arrays["session_ids"].tolist()
        frames = _transforms(arrays["session_T_map_odom"])
        poses = _transforms(arrays["T_map_base"])
        make = {name: metadata[name] for name in MAKE}
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise MapError(f"the map {os.fspath(path)} is damaged: {error}") from error

    def fill(connection: sqlite3.Connection) -> None:
        for number, T in zip(numbers, frames, strict=True):
            session = tables.Session(uuid5(MAPS, f"{metadata['sha256']} {number}"), "", T)
            tables.write_session(connection, number, session)
        for id, keyframe in enumerate(keyframes):
            geometry = None if keyframe.geometry is None else pack_geometry(keyframe.geometry)
            tables.write_keyframe(connection, id, keyframe, geometry)
        told = (tables.Correction(id, T, kept=False) for id, T in enumerate(poses) if T is not None)
        tables.write_corrections(connection, told)

    write_copy(out, make, fill)


def convert_in_place(path: Path, wanted: Mapping[str, str]) -> Path:
    """Convert the map at `path`; the old file is kept beside it, with the name returned. MapError as in `convert`."""
    kept = path.with_name(path.name + ".version2")
    if kept.exists() and not _same(path, kept):  # a killed conversion leaves the same one
        raise MapError(
            f"the map {path} is of format version 2, and so is {kept}, where it would be kept: move that one"
        )
    new = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        convert(path, new, wanted)
        if not kept.exists():
            _keep(path, kept)
        os.replace(new, path)
        sync(path.parent)
    except OSError as error:
        raise MapError(f"the map {path} of format version 2 could not be converted: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)
    return kept


def _same(path: Path, kept: Path) -> bool:
    return path.samefile(kept) or filecmp.cmp(path, kept, shallow=False)


def _keep(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)
    except OSError:  # not every file system can
        with replacing(kept, durable=True) as copy:
            shutil.copyfile(path, copy)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at, written = _find_checksum(content)
            if _checksum(content, at) != written:
                raise MapError(f"the map {path} is damaged: its checksum does not fit its content")
        with safe_open(path, framework="np") as tensors:
            metadata = dict(tensors.metadata())
            if metadata.get("format") != FORMAT:
                raise MapError(f"{path} is not a map of vlad_ros")
            if metadata.get("version") != VERSION:
                raise MapError(_other_version(path, metadata.get("version")))
            return {name: tensors.get_tensor(name) for name in tensors.keys()}, metadata  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise MapError(f"there is no map at {path}") from error
    except MapError:
        raise
    except (OSError, SafetensorError, ValueError) as error:  # ValueError: an empty file, or no checksum
        raise MapError(f"{path} is not a map of vlad_ros, or damaged: {error}") from error


def _other_version(path: Path, version: str | None) -> str:
    if version == "1":
        return (
            f"the map {path} has format version 1, which kept no points to verify loops with; "
            "drive the route again to record it anew (the file is left as it is)"
        )
    return f"the map {path} has format version {version}; this program reads {VERSION} and {tables.VERSION}"


def _check_columns(arrays: Mapping[str, np.ndarray], dim: int) -> None:
    """KeyError or ValueError unless all columns are there, of their types and shapes."""
    sizes = {"dim": dim, "features": arrays["features"].shape[-1]}
    for name, (dtype, *shape) in COLUMNS.items():
        array, wanted = arrays[name], tuple(sizes.get(size, size) for size in shape)  # type: ignore[call-overload]
        if array.dtype != dtype or array.ndim != 1 + len(wanted) or array.shape[1:] != wanted:
            raise ValueError(f"its column {name} is {array.dtype} of shape {array.shape}")
    local, single = len(arrays["local_descriptors"]), len(arrays["single_scan_descriptors"])
    if local != np.count_nonzero(arrays["is_local_map"]) or local + single != len(arrays["is_local_map"]):
        raise ValueError("it has not as many descriptors as keyframes")


def _keyframes(arrays: Mapping[str, np.ndarray]) -> Iterator[Keyframe]:
    """The rows in order; ValueError where the content is impossible, whatever its checksum says."""
    local = iter(zip(arrays["local_descriptors"], arrays["local_scan_descriptors"], strict=True))
    single = iter(arrays["single_scan_descriptors"])
    poses, travels = _transforms(arrays["T_odom_base"]), arrays["travel"]
    columns = (
        arrays["sessions"],
        arrays["stamps"],
        arrays["is_local_map"].astype(bool),
        arrays["partial"].astype(bool),
    )
    last: tuple[int, int] | None = None
    for id, (session, stamp, is_local, partial, geometry) in enumerate(
        zip(*(column.tolist() for column in columns), _geometries(arrays), strict=True)
    ):
        if last is not None and (session, stamp) <= last:
            raise ValueError(f"keyframe {id} does not follow the one before it")
        if abs(stamp) >= 2**62 or np.isinf(travels[id]):
            raise ValueError(f"stamp or travel of keyframe {id} is impossible")
        last = session, stamp
        descriptor, scan = next(local) if is_local else (next(single), None)
        if not np.all(np.isfinite(descriptor)) or (scan is not None and not np.all(np.isfinite(scan))):
            raise ValueError(f"a descriptor of keyframe {id} is not finite")
        scan = scan if scan is not None and scan.any() else None  # zeros: there is none
        travel = None if np.isnan(travels[id]) else float(travels[id])
        kept = scan if is_local else descriptor
        yield Keyframe(session, stamp, descriptor, kept, is_local, partial, poses[id], travel, geometry)


def _transforms(packed: F64) -> list[F64 | None]:
    known = ~np.isnan(packed[:, 0, 0])
    if not are_rigid(packed[known, :3]).all():
        raise ValueError("a transform is not rigid")
    return [T if is_known else None for T, is_known in zip(packed, known.tolist(), strict=True)]


def _geometries(arrays: Mapping[str, np.ndarray]) -> Iterator[Geometry | None]:
    keypoints, features, cloud = arrays["keypoints"], arrays["features"], arrays["cloud"]
    spans = zip(
        itertools.pairwise(arrays["keypoint_offsets"].tolist()),
        itertools.pairwise(arrays["cloud_offsets"].tolist()),
        _transforms(arrays["T_level_body"]),
        strict=True,
    )
    for k, p, T in spans:
        geometry = None if T is None else Geometry(keypoints[slice(*k)], features[slice(*k)], cloud[slice(*p)], T)
        if geometry is not None:
            check_geometry(geometry, None)
        yield geometry


def _find_checksum(content: bytes | mmap.mmap) -> tuple[int, str]:
    """The position of the checksum's 64 digits in the file, and their value; ValueError when there are none."""
    end = 8 + int.from_bytes(content[:8], "little")  # a safetensors file begins with the length of its JSON header
    found = CHECKSUM.search(content[8 : min(end, MAX_HEADER)])
    if found is None:
        raise ValueError("it has no checksum")
    return 8 + found.start(1), found[1].decode()


def _checksum(content: mmap.mmap, at: int) -> str:
    """SHA-256 of the file with blank digits at `at`."""
    digest = hashlib.sha256()
    with memoryview(content) as view, view[:at] as head, view[at + len(BLANK) :] as tail:
        digest.update(head)
        digest.update(BLANK)
        digest.update(tail)
    return digest.hexdigest()
