# SPDX-License-Identifier: Apache-2.0
"""The writer's thread and the one that adds, step by step."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from map_rows import equal, extend, geometry, keyframe, load, make

from vlad_ros.mapping import store
from vlad_ros.mapping.lock import MapError
from vlad_ros.mapping.store import SPILL, MapStore
from vlad_ros.poses import from_xyz_rpy


def test_a_keyframe_that_comes_while_a_transaction_ends_keeps_its_geometry(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    database = extend(tmp_path / "x.map")
    database.add(keyframe(rng, 0, 0))
    change, writers = database.store.change, []

    def late(one) -> None:
        """As if the writer's transaction came just before the keyframe's own change."""
        writers.append(threading.Thread(target=database.store.flush))
        writers[-1].start()
        writers[-1].join(0.5)
        change(one)

    database.store.change = late  # type: ignore[method-assign]
    shape = geometry(rng)
    id = database.add(dataclasses.replace(keyframe(rng, 0, 1), geometry=shape))
    for writer in writers:
        writer.join()
    database.close()
    assert equal(load(tmp_path / "x.map").geometry(id), shape)


def test_changes_of_an_unnamed_map_do_not_pile_up_in_memory() -> None:
    """A back-end corrects a loaded map for hours, and no keyframe is added."""
    rng = np.random.default_rng(0)
    database = make([keyframe(rng, 0, 0)])
    for step in range(20 * SPILL):
        database.set_T_map_odom(0, from_xyz_rpy((step, 0, 0, 0, 0, 0)))
    with database.store.reading() as connection:
        assert connection is not None
    database.close()


def test_a_medium_that_does_not_answer_keeps_nobody_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ENDING", 0.2)
    rng = np.random.default_rng(0)
    database = extend(tmp_path / "x.map")
    database.add(keyframe(rng, 0, 0))
    database.store.flush()
    answers, asked = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        asked.set()
        answers.wait()

    database.store.change(hang)
    assert asked.wait(10)
    with pytest.raises(MapError, match="writing takes too long"):
        database.store.flush(0.1)
    monkeypatch.setattr(database.store, "flush", lambda: MapStore.flush(database.store, 0.1))
    database.close(force=True)
    assert not answers.is_set() and len(load(tmp_path / "x.map")) == 1, "the map opens while the other still hangs"
    answers.set()
