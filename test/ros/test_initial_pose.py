# SPDX-License-Identifier: Apache-2.0
"""A standing robot in a loaded map: its localiser is told the pose, once, and a question is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from ros_harness import SECOND, Robot, cloud, live_node, odometry, wait_for  # noqa: E402
from std_msgs.msg import Bool  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from vlad_ros.config import RecognizerConfig  # noqa: E402
from vlad_ros.pipeline import PlaceRecognizer  # noqa: E402
from vlad_ros.poses import decode_pose, inverse, rotation_angle  # noqa: E402
from vlad_ros.ros.tools.node_client import MEET_S  # noqa: E402
from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402
from vlad_ros.simulation.routes import plan_route, record  # noqa: E402
from vlad_ros.simulation.sensors import cast, sensor_pose, spinning  # noqa: E402
from vlad_ros.simulation.worlds import make_world, visit  # noqa: E402
from vlad_ros.stamps import from_time, stamp_of  # noqa: E402
from vlad_ros.types import F32, F64  # noqa: E402

SEED, SPOT = 5, 20
TILT = (0.0, 0.0)
SETTINGS = {
    "device": "cpu",
    "map_frame": "town",
    "odom_timeout": 0.0,
    "initial_pose_topic": "/initialpose",
    "relocalize_topic": "/reinitialization_requested",
}


@dataclass
class Street:
    """A street with its map in the node, and a robot that stands in it, turned, on another day."""

    robot: Robot
    process: NodeProcess
    scans: list[F32]
    pose: F64
    told: list[PoseWithCovarianceStamped] = field(default_factory=list)
    ranked: list[PoseArray] = field(default_factory=list)
    clock: int = 1000 * SECOND

    def stand(self, seconds: int) -> int:
        """Send two scans a second, and wait until they were processed; the stamp of the last one."""
        taken = int(self.robot.diagnostics["clouds received"])
        for number in range(2 * seconds):
            self.clock += SECOND // 2
            self.robot.send(odometry(self.clock))
            self.robot.send(cloud(self.clock, self.scans[number % len(self.scans)]))
        wait_for(lambda: int(self.robot.diagnostics["clouds received"]) >= taken + 2 * seconds, "a scan is lost")
        self.robot.ask("query")  # is answered after the scans
        self.robot.wait_report()
        return self.clock

    def check(self, T: F64) -> None:
        error = inverse(self.pose) @ T
        assert np.linalg.norm(error[:3, 3]) < 0.5 and rotation_angle(error) < np.radians(2)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Street]:
    folder = tmp_path_factory.mktemp("street")
    world, sensor = make_world("street", SEED), spinning(32)
    route = plan_route(world, SEED, 1.0, (), 0.0, 45.0, "line")
    drive = record(world, route, SEED, sensor, 1.0, "street")
    recognizer = PlaceRecognizer.from_pretrained(None, "cpu", RecognizerConfig())
    for number, (scan, T) in enumerate(zip(drive.scans, drive.poses_to("map"), strict=True)):
        recognizer.step(scan, (1 + number) * SECOND, None, T)
    recognizer.finish()
    recognizer.save_map(folder / "street.map")
    x, y, heading = route.poses[SPOT]
    spot, rng = (float(x) + 0.4, float(y) - 0.3, float(heading) + 2.0), np.random.default_rng(SEED)
    clear = np.array([spot[:2]])
    scans = [cast(visit(world, 99, float(t), clear, clear), sensor, spot, rng, TILT) for t in range(4)]
    with live_node(folder / "node.log", map_path=folder / "street.map", **SETTINGS) as (robot, process):
        robot.wait_connected(odom=True)
        street = Street(robot, process, scans, sensor_pose(world, sensor, spot, TILT))
        subscribe = robot.node.create_subscription
        subscribe(PoseWithCovarianceStamped, "/initialpose", street.told.append, QoSProfile(depth=10))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscribe(PoseArray, "/vlad/candidates", street.ranked.append, latched)
        robot.meet()
        yield street


def test_a_question_before_the_first_scan(street: Street) -> None:
    success, message = street.robot.ask("query")
    assert not success and json.loads(message) == {"error": "no_scan_received"}


def test_the_localiser_is_told_once(street: Street) -> None:
    before = int(street.robot.diagnostics["keyframes in the map"])
    street.stand(1)
    wait_for(lambda: street.told, "no pose is told")
    message = street.told[0]
    street.check(decode_pose(message.pose.pose))
    covariance = message.pose.covariance.reshape(6, 6)
    assert np.linalg.eigvalsh(covariance).min() > 0 and message.header.frame_id == "town"
    assert from_time(message.header.stamp) <= street.clock
    street.stand(3)
    assert len(street.told) == 1, "a pose is told twice"
    assert street.robot.diagnostics["initial pose"].endswith("scans searched: 1")
    assert int(street.robot.diagnostics["keyframes in the map"]) == before, "a scan that was searched is in the map"


def test_a_localiser_asks_again(street: Street) -> None:
    publisher = street.robot.node.create_publisher(Bool, "/reinitialization_requested", QoSProfile(depth=10))
    wait_for(publisher.get_subscription_count, "nobody hears the request")
    told = len(street.told)
    for again in (True, False, True):
        publisher.publish(Bool(data=again))
        street.stand(1)
        told += again
        wait_for(lambda n=told: len(street.told) == n, "a request is not answered, or twice")
    publisher.publish(Bool(data=True))  # as long as it is lost it goes on asking, and needs time to settle
    street.stand(1)
    assert len(street.told) == told
    street.stand(4)
    publisher.publish(Bool(data=True))
    street.stand(1)
    wait_for(lambda: len(street.told) == told + 1, "a request that holds is not answered")
    assert street.robot.ask("relocalize")[0]
    street.stand(1)
    wait_for(lambda: len(street.told) == told + 2, "~/relocalize tells no pose")
    for message in street.told:
        street.check(decode_pose(message.pose.pose))


def test_a_hint_restricts_the_search(street: Street) -> None:
    publisher = street.robot.node.create_publisher(PoseWithCovarianceStamped, "/vlad/hint", QoSProfile(depth=1))
    wait_for(publisher.get_subscription_count, "nobody hears the hint")
    time.sleep(MEET_S)
    told = len(street.told)
    hint = PoseWithCovarianceStamped()
    hint.header.frame_id = "odom"
    publisher.publish(hint)
    wait_for(lambda: street.robot.count("bad_hint") == 1, "a hint in another frame is not refused")
    hint.header.frame_id = "town"
    hint.pose.pose.position.x, hint.pose.pose.position.y = street.pose[0, 3] + 40.0, street.pose[1, 3]
    publisher.publish(hint)
    wait_for(lambda: "searching" in street.robot.diagnostics["initial pose"], "the hint starts no search")
    street.stand(2)
    assert len(street.told) == told, "a pose outside of the hint's radius"
    hint.pose.pose.position.x += -40.0 + 8.0
    publisher.publish(hint)
    for _ in range(10):  # the first scans may overtake the hint
        street.stand(1)
        if len(street.told) > told:
            break
    wait_for(lambda: len(street.told) == told + 1, "no pose within the hint's radius")
    street.check(decode_pose(street.told[-1].pose.pose))


def test_a_question_is_answered_from_the_newest_scan(street: Street) -> None:
    stamp = street.stand(1)
    told = len(street.told)
    success, message = street.robot.ask("query")
    answer = json.loads(message)
    assert success, message
    assert answer["scan_stamp_sec"] == stamp / SECOND and answer["scan_point_count"] > 1000
    assert answer["candidate_count"] == len(answer["candidates"]) and answer["top"] == answer["candidates"][0]
    assert answer["candidate_age_sec"] >= answer["scan_age_sec"] > 0 and answer["runtime_sec"] > 0
    top = answer["top"]
    assert np.hypot(top["x"] - street.pose[0, 3], top["y"] - street.pose[1, 3]) < 0.5 and 0.9 <= top["score"] <= 1.0
    heading = np.arctan2(street.pose[1, 0], street.pose[0, 0])
    assert abs((np.radians(top["yaw_deg"]) - heading + np.pi) % (2 * np.pi) - np.pi) < np.radians(2)
    wait_for(lambda: street.ranked and stamp_of(street.ranked[-1]) == stamp, "no candidates")
    assert len(street.ranked[-1].poses) == answer["candidate_count"]
    assert street.ranked[-1].header.frame_id == "town"
    street.check(decode_pose(street.ranked[-1].poses[0]))
    assert len(street.told) == told, "a question is no request of a localiser"
    assert street.robot.count("internal_error") == 0


class Supervisor:
    """A client as lidar_localization_ros2's docs/global_localization.md describes its recovery supervisor: asked by a
    Bool, it calls the service and sets the localiser to the best candidate that scores enough."""

    ENOUGH = 0.6  # its min_candidate_score

    def __init__(self, robot: Robot, asked: str, service: str, tells: str) -> None:
        self.lost, self.refused = False, 0
        one = QoSProfile(depth=1)
        self._client = robot.node.create_client(Trigger, service)
        self._publisher = robot.node.create_publisher(PoseWithCovarianceStamped, tells, one)
        robot.node.create_subscription(Bool, asked, self._on_request, one)

    def _on_request(self, message: Bool) -> None:
        if message.data and not self.lost:  # once for each time that it is lost
            self._client.call_async(Trigger.Request()).add_done_callback(self._on_answer)
        self.lost = message.data

    def _on_answer(self, future: Any) -> None:
        answer = future.result()
        candidates = json.loads(answer.message)["candidates"] if answer.success else []
        best = [one for one in candidates if one["score"] >= self.ENOUGH]
        if not best:
            self.refused += 1
            return
        reset = PoseWithCovarianceStamped()
        reset.header.frame_id = "town"
        position, orientation = reset.pose.pose.position, reset.pose.pose.orientation
        position.x, position.y = best[0]["x"], best[0]["y"]
        orientation.z, orientation.w = (float(f(np.radians(best[0]["yaw_deg"]) / 2)) for f in (np.sin, np.cos))
        self._publisher.publish(reset)


def test_a_recovery_supervisor_takes_the_answer(street: Street) -> None:
    node, resets = street.robot.node, []
    supervisor = Supervisor(street.robot, "/tracking_lost", "/vlad/query", "/reset_pose")
    node.create_subscription(PoseWithCovarianceStamped, "/reset_pose", resets.append, QoSProfile(depth=10))
    publisher = node.create_publisher(Bool, "/tracking_lost", QoSProfile(depth=1))

    def say(lost: bool) -> None:
        """Again and again, as the localiser does."""
        wait_for(lambda: publisher.publish(Bool(data=lost)) or supervisor.lost == lost, "nobody hears the localiser")

    street.stand(1)
    for number in (1, 2):
        say(True)
        wait_for(lambda n=number: len(resets) == n, "the localiser is not set")
        pose = decode_pose(resets[-1].pose.pose)
        pose[2, 3] = street.pose[2, 3]  # the candidates are flat; the supervisor takes the localiser's height
        street.check(pose)
        say(False)
    assert street.robot.ask("clear_map")[0]
    street.stand(1)
    say(True)
    wait_for(lambda: supervisor.refused == 1, "no answer")
    assert len(resets) == 2, "a pose without a map"


def test_a_question_without_a_map(street: Street) -> None:
    assert street.robot.ask("clear_map")[0]
    street.stand(1)
    success, message = street.robot.ask("query")
    assert not success and json.loads(message)["error"] == "no_other_session_in_the_map"
