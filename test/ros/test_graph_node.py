# SPDX-License-Identifier: Apache-2.0
"""The pose graph's node over DDS, on a simulated drive: what it hears, and what it tells."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")
pytestmark = pytest.mark.ros

from diagnostic_msgs.msg import DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from graph_drives import Edge, loops, odometry, rmse, town  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from nav_msgs.msg import Path as PathMessage  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from ros_harness import SECOND, Robot, time_of, wait_for  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from vlad_ros.poses import decode_pose  # noqa: E402
from vlad_ros.ros.outputs.messages import closures_message, to_pose  # noqa: E402
from vlad_ros.ros.outputs.trajectory_messages import path_bytes  # noqa: E402
from vlad_ros.ros.qos import GUESTS  # noqa: E402
from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402
from vlad_ros.stamps import stamp_of  # noqa: E402
from vlad_ros.types import F64, LoopClosure  # noqa: E402

RELIABLE = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
MS, START = 1_000_000, 1_700_000_000_000_000_000


def argv(**parameters: Any) -> list[str]:
    words = [sys.executable, "-m", "vlad_ros.ros.graph_node", "--ros-args", "-p", "autostart:=true"]
    for name, value in parameters.items():
        words += ["-p", f"{name}:={value}"]
    return words


class World(Robot):
    """The place node, the odometry and a listener, as the graph's node meets them."""

    def __init__(self) -> None:
        super().__init__("/vlad_graph")
        self.odometry: dict[int, Odometry] = {}
        self.corrections: list[PathMessage] = []
        self.paths: list[PathMessage] = []
        self._keyframes = self.node.create_publisher(PoseStamped, "keyframes", RELIABLE)
        self._closures = self.node.create_publisher(PointCloud2, "loop_closures", RELIABLE)
        self._odometry = self.node.create_publisher(Odometry, "odom", RELIABLE)
        self.node.create_subscription(Odometry, "/vlad_graph/odometry", self._hear, RELIABLE)
        self.node.create_subscription(PathMessage, "/vlad_graph/corrections", self.corrections.append, RELIABLE)

    def _hear(self, message: Odometry) -> None:
        self.odometry[stamp_of(message)] = message

    def is_ours(self, status: DiagnosticStatus) -> bool:
        return bool(status.name == "vlad_graph: pose graph")

    def connected(self) -> bool:
        return all(p.get_subscription_count() for p in (self._keyframes, self._closures, self._odometry))

    def step(self, stamp: int, T: F64, edges: list[LoopClosure]) -> None:
        """A keyframe at a message of odometry, and its loops."""
        message = Odometry(child_frame_id="base_link")
        message.header = Header(stamp=time_of(stamp), frame_id="odom")
        message.pose.pose = to_pose(T)
        self._keyframes.publish(PoseStamped(header=message.header, pose=message.pose.pose))
        self._odometry.publish(message)
        header = Header(stamp=message.header.stamp, frame_id="base_link")
        self._closures.publish(closures_message(header, edges, lambda id: None))


def closure(edge: Edge, start: int = START, session: int = 0) -> LoopClosure:
    stamps = [start + (k + 1) * 300 * MS for k in (edge.j, edge.i)]
    return LoopClosure(
        edge.j, edge.i, session, session, *stamps, 0.9, 0.99, edge.T, edge.covariance, accepted=not edge.wrong
    )


def a_drive() -> tuple[F64, F64, list[Edge]]:
    """One block and a part of its second round, 3 m between the keyframes."""
    away = town(1)
    poses = np.concatenate([away[:400], away[820:1000]])[::3]
    return poses, odometry(poses, 1, yaw=1.0), loops(poses, 1, spacing=2)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, NodeProcess, Path]]:
    folder = tmp_path_factory.mktemp("graph")
    settings = {
        "graph_path": folder / "graph",
        "trajectory_path": folder / "t.tum",
        "jump_metres": 0.5,
        "drift_rotation": 1.0,
        "edits_path": folder / "edits.yaml",
    }
    (folder / "edits.yaml").write_text("")
    with World() as world, NodeProcess(argv(**settings), {}, folder / "node.log") as process:
        world.wait_active(process, 120.0)
        wait_for(world.connected, "the node does not subscribe")
        world.meet()
        yield world, process, folder


def test_a_drive_is_corrected_while_it_goes_on(live: tuple[World, NodeProcess, Path]) -> None:
    world, process, folder = live
    poses, odo, edges = a_drive()
    jumps = []
    for k, T in enumerate(odo):
        stamp = START + (k + 1) * 300 * MS
        world.step(stamp, T, [closure(edge) for edge in edges if edge.j == k])
        if k:
            wait_for(lambda s=stamp: s in world.odometry, f"no odometry in the map: {process.tail()}", 20)
        else:
            wait_for(lambda: world.diagnostics.get("nodes") == "1", f"no node: {process.tail()}", 20)
        if "jumped" in world.message:
            jumps.append(world.message)
    last = world.odometry[stamp]
    assert (last.header.frame_id, last.child_frame_id) == ("map", "base_link")
    second = world.odometry[START + 2 * 300 * MS]
    np.testing.assert_allclose(decode_pose(second.pose.pose), odo[1], atol=1e-3)

    world.wait_report()
    assert int(world.diagnostics["loops believed"]) >= 0.95 * len(edges)
    assert world.diagnostics["nodes"] == str(len(poses))
    assert jumps or "jumped by" in process.log.read_text()

    # What the place node is told adds up to the trajectory, and is a stretch each time.
    told: dict[int, F64] = {}
    wait_for(lambda: world.corrections and stamp_of(world.corrections[-1].poses[-1]) == stamp, "not all is told")
    for path in world.corrections:
        told.update({stamp_of(pose): decode_pose(pose.pose) for pose in path.poses})
        assert path.header.frame_id == "map"
    assert len(told) == len(poses)
    corrected = np.stack([told[key] for key in sorted(told)])
    np.testing.assert_allclose(decode_pose(last.pose.pose)[:3, 3], corrected[-1, :3, 3], atol=0.5)
    assert rmse(corrected, poses) < rmse(odo, poses)
    edge = edges[-1]  # where the vehicle is again, it is in the map again
    again = np.linalg.inv(corrected[edge.i]) @ corrected[edge.j]
    assert (
        np.linalg.norm((again - edge.T)[:3, 3])
        < 0.3
        < np.linalg.norm((np.linalg.inv(odo[edge.i]) @ odo[edge.j] - edge.T)[:3, 3])
    )
    assert min(len(path.poses) for path in world.corrections) < len(poses) / 2

    success, message = world.ask("save_trajectory")
    assert success and f"{len(poses)} poses" in message
    assert len((folder / "t.tum").read_text().splitlines()) == len(poses)


def test_paths_are_sent_to_listeners_once_a_second(live: tuple[World, NodeProcess, Path]) -> None:
    world, _, _ = live
    before: list[PathMessage] = []
    world.node.create_subscription(PathMessage, "/vlad_graph/path", world.paths.append, RELIABLE)
    world.node.create_subscription(PathMessage, "/vlad_graph/path_before", before.append, RELIABLE)
    wait_for(lambda: world.paths and before, "no path")
    number, began = len(world.paths), time.monotonic()
    time.sleep(2.5)
    assert len(world.paths) - number <= (time.monotonic() - began) + 1
    assert len(world.paths[-1].poses) == len(before[-1].poses) == int(world.diagnostics["nodes"])


def test_bad_input_is_counted_and_costs_nothing_else(live: tuple[World, NodeProcess, Path]) -> None:
    world, process, folder = live
    nodes = world.diagnostics["nodes"]
    _, _, edges = a_drive()
    broken = Odometry(child_frame_id="base_link")
    broken.pose.pose.position.x = float("nan")
    world._odometry.publish(broken)
    world._keyframes.publish(PoseStamped())
    world._closures.publish(PointCloud2(point_step=3, data=b"abc"))
    unknown = closure(edges[-1], session=7)
    stranger = LoopClosure(0, 0, 0, 9, unknown.query_stamp, 5, 0.9, 0.99, edges[-1].T, edges[-1].covariance, True)
    world._closures.publish(closures_message(Header(), [stranger], lambda id: None))
    for reason in ("bad_odom", "bad_keyframes", "bad_loop_closures", "unknown_session"):
        wait_for(lambda r=reason: world.count(r) == 1, f"{reason} is not counted: {process.tail()}", 30)
    assert world.diagnostics["nodes"] == nodes and world.state() == "active"
    (folder / "edits.yaml").write_text("- {match: [0, 1]}\n")
    assert world.ask("apply_edits")[0] is False
    keys = [START + (k + 1) * 300 * MS for k in (edges[0].i, edges[0].j)]
    (folder / "edits.yaml").write_text(
        f"- {{match: [0, {keys[0]}], query: [0, {keys[1]}], decision: forbid, reason: a mirror}}\n"
    )
    assert world.ask("apply_edits") == (True, "1 decisions, 1 of them about loops that are known by now")


def refused(**parameters: Any) -> str:
    """What a node says that cannot start; it ends with exit code 1."""
    environment = parameters.pop("env", {})
    ended = subprocess.run(
        argv(**parameters), env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1, ended.stderr
    return ended.stderr + ended.stdout


def test_a_second_graph_node_does_not_write_the_same_file(live: tuple[World, NodeProcess, Path]) -> None:
    assert "in use by another graph node" in refused(graph_path=live[2] / "graph")


def test_a_file_is_resumed_after_deactivation(live: tuple[World, NodeProcess, Path]) -> None:
    world, process, folder = live
    nodes = int(world.diagnostics["nodes"])
    assert world.change(4) and (folder / "graph").is_file()  # deactivate
    assert world.cleanup() and world.configure() and world.activate()
    wait_for(lambda: world.diagnostics["drive"] == "1", f"not resumed: {process.tail()}")
    assert int(world.diagnostics["nodes"]) == nodes
    world.odometry.clear()
    world.step(START + 10**12, np.eye(4), [])
    wait_for(lambda: "has no pose in the map yet" in world.message, world.message)
    assert not world.odometry


def test_odometry_of_another_robot_makes_nodes_of_its_own(live: tuple[World, NodeProcess, Path]) -> None:
    world, process, _ = live
    world.wait_report()
    nodes = world.diagnostics["nodes"]
    publisher = world.node.create_publisher(PathMessage, "guests", GUESTS)
    stamps, poses = START + np.arange(5) * SECOND, a_drive()[0][:5]
    for frame in ("session_41", "map", "session_41"):  # what is known already is known
        publisher.publish(path_bytes(frame, stamps, poses))
    wait_for(lambda: world.count("bad_guests") == 1, f"the wrong frame is not counted: {process.tail()}", 30)
    world.wait_report()
    assert world.diagnostics["nodes of other robots"] == "5" and world.diagnostics["nodes"] == nodes


def test_what_is_missing_or_misspelt_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "gtsam.py").write_text("raise ImportError('none here')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert "needs gtsam, which is not installed: pip install gtsam" in refused(env={"PYTHONPATH": path})
    assert "did you mean node_distance?" in refused(node_distanc=3.0)
    (tmp_path / "graph").write_text("nonsense")
    assert "is not a readable graph file" in refused(graph_path=tmp_path / "graph")
