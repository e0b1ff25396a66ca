# SPDX-License-Identifier: Apache-2.0
"""Connections to map files that trust nothing of them, and a sentence for what goes wrong."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vlad_ros.atomic import replacing
from vlad_ros.mapping import tables
from vlad_ros.mapping.lock import MapError
from vlad_ros.types import PathLike

Change = Callable[[sqlite3.Connection], None]
LONGEST_TOLD = 300  # characters
BUSY_MS = 10_000  # as long a transaction of another process is waited for


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to an existing file, `mode` ro or rw. No function of the file's schema is run, and
    its cells are checked. sqlite3.Error when it cannot be opened."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None, timeout=BUSY_MS / 1000)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[sqlite3.Connection]:
    """A new file without a journal: it counts only once it is complete, renamed and synced as a whole."""
    path.touch()  # the system's reason where that is impossible; SQLite tells none
    with contextlib.closing(connect(path, "rw")) as connection:
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection


def roll_back(path: Path) -> None:
    """End what a killed process was doing when it switched the journal of the map at `path`; only one who may write
    can. MapError for a log without its map: it would be taken for that of the next one."""
    strays = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
    strays = [stray for stray in strays if stray.exists() and stray.stat().st_size]
    if strays and not (path.exists() and is_database(path)):
        raise MapError(f"{strays[0]} is the log of a map that no longer lies beside it: move it there, or delete it")
    if any(stray.name.endswith("-journal") for stray in strays):
        with contextlib.closing(connect(path, "rw")) as connection:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()


def seal(path: Path) -> None:
    """Take the log beside a map file into it, if there is one. sqlite3.Error when that cannot be done."""
    roll_back(path)
    if path.exists() and path.with_name(path.name + "-wal").exists():  # without its map it is an empty one
        with contextlib.closing(connect(path, "rw")) as connection:
            take_in_log(connection)
            end_log(connection)


def take_in_log(connection: sqlite3.Connection) -> None:
    """Write all of the log into the file, and sync it; sqlite3.OperationalError when somebody reads for too long."""
    if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        raise sqlite3.OperationalError("another process reads it without an end")


def end_log(connection: sqlite3.Connection) -> None:
    """Leave one file, which can be opened from read-only media; while another process has it open the log stays."""
    connection.execute("PRAGMA busy_timeout = 0")
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute("PRAGMA journal_mode = DELETE")


def write_copy(path: PathLike, make: Mapping[str, str], fill: Change) -> None:
    """A sealed map at `path`, atomically: the tables as `fill` fills them. MapError when it cannot be written, and what
    was there is untouched."""
    try:
        with replacing(path, durable=True) as temporary:
            with new_file(temporary) as connection:
                tables.create(connection, make)
                connection.execute("BEGIN")
                fill(connection)
                connection.execute("COMMIT")
            seal(Path(os.path.realpath(path)))  # a log beside the new file would be taken for its own
    except (sqlite3.Error, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise MapError(f"the map could not be saved to {os.fspath(path)}: {why}") from error


def is_database(path: PathLike) -> bool:
    """Whether a file begins as SQLite's do."""
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def explain(path: PathLike, error: Exception) -> MapError:
    """A sentence for what SQLite, the system or a table says of the map at `path`."""
    if isinstance(error, MapError):
        return error
    if isinstance(error, OSError):
        return MapError(f"the map {os.fspath(path)} cannot be used: {error.strerror}")
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return MapError(f"{os.fspath(path)} is not a map of vlad_ros")
    if isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error):
        return MapError(f"the map {os.fspath(path)} is damaged: {error}")
    return MapError(f"the map {os.fspath(path)} cannot be used: {error}")


def refuse_mismatch(path: str | os.PathLike[str], theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """MapError, naming the difference, unless the map at `path` was made as `ours` says; `theirs` is its metadata."""
    if difference := mismatch(theirs, ours):
        raise MapError(f"the map {os.fspath(path)} {difference}")


def mismatch(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """How what was made as `theirs` says differs from what `ours` says; empty where it does not."""
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
            return said[name].format(theirs=its[:LONGEST_TOLD], ours=mine)
    return ""
