# SPDX-License-Identifier: Apache-2.0
"""Where the vehicle is in the map: `~/pose`, and the back-end's corrections, as the worker sees them."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode

from vlad_ros.loops.described import Described
from vlad_ros.loops.relocalisation import MapPose, Relocaliser
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import decode
from vlad_ros.ros.listener import Listener
from vlad_ros.ros.outputs.messages import pose_message
from vlad_ros.ros.qos import RELIABLE
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Ints


class Localisation:
    """Called by the worker alone, except `values`."""

    def __init__(self, node: LifecycleNode, recognizer: PlaceRecognizer, listener: Listener, map_frame: str) -> None:
        self._node, self._recognizer, self._listener, self._map_frame = node, recognizer, listener, map_frame
        self._publisher = node.create_publisher(PoseWithCovarianceStamped, "~/pose", RELIABLE)
        self.begin_anew()

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

    def begin_anew(self) -> None:
        """The map has been cleared or replaced."""
        self._relocaliser = Relocaliser()
        self._confirmed = -1  # the last keyframe whose place is certain
        self._misplaced: list[range] = []
        self._last: MapPose | None = None

    def observe(self, described: Described) -> MapPose | None:
        """Update the vehicle's place from a keyframe; the pose that it tells, if any."""
        id, database = described.keyframe_id, self._recognizer.database
        # Loops with keyframes that odometry has misplaced give no information about the vehicle's place.
        closures = [loop for loop in described.closures if not any(loop.match_id in ids for ids in self._misplaced)]
        finding = self._relocaliser.observe(id, closures, database)
        if finding.carried:
            self._misplaced.append(range(self._confirmed + 1, id + 1))
            self._recognizer.open_session()
            self._listener.reject("carried_away", finding.news)
        elif finding.news:
            self._listener.inform(finding.news)
        if finding.pose is not None:
            self._confirmed, self._last = id, finding.pose
            self._publisher.publish(pose_message(finding.pose, self._map_frame))
        return finding.pose

    def relocalize(self) -> str:
        """Restart the search for the vehicle's place; ValueError if there is no map to search."""
        database, session = self._recognizer.database, self._recognizer.session
        known = [other for other, T in database.sessions.items() if T is not None and other != session]
        if not known:
            raise ValueError("there is no other session in the map to find the vehicle in: load_map first")
        self._relocaliser.restart()
        self._last = None
        return f"looking for the vehicle in the map's {len(known)} other session{'s' * (len(known) > 1)}"

    def correct(self, stamps: Ints, numbers: F64) -> None:
        """Take over the back-end's optimised poses of this session: stamps (N,) [ns], positions and quaternions
        (N, 7)."""
        session, database = self._recognizer.session, self._recognizer.database
        if session not in database.sessions:
            return
        try:
            if stamps.min() <= 0:
                raise ValueError("a pose of the path has no stamp of its own: fill in poses[i].header.stamp")
            database.correct(session, stamps, decode(numbers[:, :3], numbers[:, 3:]))
        except ValueError as error:
            self._listener.reject("bad_path", str(error))

    def values(self) -> dict[str, str]:
        """Values shown in diagnostics."""
        placed = self._recognizer.database.number_corrected(self._recognizer.session)
        values = {"keyframes that the back-end has placed": str(placed)}
        last = self._last
        if last is not None:
            x, y, z = np.round(last.T_map_base[:3, 3], 2)
            values["last place in the map"] = f"x {x} m, y {y} m, z {z} m at {last.stamp / SECOND:.3f} s"
        return values
