# SPDX-License-Identifier: Apache-2.0
"""A map file answers as the map in memory did, and what is no such file is refused untouched."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from map_rows import DIM, MAKE, equal, extend, geometry, keyframe, load, make, mixed

from vlad_ros.config import BevConfig
from vlad_ros.mapping.database import KeyframeDatabase, MapError
from vlad_ros.mapping.lock import MapLock
from vlad_ros.mapping.opening import copy_live
from vlad_ros.mapping.tables import _of_make
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.stamps import SECOND

ROWS = mixed()
T = from_xyz_rpy((5.0, -1.0, 0.0, 0.0, 0.0, 0.3))


def in_memory() -> KeyframeDatabase:
    database = make(ROWS)
    database.set_T_map_odom(1, T)
    database.place(9, T)
    return database


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    in_memory().save(tmp_path / "place.map")
    return tmp_path / "place.map"


def extended(path: Path) -> KeyframeDatabase:
    database = extend(path)
    for row in ROWS:
        database.add(row)
    database.set_T_map_odom(1, T)
    database.place(9, T)
    return database


def assert_same(one: KeyframeDatabase, other: KeyframeDatabase) -> None:
    """Rows, geometry, places, sessions and answers."""
    assert other.faults == [] and equal(one.ids(), other.ids()) and one.next_session() == other.next_session()
    assert one.sessions.keys() == other.sessions.keys()
    assert all(equal(one.sessions[s], other.sessions[s]) for s in one.sessions)
    for id in one.ids().tolist():
        assert equal(one.whole(id), other.whole(id)) and equal(one.geometry(id), other.geometry(id))
        assert equal(one.T_map_base(id), other.T_map_base(id)) and equal(one.corrected(id), other.corrected(id))
    assert [one.number_corrected(s) for s in one.sessions] == [other.number_corrected(s) for s in one.sessions]
    rng = np.random.default_rng(10)
    for local in (False, True):
        query = keyframe(rng, 2, 40 * SECOND, local, 40.0)
        assert one.search(query, 20, 31.0, 20.0) == other.search(query, 20, 31.0, 20.0) != []


def lives(tmp_path: Path) -> dict[str, KeyframeDatabase]:
    """One map by every way through a file."""
    in_memory().save(tmp_path / "saved.map")
    extended(tmp_path / "extended.map").close()
    live = extended(tmp_path / "live.map")
    live.store.flush()
    load(tmp_path / "saved.map").save(tmp_path / "again.map")
    copy_live(tmp_path / "live.map", tmp_path / "copied.map")
    ways = {name: load(tmp_path / f"{name}.map") for name in ("saved", "extended", "live", "again", "copied")}
    half = KeyframeDatabase(DIM, **MAKE)
    for row in ROWS[:5]:
        half.add(row)
    half.save(tmp_path / "half.map")
    grown = load(tmp_path / "half.map")
    for row in ROWS[5:]:
        grown.add(row)
    grown.set_T_map_odom(1, T)
    grown.place(9, T)
    grown.save(tmp_path / "grown.map")
    return {**ways, "being extended": live, "opened": KeyframeDatabase.open(tmp_path / "saved.map"), "read on": grown,
            "both": load(tmp_path / "grown.map")}  # fmt: skip


def test_every_way_through_a_file_answers_the_same(tmp_path: Path) -> None:
    for name, after in lives(tmp_path).items():
        print(name)
        assert_same(in_memory(), after)
        after.close()


def test_sessions_keep_their_uuid(tmp_path: Path) -> None:
    before = extended(tmp_path / "x.map")
    before.save(tmp_path / "copy.map")
    told = before.identities
    assert len({uuid for uuid, _ in told.values()}) == 3
    before.close()
    for path in ("x.map", "copy.map"):
        assert load(tmp_path / path).identities == told
    grown = extend(tmp_path / "x.map")
    grown.add(keyframe(np.random.default_rng(0), 3))
    assert {s: grown.identities[s] for s in told} == told and len({u for u, _ in grown.identities.values()}) == 4
    grown.close()


def test_a_loaded_map_grows_in_memory_and_its_file_does_not(saved: Path) -> None:
    before = saved.read_bytes()
    after = load(saved)
    for stamp in range(300):  # more than are kept in memory
        row = keyframe(np.random.default_rng(stamp), 3, stamp)
        after.add(dataclasses.replace(row, geometry=geometry(np.random.default_rng(stamp))))
    after.store.flush()
    for id in (0, 11, 12, 311):
        assert after.whole(id).stamp == after.keyframe(id).stamp
    with pytest.raises(ValueError, match="features"):
        wrong = dataclasses.replace(ROWS[0].geometry, features=np.zeros((len(ROWS[0].geometry.features), 5), np.int8))
        after.add(dataclasses.replace(ROWS[0], session=7, geometry=wrong))
    after.close()
    assert saved.read_bytes() == before and os.listdir(saved.parent) == ["place.map"]


def test_geometry_of_another_network_is_refused_in_a_map_that_was_only_opened(saved: Path) -> None:
    with pytest.raises(ValueError, match="features"):
        load(saved).add(dataclasses.replace(keyframe(np.random.default_rng(0), 7), geometry=dataclasses.replace(
            geometry(np.random.default_rng(0)), features=np.zeros((5, 7), np.int8))))  # fmt: skip


def test_an_empty_map_can_be_kept(tmp_path: Path) -> None:
    KeyframeDatabase(DIM, **MAKE).save(tmp_path / "empty.map")
    assert len(load(tmp_path / "empty.map")) == 0
    extend(tmp_path / "new.map").close()
    assert len(load(tmp_path / "new.map")) == 0


OTHERS = [
    ({"model_hash": "1" * 64}, "other weights"),
    ({"bev": BevConfig(extent=60.0)}, "another BEV configuration"),
    ({"kind": "bev"}, "made from points, not from bev"),
    ({"dim": DIM + 1}, "length 8; this network makes 9"),
]


@pytest.mark.parametrize(("other", "word"), OTHERS)
@pytest.mark.parametrize("way", [load, extend])
def test_a_map_of_another_make_is_refused(saved: Path, other: dict, word: str, way) -> None:
    before = saved.read_bytes()
    with pytest.raises(MapError, match=word) as caught:
        way(saved, **other)
    assert str(saved) in str(caught.value) and "\n" not in str(caught.value)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == ["place.map"]


def test_a_map_of_another_make_is_refused_with_the_log_of_a_killed_writer_beside(tmp_path: Path) -> None:
    kept = killed(tmp_path)
    before = {file.name: file.read_bytes() for file in kept.parent.iterdir() if not file.name.endswith("-shm")}
    assert len(before) == 2
    with pytest.raises(MapError, match="other weights"):
        extend(kept, model_hash="1" * 64)
    assert {file.name: file.read_bytes() for file in kept.parent.iterdir() if not file.name.endswith("-shm")} == before
    assert_same(in_memory(), load(kept))


def killed(folder: Path) -> Path:
    """A map as a killed writer leaves it: nearly all of it is in its log."""
    (folder / "killed").mkdir()
    writer = extended(folder / "live.map")
    writer.store.flush()
    for name in ("live.map", "live.map-wal"):
        shutil.copy(folder / name, folder / "killed" / name)
    writer.close()
    return folder / "killed" / "live.map"


@pytest.mark.parametrize(
    ("column", "value", "word"), [("metric", "L2", "compares by L2"), ("dim", "x", "make is impossible")]
)
def test_another_metric_or_an_impossible_make(saved: Path, column: str, value: str, word: str) -> None:
    with sqlite3.connect(saved) as connection:
        connection.execute("UPDATE make SET value = ? WHERE name = ?", (value, column))
        rows = dict(connection.execute("SELECT * FROM make WHERE name != 'checksum'"))
        connection.execute("UPDATE make SET value = ? WHERE name = 'checksum'", (str(_of_make(rows)),))
    if column == "metric":
        with pytest.raises(MapError, match=word):
            load(saved)
    else:
        with pytest.raises(MapError, match=word):
            KeyframeDatabase.open(saved)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


FOREIGN = {
    "empty": b"",
    "one byte": b"\x00",
    "text": b"hello, this is a text file and no map",
    "noise": b"\xff" * 100,
    "a head alone": b"SQLite format 3\0",
    "a head and noise": b"SQLite format 3\0" + b"\xa5" * 5000,
}


def test_there_is_no_map_in_a_pipe_or_a_device(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.map")
    for path in (tmp_path / "pipe.map", Path("/dev/null")):
        with pytest.raises(MapError, match=f"there is no map at {path}$"):
            KeyframeDatabase.open(path)


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_no_map_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    for way in (load, extend, KeyframeDatabase.open, lambda file: copy_live(file, tmp_path / "y")):
        with pytest.raises(MapError, match=r"is not a map|cannot be used|is damaged") as caught:
            way(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert contents(tmp_path) == {"x": content}


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for way in (load, KeyframeDatabase.open, lambda file: copy_live(file, tmp_path / "y")):
        with pytest.raises(MapError, match="there is no map at"):
            way(tmp_path / "x")
    with pytest.raises(MapError, match="nowhere"):
        extend(tmp_path / "nowhere" / "x.map")
    for way in (load, extend, KeyframeDatabase.open, lambda file: copy_live(file, tmp_path / "y")):
        with pytest.raises(MapError, match="Is a directory"):
            way(tmp_path)
    assert os.listdir(tmp_path) == []


STATEMENTS = {
    "another program": "PRAGMA application_id = 7",
    "version 99": "PRAGMA user_version = 99",
    "version 0": "PRAGMA user_version = 0",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON keyframes BEGIN DELETE FROM keyframes; END",
    "a view": "CREATE VIEW v AS SELECT 1",
    "a table": "CREATE TABLE more (x)",
    "an index": "CREATE INDEX i ON keyframes (stamp)",
    "no descriptors": "DROP TABLE descriptors",
    "a table of another form": "DROP TABLE corrections; CREATE TABLE corrections (id, T_map_base, kept, checksum)",
}


@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_a_foreign_database_is_refused_and_left_alone(saved: Path, statement: str) -> None:
    with sqlite3.connect(saved) as connection:
        connection.executescript(statement)
    before = saved.read_bytes()
    for way in (load, extend, lambda file: copy_live(file, saved.parent / "y")):
        with pytest.raises(MapError, match=r"another program|format version|tables are not those"):
            way(saved)
    assert contents(saved.parent) == {"place.map": before}


def test_one_holder_of_a_map_at_a_time_by_whatever_name(tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    (tmp_path / "link.map").symlink_to(path)
    for left_over in ("x.map.77.tmp", "x.map.77.tmp-journal", "x.map.77.tmp.78.tmp"):
        (tmp_path / left_over).touch()
    lock = MapLock(path)
    for other in (path, tmp_path / "link.map"):
        with pytest.raises(MapError, match=str(path)):
            MapLock(other)
    assert sorted(os.listdir(tmp_path)) == ["link.map", "x.map.lock"]
    lock.release()
    lock.release()
    with MapLock(tmp_path / "link.map"):
        pass
    with pytest.raises(MapError, match="nowhere"):
        MapLock(tmp_path / "nowhere" / "x.map")
