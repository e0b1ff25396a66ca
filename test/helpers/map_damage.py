# SPDX-License-Identifier: Apache-2.0
"""Ways to damage a map file: as media do, and as somebody would who knows the format and its checksums."""

from __future__ import annotations

import contextlib
import sqlite3
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from version2_maps import write_arrays

from vlad_ros.mapping.codec import HEAD, STRATEGIES
from vlad_ros.mapping.tables import _of_make, row_checksum

Random = np.random.Generator
PAGE = 4096


def flip(content: bytearray, rng: Random) -> None:
    for _ in range(int(rng.integers(1, 9))):
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))


def cut(content: bytearray, rng: Random) -> None:
    size = len(content) // PAGE * PAGE
    del content[int(rng.integers(len(content))) if rng.random() < 0.5 else int(rng.integers(0, size + 1, 1)[0]) :]


def grow(content: bytearray, rng: Random) -> None:
    content += rng.bytes(int(rng.integers(1, 3 * PAGE)))


def noise(content: bytearray, rng: Random) -> None:
    at, size = int(rng.integers(len(content))), int(rng.integers(1, 2 * PAGE))
    content[at : at + size] = rng.bytes(len(content[at : at + size]))


def _pages(content: bytearray, rng: Random) -> tuple[slice, slice]:
    one, other = rng.integers(len(content) // PAGE, size=2).tolist()
    return slice(one * PAGE, one * PAGE + PAGE), slice(other * PAGE, other * PAGE + PAGE)


def zero(content: bytearray, rng: Random) -> None:
    page, _ = _pages(content, rng)
    content[page] = bytes(PAGE)


def swap(content: bytearray, rng: Random) -> None:
    one, other = _pages(content, rng)
    content[one], content[other] = content[other], content[one]


def repeat(content: bytearray, rng: Random) -> None:
    one, other = _pages(content, rng)
    content[one] = content[other]


BYTES: list[Callable[[bytearray, Random], None]] = [flip, cut, grow, noise, zero, swap, repeat]


def damage_bytes(path: Path, rng: Random) -> str:
    """One of `BYTES`; returns its name."""
    content = bytearray(path.read_bytes())
    how = BYTES[int(rng.integers(len(BYTES)))]
    how(content, rng)
    path.write_bytes(content)
    return how.__name__


# -- by SQL -----------------------------------------------------------------------------------------------------------

NUMBERS = [0, -1, 1, 7, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, -(2**63), 1.5, float("inf"), 1e308, None]
BLOBS = [
    b"",
    b"\x00" * 16,
    b"\x7f" * 32,
    struct.pack("<12d", *12 * [float("nan")]),
    struct.pack("<12d", *12 * [1e300]),
    np.eye(4)[:3].tobytes(),
    struct.pack("<8f", *8 * [float("nan")]),
    struct.pack("<8f", *8 * [3e38]),
    b"\x55" * (1 << 20),
    "x" * 8,
    "x" * 16,
    "x" * 32,
    "x" * 96,
    "\udcff".encode("utf-8", "surrogatepass"),
]
MAKES = [
    "",
    "-1",
    "0",
    "8",
    "1e9",
    "99999999999",
    "[" * 60000,
    "{}",
    '{"extent": -1}',
    "[]",
    "null",
    "bev",
    "x" * 70000,
]
ROW_TABLES = ["keyframes", "descriptors", "geometries", "corrections", "sessions", "places"]


def geometry_blob(rng: Random) -> bytes:
    """A geometry whose head, parts and lengths contradict each other; some parts unpack to far more than they are."""
    sizes = [int(rng.choice([0, 1, 5, 250, 65535])) for _ in range(3)]
    parts = [zlib.compress(bytes(int(rng.choice([0, 6, 30, 1 << 16, 1 << 26])))) for _ in STRATEGIES]
    lengths = [len(part) if rng.random() < 0.9 else int(rng.choice([0, 1, 2**31, 2**32 - 1])) for part in parts]
    tail = np.eye(4).tobytes() if rng.random() < 0.7 else rng.bytes(int(rng.integers(0, 200)))
    head = HEAD.pack(*sizes, *(int(rng.choice([0, 1, 127, 128, 255])) for _ in range(2)), *lengths)
    return head + b"".join(parts) + tail


def forge_row(path: Path, rng: Random) -> tuple[str, int]:
    """Change one cell, half of the times with a right checksum; returns table and id or session."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        table = str(rng.choice(ROW_TABLES))
        key = "number" if table == "sessions" else "id"
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        ids = [row[0] for row in connection.execute(f"SELECT {key} FROM {table}")]
        id, column = int(rng.choice(ids)), str(rng.choice(columns[:-1]))
        value = _value(column, rng)
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.DataError):  # what SQLite would not store
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, id))
        now = value if column == key and isinstance(value, int) else id
        row = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (now,)).fetchone()
        if row is not None and rng.random() < 0.6:
            connection.execute(f"UPDATE {table} SET checksum = ? WHERE {key} = ?", (row_checksum(*row[:-1]), now))
    return table, id


def _value(column: str, rng: Random) -> object:
    if column == "geometry" and rng.random() < 0.8:
        return geometry_blob(rng)
    hostile = NUMBERS if rng.random() < 0.6 else BLOBS
    if column in ("descriptor", "scan", "T_odom_base", "T_map_base", "T_map_odom", "uuid", "name"):
        hostile = BLOBS if rng.random() < 0.8 else NUMBERS
    return hostile[int(rng.integers(len(hostile)))]


SCHEMAS = [
    "CREATE TRIGGER t AFTER INSERT ON keyframes BEGIN DELETE FROM keyframes; END",
    "CREATE VIEW v AS SELECT * FROM keyframes",
    "CREATE TABLE more (x)",
    "DROP TABLE geometries",
    "ALTER TABLE keyframes RENAME TO keyframes2",
    "DROP TABLE keyframes; CREATE VIEW keyframes AS SELECT 1 id, 0 session, 0 stamp, 0 flags, 0 travel",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 2 WHERE name = 'geometries'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 900 WHERE name = 'descriptors'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = 'CREATE TABLE places (id)' WHERE name = 'places'",
    "PRAGMA writable_schema = ON; INSERT INTO sqlite_master VALUES ('view', 'v', 'v', 0, 'nonsense')",
    "PRAGMA application_id = 1",
    "PRAGMA user_version = 2",
]


def forge_schema(path: Path, rng: Random) -> None:
    """Foreign tables, triggers, views and heads, or another make."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        if rng.random() < 0.6:
            connection.executescript(SCHEMAS[int(rng.integers(len(SCHEMAS)))])
            return
        names = [row[0] for row in connection.execute("SELECT name FROM make WHERE name != 'checksum'")]
        connection.execute("UPDATE make SET value = ? WHERE name = ?", (str(rng.choice(MAKES)), str(rng.choice(names))))
        if rng.random() < 0.3:
            connection.execute("DELETE FROM make WHERE name = ?", (str(rng.choice(names)),))
        made = dict(connection.execute("SELECT name, value FROM make WHERE name != 'checksum'"))
        connection.execute("UPDATE make SET value = ? WHERE name = 'checksum'", (str(_of_make(made)),))


# -- version 2 --------------------------------------------------------------------------------------------------------


def forge_version2(path: Path, arrays: dict[str, np.ndarray], told: dict[str, str], rng: Random) -> None:
    """Wrong content under a right checksum."""
    arrays, told = {name: array.copy() for name, array in arrays.items()}, dict(told)
    name = str(rng.choice(list(arrays)))
    kind = int(rng.integers(7))
    if kind == 0:
        del arrays[name]
    elif kind == 1:
        arrays[name] = arrays[name][: int(rng.integers(0, len(arrays[name]) + 1))]
    elif kind == 2:
        kinds = ["f4", "f8", "i1", "u1", "i8", "u8", "u4", "f2", "bool"]
        with np.errstate(invalid="ignore", over="ignore"):
            arrays[name] = arrays[name].astype(str(rng.choice(kinds)))
    elif kind == 3:
        arrays[name] = arrays[name].reshape(-1) if rng.random() < 0.5 else arrays[name][None]
    elif kind == 4:
        key = str(rng.choice(list(told)))
        told[key] = str(rng.choice([*MAKES[:-1], "1", "3", "99", "vlad_ros_map"]))
    else:
        flat = arrays[name].reshape(-1)
        if len(flat):
            high = [2**31 - 1, 2**63 - 1] if flat.dtype.kind in "iu" else [np.nan, np.inf, 1e300]
            some = [value for value in [0, 1, -1, *high] if flat.dtype.kind != "u" or value >= 0]
            with np.errstate(over="ignore"):
                flat[int(rng.integers(len(flat)))] = np.array(rng.choice(some)).astype(flat.dtype)
    write_arrays(path, arrays, told)
