# SPDX-License-Identifier: Apache-2.0
"""Several readers of one map, read-only media, links, and saving over what is there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from map_rows import equal, extend, geometry, keyframe, load, make, mixed

from vlad_ros.mapping.database import KeyframeDatabase, MapError
from vlad_ros.mapping.opening import copy_live
from vlad_ros.mapping.set_aside import set_aside

ROWS = mixed(40)


def whole(database: KeyframeDatabase) -> int:
    """The number of its keyframes, each of which is what was added, without one missing before it."""
    ids = database.ids().tolist()
    assert database.faults == [] and ids == list(range(len(ids)))
    assert all(equal(database.whole(id), make([ROWS[id]]).whole(0)) for id in ids)
    return len(ids)


def count(path: Path) -> int:
    """As `whole`, of a file."""
    with contextlib.closing(load(path)) as database:
        return whole(database)


def grown(path: Path, number: int) -> KeyframeDatabase:
    database = extend(path)
    for row in ROWS[len(database) : number]:
        database.add(row)
    database.store.flush()
    return database


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Another name for `folder`, by which nobody can write to it."""
    at = folder.with_name(folder.name + "_read_only")
    at.mkdir()
    mounted = subprocess.run(["mount", "--bind", folder, at], capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("mounting is not permitted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", at], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (at / "x").touch()
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


# -- read-only media --------------------------------------------------------------------------------------------------


def test_a_sealed_map_is_read_from_read_only_media(tmp_path: Path) -> None:
    grown(tmp_path / "x.map", 9).close()
    with read_only(tmp_path) as media:
        assert count(media / "x.map") == 9
        copy_live(media / "x.map", tmp_path / "y.map")
        with pytest.raises(MapError, match=r"read_only/x\.map"):
            extend(media / "x.map")
        with pytest.raises(MapError, match="Read-only"):
            load(tmp_path / "x.map").save(media / "z.map")
    assert count(tmp_path / "y.map") == 9 and sorted(os.listdir(tmp_path)) == ["x.map", "y.map"]


def test_a_map_that_is_being_extended_is_read_by_its_read_only_name(tmp_path: Path) -> None:
    writer = grown(tmp_path / "x.map", 5)
    with read_only(tmp_path) as media:
        reader = load(media / "x.map")
        assert whole(reader) == 5
        grown_on = [writer.add(row) for row in ROWS[5:9]]
        writer.store.flush()
        assert count(media / "x.map") == 9 and whole(reader) == 5 and len(grown_on) == 4
        copy_live(media / "x.map", tmp_path / "y.map")
        reader.close()
    writer.close()
    assert count(tmp_path / "y.map") == 9


@pytest.mark.parametrize("beside", [("-wal",), ("-wal", "-shm")], ids=["log", "log and index"])
def test_a_killed_writers_map_on_read_only_media(tmp_path: Path, beside: tuple[str, ...]) -> None:
    killed = left_by_a_killed_writer(tmp_path, beside)
    before = {file.name: file.read_bytes() for file in killed.parent.iterdir()}
    with read_only(killed.parent) as media:
        assert count(media / "x.map") == 7
        copy_live(media / "x.map", tmp_path / "copy.map")
    assert {file.name: file.read_bytes() for file in killed.parent.iterdir()} == before
    assert count(tmp_path / "copy.map") == 7


def left_by_a_killed_writer(folder: Path, beside: tuple[str, ...]) -> Path:
    (folder / "killed").mkdir()
    writer = grown(folder / "x.map", 7)
    for suffix in ("", *beside):
        shutil.copy(folder / f"x.map{suffix}", folder / "killed" / f"x.map{suffix}")
    writer.close()
    return folder / "killed" / "x.map"


def test_a_map_whose_last_reader_could_not_end_the_log(tmp_path: Path) -> None:
    """Its head still says that it has a log; where none can be made a copy is read."""
    (tmp_path / "media").mkdir()
    path = tmp_path / "media" / "x.map"
    writer = grown(path, 6)
    reader = load(path)
    writer.close()
    reader.close()
    writer = None
    assert path.read_bytes()[18] == 2
    for log in (tmp_path / "media").glob("x.map-*"):
        log.unlink() if log.stat().st_size == 0 or log.name.endswith("-shm") else None
    with read_only(tmp_path / "media") as media:
        assert count(media / "x.map") == 6


# -- several at once --------------------------------------------------------------------------------------------------


def test_readers_see_a_prefix_while_one_writes(tmp_path: Path) -> None:
    """Every copy and every opening in the meantime is whole, and none is older than the one before."""
    path, writer = tmp_path / "x.map", extend(tmp_path / "x.map")
    seen: list[list[int]] = [[], [], []]
    done = threading.Event()

    def read(into: list[int], copying: bool) -> None:
        while not done.is_set():
            if copying:
                copy_live(path, tmp_path / "copy.map")
            into.append(count(tmp_path / "copy.map" if copying else path))

    with ThreadPoolExecutor(len(seen)) as pool:
        readers = [pool.submit(read, into, i == 2) for i, into in enumerate(seen)]
        try:
            for row in ROWS:
                writer.add(row)
                writer.store.flush()
                done.wait(0.02)
        finally:
            done.set()
        for reader in readers:
            reader.result()
    writer.close()
    assert all(numbers and numbers == sorted(numbers) for numbers in seen) and count(path) == len(ROWS)


def test_a_reader_that_stays_does_not_hold_the_writer_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when the log is due to be taken in: a transaction that waited for the reader would lose seconds."""
    writer = grown(tmp_path / "x.map", 3)
    monkeypatch.setattr("vlad_ros.mapping.store.LOG_BYTES", 0)  # due at once
    with contextlib.closing(sqlite3.connect(tmp_path / "x.map", isolation_level=None)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM keyframes").fetchone()
        for row in ROWS[3:9]:
            writer.add(row)
        writer.store.flush(timeout=5.0)
        assert count(tmp_path / "x.map") == 9
        connection.execute("ROLLBACK")
    writer.close()


def test_a_copy_is_of_one_instant_and_ends_though_the_map_grows(tmp_path: Path) -> None:
    """A copy that began anew with each of the writer's transactions would never end."""
    path, stop = tmp_path / "x.map", threading.Event()
    writer = extend(path)
    rng = np.random.default_rng(3)
    large = geometry(rng, 200, 60_000)
    for stamp in range(100):  # 30 MB
        writer.add(dataclasses.replace(keyframe(rng, 0, stamp), geometry=large))
    writer.store.flush()

    def write() -> None:
        for stamp in range(100, 10**9):
            if stop.is_set():
                return
            writer.add(keyframe(rng, 0, stamp))
            writer.store.flush()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        copy_live(path, tmp_path / "copy.map")
    finally:
        stop.set()
        thread.join()
    copied = load(tmp_path / "copy.map")
    assert copied.ids().tolist() == list(range(len(copied))) and 100 <= len(copied) <= len(writer)
    writer.close()


def test_a_reader_keeps_its_map_when_it_is_set_aside_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.map"
    writer = grown(path, 8)
    reader = load(path)
    writer.close()
    aside = set_aside(path)
    assert whole(reader) == 8 and count(aside) == 8 and not path.exists()
    grown(path, 2).close()
    assert count(path) == 2
    make(ROWS[:3]).save(path)
    assert count(path) == 3 and whole(reader) == 8
    reader.close()


# -- saving over what is there ----------------------------------------------------------------------------------------


def test_save_over_the_extended_file_brings_it_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "link.map").symlink_to("x.map")
    database = extend(tmp_path / "link.map")
    for row in ROWS[:10]:
        database.add(row)
    database.save(tmp_path / "x.map")
    assert (tmp_path / "x.map-wal").stat().st_size == 0
    shutil.copy(tmp_path / "x.map", tmp_path / "alone.map")
    assert count(tmp_path / "alone.map") == 10
    database.add(ROWS[10])
    database.close()
    assert count(tmp_path / "x.map") == 11 and (tmp_path / "link.map").is_symlink()
    assert set(os.listdir(tmp_path)) & {"x.map", "x.map-wal", "x.map-shm"} == {"x.map"}


def test_a_loaded_map_can_be_saved_over_its_own_file(tmp_path: Path) -> None:
    grown(tmp_path / "x.map", 6).close()
    database = load(tmp_path / "x.map")
    for row in ROWS[6:10]:
        database.add(row)
    database.save(tmp_path / "x.map")
    assert whole(database) == 10 and count(tmp_path / "x.map") == 10
    database.close()


def test_a_log_that_is_left_over_is_not_taken_for_that_of_the_next_file(tmp_path: Path) -> None:
    """SQLite would take it so."""
    killed = left_by_a_killed_writer(tmp_path, ("-wal", "-shm"))
    make(ROWS[:3]).save(killed)
    assert count(killed) == 3


@pytest.mark.parametrize("there", [False, True], ids=["no map", "another file"])
def test_a_log_without_its_map_is_named(tmp_path: Path, there: bool) -> None:
    killed = left_by_a_killed_writer(tmp_path, ("-wal",))
    content = killed.with_name("x.map-wal").read_bytes()
    killed.write_bytes(b"no map") if there else killed.unlink()
    for way in (extend, make(ROWS[:3]).save):
        with pytest.raises(MapError, match=r"x\.map-wal is the log of a map that no longer lies beside it: move"):
            way(killed)
    assert killed.with_name("x.map-wal").read_bytes() == content and killed.exists() == there


def test_an_empty_log_without_its_map_is_in_nobodys_way(tmp_path: Path) -> None:
    for way in (lambda path: make(ROWS[:3]).save(path), lambda path: grown(path, 3).close()):
        path = tmp_path / "x.map"
        path.with_name("x.map-wal").touch()
        way(path)
        assert count(path) == 3
        path.unlink()


def test_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link.map"
    link.symlink_to("disk/x.map")
    grown(link, 4).close()
    assert count(link) == count(tmp_path / "disk" / "x.map") == 4
    make(ROWS[:2]).save(link)
    assert link.is_symlink() and count(tmp_path / "disk" / "x.map") == 2
    aside = set_aside(link)
    assert aside.parent == tmp_path / "disk" and count(aside) == 2
    link.unlink()
    link.symlink_to(link)
    for way in (load, extend):
        with pytest.raises(MapError, match=r"link\.map"):
            way(link)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="No such file or directory"):
        make(ROWS).save(tmp_path / "nowhere" / "x.map")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MapError, match=r"folder: Is a directory"):
        make(ROWS).save(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
