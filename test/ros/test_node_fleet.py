# SPDX-License-Identifier: Apache-2.0
"""Two live nodes that never meet, over DDS, and the server between them, which comes late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
pytestmark = [pytest.mark.ros, pytest.mark.slow]

from fleet_server import FleetServer  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from ros_harness import SECOND, Robot, cloud, live_node, odometry_at, wait_for  # noqa: E402
from untrained import similarity_alone  # noqa: E402

from vlad_ros.model.weights import default_weights_path, load_weights, save_weights  # noqa: E402
from vlad_ros.poses import from_xyz_rpy, inverse  # noqa: E402
from vlad_ros.ros.graph_inputs import guests_of  # noqa: E402
from vlad_ros.ros.outputs.messages import stamps_of, transform_of  # noqa: E402
from vlad_ros.ros.qos import GUESTS  # noqa: E402
from vlad_ros.simulation.routes import Route, plan_route, record  # noqa: E402
from vlad_ros.simulation.sensors import spinning  # noqa: E402
from vlad_ros.simulation.worlds import make_world  # noqa: E402
from vlad_ros.types import F64  # noqa: E402

COUNT, SPACING = 10, 3.0  # scans of each robot, m
ELSEWHERE = from_xyz_rpy((50.0, -20.0, 0.0, 0.0, 0.0, 1.0))


def drive(robot: Robot, scans: Sequence[np.ndarray], poses: F64, first: int, patient: bool) -> None:
    """Each scan is answered before the next one; `patient`: the fleet has a second to answer what it was asked."""
    robot.wait_connected(odom=True)
    for i, (points, T) in enumerate(zip(scans, poses, strict=True)):
        stamp = (first + i) * SECOND
        robot.send(odometry_at(stamp, T))
        robot.send(cloud(stamp, points))
        wait_for(lambda i=i: robot.answered > i, "a scan is not answered")
        if patient or i + 1 == len(scans):
            robot.wait_report()


def _keys(path: PathMessage) -> tuple[list[int], list[float], list[float]]:
    _, stamps, poses = guests_of(path)
    return stamps, poses[:, 0, 3].tolist(), poses[:, 1, 3].tolist()


def test_a_robot_meets_one_that_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_HOME", str(tmp_path / "ros"))
    network, _ = load_weights(default_weights_path())
    weights = tmp_path / "similarity.safetensors"  # the shipped network; what its loops are worth is not asked here
    save_weights(weights, network, similarity_alone(0.3), {"test": True})
    world = make_world("street", 5)
    once = plan_route(world, 5, SPACING, (), 0.0, 2 * COUNT * SPACING, "line").poses[:COUNT]
    beside = once + [[-0.5 * np.sin(yaw), 0.5 * np.cos(yaw), 0.02] for yaw in once[:, 2]]
    route = Route(np.concatenate([once, beside]), np.repeat([0, 1], COUNT))
    town = record(world, route, 5, spinning(32, 450), SPACING, "street", revisits=1)
    scans, poses, server = town.scans, town.poses_to("drive"), FleetServer(tmp_path)
    settings = {"keyframe_source": "all", "accumulation_m": 0.0, "device": "cpu", "weights": weights}
    settings |= {"fleet_uri": server.uri, "odom_timeout": 0.0}
    try:
        with live_node(tmp_path / "red.log", **settings, robot="red") as (robot, process):
            drive(robot, scans[:COUNT], poses[:COUNT], 1000, patient=False)
            assert robot.diagnostics["waiting for the fleet"] == str(COUNT)
            assert process.log.read_text().count(f"the fleet {server.uri} cannot be used") == 1
            server.start()
            wait_for(lambda: robot.diagnostics["waiting for the fleet"] == "0", "the queue does not empty")
            assert robot.count("internal_error") == 0
        with live_node(tmp_path / "blue.log", **settings, robot="blue") as (robot, process):
            met: list[PathMessage] = []
            robot.node.create_subscription(PathMessage, "/vlad/guests", met.append, GUESTS)
            drive(robot, scans[COUNT:], ELSEWHERE @ poses[COUNT:], 2000, patient=True)
            edges = [row for _, rows in robot.closures for row in rows if row["accepted"] and row["match_session"]]
            assert len(edges) > COUNT // 3
            truth = dict(enumerate(poses[:COUNT], 1000)) | dict(enumerate(poses[COUNT:], 2000))
            for row in edges:
                query, match = (truth[stamp // SECOND] for stamp in stamps_of(row))
                assert np.linalg.norm((inverse(inverse(match) @ query) @ transform_of(row))[:3, 3]) < 1.0
                assert robot.diagnostics[f"session {row['match_session']}"].startswith("red/")
            told = {(guests_of(path)[0], *one) for path in met for one in zip(*_keys(path), strict=True)}
            assert {(row["match_session"], stamps_of(row)[1]) for row in edges} <= {key[:2] for key in told}
            for _, stamp, x, y in told:  # as red's odometry had it
                np.testing.assert_allclose((x, y), truth[stamp // SECOND][:2, 3], atol=1e-6)
            assert "the fleet knows this place" in process.log.read_text()
            assert robot.diagnostics["fleet"] == "answers" and robot.count("internal_error") == 0
    finally:
        server.kill()
