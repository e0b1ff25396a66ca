# SPDX-License-Identifier: Apache-2.0
"""The topics of the pose graph's node: TF and odometry at once, corrections and paths when they are due."""

from __future__ import annotations

import numpy as np
from nav_msgs.msg import Odometry, Path
from rclpy.lifecycle import LifecycleNode

from vlad_ros.graph.pose_graph import LiveGraph
from vlad_ros.graph_config import GraphNodeConfig
from vlad_ros.poses import inverse
from vlad_ros.ros.outputs.trajectory_messages import NO_TF, TF, in_map, path_bytes, tf_message
from vlad_ros.ros.qos import NEWEST, RELIABLE
from vlad_ros.types import F64, Ints

MOVED = 0.01, np.radians(0.1)  # m, rad that a pose has moved when it is told to the place node again


class GraphOutputs:
    """Created at configure, closed at cleanup. `T_map_odom` (4, 4) is what TF says; None while it is not known."""

    def __init__(self, node: LifecycleNode, config: GraphNodeConfig) -> None:
        self._node, self._config = node, config
        self._tf = None
        if config.publish_tf and TF is None:
            node.get_logger().warning(NO_TF)
        elif config.publish_tf:
            self._tf = node.create_publisher(TF, "/tf", RELIABLE)
        self._odometry = node.create_publisher(Odometry, "~/odometry", RELIABLE)
        self._corrections = node.create_publisher(Path, "~/corrections", RELIABLE)
        self._path = node.create_publisher(Path, "~/path", NEWEST)
        self._before = node.create_publisher(Path, "~/path_before", NEWEST)
        self.odom_frame = ""  # of the odometry messages
        self.T_map_odom: F64 | None = None
        self._stamp = 0  # of the newest odometry [ns]
        self._told: tuple[Ints, F64] | None = None  # the trajectory that the place node has

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._tf, self._odometry, self._corrections, self._path, self._before):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def move(self, stamp: int, message: Odometry) -> None:
        """TF and odometry in the map's frame, for a message of odometry."""
        self.odom_frame = message.header.frame_id
        self._stamp = max(stamp, self._stamp + 1) if stamp > self._stamp - 10**9 else stamp
        self._send_tf()
        if self.T_map_odom is not None:
            self._odometry.publish(in_map(message, self._config.map_frame, self.T_map_odom))

    def correct(self, T_map_odom: F64 | None, stamp: int) -> None:
        """A new correction, sent at once; `stamp` [ns] of the newest node."""
        self.T_map_odom = T_map_odom
        self._stamp = max(self._stamp + 1, stamp)  # TF takes each stamp once
        self._send_tf()

    def _send_tf(self) -> None:
        if self._tf is not None and self.T_map_odom is not None and self.odom_frame:
            self._tf.publish(tf_message(self._stamp, self._config.map_frame, self.odom_frame, self.T_map_odom))

    def tell_place_node(self, graph: LiveGraph) -> None:
        """The stretch of the current drive that has changed since it was last told."""
        stamps, poses = graph.trajectory()
        if not len(stamps):
            return
        changed = changes(stamps, poses, self._told)
        if len(changed):
            stretch = slice(int(changed[0]), int(changed[-1]) + 1)
            self._corrections.publish(path_bytes(self._config.map_frame, stamps[stretch], poses[stretch]))
            self._told = stamps, poses

    def draw(self, graph: LiveGraph) -> None:
        """The whole trajectory, and the odometry's as it would be without loops, where somebody listens."""
        listened = [p for p in (self._path, self._before) if p.get_subscription_count()]
        if not listened or not len(graph.chain):
            return
        stamps, poses = graph.trajectory()
        if self._path in listened:
            self._path.publish(path_bytes(self._config.map_frame, stamps, poses))
        if self._before in listened and len(stamps):
            odometry = np.stack([graph.chain.nodes[k].T_odom_base for k in graph.chain.drive(graph.drive)])
            before = poses[0] @ inverse(odometry[0]) @ odometry
            self._before.publish(path_bytes(self._config.map_frame, stamps, before))


def changes(stamps: Ints, poses: F64, told: tuple[Ints, F64] | None) -> Ints:
    """Rows of a trajectory (N,) [ns], (N, 4, 4) that are new, or have moved since `told`, which is another drive's or
    the beginning of the same one."""
    same = len(told[0]) if told is not None else 0
    if told is None or same > len(stamps) or not np.array_equal(told[0], stamps[:same]):
        return np.arange(len(stamps))
    off = inverse(told[1]) @ poses[:same]
    angles = np.arccos(np.clip((np.trace(off[:, :3, :3], axis1=1, axis2=2) - 1) / 2, -1.0, 1.0))
    moved = (np.linalg.norm(off[:, :3, 3], axis=1) > MOVED[0]) | (angles > MOVED[1])
    return np.concatenate([np.flatnonzero(moved), np.arange(same, len(stamps))])
