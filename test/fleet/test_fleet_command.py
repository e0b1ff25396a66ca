# SPDX-License-Identifier: Apache-2.0
"""`vlad fleet`: a map goes up, a drive comes down, and every refusal is one sentence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from fleet_server import FleetServer
from map_rows import DIM, MAKE, equal, geometry, keyframe

from vlad_ros.cli import main
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.mapping.tables import Session
from vlad_ros.poses import from_xyz_rpy, inverse

pytest.importorskip("pymilvus")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of two own sessions, the second corrected by a back-end, and one of another robot."""
    rng, database = np.random.default_rng(3), KeyframeDatabase(DIM, **MAKE)
    for i in range(90):
        one = keyframe(rng, i % 3, 1000 + i, i % 2 > 0, float(i))
        database.add(dataclasses.replace(one, geometry=geometry(rng)))
    database.introduce(2, Session(uuid4(), "grey", None))
    for id in database.ids(1).tolist():
        database.place(id, from_xyz_rpy((0.0, 9.0, 0.0, 0.0, 0.0, 1.0)) @ database.keyframe(id).T_odom_base)
    path = tmp_path_factory.mktemp("town") / "town.map"
    database.save(path)
    return path


def vlad(capsys: pytest.CaptureFixture, *words: object) -> tuple[int, str, str]:
    status = main(["fleet", *map(str, words)])
    return status, *capsys.readouterr()


def test_a_map_goes_up_and_its_drives_come_down(running: FleetServer, town: Path, tmp_path: Path, capsys) -> None:
    for _ in range(2):  # nothing twice
        status, said, _ = vlad(capsys, "push", town, "--fleet-uri", running.uri, "--robot", "red")
        assert (status, said) == (0, f"{running.uri}: 60 of 90 keyframes of {town}, as robot red's\n")
    before = KeyframeDatabase.open(town)
    drives = [f"red/{before.identities[session][0]}" for session in (0, 1)]
    status, said, _ = vlad(capsys, "info", "--fleet-uri", running.uri)
    assert status == 0 and f"{running.uri}: 60 keyframes" in said and f"weights       {MAKE['model_hash']}" in said
    assert [line for line in said.splitlines() if "/" in line][1:] == [f"{one}  30 keyframes" for one in sorted(drives)]
    for session, drive in enumerate(drives):
        out = tmp_path / f"{session}.map"
        assert vlad(capsys, "pull", "--around", drive, "-o", out, "--fleet-uri", running.uri)[0] == 0
        after = KeyframeDatabase.open(out)
        assert after.identities[0] == (before.identities[session][0], "red") and after.faults == []
        for old, new in zip(before.ids(session).tolist(), after.ids().tolist(), strict=True):
            assert equal(after.whole(new), dataclasses.replace(before.whole(old), session=0))
        there, here = (
            np.stack([database.T_map_base(id) for id in database.ids(one).tolist()])
            for database, one in ((before, session), (after, 0))
        )
        np.testing.assert_allclose(inverse(there[0]) @ there, inverse(here[0]) @ here, atol=1e-9)  # the corrected shape


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("info", "--fleet-uri", "ftp://x"), "the fleet must be http://HOST:PORT"),
        (("info", "--fleet-uri", "http://127.0.0.1:1"), "cannot be used: no Milvus answers there; is it running"),
        (("info", "--fleet-uri", "{folder}/out.map.db"), "out.map.db: a first vehicle, or vlad fleet push, begins it"),
        (
            ("pull", "--around", f"red/{uuid4()}", "-o", "{out}", "--fleet-uri", "{folder}/out.map.db"),
            "there is no fleet",
        ),
        (
            ("push", "{town}", "--fleet-uri", "{folder}/file.db", "--robot", "red"),
            "file.db is a file of another program",
        ),
        (
            ("push", "{town}", "--fleet-uri", "{folder}/no/x.db", "--robot", "red"),
            "is the folder that it lies in there",
        ),
        (("push", "{town}", "--fleet-uri", "{uri}", "--robot", "a b"), "robot 'a b'"),
        (("push", "{town}", "--fleet-uri", "{uri}"), "robot ''"),
        (("push", "{out}", "--fleet-uri", "{uri}", "--robot", "red"), "there is no map at"),
        (("pull", "--around", "red", "-o", "{out}", "--fleet-uri", "{uri}"), "'red' is no ROBOT/SESSION"),
        (("pull", "--around", f"red/{uuid4()}", "-o", "{out}", "--fleet-uri", "{uri}"), "holds no keyframes of red/"),
        (("pull", "--around", f"red/{uuid4()}", "-o", "{town}", "--fleet-uri", "{uri}"), "exists already"),
    ],
)
def test_bad_input_is_one_sentence(
    running: FleetServer, town: Path, tmp_path: Path, capsys, words: tuple[str, ...], why: str
) -> None:
    out, file = tmp_path / "out.map", tmp_path / "file.db"
    file.write_bytes(b"SQLite format 3")
    at = {"town": town, "out": out, "uri": running.uri, "folder": tmp_path}
    status, said, error = vlad(capsys, *(word.format(**at) for word in words))
    assert status == 2 and said == "" and why in error and error.count("\n") == 1 and "Exception" not in error
    assert list(tmp_path.glob("*")) == [file]
