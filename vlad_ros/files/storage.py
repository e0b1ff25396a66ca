# SPDX-License-Identifier: Apache-2.0
"""The storage of a rosbag2, possibly damaged; errors name what cannot be read and the remedy."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import yaml
from rosbags.rosbag2 import Reader
from rosbags.rosbag2 import reader as rosbag2_reader
from rosbags.rosbag2.storage_mcap import McapReader

from vlad_ros.files.names import numbered

SUFFIXES = (".mcap", ".db3")
MCAP, SQLITE, ROS1 = b"\x89MCAP0\r\n", b"SQLite format 3\0", b"#ROSBAG V"
ZSTD = b"\x28\xb5\x2f\xfd"
PROFILE = slice(21, 25)  # of an mcap's first bytes: after magic, opcode and two lengths
STEP = 1_000_000  # ns; reading resumes this far after a damaged place, doubled until it succeeds
WHAT_IT_IS = "a rosbag2 is a folder with metadata.yaml, or a .mcap or .db3 file"

Damaged = Callable[[str], object]


class BagError(ValueError):
    """A bag, or a part of one, that cannot be read."""


class Bag:
    """An open bag: `connections` (one per topic and type) and its messages, file by file; BagError if it is not a bag.

    A folder is read by its metadata.yaml; if that is missing or unreadable, the storage files are inspected instead.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self._readers = _open(Path(path))
        except OSError as error:
            raise _error(Path(path), error.strerror or str(error)) from error
        known: dict[tuple[str, str], Any] = {}
        for connection in (connection for reader in self._readers for connection in reader.connections):
            key = connection.topic, connection.msgtype
            known[key] = _joined(known[key], connection) if key in known else connection
        self.connections: list[Any] = list(known.values())

    @property
    def start_time(self) -> int:
        """When the first message was recorded [ns], as the bag says."""
        return min(int(reader.start_time) for reader in self._readers)

    @property
    def end_time(self) -> int:
        """When the last message was recorded [ns], as the bag says."""
        return max(int(reader.end_time) for reader in self._readers)

    def messages(
        self, connections: Collection[Any], damaged: Damaged | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """(connection, time of recording [ns], serialised message) of `connections`, a subset of the bag's.

        A damaged place is reported to `damaged` and skipped; without `damaged` it is a BagError.
        """
        wanted = {(connection.topic, connection.msgtype): connection for connection in connections}
        for reader in self._readers:
            for storage in getattr(reader.storage, "storages", [reader.storage]):
                # By topic and type only: users edit the other fields of a topic in metadata.yaml.
                own = [c for c in storage.connections if (c.topic, c.msgtype) in wanted]
                shown = reader.path / storage.path.name if reader.path.is_dir() else reader.path
                for connection, time, data in _survivors(storage, own, shown, damaged) if own else ():
                    yield wanted[connection.topic, connection.msgtype], time, data

    def close(self) -> None:
        """Close its files."""
        for reader in self._readers:
            reader.close()


def _joined(one: Any, other: Any) -> Any:
    """Merge two connections of one topic: two publishers, or the parts in two files."""
    profiles = [*one.ext.offered_qos_profiles, *other.ext.offered_qos_profiles]
    ext = one.ext._replace(offered_qos_profiles=profiles)
    return one._replace(msgcount=one.msgcount + other.msgcount, ext=ext)


def _survivors(storage: Any, own: list[Any], shown: Path, damaged: Damaged | None) -> Iterator[tuple[Any, int, bytes]]:
    """Yield what can be read of one file; after a damaged place, reading resumes as early as possible."""
    indexed = not isinstance(storage, McapReader) or bool(storage.chunks)
    # Without an index: in file order, regardless of the times.
    read = storage.messages if indexed else storage.messages_scan
    begin, end, step = storage.metadata.start_time, storage.metadata.end_time, STEP
    start = None
    while True:
        try:
            for connection, time, data in read(own, start):
                packed = data[:4] == ZSTD  # compressed per message; serialised messages begin with 0
                yield connection, time, rosbag2_reader.zstd.decompress(data) if packed else data
                begin, step = time, STEP
            return
        except Exception as error:  # whatever a damaged file makes its parser run into
            sentence = f"{shown}: {_damage(storage.path, error, shown)}"
            if damaged is None:
                raise BagError(sentence) from error
            if step == STEP:
                damaged(sentence)
        start, step = begin + step, 2 * step
        if start >= end or not indexed:
            return


def _open(path: Path) -> list[Any]:
    """Open readers of a folder or of a file. BagError, or OSError from the system."""
    if not path.is_dir():
        return [_open_file(path)]
    named = _named(path)
    files = numbered(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if named is None:
        if not files:
            raise _error(path, _no_storage(path))
        return _open_all(files)
    missing = [name for name in named if not (path / name).exists()]
    if missing:
        there = ", ".join(file.name for file in files) or "none"
        raise _error(
            path,
            f"metadata.yaml names {missing[0]}, which is not there (there are: {there}): restore it, or rebuild "
            f"metadata.yaml with ros2 bag reindex {path}",
        )
    for name in named:
        _check(path / name)
    try:
        return [_opened(path)]
    except Exception as error:  # the metadata or one of the files is bad: try the files one by one
        if not all(Path(name).suffix in SUFFIXES for name in named):
            raise _error(
                path, f"{', '.join(named)} cannot be read ({_line(error)}); zstd -t finds the damaged one"
            ) from error
        return _open_all([path / name for name in named])


def _open_all(files: list[Path]) -> list[Any]:
    readers: list[Any] = []
    try:
        for file in files:
            readers.append(_open_file(file))
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    return readers


def _open_file(file: Path) -> Any:
    _check(file)
    if file.suffix not in SUFFIXES:
        raise _error(file, WHAT_IT_IS)
    try:
        return _opened(file)
    except Exception as error:  # whatever a damaged file makes its parser run into
        raise _error(file, _damage(file, error)) from error


def _opened(path: Path) -> Any:
    reader = Reader(path)
    reader.open()
    return reader


def _named(folder: Path) -> list[str] | None:
    """The files that metadata.yaml names; None if there is no usable metadata.yaml."""
    try:
        information = yaml.safe_load((folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        names = [Path(name).name for name in information["relative_file_paths"]]
    except PermissionError:
        raise
    except Exception:  # missing, empty, cut short, not text, not YAML, or YAML of something else
        return None
    return names or None


def _no_storage(folder: Path) -> str:
    """Why a folder without metadata.yaml and storage is not a bag, and what it is instead."""
    if (old := numbered(folder.glob("*.bag"))) and _head(old[0]).startswith(ROS1):
        return _convert(old[0])
    if packed := numbered(file for file in folder.iterdir() if file.suffix in (".zstd", ".zst")):
        return f"{packed[0].name} is compressed, and there is no metadata.yaml: decompress it first with zstd -d"
    if (folder / "velodyne").is_dir():
        return f"it is a KITTI folder: convert it with vlad import {folder} BAG"
    return f"there is no metadata.yaml in it, and no .mcap or .db3 file; {WHAT_IT_IS}"


def _check(file: Path) -> None:
    """BagError for a file whose first bytes show another format, or that is unfinished."""
    if not file.exists():
        raise _error(file, "there is no such file or folder")
    if not file.is_file():
        raise _error(file, f"it is not a regular file; {WHAT_IT_IS}")
    head = _head(file)
    if head.startswith(ROS1):
        raise _error(file, _convert(file))
    if not head:
        raise _error(file, "it is empty, nothing was recorded")
    for log in (Path(f"{file}-wal"), Path(f"{file}-journal")):
        if file.suffix == ".db3" and log.exists() and log.stat().st_size:
            remedy = f"repair it with sqlite3 {file} 'pragma integrity_check'"
            raise _error(file, f"it was not closed, and some messages are still in {log.name}: {remedy}")


def _damage(file: Path, error: Exception, shown: Path | None = None) -> str:
    """What is wrong with the content of a storage file, and the remedy; `shown`: the name shown to the user."""
    shown = shown or file
    head, tail = _head(file), _head(file, -len(MCAP))
    if file.suffix == ".mcap":
        if not head.startswith(MCAP):
            return "it is not an mcap file, despite its name"
        if len(head) >= PROFILE.stop and head[PROFILE] != b"ros2":
            return "it is an mcap file, but not one of ROS 2: record or convert it with ros2 bag"
        found = "it was not closed (the recorder was killed, or the copy is incomplete)"
        found = f"it is damaged ({_line(error)})" if tail == MCAP else found
        return f"{found}: recover what is intact with mcap recover {shown} -o NEW.mcap"
    if not head.startswith(SQLITE):
        return "it is not an SQLite file, despite its name"
    remedy = f"sqlite3 {shown} .recover | sqlite3 NEW.db3"
    return f"it is damaged or incomplete ({_line(error)}): recover what is left with {remedy}"


def _head(file: Path, where: int = 0, size: int = 32) -> bytes:
    """The first bytes of a file, or those from `where` < 0 before its end."""
    with open(file, "rb") as content:
        if where:
            content.seek(max(where, -file.stat().st_size), os.SEEK_END)
        return content.read(size)


def _convert(file: Path) -> str:
    return f"it is a ROS 1 bag: convert it with rosbags-convert --src {file} --dst {file.with_suffix('')}_ros2"


def _error(path: Path, why: str) -> BagError:
    return BagError(f"{path}: not a readable rosbag2: {why}")


def _line(error: Exception) -> str:
    """An error's message, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
