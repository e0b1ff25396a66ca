# SPDX-License-Identifier: Apache-2.0
"""Maps of format version 2: read, extended and kept; others refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from map_rows import equal, extend, keyframe, load, make, mixed
from safetensors.numpy import save_file
from version2_maps import columns, metadata, write_arrays, write_version2

from vlad_ros.mapping.database import KeyframeDatabase, MapError
from vlad_ros.mapping.opening import copy_live
from vlad_ros.poses import from_xyz_rpy

ROWS = mixed(30)


def before() -> KeyframeDatabase:
    database = make(ROWS)
    database.set_T_map_odom(1, from_xyz_rpy((5.0, -1.0, 0, 0, 0, 0.3)))
    database.place(9, np.eye(4))
    return database


@pytest.fixture
def old(tmp_path: Path) -> Path:
    write_version2(tmp_path / "old.map", before())
    return tmp_path / "old.map"


def assert_converted(database: KeyframeDatabase) -> None:
    reference = before()
    assert database.faults == [] and equal(database.ids(), reference.ids())
    for id in range(len(ROWS)):
        assert equal(database.whole(id), reference.whole(id)) and equal(database.geometry(id), reference.geometry(id))
        assert equal(database.T_map_base(id), reference.T_map_base(id))
    assert all(equal(database.sessions[s], T) for s, T in reference.sessions.items())
    query = keyframe(np.random.default_rng(1), 9, 1, True)
    assert database.search(query, 40, 30.0, 20.0) == reference.search(query, 40, 30.0, 20.0)


def test_it_is_read_without_a_change(old: Path) -> None:
    content = old.read_bytes()
    for way in (load, KeyframeDatabase.open):
        database = way(old)
        assert_converted(database)
        database.save(old.with_name("new.map"))
        database.close()
        assert_converted(load(old.with_name("new.map")))
    copy_live(old, old.with_name("copy.map"))
    assert_converted(load(old.with_name("copy.map")))
    assert old.read_bytes() == content and not list(old.parent.glob("old.map?*"))


@pytest.mark.parametrize("links", [True, False], ids=["", "a file system without links"])
def test_it_is_converted_when_it_is_extended_and_kept(old: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", refused)
    content = old.read_bytes()
    database = extend(old)
    assert_converted(database)
    told = database.identities
    database.add(keyframe(np.random.default_rng(0), 99))
    database.close()
    assert len(load(old)) == len(ROWS) + 1
    assert sorted(os.listdir(old.parent)) == ["old.map", "old.map.version2"]
    kept = old.with_name("old.map.version2")
    assert kept.read_bytes() == content
    assert load(kept).identities == {s: told[s] for s in load(kept).identities}  # the same sessions, by their UUIDs


def test_a_conversion_that_was_killed_is_done_again(old: Path) -> None:
    """Between keeping the old file and putting the new one in its place."""
    os.link(old, old.with_name("old.map.version2"))
    extend(old).close()
    assert_converted(load(old))
    assert_converted(load(old.with_name("old.map.version2")))


def test_another_kept_file_is_not_overwritten(old: Path) -> None:
    kept, content = old.with_name("old.map.version2"), old.read_bytes()
    kept.write_bytes(b"another")
    with pytest.raises(MapError, match=r"old\.map\.version2, where it would be kept: move that one"):
        extend(old)
    assert old.read_bytes() == content and kept.read_bytes() == b"another"


def test_another_make_is_refused_before_anything_is_converted(old: Path) -> None:
    content = old.read_bytes()
    with pytest.raises(MapError, match="other weights"):
        extend(old, model_hash="1" * 64)
    assert os.listdir(old.parent) == ["old.map"] and old.read_bytes() == content


@pytest.mark.parametrize(("version", "word"), [("1", "version 1, which kept no points.* record it anew"), ("99", "99")])
def test_other_versions_are_refused(tmp_path: Path, version: str, word: str) -> None:
    path = tmp_path / "x.map"
    write_arrays(path, columns(before()), metadata(before()) | {"version": version})
    content = path.read_bytes()
    for way in (load, extend, KeyframeDatabase.open):
        with pytest.raises(MapError, match=word):
            way(path)
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["x.map"]


def test_what_is_no_map_is_refused(tmp_path: Path) -> None:
    save_file({"x": np.zeros(3)}, tmp_path / "x")
    write_arrays(tmp_path / "y", columns(before()), metadata(before()) | {"format": "another"})
    for name in ("x", "y"):
        with pytest.raises(MapError, match="is not a map"):
            load(tmp_path / name)


def test_every_flipped_bit_is_noticed(old: Path) -> None:
    content = old.read_bytes()
    rng = np.random.default_rng(11)
    header = 8 + int.from_bytes(content[:8], "little")
    for at in [*range(0, header, 40), *range(header, len(content), 400)]:
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        old.write_bytes(damaged)
        with pytest.raises(MapError):
            load(old)
