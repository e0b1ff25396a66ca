# SPDX-License-Identifier: Apache-2.0
"""What has still to go up to the fleet, in a file that outlives a lost network, a restart and kill -9."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlad_ros.fleet.names import FleetError, Key, parse_key
from vlad_ros.fleet.packed import Packed
from vlad_ros.mapping.connection import mismatch
from vlad_ros.mapping.lock import MapError, MapLock

TABLES = {
    "keyframes": "CREATE TABLE keyframes (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, "
    "is_local_map INTEGER NOT NULL, partial INTEGER NOT NULL, travel REAL, T_odom_base BLOB, T_map_base BLOB, "
    "descriptor BLOB NOT NULL, payload BLOB NOT NULL)",
    "poses": "CREATE TABLE poses (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, "
    "T_map_base BLOB NOT NULL)",
    "make": "CREATE TABLE make (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
}
WAITING = ("keyframes", "poses")


class UploadQueue:
    """Keyframes, made as `make` says, and corrected poses by key, oldest first; each goes only when it was taken as it
    is. Thread-safe.

    One process at a time: FleetError names the file where another one holds it, where it cannot be used, or what waits
    in it is of another make. `trouble`: why
    what was put last is not on disk yet, else empty; it stays in memory and is tried again with the next.
    """

    def __init__(self, path: Path, make: Mapping[str, str]) -> None:
        self.path, self.trouble = path, ""
        self._changing = threading.RLock()
        self._unwritten: list[tuple[str, tuple[object, ...]]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = MapLock(path)
        except (OSError, MapError) as error:
            raise FleetError(f"the fleet's queue {path} cannot be used: {error}") from error
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            self._open(make)
        except (sqlite3.Error, ValueError) as error:
            self._connection.close()
            self._lock.release()
            raise FleetError(f"the fleet's queue {path} cannot be used: {error}; move it away") from error

    def _open(self, make: Mapping[str, str]) -> None:
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' LIMIT 9"
        found = dict(self._connection.execute(query))
        if found and found != TABLES:
            raise ValueError("it is a file of another program or version")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        for statement in () if found else TABLES.values():
            self._connection.execute(statement)
        made = dict(self._connection.execute("SELECT name, value FROM make"))
        if len(self) and (difference := mismatch(made, make)):
            raise ValueError(f"what waits in it {difference}")
        self._connection.executemany("INSERT OR REPLACE INTO make VALUES (?, ?)", make.items())

    def put(self, packed: Packed) -> None:
        """Append a keyframe, or replace it."""
        row = (str(packed.key), *packed[1:])
        self._write(f"INSERT OR REPLACE INTO keyframes VALUES (NULL{', ?' * len(row)})", row)

    def correct(self, key: Key, T_map_base: bytes) -> None:
        """Append a keyframe's pose, or replace it; it goes up after the keyframes before it."""
        self._write("INSERT OR REPLACE INTO poses VALUES (NULL, ?, ?)", (str(key), T_map_base))

    def keyframes(self, most: int) -> dict[int, Packed]:
        """The oldest keyframes, by number."""
        with self._changing:
            rows = self._connection.execute("SELECT * FROM keyframes ORDER BY number LIMIT ?", (most,)).fetchall()
        return {
            number: Packed(parse_key(key), bool(local), bool(partial), *rest)
            for number, key, local, partial, *rest in rows
        }

    def poses(self, most: int) -> dict[int, tuple[Key, bytes]]:
        """The oldest poses, by number."""
        with self._changing:
            rows = self._connection.execute("SELECT * FROM poses ORDER BY number LIMIT ?", (most,)).fetchall()
        return {number: (parse_key(key), T) for number, key, T in rows}

    def done(self, numbers: Mapping[str, Sequence[int]]) -> None:
        """Remove what has gone up, by table; what was replaced meanwhile has another number, and stays."""
        with self._changing:
            for table, some in numbers.items():
                self._connection.executemany(f"DELETE FROM {table} WHERE number = ?", [(one,) for one in some])

    def __len__(self) -> int:
        with self._changing:
            counted = (self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in WAITING)
            return sum(counted) + len(self._unwritten)

    def close(self) -> None:
        """Let go of the file."""
        with self._changing:
            self._connection.close()
        self._lock.release()

    def _write(self, statement: str, row: tuple[object, ...]) -> None:
        with self._changing:
            self._unwritten.append((statement, row))
            try:
                while self._unwritten:
                    self._connection.execute(*self._unwritten[0])
                    del self._unwritten[0]
                self.trouble = ""
            except sqlite3.Error as error:
                self.trouble = f"the fleet's queue {self.path} cannot be written: {error}"
