# SPDX-License-Identifier: Apache-2.0
"""Move a map file out of the way, whole."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from pathlib import Path

from vlad_ros.mapping.connection import explain, seal
from vlad_ros.types import PathLike

ASIDE = "%Y-%m-%dT%H-%M-%S"  # local time


def set_aside(path: PathLike) -> Path:
    """Rename the map at `path`, with the date in its name; returns the new path. MapError when it cannot be done.

    Nobody writes it. One who only reads it goes on with what it holds.
    """
    real = Path(os.path.realpath(path))
    try:
        seal(real)
        aside = _free(real, datetime.now().strftime(ASIDE))
        os.rename(real, aside)
        for suffix in ("-wal", "-shm"):  # empty ones, of those who read
            real.with_name(real.name + suffix).unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as error:
        raise explain(path, error) from error
    return aside


def _free(path: Path, date: str) -> Path:
    """A name of its own for what lay at `path`: the date before the last suffix, and a number where that is taken."""
    for number in range(1000):
        aside = path.with_name(f"{path.stem}.{date}{f'.{number}' if number else ''}{path.suffix}")
        if not os.path.lexists(aside):
            return aside
    raise OSError(0, f"there are too many files like {aside}")
