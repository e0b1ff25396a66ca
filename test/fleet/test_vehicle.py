# SPDX-License-Identifier: Apache-2.0
"""Vehicles that share a fleet: the stand-in recogniser drives, a real server is killed and started meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from fleet_server import FleetServer, until
from stand_in import pose, recogniser, view

from vlad_ros.fleet.client import FleetClient
from vlad_ros.fleet.names import FleetError, Key
from vlad_ros.fleet.packed import pack
from vlad_ros.fleet.vehicle import UNANSWERED, Fleet, Voice, queue_path
from vlad_ros.fleet.verification import FleetVerifier
from vlad_ros.loops.described import Described
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.stamps import SECOND

pytest.importorskip("pymilvus")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlad_ros.fleet.asker.PERIOD", 0.0)
    monkeypatch.setattr("vlad_ros.fleet.uploader.PATIENCE", (0.1, 0.2))


START = from_xyz_rpy((300.0, -50.0, 2.0, 0.0, 0.0, 1.0))  # where a robot's odometry frame lies in the world
THERE, BACK = np.arange(-40.0, 41.0), np.arange(40.0, -41.0, -1.0)


class Robot:
    """A recogniser, its part in the fleet, and what that says; odometry begins anywhere."""

    def __init__(
        self, uri: str, name: str, T_odom_world: np.ndarray, map_path: Path | None = None, **config: object
    ) -> None:
        self.name, self.T_odom_world = name, T_odom_world
        self.warnings: list[str] = []
        self.news: list[str] = []
        self.jobs: list[Callable[[], None]] = []
        self.met: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.place = recogniser(half=0.9, max_edges=1, **config)
        if map_path is not None:
            self.place.extend_map(map_path)
        voice = Voice(self.warnings.append, self.news.append, self.jobs.append, lambda *one: self.met.append(one))
        self.fleet = Fleet(uri, name, self.place, voice)

    def drive(self, xs: Sequence[float], start: float = 0.0, patient: bool = False) -> list[Described]:
        """A keyframe a metre; `patient`: each question is answered before the next one."""
        described: list[Described] = []
        for i, x in enumerate(xs):
            T = pose(x)
            new = self.place.step(view(T), round((start + 0.5 * i) * SECOND), None, self.T_odom_world @ T)
            described += self.hear(new)
            if patient and new:
                until(lambda: self.fleet._asker._question is None)
                self.work()
        return described + self.hear(self.place.finish())

    def hear(self, described: list[Described]) -> list[Described]:
        for one in described:
            self.fleet.observe(one)
        self.work()
        return described

    def work(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    def sent(self) -> None:
        until(lambda: len(self.fleet._queue) == 0)

    def keys(self) -> list[Key]:
        """Those of its own keyframes."""
        database = self.place.database
        own = [number for number, (_, name) in database.identities.items() if name == self.name]
        rows = [database.keyframe(id) for number in own for id in database.ids(number).tolist()]
        return sorted(Key(self.name, database.identities[row.session][0], row.stamp) for row in rows)

    def close(self) -> None:
        self.fleet.close()
        self.place.database.close()


def test_one_robots_drive_answers_another(running: FleetServer, tmp_path: Path) -> None:
    red = Robot(running.uri, "red", np.eye(4))
    red.drive(THERE)
    red.sent()
    blue = Robot(running.uri, "blue", START, tmp_path / "blue.map")
    described = blue.drive(BACK, patient=True)
    blue.sent()
    database = blue.place.database
    uuid = red.keys()[0].session
    guests = [number for number, told in database.identities.items() if told == (uuid, "red")]
    edges = [one for item in described for one in item.closures if one.accepted and one.match_session in guests]
    assert len(edges) > 40
    for edge in edges:  # each is right, by the truth that both odometries hold
        T_match, T_query = (database.keyframe(id).T_odom_base for id in (edge.match_id, edge.query_id))
        error = inverse(T_match @ edge.T_match_query) @ inverse(START) @ T_query
        assert np.linalg.norm(error[:3, 3]) < 0.3
    assert all(database.sessions[number] is None for number in guests)  # its place is what its edges say
    assert any(f"the fleet knows this place: robot red's session {uuid} is" in one for one in blue.news)
    values = blue.fleet.values()
    assert all(values[f"session {number}"] == f"red/{uuid}" for number in guests)
    assert values["fleet"] == "answers" and blue.warnings == [] and blue.fleet.faults() == []
    client = FleetClient(running.uri, None)  # what came down was not pushed back
    assert sorted(client.session_keys(*red.keys()[0][:2])) == red.keys()
    assert sorted(client.session_keys(*blue.keys()[0][:2])) == blue.keys()
    assert client.count() == len(red.keys()) + len(blue.keys())
    number = len(database)
    red.close(), blue.close()
    told = {(number, stamp) for number, stamps, _ in blue.met for stamp in stamps.tolist()}
    assert told == {(one, database.keyframe(id).stamp) for one in guests for id in database.ids(one).tolist()}
    for one, stamps, poses in blue.met:  # as red's odometry had it
        at = {database.keyframe(id).stamp: database.keyframe(id).T_odom_base for id in database.ids(one).tolist()}
        np.testing.assert_array_equal(poses, [at[stamp] for stamp in stamps.tolist()])
    again = Robot(running.uri, "blue", np.eye(4), tmp_path / "blue.map")  # the map knows whose sessions are whose
    assert {(number, stamp) for number, stamps, _ in again.met for stamp in stamps.tolist()} == told
    assert len(again.place.database) == number
    assert {again.fleet._guests.robot_of(one) for one in guests} == {"red"}
    again.drive(THERE[:5], start=9000.0)
    assert client.count("red", uuid) == len(red.keys())
    again.close()


def test_a_map_made_from_a_cloud_is_no_robot_and_a_placed_drive_needs_no_odometry(tmp_path: Path) -> None:
    place = recogniser(accumulation_m=0.0)
    (one,) = place.step(view(pose(0.0)), SECOND, None, pose(0.0), is_keyframe=True)
    database = recogniser().database
    for session, travel in enumerate((None, 5.0)):
        database.add(dataclasses.replace(one.keyframe, session=session, travel=travel))
    for session, name in enumerate(("site.pcd", "red")):
        database.name_session(session, name)
    database.set_T_map_odom(1, np.eye(4))  # as `vlad map merge` places it
    database.save(tmp_path / "site.map")
    robot = Robot("http://127.0.0.1:1", "blue", np.eye(4), tmp_path / "site.map")
    assert [robot.fleet._guests.robot_of(session) for session in (0, 1)] == ["", "red"] and robot.met == []
    robot.close()


def test_a_lost_server_costs_one_warning_and_no_keyframe(server: FleetServer, ros_home: Path) -> None:
    """It is there only later, is killed in the middle, and the vehicle restarts while it is gone."""
    first = Robot(server.uri, "red", np.eye(4))
    first.drive(THERE[:20])
    until(lambda: first.warnings)
    assert len(first.fleet._queue) == 20 and "cannot be used" in first.fleet.values()["fleet"]
    server.start()
    first.sent()
    server.kill()
    first.drive(THERE[20:40], start=100.0)
    until(lambda: len(first.warnings) == 2)
    assert all(f"wait in {queue_path('red')}" in warning for warning in first.warnings)
    assert queue_path("red").is_relative_to(ros_home)
    assert len(first.news) == 1 and "answers again" in first.news[0]
    first.close()
    second = Robot(server.uri, "red", np.eye(4))
    assert second.fleet.values()["waiting for the fleet"] == "20"
    second.drive(THERE[40:50], start=200.0)
    server.start()
    second.sent()
    second.close()
    client = FleetClient(server.uri, None)
    everything = [key for robot, session in client.sessions() for key in client.session_keys(robot, session)]
    assert sorted(everything) == sorted(first.keys() + second.keys()) and client.count() == 50


def test_corrected_poses_go_up_again(running: FleetServer) -> None:
    robot = Robot(running.uri, "green", np.eye(4))
    robot.drive(THERE[:10])
    robot.sent()
    keys, database = robot.keys(), robot.place.database
    stamps = [key.stamp for key in keys]
    moved = [from_xyz_rpy((0.0, 5.0, 0.0, 0.0, 0.0, 0.2)) @ database.keyframe(id).T_odom_base for id in range(10)]
    database.correct(robot.place.session, stamps, np.stack(moved))
    assert len(robot.fleet._queue) == 10
    robot.sent()
    sent = FleetClient(running.uri, None).fetch(keys)
    assert all(
        np.allclose(np.frombuffer(one.T_map_base).reshape(3, 4), T[:3]) for one, T in zip(sent, moved, strict=True)
    )
    nearly = [from_xyz_rpy((0.05, 0.0, 0.0, 0.0, 0.0, 0.0)) @ T for T in moved]
    database.correct(robot.place.session, stamps, np.stack(nearly))
    assert len(robot.fleet._queue) == 0  # that is not worth it
    robot.close()


def test_the_fleet_is_asked_at_start_and_when_the_own_map_is_silent(running: FleetServer) -> None:
    robot = Robot(running.uri, "grey", np.eye(4), exclude_time=0.0)
    stamps: list[int] = []
    robot.fleet._asker.ask = lambda question: stamps.append(question.stamp)
    described = robot.drive([*THERE[:30], *THERE[29::-1]])
    silent = [not any(closure.accepted for closure in one.closures) for one in described]
    in_a_row = [
        id for id in range(len(silent)) if all(silent[max(0, id + 1 - UNANSWERED) : id + 1]) and id + 1 >= UNANSWERED
    ]
    asked = [[one.keyframe.stamp for one in described].index(stamp) for stamp in stamps]
    assert asked == [0, *in_a_row] and 10 < len(in_a_row) < 50
    robot.close()


def test_questions_that_come_too_fast_are_dropped_for_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlad_ros.fleet.asker.PERIOD", 1e6)
    robot = Robot("http://127.0.0.1:1", "grey", np.eye(4))
    asker = robot.fleet._asker
    questions = [one.keyframe for one in robot.drive(THERE[:8])]
    until(lambda: asker.asked == 1 and asker.trouble)
    for question in questions:
        asker.ask(question)
    assert asker.asked == 1 and asker._question is questions[-1]
    robot.close()
    assert asker.asked == 1


def test_a_refused_vehicle_drives_on(running: FleetServer) -> None:
    FleetClient(running.uri, recogniser().database.store.make).count()  # begins the fleet
    robot = Robot(running.uri, "odd", np.eye(4))
    robot.fleet.close()
    robot.place = recogniser(half=0.9, model_hash="b" * 64)
    robot.fleet = Fleet(running.uri, "odd", robot.place, Voice(robot.warnings.append, robot.news.append, print))
    described = robot.drive(THERE[:5])
    until(lambda: robot.warnings)
    assert len(described) == 5 and "was made with other weights" in robot.warnings[0]
    assert len(robot.fleet._queue) == 5 and len(robot.warnings) == 1
    robot.close()


def test_features_of_another_size_are_left_out_of_the_question() -> None:
    place = recogniser(accumulation_m=0.0)
    (one,) = place.step(view(pose(0.0)), SECOND, None, pose(0.0), is_keyframe=True)
    verifier = FleetVerifier(place.calibration, place.config, lambda: recogniser().database)
    geometry = dataclasses.replace(one.keyframe.geometry, features=np.zeros((100, 7), np.int8))
    others = [dataclasses.replace(one.keyframe, stamp=stamp, geometry=geometry) for stamp in (1, 2)]
    packed = [pack(Key("red", uuid4(), other.stamp), other, None) for other in others]
    assert list(verifier.found(one.keyframe, packed)) == []
    assert len(verifier.faults) == 2 and all("7 channels, not 32" in fault for fault in verifier.faults)


@pytest.mark.parametrize(("uri", "name"), [("http://127.0.0.1:1", "a b"), ("nowhere", "red")])
def test_an_impossible_name_or_address_holds_nothing(uri: str, name: str, ros_home: Path) -> None:
    with pytest.raises(ValueError, match=r"robot 'a b'|the fleet must be"):
        Robot(uri, name, np.eye(4))
    assert not ros_home.exists()


def test_two_vehicles_of_one_name_on_one_computer_are_refused() -> None:
    robot = Robot("http://127.0.0.1:1", "red", np.eye(4))
    with pytest.raises(FleetError, match="in use by another node"):
        Robot("http://127.0.0.1:1", "red", np.eye(4))
    robot.close()
