# SPDX-License-Identifier: Apache-2.0
"""The live node in a loaded map: it finds itself, notices that it was carried away, and takes a back-end's path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from ros_harness import SECOND, Robot, cloud, live_node, odometry_at, time_of, wait_for  # noqa: E402
from untrained import similarity_alone  # noqa: E402

from vlad_ros.config import RecognizerConfig  # noqa: E402
from vlad_ros.files.sequence import Sequence  # noqa: E402
from vlad_ros.model.weights import default_weights_path, load_weights, save_weights  # noqa: E402
from vlad_ros.pipeline import PlaceRecognizer  # noqa: E402
from vlad_ros.poses import from_quaternion, from_xyz_rpy, inverse, rotation_angle  # noqa: E402
from vlad_ros.ros.outputs.messages import to_pose  # noqa: E402
from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402
from vlad_ros.simulation.routes import Route, plan_route, record  # noqa: E402
from vlad_ros.simulation.sensors import spinning  # noqa: E402
from vlad_ros.simulation.worlds import make_world  # noqa: E402
from vlad_ros.stamps import from_time  # noqa: E402
from vlad_ros.types import F32, F64  # noqa: E402

SPACING, PASS = 3.0, 16  # m, scans
SETTINGS = {"keyframe_source": "all", "accumulation_m": 0.0, "device": "cpu", "map_frame": "town", "odom_timeout": 0.0}


@dataclass
class Town:
    """A drive along a street and back the same way; the map of the first half lies in a file."""

    scans: list[F32]
    poses: F64
    half: int
    robot: Robot
    process: NodeProcess
    T_odom_map: F64 = field(default_factory=lambda: from_xyz_rpy((50.0, -20.0, 0.0, 0.0, 0.0, 1.0)))
    told: list[PoseWithCovarianceStamped] = field(default_factory=list)
    clock: int = 1000  # s

    def drive(self, indices: list[int], error: F64 | None = None) -> list[int]:
        """Send these scans with odometry, its origin elsewhere and, from now on, `error` off; the stamps."""
        if error is not None:
            self.T_odom_map = error @ self.T_odom_map
        stamps, before = [], len(self.robot.descriptors)
        for number, i in enumerate(indices):
            self.clock += 1
            stamp = self.clock * SECOND
            self.robot.send(odometry_at(stamp, self.T_odom_map @ self.poses[i]))
            self.robot.send(cloud(stamp, self.scans[i]))
            wait_for(lambda n=number: len(self.robot.descriptors) > before + n, "a scan is not answered")
            stamps.append(stamp)
        return stamps

    def heard(self, stamps: list[int]) -> list[int]:
        """Which of these keyframes a pose was told for."""
        return [stamp for stamp in stamps if stamp in {from_time(pose.header.stamp) for pose in self.told}]


def twice_along_a_street() -> Sequence:
    """PASS scans, and as many again half a metre beside them, between other parked cars."""
    world = make_world("street", 5)
    once = plan_route(world, 5, SPACING, (), 0.0, 2 * PASS * SPACING, "line").poses[:PASS]
    beside = once + [[-0.5 * np.sin(yaw), 0.5 * np.cos(yaw), 0.02] for yaw in once[:, 2]]
    route = Route(np.concatenate([once, beside]), np.repeat([0, 1], PASS))
    return record(world, route, 5, spinning(32, 450), SPACING, "street", revisits=1)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    network, _ = load_weights(default_weights_path())
    weights = folder / "similarity.safetensors"  # the shipped network; what its loops are worth is not asked here
    save_weights(weights, network, similarity_alone(0.3), {"test": True})
    drive = twice_along_a_street()
    half = len(drive) // 2
    config = RecognizerConfig(accumulation_m=0.0)
    recognizer = PlaceRecognizer.from_pretrained(weights, "cpu", config)
    for i in range(half):
        recognizer.step(drive.scans[i], (1 + i) * SECOND, None, drive.poses[i], is_keyframe=True)
    recognizer.save_map(folder / "town.map")
    settings = SETTINGS | {"weights": weights, "map_path": folder / "town.map"}
    with live_node(folder / "node.log", **settings) as (robot, process):
        robot.wait_connected(odom=True)
        town = Town(drive.scans, drive.poses, half, robot, process)
        robot.node.create_subscription(PoseWithCovarianceStamped, "/vlad/pose", town.told.append, QoSProfile(depth=100))
        robot.meet()
        yield town


def test_it_finds_itself_from_the_third_scan_on(town: Town) -> None:
    stamps = town.drive([town.half + i for i in range(2, 8)])
    wait_for(lambda: len(town.heard(stamps)) >= 3, "no pose is told")
    assert not town.heard(stamps[:2]), "a pose from less than three scans"
    for message in town.told:
        i = town.half + 2 + stamps.index(from_time(message.header.stamp))
        p, q = message.pose.pose.position, message.pose.pose.orientation
        T = from_quaternion(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
        error = inverse(town.poses[i]) @ T
        assert np.linalg.norm(error[:3, 3]) < 0.5 and rotation_angle(error) < np.radians(2)
        covariance = message.pose.covariance.reshape(6, 6)
        np.testing.assert_allclose(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0
        assert message.header.frame_id == "town"
    wait_for(lambda: "last place in the map" in town.robot.diagnostics, "diagnostics say nothing of it")
    assert "has found itself in the map" in town.process.log.read_text()
    assert any(key.startswith("candidates ") for key in town.robot.diagnostics)
    latencies = {key.split()[1]: value for key, value in town.robot.diagnostics.items() if key.startswith("latency ")}
    assert {"decode", "network", "geometry", "search", "verify", "accept", "publish"} <= set(latencies)
    rest, whole = (latencies[name].split(" / ")[0] for name in ("rest", "cloud"))
    assert float(rest) <= 0.1 * float(whole), "most of the time is in no stage"


def test_relocalize_asks_for_agreement_again(town: Town) -> None:
    success, sentence = town.robot.ask("relocalize")
    assert success and "1 other session" in sentence
    stamps = town.drive([town.half + i for i in range(8, 13)])
    wait_for(lambda: town.heard(stamps), "no pose is told")
    assert not town.heard(stamps[:2])


def test_the_back_ends_path_corrects_the_session(town: Town) -> None:
    stamps = town.drive([town.half + i for i in range(12, 15)])
    publisher = town.robot.node.create_publisher(PathMessage, "keyframes", QoSProfile(depth=10))
    wait_for(publisher.get_subscription_count, "the node does not subscribe to keyframes")
    path = PathMessage()
    path.header.frame_id = "town"
    for i, stamp in zip(range(12, 15), stamps, strict=True):
        pose = PoseStamped()
        pose.header.stamp = time_of(stamp)
        pose.pose = to_pose(town.poses[town.half + i])
        path.poses.append(pose)
    publisher.publish(path)
    key = "keyframes that the back-end has placed"
    wait_for(lambda: town.robot.diagnostics.get(key) == "3", "the path is not taken")
    path.poses[0].header.stamp = time_of(0)
    publisher.publish(path)
    wait_for(lambda: town.robot.count("bad_path") == 1, "a path without stamps is not refused")


def test_carried_away_is_noticed_and_said(town: Town) -> None:
    """The odometry goes on as if nothing had happened, and the scans are those of another part of the street."""
    session = town.robot.diagnostics["session"]
    stamps = town.drive([town.half + i for i in range(2, 10)], error=from_xyz_rpy((0.0, 30.0, 0.0, 0.0, 0.0, 0.0)))
    wait_for(lambda: town.robot.count("carried_away") == 1, "being carried away is not noticed")
    assert "carried away" in town.process.log.read_text()
    assert town.robot.diagnostics["session"] != session
    wait_for(lambda: town.heard(stamps), "the vehicle does not find itself again")
    assert not town.heard(stamps[:5]), "a pose from the odometry that is wrong, or from less than three scans"
    newest = next(pose for pose in town.told if from_time(pose.header.stamp) == town.heard(stamps)[-1])
    p = newest.pose.pose.position
    i = town.half + 2 + stamps.index(town.heard(stamps)[-1])
    assert np.linalg.norm(np.array([p.x, p.y, p.z]) - town.poses[i][:3, 3]) < 0.5
    assert town.robot.count("internal_error") == 0


def test_relocalize_needs_a_map(town: Town) -> None:
    assert town.robot.ask("clear_map")[0]
    success, sentence = town.robot.ask("relocalize")
    assert not success and "load_map first" in sentence
