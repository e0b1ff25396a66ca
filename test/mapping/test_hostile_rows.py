# SPDX-License-Identifier: Apache-2.0
"""Single rows that are damaged, or forged with a right checksum, each as one meets it again."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from map_rows import equal, extend, keyframe, load, make, mixed

from vlad_ros.mapping.tables import KEYED, row_checksum

ROWS = mixed(20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    database = make(ROWS)
    database.place(3, np.eye(4))
    database.save(tmp_path / "x.map")
    return tmp_path / "x.map"


def change(path: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def seal_row(path: Path, table: str, key: str, id: int) -> None:
    """Give a row the checksum of what it holds."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        row = connection.execute(f"SELECT * FROM {table} WHERE {key} = ?", (id,)).fetchone()
        connection.execute(f"UPDATE {table} SET checksum = ? WHERE {key} = ?", (row_checksum(*row[:-1]), id))


@pytest.mark.parametrize("table", ["keyframes", "descriptors", "both"])
def test_the_id_of_a_damaged_last_keyframe_is_not_given_again(path: Path, table: str) -> None:
    """Its row would be in the way of all that is added."""
    for one in ("keyframes", "descriptors") if table == "both" else (table,):
        change(path, f"UPDATE {one} SET checksum = 0 WHERE id = 19")
    database = extend(path)
    assert "1 damaged keyframe" in database.faults[0] and database.faults[0].endswith(": 19")
    assert database.add(keyframe(np.random.default_rng(0), 9, 1)) == 20
    database.close()
    again = load(path)
    assert again.ids().tolist() == [*range(19), 20]
    again.save(path.with_name("clean.map"))
    clean = load(path.with_name("clean.map"))
    assert clean.faults == [] and clean.ids().tolist() == [*range(19), 20]


def test_a_keyframe_of_which_only_the_descriptors_are_left_is_told(path: Path) -> None:
    change(path, "DELETE FROM keyframes WHERE id IN (7, 8)")
    assert [fault.split(", left out: ")[1] for fault in load(path).faults] == ["7, 8"]


def test_a_missing_geometry_is_told_and_a_keyframe_without_one_is_not(path: Path) -> None:
    change(path, "DELETE FROM geometries WHERE id = 4")
    database = load(path)
    assert database.geometry(4) is None and database.geometry(5) is None and ROWS[5].geometry is None
    assert database.faults == [f"the geometry of keyframe 4 in {path} is damaged: it is missing"]


@pytest.mark.parametrize("id", [2**32 - 1, 2**31, 10**8])
def test_a_forged_id_costs_no_memory(path: Path, id: int) -> None:
    for table in KEYED:
        change(path, f"UPDATE {table} SET id = ? WHERE id = 19", id)
    for table in ("keyframes", "descriptors"):
        seal_row(path, table, "id", id)
    database = extend(path)
    assert database.ids().tolist() == [*range(19), id] and equal(database.whole(id).descriptor, ROWS[19].descriptor)
    assert database.search(keyframe(np.random.default_rng(0), 9, 1, True), 30, 0.0, 0.0)
    if id == 2**32 - 1:
        with pytest.raises(ValueError, match="uint32"):
            database.add(keyframe(np.random.default_rng(0), 9, 1))
    else:
        assert database.add(keyframe(np.random.default_rng(0), 9, 1)) == id + 1
    database.close()


@pytest.mark.parametrize(
    ("change_to", "seals"),
    [("uuid = x'00'", True), ("uuid = 'sixteen letters!'", True), ("name = x'07'", True), ("T_map_odom = x'00'", True),
     ("name = 'other'", False), ("T_map_odom = zeroblob(96)", True)],
)  # fmt: skip
def test_a_damaged_session_is_told_and_its_keyframes_stay(path: Path, change_to: str, seals: bool) -> None:
    change(path, f"UPDATE sessions SET {change_to} WHERE number = 2")
    if seals:
        seal_row(path, "sessions", "number", 2)
    database = load(path)
    assert len(database) == 20 and database.sessions[2] is None and len(database.faults) == 1
    assert "1 damaged session" in database.faults[0] and database.faults[0].endswith("unknown now: 2")


def test_sessions_go_on_after_the_highest_number(path: Path) -> None:
    change(path, "UPDATE sessions SET number = ? WHERE number = 4", 2**32 - 1)
    seal_row(path, "sessions", "number", 2**32 - 1)
    assert load(path).next_session() == 5  # 4 is that of keyframes


@pytest.mark.parametrize("change_to", ["T_map_base = x'00'", "kept = 'x'", "checksum = 1"])
def test_a_damaged_corrected_pose_is_told(path: Path, change_to: str) -> None:
    change(path, f"UPDATE corrections SET {change_to} WHERE id = 3")
    database = load(path)
    assert database.corrected(3) is None and "1 damaged corrected pose" in database.faults[0]


def test_text_where_bytes_belong_is_a_damaged_row(path: Path) -> None:
    for table, column, size in (("descriptors", "descriptor", 32), ("keyframes", "T_odom_base", 96)):
        change(path, f"UPDATE {table} SET {column} = ? WHERE id = 9", "x" * size)
        seal_row(path, table, "id", 9)
        assert load(path).faults[0].endswith("left out: 9")
