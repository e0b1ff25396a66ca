# SPDX-License-Identifier: Apache-2.0
"""A pose for a localiser of a vehicle that moves: by its keyframes, carried on to the newest scan."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from builtin_interfaces.msg import Time  # noqa: E402

from vlad_ros.config import NodeConfig, RecognizerConfig  # noqa: E402
from vlad_ros.graph.node_edges import drift_covariance  # noqa: E402
from vlad_ros.loops.relocalisation import MapPose, Relocaliser  # noqa: E402
from vlad_ros.pipeline import PlaceRecognizer  # noqa: E402
from vlad_ros.poses import decode_pose, exp, from_xyz_rpy, inverse, log, rotation_angle  # noqa: E402
from vlad_ros.ros.outputs.initial_pose import InitialPose, View, carry  # noqa: E402
from vlad_ros.simulation.routes import Route, plan_route, record  # noqa: E402
from vlad_ros.simulation.sensors import spinning  # noqa: E402
from vlad_ros.simulation.worlds import make_world  # noqa: E402
from vlad_ros.stamps import SECOND, stamp_of  # noqa: E402

T_MAP_ODOM = from_xyz_rpy((120.0, -40.0, 1.0, 0.0, 0.0, 2.0))
LENGTH = 45


class Vehicle:
    """A street, mapped once, and a vehicle that drives it again, half a metre aside, by odometry of its own."""

    def __init__(self, recognizer: PlaceRecognizer, scans: list[Any], poses: np.ndarray, listeners: int) -> None:
        self.recognizer, self.scans, self.poses = recognizer, scans, poses
        self.told: list[Any] = []
        publisher = SimpleNamespace(
            get_subscription_count=lambda: listeners, topic_name="/initialpose", publish=self.told.append
        )
        silent = SimpleNamespace(publish=lambda message: None)
        clock = SimpleNamespace(now=lambda: SimpleNamespace(to_msg=lambda: Time(sec=5000)))
        node: Any = SimpleNamespace(
            create_publisher=lambda kind, topic, qos: publisher if topic == "/initialpose" else silent,
            get_clock=lambda: clock,
        )
        listener: Any = SimpleNamespace(inform=lambda sentence: None)
        config = NodeConfig(initial_pose_topic="/initialpose")
        recognizer.open_session()
        self.initial_pose = InitialPose(node, recognizer, config, listener)
        self.relocaliser = Relocaliser()

    def odometry(self, i: int) -> np.ndarray:
        return inverse(T_MAP_ODOM) @ self.poses[i]

    def drive(self, indices: range, shown: slice = slice(None), elsewhere: int = 0) -> int:
        """Show the scans, and to the search for single scans these points of them, or of those so many further on; the
        last stamp."""
        stamp = 0
        for i in indices:
            stamp, T = (2000 + i) * SECOND, self.odometry(i)
            for item in self.recognizer.step(self.scans[i], stamp, None, T):
                finding = self.relocaliser.observe(item.keyframe_id, item.closures, self.recognizer.database)
                self.initial_pose.observe(item, finding.pose)
            self.initial_pose.look(View(self.scans[(i + elsewhere) % LENGTH][shown], None, stamp, T))
        return stamp


@pytest.fixture(scope="module")
def street():
    world = make_world("street", 5)
    once = plan_route(world, 5, 1.0, (), 0.0, float(LENGTH), "line").poses[:LENGTH]
    beside = once + [[-0.5 * np.sin(yaw), 0.5 * np.cos(yaw), 0.02] for yaw in once[:, 2]]
    route = Route(np.concatenate([once, beside]), np.repeat([0, 1], len(once)))
    drive = record(world, route, 5, spinning(32), 1.0, "street", revisits=1)
    half, poses = len(once), drive.poses_to("map")
    recognizer = PlaceRecognizer.from_pretrained(None, "cpu", RecognizerConfig())
    for i in range(half):
        recognizer.step(drive.scans[i], (1 + i) * SECOND, None, poses[i])
    recognizer.finish()
    return recognizer, drive.scans[half:], poses[half:]


FEW = slice(0, None, 40)  # of a scan's points: too few to be recognised by, enough to fit into a local map


def check(T: np.ndarray, true: np.ndarray) -> None:
    error = inverse(true) @ T
    assert np.linalg.norm(error[:3, 3]) < 0.5 and rotation_angle(error) < np.radians(2)


def test_keyframes_that_agree_tell_where_the_newest_scan_is(street):
    vehicle = Vehicle(*street, listeners=1)
    last = vehicle.drive(range(24), FEW)
    (message,) = vehicle.told
    i = stamp_of(message) // SECOND - 2000
    assert stamp_of(message) <= last
    check(decode_pose(message.pose.pose), vehicle.poses[i])
    assert np.linalg.norm(vehicle.poses[i - 1][:3, 3] - vehicle.poses[i][:3, 3]) > 0.5, "the vehicle does not move"


def test_a_question_is_answered_by_the_local_map_where_the_scan_does_not_suffice(street):
    vehicle = Vehicle(*street, listeners=0)
    last = vehicle.drive(range(16), FEW)
    answer = json.loads(vehicle.initial_pose.query())
    top, true = answer["top"], vehicle.poses[15]
    assert answer["scan_stamp_sec"] == last / SECOND
    assert np.hypot(top["x"] - true[0, 3], top["y"] - true[1, 3]) < 0.5
    assert not vehicle.told, "nobody listens, and it is told"
    carried = View(vehicle.scans[40][FEW], None, last + SECOND, vehicle.odometry(15))
    vehicle.initial_pose.look(carried)  # with wheels that stand still
    with pytest.raises(ValueError, match="no_place_is_probable_enough"):
        vehicle.initial_pose.query()
    jumped = View(vehicle.scans[15][FEW], None, last + 2 * SECOND, vehicle.odometry(15) + 30.0 * np.eye(4, k=3))
    vehicle.initial_pose.look(jumped)
    with pytest.raises(ValueError, match="no_place_is_probable_enough"):
        vehicle.initial_pose.query()


def test_a_vehicle_that_is_carried_is_not_told_where_it_was(street):
    """Keyframes agree, and the newest scans are from elsewhere: at most these tell, and where they are."""
    vehicle = Vehicle(*street, listeners=1)
    vehicle.drive(range(24), FEW, elsewhere=20)
    for message in vehicle.told:
        check(decode_pose(message.pose.pose), vehicle.poses[(stamp_of(message) // SECOND - 2000 + 20) % LENGTH])


def test_a_pose_is_carried_with_its_covariance():
    rng = np.random.default_rng(0)
    T, way = from_xyz_rpy((3.0, -2.0, 0.5, 0.1, -0.2, 1.5)), from_xyz_rpy((6.0, 1.0, 0.2, 0.0, 0.1, 0.6))
    A = rng.standard_normal((6, 6)) * 1e-4

    def moved(d: np.ndarray) -> np.ndarray:
        """The pose, displaced by d: along the map's axes, and turned about axes parallel to them through the body."""
        shifted = T.copy()
        shifted[:3, 3] += d[:3]
        shifted[:3, :3] = exp(np.r_[np.zeros(3), d[3:]])[:3, :3] @ T[:3, :3]
        return shifted

    J = np.zeros((6, 6))
    for axis in range(6):
        off = moved(1e-6 * np.eye(6)[axis]) @ way
        turned = np.eye(4)
        turned[:3, :3] = off[:3, :3] @ (T @ way)[:3, :3].T
        J[:, axis] = np.r_[off[:3, 3] - (T @ way)[:3, 3], log(turned)[3:]] / 1e-6
    carried = carry(MapPose(3, 7, T, A @ A.T), way, 9)
    assert carried.stamp == 9 and carried.id == 3
    np.testing.assert_allclose(carried.T_map_base, T @ way)
    np.testing.assert_allclose(carried.covariance - drift_covariance(way), J @ A @ A.T @ J.T, atol=1e-12)
