# SPDX-License-Identifier: Apache-2.0
"""The node's publishers: each keyframe's results, published once on each topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header

from vlad_ros.config import NodeConfig
from vlad_ros.drive.scan import Place
from vlad_ros.loops.described import Described
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.ros.listener import Listener
from vlad_ros.ros.outputs import messages
from vlad_ros.ros.outputs.adapters import Adapters, BodyFrame
from vlad_ros.ros.outputs.initial_pose import InitialPose, View
from vlad_ros.ros.outputs.localisation import Localisation
from vlad_ros.ros.outputs.markers import MarkerTopic
from vlad_ros.ros.outputs.trajectory_messages import GUEST, path_bytes
from vlad_ros.ros.qos import GUESTS, PICTURES, RELIABLE
from vlad_ros.ros.statistics import Statistics
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64, Ints


class Publishers:
    """Created at configure, closed at cleanup; everything except `draw` is called only by the worker."""

    def __init__(
        self,
        node: LifecycleNode,
        recognizer: PlaceRecognizer,
        body: BodyFrame,
        config: NodeConfig,
        listener: Listener,
        statistics: Statistics,
    ) -> None:
        self._node = node
        self._recognizer = recognizer
        self._statistics = statistics
        self._bev_config = recognizer.describer.bev
        self._body = body
        self.odom_frame = ""
        self.on_published: Callable[[Described], None] = lambda item: None
        self._descriptor = node.create_publisher(PointCloud2, "~/descriptor", RELIABLE)
        self._closures = node.create_publisher(PointCloud2, "~/loop_closures", RELIABLE)
        self._keyframes = node.create_publisher(PoseStamped, "~/keyframes", RELIABLE)
        self._guests = node.create_publisher(Path, "~/guests", GUESTS)
        recognizer.on_selected = self.select
        self._bev = node.create_publisher(Image, "~/bev", PICTURES)
        self._preview = node.create_publisher(Image, "~/bev_preview", PICTURES)
        self._markers = MarkerTopic(node)
        self.localisation = Localisation(node, recognizer, listener, config.map_frame)
        self.initial_pose = InitialPose(node, recognizer, config, listener)
        self._adapters = Adapters(node, config, body, self._pose_of, lambda reason: listener.reject(reason, ""))

    def close(self) -> None:
        """Destroy the publishers."""
        made = (self._descriptor, self._closures, self._keyframes, self._guests, self._bev, self._preview)
        for publisher in made:
            self._node.destroy_publisher(publisher)
        self._markers.close()
        self.localisation.close()
        self.initial_pose.close()
        self._adapters.close()

    def move(self, stamp: int, T_odom_base: F64 | None) -> None:
        """The body's pose at a scan."""
        self._adapters.move(stamp, T_odom_base)

    def announce(self, stamp: int) -> None:
        """Handle a back-end node at this stamp."""
        self._adapters.announce([stamp])

    def follow(self, stamps: Ints, numbers: F64) -> None:
        """The back-end's nodes (N,) [ns], at their optimised poses: positions and quaternions (N, 7)."""
        self._adapters.announce(stamps.tolist())
        self.localisation.correct(stamps, numbers)

    def select(self, at: Place) -> None:
        """A scan that has become a keyframe, told at once: where a back-end makes its nodes there, their edges find
        them. Only with odometry."""
        if at.T_odom_base is not None:
            header = Header(stamp=messages.to_time(at.stamp), frame_id=self.odom_frame)
            self._keyframes.publish(PoseStamped(header=header, pose=messages.to_pose(at.T_odom_base)))

    def tell_guests(self, session: int, stamps: Ints, poses: F64) -> None:
        """Odometry of another robot: poses (N, 4, 4) at `stamps` (N,) [ns] of the keyframes that have come into the map
        as this `session`, in a frame named after it."""
        self._guests.publish(path_bytes(f"{GUEST}{session}", stamps, poses))

    def publish(self, described: list[Described]) -> None:
        """Descriptor, closures, raster, marker and place of each keyframe."""
        for item in described:
            self._publish(item)
            self.on_published(item)
        self.draw()

    @stage("publish")
    def _publish(self, item: Described) -> None:
        header = Header(stamp=messages.to_time(item.keyframe.stamp), frame_id=self._body())
        self._descriptor.publish(messages.descriptor_message(header, item.keyframe.descriptor))
        self._closures.publish(messages.closures_message(header, item.closures, self._pose_of))
        self._publish_raster(header, item.bev.raster)
        self._markers.board.add(item.keyframe.session, item.keyframe_id, item.keyframe.T_odom_base, item.closures)
        self._statistics.judged(item)
        self._adapters.publish(item)
        self.initial_pose.observe(item, self.localisation.observe(item))

    def look(self, view: View) -> None:
        """The newest scan, after its keyframes."""
        self.initial_pose.look(view)

    def relocalize(self) -> str:
        """Search the vehicle's place again; ValueError if there is no map to search."""
        sentence = self.localisation.relocalize()
        self.initial_pose.restart()
        return sentence

    def draw(self, now: bool = False) -> None:
        """Publish changed markers, if there are subscribers; rate-limited unless `now`."""
        self._markers.draw(self.odom_frame or self._body(), now)

    def say(self, text: str, trouble: bool) -> None:
        """The node's state as text, shown among the markers."""
        self._markers.board.say(text, trouble)

    def wipe(self) -> None:
        """The map has been cleared or replaced."""
        self.localisation.begin_anew()
        self.initial_pose.restart()
        self._markers.board.clear()
        self.draw(now=True)

    def _pose_of(self, keyframe_id: int) -> F64 | None:
        return self._recognizer.database.keyframe(keyframe_id).T_odom_base

    def _publish_raster(self, header: Header, raster: Any) -> None:
        """Fetch the raster from the GPU only when there are subscribers."""
        wanted = [p.get_subscription_count() > 0 for p in (self._bev, self._preview)]
        if not any(wanted):
            return
        cells: F32 = np.asarray(raster if isinstance(raster, np.ndarray) else raster.cpu().numpy(), np.float32)
        if wanted[0]:
            self._bev.publish(messages.bev_message(header, cells, self._bev_config))
        if wanted[1]:
            self._preview.publish(messages.preview_message(header, cells, self._bev_config))
