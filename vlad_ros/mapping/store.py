# SPDX-License-Identifier: Apache-2.0
"""A map file: an SQLite database that grows row by row, written in a thread of its own.

While it grows its journal is a write-ahead log, each transaction is synced, and what was added is on disk within
`PERIOD` and one sync. A clean end leaves one file without a log, which opens from read-only media too.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from vlad_ros.mapping import tables
from vlad_ros.mapping.codec import pack_geometry
from vlad_ros.mapping.connection import BUSY_MS, Change, connect, end_log, explain, take_in_log
from vlad_ros.mapping.geometry_cache import GeometryCache
from vlad_ros.mapping.lock import MapError
from vlad_ros.mapping.opening import prepare_to_grow, readable
from vlad_ros.types import Geometry, Ints, Keyframe, PathLike

PERIOD = 0.25  # s from the first change to the transaction that holds it
ENDING = 5.0  # s that the end of a transaction is waited for when the map is let go of
RETRY = 1.0  # s until what could not be written is tried again
LOG_BYTES = 64 << 20  # the write-ahead log is taken into the map before it grows past this
SPILL = 256  # changes of an unnamed map kept in memory before they go to a temporary file


class MapStore:
    """One map's tables: a file that grows, one that is only read, or (without `path`) a temporary one without a name.

    `trouble` is a sentence while changes cannot be written, else empty; they stay in memory and are tried again.
    Thread-safe.
    """

    def __init__(self, path: Path | None, make: Mapping[str, str], read_only: bool = False) -> None:
        self.path, self.make, self._read_only = path, dict(make), read_only
        self.trouble = ""
        self.geometries = GeometryCache(str(path or "the map"))
        self._undo = contextlib.ExitStack()  # removes a temporary copy
        self._changes: list[Change] = []
        self._waiting: dict[int, Keyframe] = {}  # not yet written
        self._packed: dict[int, bytes] = {}  # the geometries of those, of the next transaction
        self._changed = threading.Condition()
        self._using = threading.RLock()  # of the connection that reads
        self._writer: threading.Thread | None = None
        self._due = float("inf")  # time.monotonic() of the next transaction
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None

    # -- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def grow(cls, path: PathLike, make: Mapping[str, str]) -> MapStore:
        """A file to add to; it is created, atomically, where there is none. MapError when it cannot be used."""
        store = cls(Path(os.path.realpath(path)), make)
        try:
            prepare_to_grow(path, make)
            store._open_file()
        except (sqlite3.Error, OSError, ValueError) as error:
            store.close(force=True)
            raise explain(path, error) from error
        return store

    @classmethod
    def read(cls, path: PathLike) -> MapStore:
        """A file that is only read, from read-only media too. MapError when it cannot be used."""
        store = cls(Path(os.path.realpath(path)), {}, read_only=True)
        try:
            file = store._undo.enter_context(readable(path))
            store._reading = connect(file, "ro")
            store.make = tables.read_make(store._reading)
        except (sqlite3.Error, OSError, ValueError) as error:
            store.close()
            raise explain(path, error) from error
        return store

    def _open_file(self) -> None:
        """Both connections to a file that must exist and hold this map."""
        assert self.path is not None
        self._writing = connect(self.path, "rw")
        found = tables.read_make(self._writing)
        if found != self.make:
            raise ValueError("it has become another map")
        self._writing.execute("PRAGMA journal_mode = WAL")
        self._writing.execute("PRAGMA synchronous = FULL")
        self._writing.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        with self._using:
            if self._reading is not None:
                self._reading.close()
            self._reading = connect(self.path, "ro")

    def _open_temporary(self) -> None:
        """An unnamed file, which ends with its connection."""
        connection = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        tables.create(connection, self.make)
        self._writing = self._reading = connection

    # -- reading ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection | None]:
        """The connection for reading what has been written; None where that is nothing."""
        with self._using:
            yield self._reading

    def geometry(self, id: int, is_owed: bool) -> Geometry | None:
        """The geometry of a keyframe; None if it has none, or where it cannot be read or `is_owed` and is missing,
        which `geometries.faults` says."""
        if (waiting := self.waiting(id)) is not None:
            return waiting.geometry
        with self.reading() as connection:
            return self.geometries.get(id, connection, is_owed)

    def waiting(self, id: int) -> Keyframe | None:
        """A keyframe that has not been written yet."""
        with self._changed:
            return self._waiting.get(id)

    def copy_to(self, target: sqlite3.Connection, ids: Ints) -> None:
        """Copy the rows of `ids` (ascending) to another map's tables."""
        with self._changed:
            waiting = dict(self._waiting)
        for id in ids.tolist():
            if id in waiting:
                geometry = waiting[id].geometry
                tables.write_keyframe(target, id, waiting[id], None if geometry is None else pack_geometry(geometry))
        written = np.array([id for id in ids.tolist() if id not in waiting], np.int64)
        with self.reading() as source:
            if source is not None:
                for table in ("keyframes", "descriptors", "geometries", "places"):
                    tables.copy(source, target, written, table)

    @property
    def behind(self) -> int:
        """The number of keyframes that have not been written yet."""
        with self._changed:
            return len(self._waiting)

    # -- writing ------------------------------------------------------------------------------------------------------

    def add(self, id: int, keyframe: Keyframe) -> None:
        """Write a keyframe, soon."""

        def insert(connection: sqlite3.Connection) -> None:
            tables.write_keyframe(connection, id, keyframe, self._packed.get(id))

        with self._changed:  # both at once: the writer forgets whatever waits when it has made all changes
            self._waiting[id] = keyframe
            self.change(insert)

    def change(self, change: Change) -> None:
        """Apply `change` to the tables, soon, after the changes before it; it may be called more than once."""
        with self._changed:
            self._changes.append(change)
            if self.path is None and self._writing is None and len(self._changes) <= SPILL:
                return
            self._due = min(self._due, time.monotonic() + PERIOD)
            self._start()

    def flush(self, timeout: float = 30.0) -> None:
        """Write all changes so far. MapError, with nothing lost, when they cannot be written now."""
        with self._changed:
            self._due = 0.0
            self.trouble = ""
            self._start()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.trouble or not self._changes, timeout)
            if self._changes:
                why = self.trouble or "writing takes too long"
                raise MapError(f"the map could not be saved to {self.path or 'a temporary file'}: {why}")

    def checkpoint(self) -> None:
        """Write all changes so far, and take the log into the file, synced. MapError when that cannot be done now."""
        self.flush()
        if self.path is None:
            return
        try:
            with contextlib.closing(connect(self.path, "rw")) as connection:
                take_in_log(connection)
        except sqlite3.Error as error:
            raise MapError(f"the map could not be saved to {self.path}: {error}") from error

    def close(self, force: bool = False) -> None:
        """Write what is left, and leave one file without a log. MapError, with nothing lost, when that is impossible
        (closing may be tried again), unless `force`."""
        if self.path is not None and not self._read_only:
            try:
                self.flush()
            except MapError:
                if not force:
                    raise
        with self._changed:
            self._changes.clear()
            self._changed.notify_all()
            hangs = self._writer is not None and not self._changed.wait_for(lambda: self._writer is None, ENDING)
        if hangs:  # a medium that does not answer; the log stays, for who opens the map next
            return
        with self._using:
            if self._reading is not None:
                self._reading.close()
            if self._writing is not None and self.path is not None:
                with contextlib.suppress(sqlite3.Error):  # the medium may be gone
                    end_log(self._writing)
                    self._writing.close()
            self._reading = self._writing = None
        self._undo.close()

    def _start(self) -> None:
        """Have a thread that writes; it ends when nothing is left to do."""
        if self._writer is None and self._changes:
            self._writer = threading.Thread(target=self._write, name="vlad_map", daemon=True)
            self._writer.start()
        self._changed.notify_all()

    def _write(self) -> None:
        while True:
            with self._changed:
                while self._changes and (left := self._due - time.monotonic()) > 0:
                    self._changed.wait(left)
                if not self._changes:
                    self._writer = None
                    self._changed.notify_all()
                    return
                changes, waiting = list(self._changes), dict(self._waiting)
            for id, keyframe in waiting.items():  # before the transaction, which locks
                if keyframe.geometry is not None and id not in self._packed:
                    self._packed[id] = pack_geometry(keyframe.geometry)
            trouble = self._commit(changes)
            with self._changed:
                self.trouble = trouble
                self._due = time.monotonic() + RETRY if trouble else float("inf")
                if not trouble:
                    self._written(len(changes), list(waiting))
                self._changed.notify_all()

    def _written(self, changes: int, waiting: list[int]) -> None:
        del self._changes[:changes]
        if self._changes:
            self._due = time.monotonic() + PERIOD
        for id in waiting:
            self.geometries.keep(id, self._waiting.pop(id).geometry)
            self._packed.pop(id, None)

    def _commit(self, changes: list[Change]) -> str:
        """One transaction; returns why it failed, else nothing."""
        try:
            if self._writing is None:
                self._open_temporary() if self.path is None else self._open_file()
            connection = self._writing
            assert connection is not None
            with self._using if self.path is None else contextlib.nullcontext():
                connection.execute("BEGIN IMMEDIATE")
                for change in changes:
                    change(connection)
                connection.execute("COMMIT")
            self._take_in_log(connection)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._reopen_later()
            return str(error)
        return ""

    def _take_in_log(self, connection: sqlite3.Connection) -> None:
        """SQLite does so every 1,000 pages, unless somebody reads: then the log grows until he no longer does. Nobody
        is waited for, since the next transaction would."""
        if self.path is None:
            return
        log = self.path.with_name(self.path.name + "-wal")
        if log.exists() and log.stat().st_size > LOG_BYTES // 2:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _reopen_later(self) -> None:
        """Roll back. A file is opened anew: its medium may be gone, and come back."""
        if self._writing is None:
            return
        with contextlib.suppress(sqlite3.Error):
            self._writing.execute("ROLLBACK")
        if self.path is not None:
            with contextlib.suppress(sqlite3.Error):
                self._writing.close()
            self._writing = None
