# SPDX-License-Identifier: Apache-2.0
"""The tables of a map file, and every row's way into them and, checked, out of them.

A map file is an SQLite database with the application id of vlad_ros. Its schema must be exactly this one, so that no
foreign trigger or view is ever run; each row carries a checksum (CRC-32) of its own content.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from uuid import UUID

from vlad_ros.mapping.codec import POSE, pack_descriptor, pack_pose, unpack_pose
from vlad_ros.mapping.rows import GEOMETRY, LOCAL_MAP, PARTIAL
from vlad_ros.types import F64, Ints, Keyframe

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
BATCH = 4096  # rows copied at once
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
    """Insert a keyframe; `geometry` is packed. A damaged row of that id, which was left out, is replaced."""
    flags = LOCAL_MAP * bool(keyframe.is_local_map) | PARTIAL * bool(keyframe.partial)
    flags |= GEOMETRY * (geometry is not None)
    T = None if keyframe.T_odom_base is None else pack_pose(keyframe.T_odom_base)
    travel = None if keyframe.travel is None else float(keyframe.travel)
    row = (id, int(keyframe.session), int(keyframe.stamp), flags, travel, T)
    connection.execute("INSERT OR REPLACE INTO keyframes VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, row_checksum(*row)))
    scan = keyframe.scan_descriptor if keyframe.is_local_map else None  # a single scan's is its descriptor
    packed = (id, pack_descriptor(keyframe.descriptor), None if scan is None else pack_descriptor(scan))
    connection.execute("INSERT OR REPLACE INTO descriptors VALUES (?, ?, ?, ?)", (*packed, row_checksum(*packed)))
    if geometry is not None:
        connection.execute(
            "INSERT OR REPLACE INTO geometries VALUES (?, ?, ?)", (id, geometry, row_checksum(id, geometry))
        )


def write_session(connection: sqlite3.Connection, number: int, session: Session) -> None:
    """Insert or replace a session."""
    T = None if session.T_map_odom is None else pack_pose(session.T_map_odom)
    row = (number, session.uuid.bytes, session.name, T)
    connection.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", (*row, row_checksum(*row)))


def write_corrections(connection: sqlite3.Connection, corrections: Iterable[Correction]) -> None:
    """Insert or replace poses."""
    rows = ((id, pack_pose(T), int(kept)) for id, T, kept in corrections)
    connection.executemany(
        "INSERT OR REPLACE INTO corrections VALUES (?, ?, ?, ?)", ((*r, row_checksum(*r)) for r in rows)
    )


def write_place(connection: sqlite3.Connection, id: int, place: int) -> None:
    """Insert or replace the place of a keyframe: the id of the first keyframe there."""
    connection.execute("INSERT OR REPLACE INTO places VALUES (?, ?, ?)", (id, place, row_checksum(id, place)))


def remove(connection: sqlite3.Connection, id: int) -> None:
    """Delete a keyframe."""
    for table in KEYED:
        connection.execute(f"DELETE FROM {table} WHERE id = ?", (id,))


def copy(source: sqlite3.Connection, target: sqlite3.Connection, ids: Ints, table: str) -> None:
    """Copy the rows of `ids` (ascending) of a table, as they are; what is damaged is left out."""
    marks = ", ".join("?" for _ in source.execute(f"SELECT * FROM {table} LIMIT 0").description)
    insert = f"INSERT INTO {table} VALUES ({marks})"
    for at in range(0, len(ids), BATCH):
        left = set(ids[at : at + BATCH].tolist())
        first, last = int(ids[at]), int(ids[at : at + BATCH][-1])
        with _tolerated():
            rows = source.execute(f"SELECT * FROM {table} WHERE id BETWEEN ? AND ?", (first, last))
            target.executemany(insert, _taken(rows, left))
        for id in sorted(left):  # it has none in this table, or a damaged page lay in the way
            with _tolerated():
                target.executemany(insert, _taken(source.execute(f"SELECT * FROM {table} WHERE id = ?", (id,)), left))


def _taken(rows: Iterable[tuple[int, ...]], left: set[int]) -> Iterator[tuple[int, ...]]:
    """Those whose ids are `left`, which they leave, and whose checksums fit."""
    for row in rows:
        if row[0] in left and row_checksum(*row[:-1]) == row[-1]:
            left.remove(row[0])
            yield row


@contextlib.contextmanager
def _tolerated() -> Iterator[None]:
    """Damaged pages are; a full disk is not."""
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error):
            raise


def read_sessions(connection: sqlite3.Connection) -> Iterator[tuple[int, Session | None]]:
    """The sessions by ascending number, None where one is damaged."""
    query = (
        "SELECT number, CASE WHEN length(uuid) = 16 THEN uuid END, CASE WHEN length(name) < 4096 THEN name END, "
        "CASE WHEN length(T_map_odom) = ? THEN T_map_odom END, checksum FROM sessions ORDER BY number"
    )
    for number, uuid, name, T, told in connection.execute(query, (POSE,)):
        right = told == row_checksum(number, uuid, name, T) and isinstance(uuid, bytes) and isinstance(name, str)
        pose = None if T is None else unpack_pose(T)
        if right and 0 <= number <= MAX_ID and (T is None or pose is not None):
            yield number, Session(UUID(bytes=uuid), name, pose)
        else:
            yield number, None


def read_corrections(connection: sqlite3.Connection) -> Iterator[tuple[int, Correction | None]]:
    """The poses by keyframe, None where one is damaged."""
    query = "SELECT id, CASE WHEN length(T_map_base) = ? THEN T_map_base END, kept, checksum FROM corrections"
    for id, T, kept, told in connection.execute(query, (POSE,)):
        pose = unpack_pose(T)
        right = pose is not None and told == row_checksum(id, T, kept)
        yield id, Correction(id, pose, bool(kept)) if right else None  # type: ignore[arg-type]


def read_places(connection: sqlite3.Connection) -> Iterator[tuple[int, int | None]]:
    """(id, place) by keyframe, None where that is damaged."""
    for id, place, told in connection.execute("SELECT * FROM places ORDER BY id"):
        right = told == row_checksum(id, place) and isinstance(place, int) and 0 <= place < id <= MAX_ID
        yield id, place if right else None


def read_geometry(connection: sqlite3.Connection, id: int) -> bytes | None:
    """A packed geometry; None if the keyframe has none. ValueError where it is damaged."""
    query = "SELECT geometry, checksum FROM geometries WHERE id = ? AND length(geometry) <= ?"
    found = connection.execute(query, (id, LONGEST)).fetchone()
    if found is None:
        if connection.execute("SELECT 1 FROM geometries WHERE id = ?", (id,)).fetchone():
            raise ValueError("it is too large")
        return None
    data, told = found
    if not isinstance(data, bytes) or row_checksum(id, data) != told:
        raise ValueError("its checksum does not fit its content")
    return data


def first_geometry(connection: sqlite3.Connection) -> int | None:
    """The least id of a keyframe with geometry."""
    id = connection.execute("SELECT min(id) FROM geometries").fetchone()[0]
    return None if id is None else int(id)


def geometry_bytes(connection: sqlite3.Connection) -> int:
    """Bytes of all packed geometries."""
    return int(connection.execute("SELECT total(length(geometry)) FROM geometries").fetchone()[0])


def _of_make(make: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps(dict(sorted(make.items()))).encode())


def row_checksum(*values: object) -> int:
    """CRC-32 of a row's values."""
    blobs = [value for value in values if isinstance(value, bytes)]
    told = [(len(value),) if isinstance(value, bytes) else value for value in values]
    return functools.reduce(lambda crc, blob: zlib.crc32(blob, crc), blobs, zlib.crc32(repr(told).encode()))
