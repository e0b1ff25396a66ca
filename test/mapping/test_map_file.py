# SPDX-License-Identifier: Apache-2.0
"""The map file against everything that can happen to a file."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_rows import DIM, MAKE, geometry, keyframe, make
from safetensors.numpy import load_file, save_file

from vlad_ros.config import BevConfig
from vlad_ros.mapping.database import KeyframeDatabase, MapError
from vlad_ros.mapping.map_file import MapLock, read_map, write_map
from vlad_ros.stamps import SECOND
from vlad_ros.types import Keyframe

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def rows() -> list[Keyframe]:
    rng = np.random.default_rng(9)
    bare = [keyframe(rng, i // 4, i * SECOND, i % 3 == 0, float(i) if i % 2 else None) for i in range(12)]
    shapes = rng.integers(0, 4, (12, 2)) * 10  # empty ones, too
    return [
        row if i == 5 else dataclasses.replace(row, geometry=geometry(rng, *map(int, shapes[i])))
        for i, row in enumerate(bare)
    ]


@pytest.fixture
def saved(tmp_path, rows) -> Path:
    path = tmp_path / "place.map"
    make(rows).save(path)
    return path


def test_a_loaded_map_answers_the_same(saved, rows):
    before, after = make(rows), KeyframeDatabase.load(saved, dim=DIM, **MAKE)
    rng = np.random.default_rng(10)
    for local in (False, True):
        query = keyframe(rng, 2, 40 * SECOND, local, 40.0)
        assert after.search(query, 5, 31.0, 20.0) == before.search(query, 5, 31.0, 20.0)
    for id in range(len(rows)):
        one, other = before.keyframe(id), after.keyframe(id)
        assert one._replace(T_odom_base=None) == other._replace(T_odom_base=None)
        assert (one.T_odom_base is None) == (other.T_odom_base is None)
        assert one.T_odom_base is None or np.array_equal(one.T_odom_base, other.T_odom_base)
    assert (
        list(after.sessions) == [0, 1, 2] and after.sessions[2] is None and np.array_equal(after.sessions[0], np.eye(4))
    )
    assert after.next_session() == 3
    after.add(keyframe(rng, 3))  # and it grows on
    assert len(after) == 13


def test_geometry_and_places_are_kept(tmp_path, rows):
    before = make(rows)
    T = np.eye(4)
    T[:2, 3] = 5.0, -1.0
    before.set_T_map_odom(1, T)
    before.place(9, T)
    before.save(tmp_path / "x.map")
    for after in (
        KeyframeDatabase.load(tmp_path / "x.map", dim=DIM, **MAKE),
        KeyframeDatabase.open(tmp_path / "x.map"),
    ):
        for id, row in enumerate(rows):
            one, other = row.geometry, after.geometry(id)
            assert (one is None) == (other is None) == (id == 5)
            if one is not None:
                for name in ("keypoints", "features", "cloud", "T_level_body"):
                    a, b = getattr(one, name), getattr(other, name)
                    assert a.dtype == b.dtype and np.array_equal(a, b)
            here, there = before.T_map_base(id), after.T_map_base(id)
            assert here is there is None or np.array_equal(here, there)
        assert [id for id in range(12) if after.corrected(id) is not None] == [9]
        with pytest.raises(ValueError, match="features"):
            wrong = dataclasses.replace(
                rows[0].geometry, features=np.zeros((len(rows[0].geometry.features), 5), np.int8)
            )
            after.add(dataclasses.replace(rows[0], session=7, geometry=wrong))


def test_single_scans_descriptors_that_are_absent_stay_so(tmp_path):
    rng = np.random.default_rng(5)
    rows = [keyframe(rng, 0, i, is_local_map=i != 3) for i in range(8)]
    rows = [dataclasses.replace(row, scan_descriptor=None) if i in (1, 2, 7) else row for i, row in enumerate(rows)]
    make(rows).save(tmp_path / "x.map")
    after = KeyframeDatabase.load(tmp_path / "x.map", dim=DIM, **MAKE)
    for id, row in enumerate(rows):
        found = after.whole(id).scan_descriptor
        assert (found is None) == (id in (1, 2, 7)) and (found is None or np.array_equal(found, row.scan_descriptor))


def test_saving_does_not_copy_what_it_saves(tmp_path):
    """The pieces of the file are the keyframes' own memory: a peak far below the map's size, in a process alone."""
    script = f"""
import resource, sys
sys.path.insert(0, "test/helpers")
import numpy as np
from map_rows import geometry, keyframe, make
import dataclasses
rng = np.random.default_rng(0)
one = geometry(rng, 250, 3000)
database = make([
    dataclasses.replace(keyframe(rng, 0, i), geometry=dataclasses.replace(one, cloud=one.cloud + np.int16(i % 7)))
    for i in range(5000)
])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
database.save({str(tmp_path / "x.map")!r})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert 1024 * int(done.stdout) < 0.5 * (tmp_path / "x.map").stat().st_size


def test_an_empty_map_can_be_kept(tmp_path):
    KeyframeDatabase(DIM, **MAKE).save(tmp_path / "empty.map")
    assert len(KeyframeDatabase.load(tmp_path / "empty.map", dim=DIM, **MAKE)) == 0


def test_the_file_is_plain_safetensors(saved, rows):
    arrays = load_file(saved)
    scans = np.stack([row.scan_descriptor for row in rows if not row.is_local_map])
    assert np.array_equal(arrays["single_scan_descriptors"], scans)
    assert arrays["stamps"].dtype == np.int64 and arrays["sessions"].dtype == np.uint32


def test_saving_twice_gives_the_same_bytes(tmp_path, saved, rows):
    make(rows).save(tmp_path / "again.map")
    assert (tmp_path / "again.map").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"model_hash": "1" * 64}, "other weights"),
        ({"bev": BevConfig(extent=60.0)}, "another BEV configuration"),
        ({"kind": "bev"}, "made from points, not from bev"),
        ({"dim": DIM + 1}, "length 8; this network makes 9"),
    ],
)
def test_a_map_of_another_make_is_refused(saved, other, word):
    with pytest.raises(MapError, match=word) as caught:
        KeyframeDatabase.load(saved, **({"dim": DIM} | MAKE | other))
    assert str(saved) in str(caught.value)


def test_another_metric_or_version_is_refused(saved, monkeypatch):
    arrays, metadata = read_map(saved)
    write_map(saved, arrays, metadata | {"metric": "L2"})
    with pytest.raises(MapError, match="compares by L2"):
        KeyframeDatabase.load(saved, dim=DIM, **MAKE)
    for version, word in (("99", "version 99"), ("1", "version 1, which kept no points.* record it anew")):
        monkeypatch.setattr("vlad_ros.mapping.map_file.VERSION", version)
        write_map(saved, arrays, metadata)
        monkeypatch.undo()
        with pytest.raises(MapError, match=word):
            KeyframeDatabase.load(saved, dim=DIM, **MAKE)


def test_what_is_no_map_is_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(MapError, match="there is no map at"):
        read_map(path)
    with pytest.raises(MapError, match="is not a map"):
        read_map(tmp_path)
    for content in (b"", b"\x00", b"hello, this is a text file and no map", b"\xff" * 100):
        path.write_bytes(content)
        with pytest.raises(MapError, match="is not a map"):
            read_map(path)
    save_file({"x": np.zeros(3)}, path)
    with pytest.raises(MapError, match="is not a map"):
        read_map(path)


def test_flipped_bits_are_noticed(saved):
    content = saved.read_bytes()
    rng = np.random.default_rng(11)
    header = 8 + int.from_bytes(content[:8], "little")
    for at in [*range(0, header, 2), *range(header, len(content), 29)]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        with pytest.raises(MapError):
            read_map(saved)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_other_damage_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "x.map"
    write_map(path, {"x": np.arange(12, dtype=np.float32)}, {"model_hash": "0" * 64})
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    kind = data.draw(st.sampled_from(["cut", "grow", "set", "drop", "insert"]))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    damaged = {
        "cut": content[:at],
        "grow": content + content[:at] + byte,
        "set": content[:at] + byte + content[at + 1 :],
        "drop": content[:at] + content[at + 1 :],
        "insert": content[:at] + byte + content[at:],
    }[kind]
    path.write_bytes(damaged)
    if damaged == content:
        read_map(path)
        return
    with pytest.raises(MapError):
        read_map(path)


def test_a_save_that_fails_leaves_the_old_file_and_no_other(tmp_path, rows):
    path = tmp_path / "small.map"
    make(rows).save(path)
    before = path.read_bytes()
    script = f"""
import resource
import numpy as np
from vlad_ros.mapping.map_file import MapError, write_map
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_map({str(path)!r}, {{"x": np.zeros(100_000, np.float32)}}, {{}})
except MapError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert f"could not be saved to {path}: File too large" in done.stdout
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["small.map"]


def test_a_place_that_cannot_be_written_is_named(tmp_path, rows):
    with pytest.raises(MapError, match="No such file or directory"):
        make(rows).save(tmp_path / "nowhere" / "x.map")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MapError, match=r"folder: Is a directory"):
        make(rows).save(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


SAVER = """
import sys
import numpy as np
from vlad_ros.mapping.map_file import MapLock, write_map
with MapLock(sys.argv[1]):
    print("locked", flush=True)
    for i in range(10**6):
        write_map(sys.argv[1], {"x": np.full(1_000_000, i, np.float32)}, {})
        print(i, flush=True)
"""


def test_kill_9_in_the_middle_of_a_save_leaves_a_map(tmp_path):
    path = tmp_path / "killed.map"
    write_map(path, {"x": np.full(1_000_000, -1, np.float32)}, {})
    rng = np.random.default_rng(12)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", SAVER, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        ) as saver:
            assert saver.stdout is not None and saver.stdout.readline() == "locked\n"
            saver.stdout.readline()
            with pytest.raises(MapError, match=r"killed\.map is in use"):
                MapLock(path)
            time.sleep(float(rng.uniform(0, 0.05)))
            saver.send_signal(signal.SIGKILL)
        arrays, _ = read_map(path)
        assert np.all(arrays["x"] == arrays["x"][0])
    with MapLock(path):  # whoever holds the map next sweeps
        assert sorted(os.listdir(tmp_path)) == ["killed.map", "killed.map.lock"]


def test_one_holder_of_a_map_at_a_time(tmp_path):
    path = tmp_path / "x.map"
    lock = MapLock(path)
    with pytest.raises(MapError, match=str(path)):
        MapLock(path)
    lock.release()
    lock.release()
    with MapLock(path):
        pass
    with pytest.raises(MapError, match="nowhere"):
        MapLock(tmp_path / "nowhere" / "x.map")
