# SPDX-License-Identifier: Apache-2.0
"""The tables of a map file, and every row's way into them and, checked, out of them.

A map file is an SQLite database with the application id of vlad_ros. Its schema must be exactly this one, so that no
foreign trigger or view is ever run; each row carries a checksum (CRC-32) of its own content.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from uuid import UUID

import numpy as np

from vlad_ros.mapping.codec import POSE, are_rigid, pack_descriptor, pack_pose, unpack_descriptors
from vlad_ros.mapping.rows import LOCAL_MAP, PARTIAL, ROW
from vlad_ros.types import F32, F64, Ints, Keyframe

APPLICATION = 0x564C4144  # "VLAD"
VERSION = 3
TABLES = {
    "make": "CREATE TABLE make (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "sessions": "CREATE TABLE sessions (number INTEGER PRIMARY KEY, uuid BLOB NOT NULL, name TEXT NOT NULL, "
    "T_map_odom BLOB, checksum INTEGER NOT NULL)",
    "keyframes": "CREATE TABLE keyframes (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, stamp INTEGER NOT NULL, "
    "flags INTEGER NOT NULL, travel REAL, T_odom_base BLOB, checksum INTEGER NOT NULL)",
    "descriptors": "CREATE TABLE descriptors (id INTEGER PRIMARY KEY, descriptor BLOB NOT NULL, scan BLOB, "
    "checksum INTEGER NOT NULL)",
    "geometries": "CREATE TABLE geometries (id INTEGER PRIMARY KEY, geometry BLOB NOT NULL, checksum INTEGER NOT NULL)",
    "places": "CREATE TABLE places (id INTEGER PRIMARY KEY, place INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    "corrections": "CREATE TABLE corrections (id INTEGER PRIMARY KEY, T_map_base BLOB NOT NULL, kept INTEGER NOT NULL, "
    "checksum INTEGER NOT NULL)",
}
KEYED = ("keyframes", "descriptors", "geometries", "places", "corrections")  # tables with a keyframe's id
BATCH = 4096  # rows read at once
LONGEST = 1 << 22  # bytes of the largest geometry that is read
MAX_ID = 2**32 - 1


class Session(NamedTuple):
    """A drive: `uuid` names it wherever maps are merged, `T_map_odom` (4, 4) is None where unknown."""

    uuid: UUID
    name: str
    T_map_odom: F64 | None


class Correction(NamedTuple):
    """A keyframe's pose in the map: from a back-end, or `kept` when its session's frame moved on."""

    id: int
    T_map_base: F64
    kept: bool


class Batch(NamedTuple):
    """Rows read: `ids` (N,), `records` (N,) of type `rows.ROW`, `descriptors` (N, D), `scans` (M, D) of those where
    `has_scan` (N,); `damaged`: ids of the rows left out."""

    ids: Ints
    records: np.ndarray
    descriptors: F32
    has_scan: np.ndarray
    scans: F32
    damaged: list[int]


def create(connection: sqlite3.Connection, make: Mapping[str, str]) -> None:
    """The tables of a new map, and how its descriptors are made."""
    connection.execute("BEGIN")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    for statement in TABLES.values():
        connection.execute(statement)
    rows = {**make, "checksum": str(_of_make(make))}
    connection.executemany("INSERT INTO make VALUES (?, ?)", rows.items())
    connection.execute("COMMIT")


def read_make(connection: sqlite3.Connection) -> dict[str, str]:
    """How a map's descriptors were made. ValueError, naming what is wrong, unless the file is a map of this version
    with exactly these tables and an undamaged make."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise ValueError("it is a database of another program")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise ValueError(f"it has format version {version}; this program reads {VERSION}")
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 99").fetchall()
    if dict(found) != TABLES:
        raise ValueError("its tables are not those of a map")
    if connection.execute("SELECT count(*) FROM make WHERE length(value) > 65535 OR length(name) > 99").fetchone()[0]:
        raise ValueError("its make is damaged")
    make = {str(name): str(value) for name, value in connection.execute("SELECT name, value FROM make LIMIT 99")}
    if make.pop("checksum", "") != str(_of_make(make)):
        raise ValueError("its make is damaged")
    return make


def write_keyframe(connection: sqlite3.Connection, id: int, keyframe: Keyframe, geometry: bytes | None) -> None:
    """Insert a keyframe; `geometry` is packed."""
    flags = LOCAL_MAP * keyframe.is_local_map | PARTIAL * keyframe.partial
    T = None if keyframe.T_odom_base is None else pack_pose(keyframe.T_odom_base)
    travel = None if keyframe.travel is None else float(keyframe.travel)
    row = (id, int(keyframe.session), int(keyframe.stamp), flags, travel, T)
    connection.execute("INSERT INTO keyframes VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, _of(*row)))
    scan = keyframe.scan_descriptor if keyframe.is_local_map else None  # a single scan's is its descriptor
    packed = (id, pack_descriptor(keyframe.descriptor), None if scan is None else pack_descriptor(scan))
    connection.execute("INSERT INTO descriptors VALUES (?, ?, ?, ?)", (*packed, _of(*packed)))
    if geometry is not None:
        connection.execute("INSERT INTO geometries VALUES (?, ?, ?)", (id, geometry, _of(id, geometry)))


def write_session(connection: sqlite3.Connection, number: int, session: Session) -> None:
    """Insert or replace a session."""
    T = None if session.T_map_odom is None else pack_pose(session.T_map_odom)
    row = (number, session.uuid.bytes, session.name, T)
    connection.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", (*row, _of(*row)))


def write_corrections(connection: sqlite3.Connection, corrections: Iterable[Correction]) -> None:
    """Insert or replace poses."""
    rows = ((id, pack_pose(T), int(kept)) for id, T, kept in corrections)
    connection.executemany("INSERT OR REPLACE INTO corrections VALUES (?, ?, ?, ?)", ((*r, _of(*r)) for r in rows))


def write_place(connection: sqlite3.Connection, id: int, place: int) -> None:
    """Insert or replace the place of a keyframe: the id of the first keyframe there."""
    connection.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (id, place, _of(id, place)))


def remove(connection: sqlite3.Connection, id: int) -> None:
    """Delete a keyframe."""
    for table in KEYED:
        connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))


def copy(source: sqlite3.Connection, target: sqlite3.Connection, ids: Ints, table: str) -> None:
    """Copy the rows of `ids` (ascending) of a table, as they are."""
    marks = ", ".join("?" for _ in source.execute(f"SELECT * FROM {table} LIMIT 0").description)
    for at in range(0, len(ids), BATCH):
        some = ids[at : at + BATCH]
        wanted = set(some.tolist())
        rows = source.execute(f"SELECT * FROM {table} WHERE id BETWEEN ? AND ?", (int(some[0]), int(some[-1])))
        target.executemany(
            f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (row for row in rows if row[0] in wanted)
        )


def read_sessions(connection: sqlite3.Connection) -> tuple[dict[int, Session], list[int]]:
    """The sessions by number, and the numbers of damaged ones."""
    sessions, damaged = {}, []
    query = "SELECT * FROM sessions WHERE length(uuid) = 16 AND length(name) < 4096 ORDER BY number"
    for number, uuid, name, T, checksum in connection.execute(query):
        pose = _pose(T) if T is not None else None
        if _of(number, uuid, name, T) != checksum or not 0 <= number <= MAX_ID or (T is not None and pose is None):
            damaged.append(number)
        else:
            sessions[number] = Session(UUID(bytes=uuid), name, pose)
    return sessions, damaged


def read_corrections(connection: sqlite3.Connection) -> tuple[list[Correction], list[int]]:
    """The poses, and the ids of damaged ones."""
    found, damaged = [], []
    for id, T, kept, checksum in connection.execute("SELECT * FROM corrections WHERE length(T_map_base) = 96"):
        pose = _pose(T)
        if pose is None or _of(id, T, kept) != checksum:
            damaged.append(id)
        else:
            found.append(Correction(id, pose, bool(kept)))
    return found, damaged


def read_places(connection: sqlite3.Connection) -> Iterator[tuple[int, int]]:
    """(id, place) by ascending id; damaged ones are left out: a keyframe then has its place for itself."""
    for id, place, checksum in connection.execute("SELECT * FROM places ORDER BY id"):
        if _of(id, place) == checksum and isinstance(place, int) and 0 <= place < id <= MAX_ID:
            yield id, place


def read_keyframes(connection: sqlite3.Connection, dim: int) -> Iterator[Batch]:
    """All keyframes by ascending id. Rows with a wrong checksum, size or content are left out, and so are those that
    SQLite cannot read."""
    first, last = connection.execute("SELECT min(id), max(id) FROM keyframes").fetchone()
    for begin in range(first or 0, (-1 if last is None else last) + 1, BATCH):
        if not 0 <= begin <= MAX_ID:
            raise ValueError("it has keyframes with impossible ids")
        yield _read(connection, dim, begin, begin + BATCH)


def _read(connection: sqlite3.Connection, dim: int, begin: int, end: int) -> Batch:
    try:
        return _checked(_select(connection, dim, begin, end), dim)
    except sqlite3.DatabaseError:
        if end - begin == 1:
            return _checked([], dim)._replace(damaged=[begin])
    middle = (begin + end) // 2
    low, high = _read(connection, dim, begin, middle), _read(connection, dim, middle, end)
    merged = (np.concatenate([getattr(low, name), getattr(high, name)]) for name in Batch._fields[:-1])
    return Batch(*merged, low.damaged + high.damaged)  # type: ignore[call-arg]


def _select(connection: sqlite3.Connection, dim: int, begin: int, end: int) -> list[tuple[object, ...]]:
    size = 4 * dim
    query = (
        "SELECT k.id, session, stamp, flags, travel, T_odom_base, k.checksum, descriptor, scan, d.checksum "
        "FROM keyframes k LEFT JOIN (SELECT * FROM descriptors WHERE length(descriptor) = ? AND "
        "(scan IS NULL OR length(scan) = ?)) d ON d.id = k.id "
        "WHERE k.id >= ? AND k.id < ? AND (T_odom_base IS NULL OR length(T_odom_base) = ?) ORDER BY k.id"
    )
    rows = connection.execute(query, (size, size, begin, end, POSE)).fetchall()
    told = {row[0] for row in rows}
    every = connection.execute("SELECT id FROM keyframes WHERE id >= ? AND id < ?", (begin, end))
    return rows + [(id, *9 * [None]) for (id,) in every if id not in told]


def _checked(rows: list[tuple[object, ...]], dim: int) -> Batch:
    good = [row for row in rows if _of(*row[:6]) == row[6] and _of(row[0], *row[7:9]) == row[9]]
    good = [row for row in good if _plausible(row)]
    records = np.zeros(len(good), ROW)
    for name, at in (("session", 1), ("stamp", 2), ("flags", 3)):
        records[name] = [row[at] for row in good]
    records["travel"] = [np.nan if row[4] is None else row[4] for row in good]
    nowhere = np.full(12, np.nan).astype("<f8").tobytes()
    poses = b"".join(nowhere if row[5] is None else row[5] for row in good)  # type: ignore[misc]
    records["T_odom_base"] = np.frombuffer(poses, "<f8").reshape(-1, 3, 4)
    has_scan = np.array([row[8] is not None for row in good], np.bool_)
    packed = [row[7] for row in good], [row[8] for row in good if row[8] is not None]
    descriptors, scans = (unpack_descriptors(some, dim) for some in packed)  # type: ignore[arg-type]
    posed = ~np.isnan(records["T_odom_base"]).all(axis=(1, 2))
    right = np.isfinite(descriptors).all(axis=1) & (~posed | are_rigid(records["T_odom_base"]))
    right[has_scan] &= np.isfinite(scans).all(axis=1)
    ids = np.array([row[0] for row in good], np.int64)
    kept = set(ids[right].tolist())
    damaged = sorted(int(row[0]) for row in rows if row[0] not in kept)  # type: ignore[call-overload]
    return Batch(ids[right], records[right], descriptors[right], has_scan[right], scans[right[has_scan]], damaged)


def _plausible(row: tuple[object, ...]) -> bool:
    id, session, stamp, flags, travel = row[:5]
    whole = all(isinstance(number, int) for number in (id, session, stamp, flags))
    metres = travel is None or (isinstance(travel, float) and np.isfinite(travel))
    return whole and metres and 0 <= session <= MAX_ID and 0 <= flags <= 3 and 0 <= id <= MAX_ID  # type: ignore[operator]


def read_geometry(connection: sqlite3.Connection, id: int) -> bytes | None:
    """A packed geometry; None if the keyframe has none. ValueError where it is damaged."""
    query = "SELECT geometry, checksum FROM geometries WHERE id = ? AND length(geometry) <= ?"
    found = connection.execute(query, (id, LONGEST)).fetchone()
    if found is None:
        if connection.execute("SELECT 1 FROM geometries WHERE id = ?", (id,)).fetchone():
            raise ValueError("it is too large")
        return None
    data, checksum = found
    if not isinstance(data, bytes) or _of(id, data) != checksum:
        raise ValueError("its checksum does not fit its content")
    return data


def first_geometry(connection: sqlite3.Connection) -> int | None:
    """The least id of a keyframe with geometry."""
    id = connection.execute("SELECT min(id) FROM geometries").fetchone()[0]
    return None if id is None else int(id)


def geometry_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of all packed geometries."""
    return int(connection.execute("SELECT total(length(geometry)) FROM geometries").fetchone()[0])


def read_descriptors(connection: sqlite3.Connection, id: int, dim: int) -> tuple[F32, F32 | None] | None:
    """The descriptors of a keyframe, None if it is damaged: a local map's and its single scan's, or the single
    scan's."""
    batch = _read(connection, dim, id, id + 1)
    return (batch.descriptors[0], batch.scans[0] if len(batch.scans) else None) if len(batch.ids) else None


def _pose(data: object) -> F64 | None:
    if not isinstance(data, bytes) or len(data) != POSE:
        return None
    T = np.eye(4)
    T[:3] = np.frombuffer(data, "<f8").reshape(3, 4)
    return T if are_rigid(T[None, :3])[0] else None


def _of_make(make: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps(dict(sorted(make.items()))).encode())


def _of(*values: object) -> int:
    """CRC-32 of a row's values."""
    return zlib.crc32(b"".join(itertools.chain.from_iterable(map(_bytes, values))))


def _bytes(value: object) -> tuple[bytes, bytes]:
    if isinstance(value, bytes):
        return b"b", value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return b"i", struct.pack("<q", value)
    if isinstance(value, float):
        return b"f", struct.pack("<d", value)
    return b"n" if value is None else b"t", str(value).encode("utf-8", "replace")
