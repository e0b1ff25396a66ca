# SPDX-License-Identifier: Apache-2.0
"""The pose graph between configure and cleanup: messages to the graph, its answers to the topics, its file."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2

from vlad_ros.graph import graph_file
from vlad_ros.graph.edits import read_edits
from vlad_ros.graph.feed import NodeAt, NodeFeed
from vlad_ros.graph.pose_graph import LiveGraph
from vlad_ros.graph_config import GraphNodeConfig, PoseGraphConfig
from vlad_ros.poses import decode_pose, rotation_angle
from vlad_ros.ros.graph_inputs import edges_of, guests_of
from vlad_ros.ros.graph_outputs import GraphOutputs
from vlad_ros.ros.qos import GUESTS, RELIABLE, heard
from vlad_ros.stamps import stamp_of
from vlad_ros.types import F64

SAVE = 30.0  # s between two saves while driving
NAMED = 10.0  # s for which diagnostics name a jump of the correction
SILENT = 5.0  # s without input until it is named
SETTLE = 1.0  # s for what the graph has left for later, before a trajectory is written


class GraphSession:
    """ValueError with a reason where gtsam, the graph file or the file of edits is not available."""

    def __init__(self, node: LifecycleNode, config: GraphNodeConfig, graph_config: PoseGraphConfig) -> None:
        self._node, self._config, self._log = node, config, node.get_logger()
        self._lock = graph_file.GraphLock(config.graph_path) if config.graph_path else None
        try:
            resumed = config.graph_path and Path(config.graph_path).exists()
            self.graph = graph_file.resume(config.graph_path, graph_config) if resumed else LiveGraph(graph_config)
            if config.edits_path:
                self.graph.set_edits(read_edits(config.edits_path))
        except ValueError:
            if self._lock is not None:
                self._lock.release()
            raise
        self._feed = NodeFeed(graph_config)
        self.outputs = GraphOutputs(node, config)
        self._open = False
        self.counts: Counter[str] = Counter()
        self._heard: dict[str, float] = {}  # input -> steady time of its newest message
        self._latencies: deque[float] = deque(maxlen=1000)  # s from a loop closure received to the TF that knows it
        self._jump = ("", -np.inf)  # sentence, and when
        self._saved, self._saved_at, self._saving = 0, time.monotonic(), threading.Thread()
        self._poses: deque[tuple[int, F64, F64]] = deque(maxlen=100)  # ~/pose whose loops may still come
        self._made = [
            node.create_subscription(Odometry, "odom", self._taking("odom", self._on_odometry), heard(200)),
            node.create_subscription(PoseStamped, "keyframes", self._taking("keyframes", self._on_keyframe), RELIABLE),
            node.create_subscription(
                PointCloud2, "loop_closures", self._taking("loop_closures", self._on_closures), RELIABLE
            ),
            node.create_subscription(PathMessage, "guests", self._taking("guests", self._on_guests), GUESTS),
            node.create_subscription(PoseWithCovarianceStamped, "pose", self._taking("pose", self._on_pose), RELIABLE),
        ]

    def set_open(self, opened: bool) -> None:
        """Whether messages are taken; when closed, all is told and saved."""
        was, self._open = self._open, opened
        self._heard = dict.fromkeys(("odom", "keyframes"), time.monotonic())
        if was and not opened:
            self.tell()
            self._save()

    def close(self) -> None:
        """Save, and release topics and file."""
        self.set_open(False)
        for subscription in self._made:
            self._node.destroy_subscription(subscription)
        self.outputs.close()
        if self._lock is not None:
            self._lock.release()

    # Messages in.

    def _taking(self, name: str, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            if not self._open:
                return
            self._heard[name] = time.monotonic()
            try:
                callback(message)
            except ValueError as error:
                self._refuse(name, str(error))

        return take

    def _refuse(self, name: str, sentence: str) -> None:
        self.counts[f"bad_{name}"] += 1
        if self.counts[f"bad_{name}"] in (1, 10, 100, 1000):
            self._log.warning(f"{name}: {sentence} ({self.counts[f'bad_{name}']} so far); it is not used")

    def _on_odometry(self, message: Odometry) -> None:
        stamp = stamp_of(message)
        nodes = self._feed.move(stamp, decode_pose(message.pose.pose))
        if nodes:
            self._add(nodes)
        self.outputs.move(stamp, message)

    def _on_keyframe(self, message: PoseStamped) -> None:
        if stamp_of(message) <= 0:
            raise ValueError("the keyframe has no stamp")
        self.outputs.odom_frame = self.outputs.odom_frame or message.header.frame_id
        self._add(self._feed.keyframe(stamp_of(message), decode_pose(message.pose)))

    def _add(self, nodes: list[NodeAt]) -> None:
        with self._changing():
            for node in nodes:
                self.graph.add_node(*node)

    def _on_closures(self, message: PointCloud2) -> None:
        began, accepted = time.monotonic(), 0
        with self._changing():
            for edge, is_accepted in edges_of(message):
                accepted += is_accepted
                self.graph.add_loop(edge) if is_accepted else self.graph.remember(edge)
            self._find()
        if accepted:
            self._latencies.append(time.monotonic() - began)

    def _on_guests(self, message: PathMessage) -> None:
        with self._changing():
            self.graph.add_guests(*guests_of(message))

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        T = decode_pose(message.pose.pose)
        covariance = np.array(message.pose.covariance, np.float64).reshape(6, 6)
        if not np.isfinite(covariance).all():
            raise ValueError("the covariance is not finite")
        self._poses.append((stamp_of(message), T, covariance))
        with self._changing():
            self._find()

    def _find(self) -> None:
        """Use the poses in a loaded map whose loops have come."""
        for _ in range(len(self._poses)):
            pose = self._poses.popleft()
            if not self.graph.relocalise(*pose):
                self._poses.append(pose)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Afterwards TF says what the graph knows."""
        try:
            yield
        except RuntimeError as error:
            self._refuse("graph", f"the least squares failed and begin anew ({str(error).strip().splitlines()[0]})")
            self.graph.recover()
        before, after = self.outputs.T_map_odom, self.graph.T_map_odom
        for sentence in self.graph.take_news():
            self._log.info(sentence)
        node = self.graph.newest
        if after is None or node is None:
            self.outputs.T_map_odom = after
            return
        if before is None or not np.array_equal(before, after):
            self.outputs.correct(after, node.stamp)
        if before is not None:
            self._name_jump(before @ node.T_odom_base, after @ node.T_odom_base)

    def _name_jump(self, before: F64, after: F64) -> None:
        metres = float(np.linalg.norm((after - before)[:3, 3]))
        if metres > self._config.jump_metres:
            turned = np.degrees(rotation_angle(np.linalg.inv(before) @ after))
            sentence = f"the correction has jumped by {metres:.1f} m and {turned:.1f} degrees: loops were closed"
            self._jump = sentence, time.monotonic()
            self._log.warning(sentence)

    # What goes on in between.

    def tell(self) -> None:
        """What the graph has left for later, and corrections to the place node."""
        with self._changing():
            self.graph.upkeep()
        self.outputs.tell_place_node(self.graph)

    def every_second(self, active: bool) -> None:
        """Paths to listeners, and the file from time to time."""
        self.outputs.draw(self.graph)
        due = time.monotonic() - self._saved_at >= SAVE and len(self.graph.chain) != self._saved
        if active and due and self._config.graph_path and not self._saving.is_alive():
            packed = self._pack()
            self._saving = threading.Thread(target=self._write, args=packed, daemon=True)
            self._saving.start()

    def _pack(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        self._saved, self._saved_at = len(self.graph.chain), time.monotonic()
        return graph_file.pack(self.graph)

    def _save(self) -> None:
        if self._config.graph_path and len(self.graph.chain):
            if self._saving.is_alive():
                self._saving.join()
            self._write(*self._pack())

    def _write(self, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        try:
            graph_file.write(self._config.graph_path, arrays, metadata)
        except OSError as error:
            self._refuse("graph_path", f"the graph could not be saved: {error}")

    def save_trajectory(self) -> str:
        """All drives with a pose in the map, in TUM format; what was done."""
        with self._changing():
            self.graph.upkeep(SETTLE)
        parts = [self.graph.trajectory(drive) for drive in sorted(self.graph.placed - self.graph.guests)]
        if not parts:
            raise ValueError("there is no trajectory yet")
        stamps, poses = (np.concatenate(column) for column in zip(*parts, strict=True))
        graph_file.write_tum(self._config.trajectory_path, stamps, poses)
        return f"{len(stamps)} poses in {Path(self._config.trajectory_path).resolve()}"

    def apply_edits(self) -> str:
        """Read the file of decisions by hand again; what was done."""
        if not self._config.edits_path:
            raise ValueError("apply_edits needs the parameter edits_path, which is empty")
        edits = read_edits(self._config.edits_path)
        with self._changing():
            known = self.graph.set_edits(edits)
        return f"{len(edits)} decisions, {known} of them about loops that are known by now"

    def status(self, state: str) -> DiagnosticStatus:
        """The node's health: one sentence, and the numbers."""
        graph, now = self.graph, time.monotonic()
        loops = graph.beliefs.loops
        believed = sum(loop.on for loop in loops)
        warnings = list(self._warnings(now)) if self._open else []
        guests = sum(len(graph.chain.drive(drive)) for drive in graph.guests)
        nodes = len(graph.chain) - guests
        values = {
            "state": state,
            "nodes": nodes,
            "nodes of other robots": guests,
            "loops believed": believed,
            "loops not believed": len(loops) - believed,
            "loops waiting for their nodes": len(graph.waiting),
            "drive": graph.drive,
            **{f"count {name}": number for name, number in sorted((self.counts + graph.counters).items())},
        }
        if self._latencies:
            p50, p99 = 1e3 * np.quantile(np.array(self._latencies), (0.5, 0.99))
            values["latency loop to TF p50 / p99 [ms]"] = f"{p50:.1f} / {p99:.1f}"
        return DiagnosticStatus(
            level=DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK,
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: pose graph",
            message="; ".join(warnings) or f"{state}, {nodes} nodes, {believed} loops believed",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _warnings(self, now: float) -> Iterator[str]:
        sentence, at = self._jump
        if now - at < NAMED:
            yield sentence
        for name, remedy in (
            ("odom", "nobody publishes odometry there? odom:=/your_topic"),
            ("keyframes", "is the place node active, and does it have odometry?"),
        ):
            moving = name == "odom" or now - self._heard["odom"] < SILENT
            patience = SILENT if name == "odom" or not len(self.graph.chain) else np.inf
            silence, topic = now - self._heard[name], self._node.resolve_topic_name(name)
            if moving and silence > patience:
                yield f"no message on {topic} for {silence:.0f} s: {remedy}"
        if len(self.graph.chain) and self.graph.T_map_odom is None:
            yield f"drive {self.graph.drive} has no pose in the map yet: no TF until loops or ~/pose say where it began"
        if self._feed.same_body is False:
            yield "odometry is of another body than the keyframes (child_frame_id, base_frame): no nodes between them"
