# SPDX-License-Identifier: Apache-2.0
"""`vlad map merge` and `split` on maps of a street that was driven on several days."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from heaps import Street, drive, make_map, recogniser, way
from map_rows import equal, make

from vlad_ros import cli
from vlad_ros.fleet.guests import Guests
from vlad_ros.fleet.names import Key
from vlad_ros.fleet.packed import pack
from vlad_ros.loops.relocalisation import Relocaliser
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.inputs import open_maps
from vlad_ros.maps.merge import merge
from vlad_ros.poses import inverse
from vlad_ros.types import F64

pytestmark = pytest.mark.xdist_group("merge")
FIRST, BACK, OTHER = way(0.0, 60.0), way(100.0, 30.0, 1.0), way(0.0, 45.0)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Maps: 0..60 m of a street; 100..30 m of it, backwards, by odometry that is 1 % too long; another street."""
    folder = tmp_path_factory.mktemp("days")
    return {
        "first": make_map(folder / "first.map", Street(), FIRST, 1),
        "back": make_map(folder / "back.map", Street(), BACK, 2, 0.01),
        "other": make_map(folder / "other.map", Street(7), OTHER, 3),
    }


@pytest.fixture(scope="module")
def merged(days: dict[str, Path]) -> tuple[Path, int, str]:
    """The three of them in one map."""
    out = days["first"].parent / "town.map"
    made = merge(open_maps(list(days.values())), recogniser().calibration)
    made.database.save(out)
    from vlad_ros.maps.merge import text

    return out, len(made.apart), "\n".join(text(made, list(days.values())))


def poses(database: KeyframeDatabase, session: int) -> F64:
    return np.stack([database.T_map_base(id) for id in database.ids(session).tolist()])


def test_a_session_lies_where_it_was_driven(merged):
    database = KeyframeDatabase.open(merged[0])
    assert list(database.sessions) == [0, 1, 2]
    stamps = np.array([database.keyframe(id).stamp for id in database.ids(1).tolist()])
    truth = BACK[np.round(stamps / 1e9).astype(int) - 200_000]
    errors = np.linalg.norm((inverse(inverse(FIRST[0]) @ truth) @ poses(database, 1))[:, :3, 3], axis=1)
    shared = truth[:, 0, 3] < 60.0
    assert shared.sum() > 15 and errors[shared].max() < 0.25 and errors.max() < 1.0
    np.testing.assert_allclose(poses(database, 0)[:, :3, 3], FIRST[:, :3, 3] - FIRST[0, :3, 3], atol=0.01)
    T = database.sessions[1] @ database.keyframe(int(database.ids(1)[-1])).T_odom_base
    np.testing.assert_allclose(T, poses(database, 1)[-1], atol=1e-9)  # a drive that goes on begins there


def test_what_cannot_be_placed_is_said_and_has_no_pose(merged):
    path, apart, said = merged
    database = KeyframeDatabase.open(path)
    assert apart == 1 and database.sessions[2] is None
    assert all(database.T_map_base(id) is None for id in database.ids(2).tolist())
    lines = said.splitlines()
    assert "first.map: the frame of the map" in lines[0]
    assert "back.map: placed by" in lines[1] and "odometry of both agrees within" in lines[1]
    assert "other.map: kept apart, " in lines[2]


def test_keyframes_keep_what_they_are(merged, days):
    database, at = KeyframeDatabase.open(merged[0]), 0
    for number, path in enumerate(days.values()):
        one = KeyframeDatabase.open(path)
        assert database.identities[number] == one.identities[0]
        for id in one.ids().tolist():
            ours, theirs = database.whole(at), one.whole(id)
            for name in ("stamp", "descriptor", "scan_descriptor", "is_local_map", "T_odom_base", "travel", "geometry"):
                assert equal(getattr(ours, name), getattr(theirs, name)), name
            assert ours.session == number
            at += 1
    assert at == len(database)


def test_a_new_drive_finds_itself_in_the_first_sessions_frame(merged):
    recognizer = recogniser()
    recognizer.load_map(merged[0])
    truth, relocaliser, told = way(95.0, 62.0, -1.0), Relocaliser(), []  # where only the second day has been
    for one in drive(recognizer, Street(), truth, 9):
        finding = relocaliser.observe(one.keyframe_id, one.closures, recognizer.database)
        if finding.pose is not None:
            T = inverse(FIRST[0]) @ truth[one.keyframe.stamp // 10**9 - 900_000]
            told.append(np.linalg.norm((inverse(T) @ finding.pose.T_map_base)[:3, 3]))
    assert len(told) > 10 and max(told) < 1.0
    assert recognizer.database.sessions[recognizer.session] is not None


def test_split_is_the_way_back(merged, days, tmp_path, capsys):
    assert cli.main(["map", "split", str(merged[0]), "-o", str(tmp_path / "days")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    for number, path in enumerate(days.values()):
        one, was = KeyframeDatabase.open(tmp_path / "days" / f"session_{number}.map"), KeyframeDatabase.open(path)
        assert list(one.sessions) == [number] and one.identities[number] == was.identities[0]
        assert np.array_equal(one.sessions[number], np.eye(4)) and len(one) == len(was)
        for id in one.ids().tolist():
            ours, theirs = one.whole(id), was.whole(id)
            assert ours.stamp == theirs.stamp and equal(ours.geometry, theirs.geometry)
            assert np.linalg.norm((one.T_map_base(id) - was.T_map_base(id))[:3, 3]) < 0.8  # bent by its drift
    status = cli.main(["map", "split", str(merged[0]), "-o", str(tmp_path / "days")])
    assert status == 2 and "exists already" in capsys.readouterr().err


def with_guests(host: Path, drive: Path, out: Path) -> Path:
    """The map of `host` that has met the robot red, whose `drive` came down in two stretches, the later one first."""
    database, red = KeyframeDatabase.open(host), KeyframeDatabase.open(drive)
    key, guests = Key("red", red.identities[0][0], 0), Guests(database, "blue")
    down = [pack(key._replace(stamp=one.stamp), one, None) for one in map(red.whole, red.ids().tolist())]
    for some in (down[20:], down[2:15]):
        guests.take(some, None, 1)
    assert [name for _, name in database.identities.values()] == ["", "red", "red"]
    database.save(out)
    return out


def test_stretches_of_a_drive_are_placed_as_one_and_split_as_one(days, tmp_path):
    met = with_guests(days["other"], days["back"], tmp_path / "met.map")
    made = merge(open_maps([days["first"], met]), recogniser().calibration)
    assert [part.sessions for part in made.parts] == [(0,), (0,), (1, 2)] and made.apart == [1]
    database, back = made.database, KeyframeDatabase.open(days["back"])
    assert [database.identities[number] for number in (2, 3)] == 2 * [(back.identities[0][0], "red")]
    for session in (2, 3):
        stamps = np.array([database.keyframe(id).stamp for id in database.ids(session).tolist()])
        truth = BACK[np.round(stamps / 1e9).astype(int) - 200_000]
        errors = np.linalg.norm((inverse(inverse(FIRST[0]) @ truth) @ poses(database, session))[:, :3, 3], axis=1)
        assert errors.max() < 1.0
    database.save(tmp_path / "town.map")
    assert cli.main(["map", "split", str(tmp_path / "town.map"), "-o", str(tmp_path / "days")]) == 0
    assert sorted(path.name for path in (tmp_path / "days").glob("*.map")) == [f"session_{n}.map" for n in (0, 1, 2)]
    one = KeyframeDatabase.open(tmp_path / "days" / "session_2.map")
    stamps = [one.keyframe(id).stamp for id in one.ids().tolist()]
    all_of_it = [back.keyframe(id).stamp for id in back.ids().tolist()]
    assert stamps == [*all_of_it[2:15], *all_of_it[20:]]
    assert one.identities == {2: (back.identities[0][0], "red")} and np.array_equal(one.sessions[2], np.eye(4))
    for id in one.ids().tolist():  # bent by its drift
        assert np.linalg.norm((one.T_map_base(id) - one.keyframe(id).T_odom_base)[:3, 3]) < 1.5


@pytest.mark.parametrize("order", [1, -1])
def test_what_two_maps_hold_is_taken_once_from_the_one_that_has_the_whole_drive(days, tmp_path, order):
    met = with_guests(days["first"], days["back"], tmp_path / "met.map")
    told: list[str] = []
    paths = [met, days["back"]][::order]
    made = merge(open_maps(paths, told.append), recogniser().calibration)
    first, back = (KeyframeDatabase.open(days[name]) for name in ("first", "back"))
    assert made.apart == [] and len(made.database) == len(first) + len(back)
    assert list(made.database.identities.values()) == [first.identities[0], back.identities[0]][::order]
    number = len(KeyframeDatabase.open(met)) - len(first)
    assert told == [f"{met}: {number} keyframes are in another of these maps, too, and taken once"]


def test_one_town_of_equal_blocks_is_not_another(tmp_path):
    """No block overlaps: the second drive went through others, which look the same."""
    blocks = Street(3, period=25.0)
    paths = [
        make_map(tmp_path / "a.map", blocks, way(0.0, 60.0), 4),
        make_map(tmp_path / "b.map", blocks, way(75.0, 140.0), 5),
    ]
    made = merge(open_maps(paths), recogniser().calibration)
    assert made.apart == [1] and made.meetings[1].places > 4 and "looks the same" in made.meetings[1].refusal


# -- the command ------------------------------------------------------------------------------------------------------


def vlad(capsys, *words: object) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_what_cannot_be_merged_is_said(days, merged, tmp_path, capsys):
    out, first, back = tmp_path / "out.map", days["first"], days["back"]
    make([]).save(tmp_path / "empty.map")
    made = recogniser()
    KeyframeDatabase(made.describer.dim, model_hash="0" * 64, bev=made.describer.bev).save(tmp_path / "none.map")
    (tmp_path / "half.map").write_bytes(first.read_bytes()[:5000])
    refused = [
        ([first], "is one map"),
        ([tmp_path / "nowhere.map"], "is one map"),
        ([first, first], "not merged with itself"),
        ([merged[0], back], "not merged with itself"),
        ([first, tmp_path / "empty.map"], "descriptors of length"),
        ([first, tmp_path / "none.map"], "holds no keyframes"),
        ([first, tmp_path / "half.map"], "half.map"),
        ([first, tmp_path / "nowhere.map"], "nowhere.map"),
        ([first, back], "other weights"),  # than the shipped ones
        ([first, back, "--weights", tmp_path / "no.safetensors"], "no.safetensors"),
    ]
    for words, why in refused:
        status, _, error = vlad(capsys, "map", "merge", *words, "-o", out)
        assert status == 2 and why in error and len(error.splitlines()) == 1, error
    assert not out.exists()
    status, _, error = vlad(capsys, "map", "merge", first, back, "-o", back)
    assert status == 2 and "exists already" in error


def test_the_command_says_what_it_did_and_its_status_whether_all_were_placed(days, tmp_path, capsys, monkeypatch):
    from types import SimpleNamespace

    from vlad_ros.model import weights

    known = SimpleNamespace(sha256="0" * 64, calibrated=lambda path: recogniser().calibration)
    monkeypatch.setattr(weights, "read_metadata", lambda path: known)
    status, said, _ = vlad(capsys, "map", "merge", days["first"], days["other"], "-o", tmp_path / "two.map")
    assert status == 1 and "72 keyframes in 2 sessions" in said and "kept apart" in said
    assert len(KeyframeDatabase.open(tmp_path / "two.map")) == 72
    assert not list(tmp_path.glob("*.tmp*"))


def test_a_map_is_drawn_session_by_session(merged, tmp_path, capsys):
    from vlad_ros.plots import map as picture

    status, said, _ = vlad(capsys, "plot", "map", merged[0], "-o", tmp_path / "town.png")
    assert status == 0 and (tmp_path / "town.png").stat().st_size > 10_000
    database = KeyframeDatabase.open(merged[0])
    assert said.splitlines()[:3] == [
        f"session 0: {len(database.ids(0))} keyframes",
        f"session 1: {len(database.ids(1))} keyframes",
        "session 2: no place in the map",
    ]
    data = picture.read(merged[0])
    assert np.array_equal(data.ways[1], poses(database, 1)[:, :2, 3]) and len(data.points) > 100
    apart = make_map(tmp_path / "x.map", Street(), way(0.0, 20.0), 8)
    database = KeyframeDatabase.open(apart)
    database.set_T_map_odom(0, None)
    database.save(tmp_path / "none.map")
    status, _, error = vlad(capsys, "plot", "map", tmp_path / "none.map", "-o", tmp_path / "no.png")
    assert status == 2 and "nothing to draw" in error and not (tmp_path / "no.png").exists()
