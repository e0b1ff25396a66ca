# SPDX-License-Identifier: Apache-2.0
"""Requests for the vehicle's pose: a localiser's own, and about where somebody thinks it is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Bool

from vlad_ros.config import NodeConfig
from vlad_ros.loops.standing import Hint
from vlad_ros.ros.listener import Listener
from vlad_ros.ros.outputs.initial_pose import InitialPose
from vlad_ros.ros.qos import heard

SIGMAS = 3.0  # of a hint's own covariance that are searched at least


class Requests:
    """Created at configure, destroyed at cleanup; what arrives while the node is inactive is lost."""

    def __init__(
        self,
        node: LifecycleNode,
        config: NodeConfig,
        initial_pose: InitialPose,
        listener: Listener,
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        self._node, self._config, self._initial_pose = node, config, initial_pose
        self._listener, self._later = listener, later
        self._made = [node.create_subscription(PoseWithCovarianceStamped, "~/hint", self._on_hint, heard(1))]
        if config.relocalize_topic:
            self._made.append(node.create_subscription(Bool, config.relocalize_topic, self._on_request, heard(10)))

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._made:
            self._node.destroy_subscription(subscription)

    def _on_request(self, message: Bool) -> None:
        self._later(lambda: self._initial_pose.request(bool(message.data)))

    def _on_hint(self, message: PoseWithCovarianceStamped) -> None:
        try:
            hint = self._hint(message)
        except ValueError as error:
            self._listener.reject("bad_hint", str(error))
            return
        self._later(lambda: self._initial_pose.restart(hint))

    def _hint(self, message: PoseWithCovarianceStamped) -> Hint:
        frame, position = message.header.frame_id.lstrip("/"), message.pose.pose.position
        if frame not in ("", self._config.map_frame):
            raise ValueError(f"it is in {frame}, the map's frame is {self._config.map_frame}")
        variance = float(np.max(message.pose.covariance.reshape(6, 6).diagonal()[:2]))
        radius = max(self._config.hint_radius, SIGMAS * max(variance, 0.0) ** 0.5)
        return Hint(float(position.x), float(position.y), radius)
