# SPDX-License-Identifier: Apache-2.0
"""The live node over DDS: it stands still, hears nothing, hears bytes that are no message, or its clock is set back.

Shorter in `make test` than in `make proof`.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
pytestmark = [pytest.mark.ros, pytest.mark.campaign]

from campaign import is_proof, seed  # noqa: E402
from mutations import spoil  # noqa: E402
from rclpy.serialization import serialize_message  # noqa: E402
from ros_harness import (  # noqa: E402
    SECOND,
    Robot,
    cloud,
    live_node,
    odometry,
    place,
    untrained_weights,
    wait_for,
)

from vlad_ros.ros.statistics import SILENCE  # noqa: E402
from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402

FROZEN_S = 10.0 if is_proof() else 3.0
SILENT_S = 30.0 if is_proof() else SILENCE + 2.0
PERIOD = SECOND // 20
SPEED, EVERY, LEFT = 20.0, 3.0, 30.0  # m/s; m between keyframes; m that are no candidates


class Car:
    """A drive straight ahead whose clouds and odometry go out in real time."""

    def __init__(self, robot: Robot, node: NodeProcess) -> None:
        self.robot, self.node = robot, node
        self.stamp, self.x, self.sent = 1000 * SECOND, 0.0, 0
        self.scenes = [place(k, 1500) for k in range(8)]

    def step(self) -> None:
        """The next scan and its odometry."""
        self.stamp, self.x = self.stamp + PERIOD, self.x + SPEED * PERIOD / SECOND
        self.robot.send(odometry(self.stamp, self.x))
        self.robot.send(cloud(self.stamp, self.scenes[self.sent % 8]))
        self.sent += 1
        time.sleep(PERIOD / SECOND)

    def drive(self, seconds: float) -> None:
        for _ in range(round(seconds * SECOND / PERIOD)):
            self.step()

    @property
    def session(self) -> str:
        return self.robot.diagnostics["session"]

    def recovers(self) -> None:
        """The diagnostics are fine again once their window of a hundred clouds is."""
        self.drive(4.0)
        self.robot.wait_report()
        assert not self.robot.warns, self.robot.message

    def works(self) -> None:
        """Keyframes come out, and nothing went wrong inside."""
        before = len(self.robot.descriptors)
        self.drive(2.0)
        wait_for(lambda: len(self.robot.descriptors) > before + 4, "no keyframes any more", 20.0)
        self.robot.wait_report()
        assert self.node.process.poll() is None and self.robot.count("internal_error") == 0
        assert "Traceback" not in self.node.log.read_text()


@pytest.fixture(scope="module")
def car(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Car]:
    folder = tmp_path_factory.mktemp("faults")
    parameters = {
        "weights": untrained_weights(folder / "w.safetensors", half=2.0),  # no loop is to carry the vehicle away
        "queue_size": 500,
        "keyframe_distance": EVERY,
        "keyframe_rate": 10.0,
        "exclude_time": 1.0,
        "exclude_distance": LEFT,
        "verification_budget": 0.0,
    }
    with live_node(folder / "node.log", **parameters) as (robot, node):
        robot.wait_connected(odom=True)
        car = Car(robot, node)
        car.drive(1.0)
        yield car


def test_a_node_that_was_stopped_goes_on_and_counts_what_it_missed(car: Car) -> None:
    car.works()
    session, pid = car.session, car.node.process.pid
    driver = threading.Thread(target=car.drive, args=(FROZEN_S + 2.0,))
    driver.start()
    time.sleep(1.0)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    os.kill(pid, signal.SIGCONT)
    driver.join()
    car.works()
    received, lost = int(car.robot.diagnostics["clouds received"]), car.robot.count("points_lost")
    print(f"{car.sent} sent, {received} received, {lost} lost")
    assert lost > FROZEN_S / 2 * SECOND / PERIOD and received + lost == car.sent
    assert car.session == session
    car.recovers()


def test_silence_is_said_and_is_a_pause_of_the_same_session(car: Car) -> None:
    car.works()
    session, pauses = car.session, car.robot.count("pause")
    time.sleep(SILENT_S)
    assert car.robot.warns and "no cloud on /points" in car.robot.message
    car.stamp += round(SILENT_S * SECOND)
    car.works()
    assert car.robot.count("pause") == pauses + 1 and car.session == session
    car.recovers()


def test_bytes_that_are_no_message_cost_themselves(car: Car) -> None:
    """The middleware drops what it cannot read; fields that it can read are judged by the node."""
    rng = random.Random(seed())
    car.works()
    topics = [(car.robot._odom, odometry(car.stamp, car.x)), (car.robot._points, cloud(car.stamp, car.scenes[0]))]
    for _ in range(1000 if is_proof() else 50):
        publisher, message = rng.choice(topics)
        publisher.publish(spoil(bytes(serialize_message(message)), rng, 150))
        if rng.random() < 0.3:
            car.step()
    car.works()


def test_a_clock_set_back_begins_a_session_without_what_was_just_left(car: Car) -> None:
    car.works()
    session, before = int(car.session), len(car.robot.closures)
    car.stamp -= 500 * SECOND
    car.drive(1.5)
    car.works()
    assert int(car.session) == session + 1 and car.robot.count("session_opened") == 1
    rows = [row for _, rows in car.robot.closures[before:] for row in rows if row["query_session"] == session + 1]
    assert {int(row["match_session"]) for row in rows} >= {session}, "the places before the last ones are candidates"
    assert min(int(row["query_id"]) - int(row["match_id"]) for row in rows) >= LEFT / EVERY - 1
