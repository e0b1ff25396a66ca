# SPDX-License-Identifier: Apache-2.0
"""Opens damaged maps in a process of its own, with bounded memory and time: python map_probe.py FOLDER SEED COUNT.

Prints how each kind of damage ended. It exits with 1, and says why, where a damaged map ends in anything but a whole
opening, one with the damage named, or a MapError of one sentence that names the file.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
from map_damage import damage_bytes, forge_row, forge_schema, forge_version2
from map_rows import equal, extend, geometry, keyframe, load, mixed
from version2_maps import columns, metadata, write_version2

from vlad_ros.mapping.database import KeyframeDatabase, MapError
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.types import Keyframe

ROWS = mixed(80)
ALL = -1
SECONDS = 20  # most that one file may take
MEMORY = 256 << 20  # bytes more than after the first file


def templates(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Sealed, with a log, and of version 2; returns the content of the latter."""
    database = extend(folder / "live.map")
    for id, row in enumerate(ROWS):
        database.add(row)
        if id % 9 == 8:
            database.place(id, from_xyz_rpy((id, 0, 0, 0, 0, 0)))
            database.join_place(id, id - 5)
            database.store.flush()
    database.set_T_map_odom(1, from_xyz_rpy((5.0, 0, 0, 0, 0, 1)))
    database.store.flush()
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"live.map{suffix}", folder / f"logged.map{suffix}")
    database.save(folder / "sealed.map")
    database.close()
    other = KeyframeDatabase.open(folder / "sealed.map")
    other.store.make = other._make()
    write_version2(folder / "old.map", other)
    return columns(other), metadata(other)


def check(database: KeyframeDatabase, path: Path, random: bool, touched: int | None, may_lose: bool) -> str:
    """Everything that comes out of `database` is what was written; what is missing is told."""
    rng, readable = np.random.default_rng(0), set[int]()
    for id in database.ids().tolist():
        shape = database.geometry(id)
        database.T_map_base(id), database.corrected(id), database.places.members(id)
        if id >= len(ROWS) or touched in (id, ALL):
            continue
        try:
            row = database.whole(id)
        except MapError as error:
            sentence(error, path)
            continue
        if shape is None and ROWS[id].geometry is not None:
            named = any(f"keyframe {id} " in fault for fault in database.faults)
            assert named or not random, f"the geometry of {id} is missing, untold: {database.faults}"
            row = row.__class__(**{**vars(row), "geometry": ROWS[id].geometry})
        readable.add(id)
        assert equal(row, expected(id)), f"keyframe {id} is not what was written: {row} {expected(id)}"
    for local in (False, True):
        database.search(keyframe(rng, 3, 10**12, local), 10, 30.0, 20.0)
    assert all("\n" not in fault and str(path) in fault for fault in database.faults), database.faults
    if len(database.faults) < 3 or not random:  # what can be read can be rescued
        database.save(path.with_name("rescued.map"))
        if readable:
            rescued = KeyframeDatabase.open(path.with_name("rescued.map"))
            assert readable <= set(rescued.ids().tolist()), f"not saved: {readable - set(rescued.ids().tolist())}"
            rescued.close()
    whole = len(database) == len(ROWS)
    assert whole or database.faults or may_lose, "keyframes are missing, untold"
    return "whole" if whole and not database.faults else "named" if database.faults else "less"


def expected(id: int) -> Keyframe:
    row = ROWS[id]
    return row if row.is_local_map else row.__class__(**{**vars(row), "scan_descriptor": row.descriptor})


def sentence(error: MapError, path: Path) -> None:
    assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 2000, f"no sentence: {error!r}"


def grow_on(path: Path, first: str) -> str:
    """What can be extended keeps what is added, and all that could be read before."""
    rng = np.random.default_rng(1)
    database = extend(path)
    before, session = database.ids().tolist(), database.next_session()
    try:
        new = [
            database.add(row.__class__(**{**vars(row), "session": session, "stamp": i, "geometry": geometry(rng)}))
            for i, row in enumerate(ROWS[:3])
        ]
        database.store.flush()
    except MapError as error:
        sentence(error, path)
        assert database.ids().tolist()[: len(before)] == before
        database.close(force=True)
        return first + ", not extended"
    database.close()
    again = load(path)
    missing = set(before + new) - set(again.ids().tolist())
    assert again.faults or not missing, f"lost by extending, untold: {missing}"
    again.close()
    return first + f", extended{', with a loss' if missing & set(before) else ', in vain' if missing else ''}"


def damaged(folder: Path, rng: np.random.Generator, old: tuple) -> tuple[Path, str, bool, int | None, bool]:
    """A damaged file: path, how, whether at random, the id whose content was forged, whether less is no fault."""
    path, kind = folder / "x.map", int(rng.integers(10))
    for left in folder.glob("x.map*"):
        left.unlink()
    if kind == 0:
        forge_version2(path, *old, rng)
        return path, "version 2 forged", False, ALL, True
    if kind == 1:
        shutil.copy(folder / "old.map", path)
        return path, f"version 2 {damage_bytes(path, rng)}", True, None, False
    if kind == 2:
        shutil.copy(folder / "logged.map", path)
        shutil.copy(folder / "logged.map-wal", folder / "x.map-wal")
        how = damage_bytes(folder / "x.map-wal", rng)
        return path, f"log {how}", True, None, True
    shutil.copy(folder / "sealed.map", path)
    if kind == 3:
        forge_schema(path, rng)
        return path, "schema forged", False, None, True
    if kind <= 6:
        table, id = forge_row(path, rng)
        return path, f"{table} forged", False, id if table != "sessions" else None, True
    return path, damage_bytes(path, rng), True, None, False


def probe(folder: Path, rng: np.random.Generator, old: tuple) -> str:
    path, how, random, touched, may_lose = damaged(folder, rng, old)
    signal.alarm(SECONDS)
    try:
        way = KeyframeDatabase.open if rng.random() < 0.3 else load
        database = way(path)
        try:
            outcome = check(database, path, random, touched, may_lose)
        finally:
            database.close()
        if rng.random() < 0.3:
            outcome = grow_on(path, outcome)
    except MapError as error:
        sentence(error, path)
        outcome = "refused"
    signal.alarm(0)
    return f"{how}: {outcome}"


def main(folder: Path, seed: int, count: int) -> int:
    old, outcomes = templates(folder), Counter[str]()
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        try:
            outcomes[probe(folder, rng, old)] += 1
        except BaseException:
            print(f"file {i} of seed {seed}, kept in {folder}:\n{traceback.format_exc()}")
            return 1
        if i == 0:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for outcome, number in sorted(outcomes.items()):
        print(f"{number:6d} {outcome}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
