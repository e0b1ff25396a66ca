# SPDX-License-Identifier: Apache-2.0
"""A map file as it is found: created, converted or copied, so that it can be added to or read."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vlad_ros.atomic import replacing
from vlad_ros.mapping import tables, version2
from vlad_ros.mapping.connection import connect, explain, is_database, new_file, refuse_mismatch, roll_back, seal
from vlad_ros.mapping.lock import MapError
from vlad_ros.types import PathLike


def prepare_to_grow(path: PathLike, make: Mapping[str, str]) -> None:
    """Have a map of `make` at `path`. ValueError, OSError or sqlite3.Error when that is impossible, and what is there
    is as it was."""
    real = Path(os.path.realpath(path))
    roll_back(real)
    if not real.exists():
        with replacing(real, durable=True) as temporary, new_file(temporary) as new:
            tables.create(new, make)
    elif not is_database(real):
        version2.convert_in_place(real, make)
    with contextlib.closing(connect(real, "ro")) as connection:  # whoever may write takes in the log
        refuse_mismatch(path, tables.read_make(connection), make)


@contextlib.contextmanager
def readable(path: PathLike) -> Iterator[Path]:
    """The map at `path`, or a temporary copy: converted where it is of version 2, and where it has a log, or wants one,
    that this process can neither use nor make. ValueError, OSError or sqlite3.Error when there is no map."""
    real = Path(os.path.realpath(path))
    if not (real.is_file() or real.is_dir()):  # a pipe would be waited for
        raise MapError(f"there is no map at {os.fspath(path)}")
    old, writable = not is_database(real), os.access(real.parent, os.W_OK)
    if not old and writable:
        roll_back(real)
    if not old and (writable or _opens(real)):
        yield real
        return
    with tempfile.TemporaryDirectory(prefix="vlad_map_") as folder:
        copy = Path(folder) / real.name
        if old:
            version2.convert(path, copy)
        else:
            for file in (real, *(real.with_name(real.name + suffix) for suffix in ("-wal", "-journal"))):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(file, copy.with_name(file.name))
            roll_back(copy)
        yield copy


def _opens(path: Path) -> bool:
    try:
        with contextlib.closing(connect(path, "ro")) as connection:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return False
    return True


def copy_live(path: PathLike, out: PathLike) -> None:
    """A sealed copy of a map, also of one that a node is writing. MapError when it cannot be made."""
    try:
        with readable(path) as file, contextlib.closing(connect(file, "ro")) as source:
            tables.read_make(source)
            with replacing(out, durable=True) as temporary:
                with new_file(temporary) as target:
                    source.backup(target)  # in parts it would begin anew with each change
                    target.execute("PRAGMA journal_mode = DELETE")
                seal(Path(os.path.realpath(out)))
    except (sqlite3.Error, OSError, ValueError) as error:
        raise explain(path, error) from error
