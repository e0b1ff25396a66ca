# SPDX-License-Identifier: Apache-2.0
"""The database against brute force, and the map file against everything that can happen to a file."""

from __future__ import annotations

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
from safetensors.numpy import load_file, save_file

from vlad_ros.config import BevConfig
from vlad_ros.database import KeyframeDatabase, MapError
from vlad_ros.map_file import MapLock, read_map, write_map
from vlad_ros.types import Keyframe

DIM = 8
MAKE = {"model_hash": "0" * 64, "bev": BevConfig()}  # an all-zero hash must not be taken for the blank checksum
SECOND = 10**9
REPOSITORY = Path(__file__).resolve().parent.parent


def unit(rng: np.random.Generator, dim: int = DIM) -> np.ndarray:
    vector = rng.standard_normal(dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


def keyframe(rng, session=0, stamp=0, is_local_map=False, travel=None, dim=DIM) -> Keyframe:
    scan = unit(rng, dim)
    pose = None if travel is None else np.eye(4)
    if pose is not None:
        pose[0, 3] = travel
    return Keyframe(session, stamp, unit(rng, dim) if is_local_map else scan, scan, is_local_map, False, pose, travel)


def make(keyframes, dim=DIM) -> KeyframeDatabase:
    database = KeyframeDatabase(dim, **MAKE)
    for one in keyframes:
        database.add(one)
    return database


def naive_similarity(query: Keyframe, row: Keyframe) -> float:
    if query.is_local_map and row.is_local_map:
        return float(np.dot(query.descriptor.astype(np.float64), row.descriptor))
    return float(np.dot(query.scan_descriptor.astype(np.float64), row.scan_descriptor))


def naive_candidates(query, rows, exclude_time, exclude_distance) -> set[int]:
    """One row after the other, as the design's sentence says it. A row without a pose lies, as far as anybody knows,
    where the last one of its session with a pose was."""
    allowed, travel = set(), None
    for id, row in enumerate(rows):
        if id and rows[id - 1].session != row.session:
            travel = None
        travel = row.travel if row.travel is not None else travel
        young = query.stamp - row.stamp < exclude_time * SECOND
        near = query.travel is not None and travel is not None and travel > query.travel - exclude_distance
        if row.session != query.session or not (young or near):
            allowed.add(id)
    return allowed


@st.composite
def drives(draw):
    """Rows of one to three sessions, with odometry that comes and goes, and a query in any session."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for session in draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(sorted)):
        stamp, travel = draw(st.integers(0, 10)) * SECOND, 0.0
        for _ in range(draw(st.integers(0, 12))):
            stamp += draw(st.sampled_from([1, SECOND // 2, SECOND, 20 * SECOND]))
            travel += draw(st.sampled_from([0.0, 0.25, 1.0, 30.0]))
            posed = draw(st.booleans())
            rows.append(keyframe(rng, session, stamp, draw(st.booleans()), travel if posed else None))
    query = keyframe(
        rng,
        draw(st.integers(0, 9)),
        draw(st.integers(0, 120)) * SECOND,
        draw(st.booleans()),
        draw(st.none() | st.integers(0, 200).map(float)),
    )
    return rows, query, draw(st.sampled_from([0.0, 0.5, 1.0, 30.0])), draw(st.sampled_from([0.0, 1.0, 20.0]))


@given(drives())
@settings(max_examples=150, deadline=None)
def test_search_equals_brute_force(drive):
    rows, query, exclude_time, exclude_distance = drive
    database = make(rows)
    allowed = naive_candidates(query, rows, exclude_time, exclude_distance)
    everything = database.search(query, 1000, exclude_time, exclude_distance)
    assert {candidate.id for candidate in everything} == allowed
    assert len(everything) == len(allowed)  # every row once
    for candidate in everything:
        row = rows[candidate.id]
        assert (candidate.session, candidate.stamp) == (row.session, row.stamp)
        assert candidate.similarity == pytest.approx(naive_similarity(query, row), abs=1e-5)
    similarities = [candidate.similarity for candidate in everything]
    assert similarities == sorted(similarities, reverse=True)
    best = database.search(query, 3, exclude_time, exclude_distance)
    assert [candidate.similarity for candidate in best] == similarities[:3]


def test_several_blocks_equal_brute_force():
    rng = np.random.default_rng(1)
    rows = [keyframe(rng, i // 5000, i * SECOND, bool(rng.random() < 0.5), float(i)) for i in range(10_000)]
    database = make(rows)
    for local in (False, True):
        query = keyframe(rng, 1, 10_000 * SECOND, local, 10_000.0)
        found = database.search(query, 10, 30.0, 100.0)
        reference = np.array([naive_similarity(query, row) for row in rows])
        allowed = sorted(naive_candidates(query, rows, 30.0, 100.0), key=lambda id: -reference[id])
        assert [candidate.id for candidate in found] == allowed[:10]
        assert np.allclose([candidate.similarity for candidate in found], reference[allowed[:10]], atol=1e-5)


def test_recent_neighbours_do_not_hide_the_true_loop():
    rng = np.random.default_rng(2)
    place = unit(rng)
    rows = [Keyframe(0, 0, place, place)]
    rows += [keyframe(rng, 0, i * SECOND) for i in range(1, 50)]
    rows += [Keyframe(0, (50 + i) * SECOND, place, place) for i in range(20)]
    query = Keyframe(0, 70 * SECOND, place, place)
    assert make(rows).search(query, 1, 30.0, 20.0)[0].id == 0


def test_exclusion_ends_exactly_at_its_bounds():
    rng = np.random.default_rng(3)
    database = make([keyframe(rng, 0, 0, travel=0.0)])
    assert database.search(keyframe(rng, 0, 30 * SECOND, travel=20.0), 1, 30.0, 20.0)
    assert not database.search(keyframe(rng, 0, 30 * SECOND - 1, travel=20.0), 1, 30.0, 20.0)
    assert not database.search(keyframe(rng, 0, 30 * SECOND, travel=19.9), 1, 30.0, 20.0)
    assert database.search(keyframe(rng, 0, 30 * SECOND), 1, 30.0, 20.0)  # no odometry: only the time counts
    assert database.search(keyframe(rng, 1, 1, travel=0.0), 1, 30.0, 20.0)  # another session is never excluded


def test_empty_and_small_databases():
    rng = np.random.default_rng(4)
    database = KeyframeDatabase(DIM, **MAKE)
    query = keyframe(rng, 1)
    assert database.search(query, 10, 30.0, 20.0) == []
    assert len(database) == 0 and database.next_session() == 0
    database.add(keyframe(rng))
    assert len(database.search(query, 10, 30.0, 20.0)) == 1
    with pytest.raises(ValueError, match="k must be"):
        database.search(query, 0, 30.0, 20.0)


def test_equal_candidates_come_in_the_order_of_their_ids():
    rng = np.random.default_rng(5)
    place = unit(rng)
    rows = [Keyframe(0, i, place, place, i % 2 == 0) for i in range(1200)]
    found = make(rows).search(Keyframe(1, 0, place, place, True), 1200, 30.0, 20.0)
    assert [candidate.id for candidate in found] == list(range(1200))


def test_rows_know_their_keyframes():
    rng = np.random.default_rng(6)
    database = make([keyframe(rng, 0, 5, travel=1.5), keyframe(rng, 4, 2)])
    row = database.keyframe(0)
    assert (row.session, row.stamp, row.travel) == (0, 5, 1.5) and row.T_odom_base[0, 3] == 1.5
    assert database.keyframe(1).T_odom_base is None and database.keyframe(1).travel is None
    assert database.next_session() == 5
    with pytest.raises(ValueError, match="no keyframe 2"):
        database.keyframe(2)


@pytest.mark.parametrize(
    "bad",
    [
        {"session": 0, "stamp": 10},  # the same stamp again
        {"session": 0, "stamp": 9},
        {"session": -1, "stamp": 11},
        {"session": 2**32, "stamp": 11},
        {"descriptor": np.zeros(DIM + 1, np.float32)},
        {"scan_descriptor": np.full(DIM, np.nan, np.float32)},
    ],
)
def test_a_keyframe_that_does_not_fit_changes_nothing(bad):
    rng = np.random.default_rng(7)
    database = make([keyframe(rng, 0, 10)])
    values = {"session": 0, "stamp": 11, "descriptor": unit(rng), "scan_descriptor": unit(rng)} | bad
    with pytest.raises(ValueError):
        database.add(Keyframe(**values, is_local_map=True))
    assert len(database) == 1
    assert len(database.search(keyframe(rng, 1), 10, 30.0, 20.0)) == 1


def test_sessions_know_where_they_lie_in_the_map():
    rng = np.random.default_rng(8)
    database = make([keyframe(rng, 0), keyframe(rng, 1)])
    assert np.array_equal(database.sessions[0], np.eye(4))  # `map` is the first session's odometry frame
    assert database.sessions[1] is None
    T = np.eye(4)
    T[0, 3] = 7.0
    database.set_T_map_odom(1, T)
    assert database.sessions[1][0, 3] == 7.0
    with pytest.raises(ValueError, match="no session 2"):
        database.set_T_map_odom(2, T)
    with pytest.raises(ValueError, match="T_map_odom"):
        database.set_T_map_odom(1, 2 * np.eye(4))


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows() -> list[Keyframe]:
    rng = np.random.default_rng(9)
    return [keyframe(rng, i // 4, i * SECOND, i % 3 == 0, float(i) if i % 2 else None) for i in range(12)]


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
    monkeypatch.setattr("vlad_ros.map_file.VERSION", "99")
    write_map(saved, arrays, metadata)
    monkeypatch.undo()
    with pytest.raises(MapError, match="version 99"):
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
    for at in [*range(header), *range(header, len(content), 7)]:
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
from vlad_ros.map_file import MapError, write_map
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
from vlad_ros.map_file import MapLock, write_map
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
