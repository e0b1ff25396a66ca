# SPDX-License-Identifier: Apache-2.0
"""No room, no medium: it is told, the drive goes on in memory, and all of it is written as soon as it can be."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from map_driver import row
from map_rows import equal, extend, keyframe, load

from vlad_ros.mapping.database import KeyframeDatabase, MapError
from vlad_ros.mapping.opening import copy_live

HELPERS = Path(__file__).resolve().parents[1] / "helpers"


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A disk of that size at `folder`."""
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs"]
    if subprocess.run(["mount", *options, folder], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def wait_for_trouble(database: KeyframeDatabase) -> str:
    while not database.store.trouble:
        time.sleep(0.01)
    return database.store.trouble


def whole(database: KeyframeDatabase, number: int) -> None:
    """All keyframes are there, in memory or on disk, and are found."""
    assert database.faults == [] and database.ids().tolist() == list(range(number))
    for id in range(number):
        assert equal(database.geometry(id), row(id).geometry)
        assert equal(database.whole(id).descriptor, row(id).descriptor)
        query = keyframe(np.random.default_rng(0), 10**6, 0, True)
        query = query.__class__(**{**vars(query), "descriptor": row(id).descriptor, "is_local_map": id % 3 == 0})
        if id % 3 == 0:
            assert database.search(query, 1, 0.0, 0.0)[0].id == id


@pytest.mark.timeout(120)
def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk, 600):
        (disk / "ballast").write_bytes(bytes(300 << 10))
        database = extend(disk / "x.map")
        number = 0
        while not database.store.trouble:
            database.add(row(number))
            number += 1
            time.sleep(0.005)
        assert "full" in database.store.trouble and database.store.behind
        number += 20
        for id in range(number - 20, number):
            database.add(row(id))
        whole(database, number)
        for way in (database.store.flush, lambda: database.save(disk / "x.map"), database.close):
            with pytest.raises(MapError, match=r"could not be saved to .*x\.map: .*full"):
                way()
        with pytest.raises(MapError, match=r"could not be saved to|cannot be used"):
            database.save(disk / "copy.map")
        assert not [name for name in os.listdir(disk) if "copy" in name]
        on_disk = load(disk / "x.map")
        assert on_disk.faults == [] and on_disk.ids().tolist() == list(range(len(on_disk)))
        on_disk.close()
        (disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        while database.store.trouble or database.store.behind:  # by itself
            time.sleep(0.01)
        whole(database, number)
        database.close()
        whole(load(disk / "x.map"), number)
        assert {name.split("-")[0] for name in os.listdir(disk)} == {"x.map"}


LIMITED = """
import resource, sys, time
from pathlib import Path
from map_driver import row
from map_rows import extend, load, make
from vlad_ros.mapping.database import MapError
path = Path(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
database = extend(path)
for id in range(10):
    database.add(row(id))
database.store.flush()
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, hard))
try:
    make([row(id) for id in range(200)]).save(path.with_name("copy.map"))
except MapError as error:
    print("save:", error)
for id in range(10, 200):
    database.add(row(id))
while not database.store.trouble:
    time.sleep(0.01)
print("trouble:", database.store.trouble)
assert database.geometry(199) is not None and len(database) == 200
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
database.close()
assert load(path).ids().tolist() == list(range(200)) and load(path).faults == []
"""


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    (tmp_path / "copy.map").write_bytes(b"what was there")
    path = f"{HELPERS}{os.pathsep}{HELPERS.parents[1]}"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "x.map")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert f"save: the map could not be saved to {tmp_path / 'copy.map'}: " in done.stdout
    assert "trouble: " in done.stdout
    assert (tmp_path / "copy.map").read_bytes() == b"what was there" and sorted(os.listdir(tmp_path))[0] == "copy.map"
    assert not list(tmp_path.glob("*.tmp*"))


@pytest.mark.timeout(120)
def test_a_medium_that_is_gone_for_a_while(tmp_path: Path) -> None:
    """Its folder is renamed: what is open goes on there, and what must be opened anew waits for it."""
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    database = extend(disk / "x.map")
    for id in range(6):
        database.add(row(id))
    database.store.flush()
    disk.rename(away)
    for id in range(6, 12):
        database.add(row(id))
    with contextlib.suppress(MapError):
        database.store.flush()
    whole(database, 12)
    with pytest.raises(MapError, match="there is no map"):
        copy_live(disk / "x.map", tmp_path / "y.map")
    away.rename(disk)
    for id in range(12, 15):
        database.add(row(id))
    database.close()
    whole(load(disk / "x.map"), 15)


@pytest.mark.timeout(120)
def test_a_medium_that_is_pulled_out_and_comes_back(tmp_path: Path) -> None:
    """It fails first, so that the file must be opened anew, which is not there for a while."""
    disk, away = tmp_path / "disk", tmp_path / "away"
    disk.mkdir()
    with small_disk(disk, 600):
        (disk / "ballast").write_bytes(bytes(300 << 10))
        database = extend(disk / "x.map")
        number = 0
        while not database.store.trouble:
            database.add(row(number))
            number += 1
            time.sleep(0.005)
        away.mkdir()
        subprocess.run(["mount", "--bind", disk, away], check=True)
        subprocess.run(["umount", "--lazy", disk], check=True)
        try:
            number += 5
            for id in range(number - 5, number):
                database.add(row(id))
            while "unable to open" not in database.store.trouble:
                time.sleep(0.01)
            found = [id for id in range(number) if database.geometry(id) is None and row(id).geometry is not None]
            assert not found and len(database) == number and os.listdir(disk) == []
            (away / "ballast").unlink()
            subprocess.run(["mount", "-o", "remount,size=8m", away], check=True)
            subprocess.run(["mount", "--bind", away, disk], check=True)
            database.store.flush()
            database.close()
            whole(load(disk / "x.map"), number)
        finally:
            subprocess.run(["umount", "--lazy", away], check=True)


def test_another_map_in_its_place_is_not_written_to(tmp_path: Path) -> None:
    """Somebody put another network's map where this one was, while it could not be written."""
    database = extend(tmp_path / "x.map")
    database.add(row(0))
    database.store.flush()
    database.store._reopen_later()  # as after an error of the medium
    (tmp_path / "x.map").rename(tmp_path / "mine.map")
    for log in ("-wal", "-shm"):
        (tmp_path / f"x.map{log}").rename(tmp_path / f"mine.map{log}")
    extend(tmp_path / "x.map", model_hash="1" * 64).close()
    content = (tmp_path / "x.map").read_bytes()
    database.add(row(1))
    assert "another map" in wait_for_trouble(database)
    assert (tmp_path / "x.map").read_bytes() == content and len(database) == 2
    database.close(force=True)
    assert load(tmp_path / "mine.map").ids().tolist() == [0]
