# SPDX-License-Identifier: Apache-2.0
"""A map's life, to be recorded: python map_life.py FOLDER. It writes to FOLDER/marks what is promised to be on disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from map_driver import row
from map_rows import extend, load

from vlad_ros.mapping import store
from vlad_ros.mapping.lock import MapLock
from vlad_ros.mapping.set_aside import set_aside

STEPS = 12  # keyframes of each stage


def live(folder: Path) -> None:
    """A drive, a clean end, a second drive whose log is often taken in, a save over itself and over another map, the
    conversion of old.map, and a new beginning."""
    marks = os.open(folder / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def mark(what: str) -> None:
        os.write(marks, f"{what}\n".encode())

    for stage in range(2):
        with MapLock(folder / "x.map"):
            database = extend(folder / "x.map")
            store.LOG_BYTES = 10**9 if stage == 0 else 60_000
            for id in range(len(database), len(database) + STEPS):
                database.add(row(id))
                if id % 2:
                    database.store.flush()
                    mark(f"x {id + 1}")
            database.store.checkpoint()
            database.close()
            mark(f"x {len(database)}")
    with MapLock(folder / "old.map"):
        extend(folder / "old.map").close()
    mark(f"old {STEPS}")
    loaded = load(folder / "x.map")
    loaded.save(folder / "copy.map")
    mark(f"copy {2 * STEPS}")
    loaded.save(folder / "copy.map")
    database = extend(folder / "x.map")
    database.add(row(len(database)))
    database.save(folder / "x.map")
    mark(f"x {2 * STEPS + 1}")
    database.close()
    set_aside(folder / "x.map")
    extend(folder / "x.map").close()
    mark("end 1")


if __name__ == "__main__":
    live(Path(sys.argv[1]))
