# SPDX-License-Identifier: Apache-2.0
"""The live node on a merged map: where only the second day has been, it finds itself in the first day's frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from ros_harness import SECOND, cloud, live_node, odometry_at, wait_for  # noqa: E402
from untrained import similarity_alone  # noqa: E402

from vlad_ros.config import RecognizerConfig  # noqa: E402
from vlad_ros.files.sequence import Sequence  # noqa: E402
from vlad_ros.mapping.database import KeyframeDatabase  # noqa: E402
from vlad_ros.maps.inputs import open_maps  # noqa: E402
from vlad_ros.maps.merge import merge  # noqa: E402
from vlad_ros.model.weights import default_weights_path, load_weights, read_metadata, save_weights  # noqa: E402
from vlad_ros.pipeline import PlaceRecognizer  # noqa: E402
from vlad_ros.poses import decode_pose, from_xyz_rpy, inverse, rotation_angle  # noqa: E402
from vlad_ros.simulation.routes import Route, plan_route, record  # noqa: E402
from vlad_ros.simulation.sensors import spinning  # noqa: E402
from vlad_ros.simulation.worlds import make_world  # noqa: E402
from vlad_ros.stamps import from_time  # noqa: E402
from vlad_ros.types import F64  # noqa: E402

SPACING = 2.5  # m
DAYS = {"first": slice(0, 14), "second": slice(6, 26), "third": slice(15, 26)}  # of the stops along a street
T_ODOM_WORLD = {"second": from_xyz_rpy((50.0, -20.0, 0.0, 0.0, 0.0, 1.0)), "third": from_xyz_rpy((0, 9, 0, 0, 0, -2))}
SINGLE = {"accumulation_m": 0.0}


def days() -> dict[str, Sequence]:
    """Drives along parts of one street, each half a metre beside the one before, between other parked cars."""
    world = make_world("street", 5)
    way = plan_route(world, 5, SPACING, (), 0.0, 120.0, "line").poses
    aside = np.stack([-np.sin(way[:, 2]), np.cos(way[:, 2]), np.zeros(len(way))], axis=1)
    drives = {}
    for number, (name, part) in enumerate(DAYS.items()):
        stops = (way + 0.5 * (number - 1) * aside)[part]
        route = Route(stops, np.zeros(len(stops), np.int64))
        drives[name] = record(world, route, 5 + number, spinning(32, 450), SPACING, name)
    return drives


def odometry(name: str, drive: Sequence) -> F64:
    """Without drift, in a frame of its own."""
    poses = drive.poses_to("drive")
    return T_ODOM_WORLD.get(name, inverse(poses[0])) @ poses


def merged(weights: Path, drives: dict[str, Sequence], folder: Path) -> Path:
    """The map of the first two days."""
    paths = []
    for name in ("first", "second"):
        recognizer = PlaceRecognizer.from_pretrained(weights, "cpu", RecognizerConfig(**SINGLE))
        for i, (scan, T) in enumerate(zip(drives[name].scans, odometry(name, drives[name]), strict=True)):
            recognizer.step(scan, (1 + i) * SECOND, None, T, is_keyframe=True)
        paths.append(folder / f"{name}.map")
        recognizer.save_map(paths[-1])
    made = merge(open_maps(paths), read_metadata(weights).calibrated(weights))
    assert made.apart == [], made.meetings[1].refusal
    made.database.save(folder / "town.map")
    return folder / "town.map"


def test_a_new_drive_finds_itself_while_it_runs(tmp_path: Path) -> None:
    network, _ = load_weights(default_weights_path())
    weights = tmp_path / "similarity.safetensors"  # the shipped network; what its loops are worth is not asked here
    save_weights(weights, network, similarity_alone(0.3), {"test": True})
    drives = days()
    town = merged(weights, drives, tmp_path)
    settings = {"keyframe_source": "all", "device": "cpu", "odom_timeout": 0.0, "weights": weights, "map_path": town}
    third, told = drives["third"], []
    truth = inverse(drives["first"].poses_to("drive")[0]) @ third.poses_to("drive")
    with live_node(tmp_path / "node.log", **settings, **SINGLE) as (robot, _):
        robot.wait_connected(odom=True)
        robot.node.create_subscription(PoseWithCovarianceStamped, "/vlad/pose", told.append, QoSProfile(depth=100))
        robot.meet()
        for i, (scan, T) in enumerate(zip(third.scans, odometry("third", third), strict=True)):
            robot.send(odometry_at((1000 + i) * SECOND, T))
            robot.send(cloud((1000 + i) * SECOND, scan))
            wait_for(lambda i=i: robot.answered > i, "a scan is not answered")
        wait_for(lambda: len(told) >= len(third) // 2, "it does not find itself")
        for message in told:
            i = from_time(message.header.stamp) // SECOND - 1000
            error = inverse(truth[i]) @ decode_pose(message.pose.pose)
            assert message.header.frame_id == "map"
            assert np.linalg.norm(error[:3, 3]) < 0.5 and np.degrees(rotation_angle(error)) < 2.0
        assert all(set(rows["match_session"][rows["accepted"] > 0]) <= {1, 2} for _, rows in robot.closures)
        assert robot.ask("save_map")[0] and robot.count("internal_error") == 0
    database = KeyframeDatabase.open(town)  # its keyframes are one more session, in the same frame
    assert len(database.ids(2)) == len(third)
    for i, id in enumerate(database.ids(2).tolist()):
        assert np.linalg.norm((inverse(truth[i]) @ database.T_map_base(id))[:3, 3]) < 0.5
