# SPDX-License-Identifier: Apache-2.0
"""The map on disk: a safetensors file, written atomically, with a checksum over every byte.

The checksum is in the file's own metadata: it is the SHA-256 of the file with those 64 digits set to zero. It detects
truncation, a flipped bit or a wrong byte anywhere, before any of the file is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vlad_ros.atomic import replacing

FORMAT = "vlad_ros_map"
VERSION = "2"
BLANK = "0" * 64
CHECKSUM = re.compile(rb'"sha256"\s*:\s*"([0-9a-f]{64})"')
DTYPES = {
    "|u1": "U8",
    "|i1": "I8",
    "<i2": "I16",
    "<u4": "U32",
    "<i8": "I64",
    "<f4": "F32",
    "<f8": "F64",
}  # what a map is made of
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself


class MapError(ValueError):
    """A map cannot be used; the message is a sentence for the user."""


class MapLock:
    """Holds a map for one process with ``flock`` on ``<path>.lock``, until `release` or the end of the process.

    MapError names the path when another process (or another lock of this one) holds it. The holder is the only one
    who saves, so it also removes what a killed save has left.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))  # the same lock for every path to one map
        lock_path = self.path.with_name(self.path.name + ".lock")
        try:
            self._file = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise MapError(f"the map {self.path} cannot be locked: {error.strerror} ({lock_path})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise MapError(f"the map {self.path} is in use by another node") from error
        for left_over in self.path.parent.glob(f"{self.path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                left_over.unlink()

    def release(self) -> None:
        """Release the map. The lock file stays: removing it would race with the next holder."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> MapLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def write_map(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray | list[np.ndarray]], metadata: Mapping[str, str]
) -> None:
    """Replace the map at `path` by `arrays` and `metadata`: temporary file beside it, fsync, rename, fsync the folder.

    An array may come in pieces along its first axis; all are written in place, without copies. MapError when
    the file cannot be written (no such folder, not permitted, disk full): the old file is untouched then, and the
    temporary one removed.
    """
    tensors = {name: array if isinstance(array, list) else [array] for name, array in arrays.items()}
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1][0].itemsize))  # so that each one is aligned
    header = _header(tensors, {**metadata, "format": FORMAT, "version": VERSION, "sha256": BLANK})
    content = [piece.reshape(-1).view(np.uint8).data for pieces in tensors.values() for piece in pieces]
    try:
        with replacing(path, durable=True) as temporary, open(temporary, "wb") as file:
            file.write(_with_checksum(header, content))
            file.writelines(content)
    except OSError as error:
        raise MapError(f"the map could not be saved to {os.fspath(path)}: {error.strerror}") from error


def read_map(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of the map at `path`; MapError when it is missing, no map, of another version or damaged."""
    path = Path(path)
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


def refuse_mismatch(path: str | os.PathLike[str], theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """MapError, naming the difference, unless the map at `path` was made as `ours` says; `theirs` is its metadata."""
    said = {
        "kind": "holds keyframes made from {theirs}, not from {ours}",
        "metric": "compares by {theirs}, not by {ours}",
        "dim": "holds descriptors of length {theirs}; this network makes {ours}",
        "model_hash": "was made with other weights ({theirs:.12}...; these are {ours:.12}...)",
        "bev": "was made with another BEV configuration ({theirs}; these weights have {ours})",
    }
    for name, mine in ours.items():
        its = theirs.get(name, "nothing")
        if its != mine:
            raise MapError(f"the map {os.fspath(path)} " + said[name].format(theirs=its, ours=mine))


def _other_version(path: Path, version: str | None) -> str:
    if version == "1":
        return (
            f"the map {path} has format version 1, which kept no points to verify loops with; "
            "drive the route again to record it anew (the file is left as it is)"
        )
    return f"the map {path} has format version {version}; this program reads {VERSION}"


def _header(tensors: Mapping[str, Sequence[np.ndarray]], metadata: Mapping[str, str]) -> bytes:
    """The head of a safetensors file: length, JSON, spaces up to a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, pieces in tensors.items():
        end = begin + sum(piece.nbytes for piece in pieces)
        shape = [sum(len(piece) for piece in pieces), *pieces[0].shape[1:]]
        entries[name] = {"dtype": DTYPES[pieces[0].dtype.str], "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _with_checksum(header: bytes, content: Sequence[memoryview]) -> bytes:
    """`header` with the checksum of the whole file in its placeholder."""
    digest = hashlib.sha256(header)
    for piece in content:
        digest.update(piece)
    at, _ = _find_checksum(header)
    return header[:at] + digest.hexdigest().encode() + header[at + len(BLANK) :]


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
        digest.update(BLANK.encode())
        digest.update(tail)
    return digest.hexdigest()
