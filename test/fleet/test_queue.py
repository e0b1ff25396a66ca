# SPDX-License-Identifier: Apache-2.0
"""The queue against a dictionary: nothing is lost, nothing stays, whatever happens in between."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_rows import keyframe

from vlad_ros.fleet.names import FleetError, Key
from vlad_ros.fleet.packed import Packed, pack
from vlad_ros.fleet.queue import UploadQueue

MAKE = {"kind": "points", "metric": "inner_product", "dim": "8", "model_hash": "a" * 64, "bev": "{}"}
STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 5)),
    st.tuples(st.just("correct"), st.integers(0, 5)),
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(st.just("change while it is sent"), st.integers(0, 5)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("full disk"), st.just(0)),
)


def packed(number: int, version: int = 0) -> Packed:
    one = dataclasses.replace(keyframe(np.random.default_rng(version), 0, number), stamp=number)
    return pack(Key("red", UUID(int=1), number), one, None)


def everything(queue: UploadQueue) -> tuple[dict[Key, Packed], dict[Key, bytes]]:
    return {one.key: one for one in queue.keyframes(99).values()}, dict(queue.poses(99).values())


@given(st.lists(STEP, max_size=30))
@settings(max_examples=60)
def test_what_was_put_stays_until_it_was_sent_as_it_is(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    path = tmp_path_factory.mktemp("queue") / "red.queue"
    queue, keyframes, poses = UploadQueue(path, MAKE), {}, {}
    for version, (step, number) in enumerate(steps):
        one = packed(number, version)
        if step == "put":
            queue.put(one)
            keyframes[one.key] = one
        elif step == "correct":
            queue.correct(one.key, bytes([version]))
            poses[one.key] = bytes([version])
        elif step == "full disk":
            queue._connection.execute("PRAGMA query_only = ON")
            queue.put(one)
            keyframes[one.key] = one
            assert "cannot be written" in queue.trouble and len(queue) >= len(keyframes) + len(poses)
            queue._connection.execute("PRAGMA query_only = OFF")
            queue.correct(one.key, b"back")
            poses[one.key] = b"back"
            assert queue.trouble == ""
        elif step == "restart":
            queue.close()
            queue = UploadQueue(path, MAKE)
        else:
            sent = queue.keyframes(number) if step == "take" else queue.keyframes(1)
            told = queue.poses(number) if step == "take" else {}
            if step != "take":
                for key in [one.key for one in sent.values()]:
                    keyframes[key] = packed(key.stamp, version)
                    queue.put(keyframes[key])
            queue.done({"keyframes": list(sent), "poses": list(told)})
            keyframes = {key: one for key, one in keyframes.items() if one not in sent.values()}
            poses = {key: T for key, T in poses.items() if (key, T) not in told.values()}
        assert everything(queue) == (keyframes, poses)
        assert len(queue) == len(keyframes) + len(poses)
    queue.close()


def test_the_oldest_comes_first(tmp_path: Path) -> None:
    queue = UploadQueue(tmp_path / "red.queue", MAKE)
    for number in (5, 3, 9, 3):
        queue.put(packed(number))
    assert [one.key.stamp for one in queue.keyframes(2).values()] == [5, 9]


DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_queue import MAKE, packed
from vlad_ros.fleet.queue import UploadQueue
queue = UploadQueue(Path(sys.argv[1]), MAKE)
for number in range(10**6):
    queue.put(packed(number))
    print(number, flush=True)
"""


def test_kill_loses_nothing_that_was_put(tmp_path: Path) -> None:
    path, helpers = tmp_path / "red.queue", Path(__file__).parents[1] / "helpers"
    command = [sys.executable, "-c", DRIVER, str(path), str(helpers), str(Path(__file__).parent)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 50:
            pass
        with pytest.raises(FleetError, match="in use by another node"):
            UploadQueue(path, MAKE)
        child.kill()
        last = max([50, *map(int, child.stdout.read().split())])
    queue = UploadQueue(path, MAKE)
    assert {one.key.stamp for one in queue.keyframes(10**6).values()} >= set(range(last + 1))


def test_what_waits_is_not_sent_as_another_networks(tmp_path: Path) -> None:
    path, other = tmp_path / "red.queue", MAKE | {"model_hash": "b" * 64}
    queue = UploadQueue(path, MAKE)
    queue.put(packed(1))
    queue.close()
    with pytest.raises(FleetError, match=r"what waits in it was made with other weights .*; move it away"):
        UploadQueue(path, other)
    queue = UploadQueue(path, MAKE)
    queue.done({"keyframes": list(queue.keyframes(9))})
    queue.close()
    UploadQueue(path, other).close()  # nothing waits


@pytest.mark.parametrize("content", [b"not a database, by far" * 99, "table"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "red.queue"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE keyframes (number INTEGER PRIMARY KEY)")
    before = path.read_bytes()
    with pytest.raises(FleetError, match=r"cannot be used: .*; move it away"):
        UploadQueue(path, MAKE)
    assert path.read_bytes() == before
