# SPDX-License-Identifier: Apache-2.0
"""A pose for a localiser: told once where it asks for it on a topic, and in the answer to `~/query`."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import Any, NamedTuple

import numpy as np
from geometry_msgs.msg import PoseArray, PoseWithCovarianceStamped
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import Header

from vlad_ros.config import NodeConfig
from vlad_ros.drive.jumps import Continuity
from vlad_ros.graph.node_edges import drift_covariance
from vlad_ros.loops.described import Described
from vlad_ros.loops.relocalisation import MapPose
from vlad_ros.loops.standing import Guess, Hint, StandingSearch, believed, is_searchable, same_place
from vlad_ros.loops.verification import Verifier
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import inverse, skew, yaw
from vlad_ros.ros.listener import Listener
from vlad_ros.ros.outputs.messages import pose_message, to_pose, to_time
from vlad_ros.ros.qos import LATCHED, RELIABLE
from vlad_ros.stamps import SECOND, from_time
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64, Keyframe

PERIOD = SECOND  # ns between two scans that are searched
PATIENCE = 5 * SECOND  # ns for a localiser to settle; a request that does not end until then asks again
FAR = 20.0  # m that the newest local map's place is carried on by odometry


class View(NamedTuple):
    """The newest scan: points (N, 4) in the body frame, the raster given with it or None, stamp [ns], odometry."""

    points: F32
    raster: F32 | None
    stamp: int
    T_odom_base: F64 | None


class InitialPose:
    """Called by the worker alone, except `values`. It searches until a place is found, is then silent, and begins
    again when asked to or with a new session: the map was replaced, or the vehicle carried away."""

    def __init__(
        self, node: LifecycleNode, recognizer: PlaceRecognizer, config: NodeConfig, listener: Listener
    ) -> None:
        self._node, self._recognizer, self._listener = node, recognizer, listener
        self._config = config
        self._search = StandingSearch(recognizer.calibration, recognizer.config)
        self._verifier = Verifier()
        topic = config.initial_pose_topic
        self._publisher = node.create_publisher(PoseWithCovarianceStamped, topic, RELIABLE) if topic else None
        self._candidates = node.create_publisher(PoseArray, "~/candidates", LATCHED)
        self._continuity = Continuity()
        self._since = 0  # stamp [ns] since when odometry has not jumped
        self._newest: View | None = None
        self._requested = False
        self._told: MapPose | None = None
        self.restart()

    def close(self) -> None:
        """Destroy the publishers."""
        self._node.destroy_publisher(self._candidates)
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)

    def restart(self, hint: Hint | None = None) -> None:
        """Search again, with a `hint` only around it."""
        self._seeking, self._hint = True, hint
        self._searched: int | None = None  # stamp [ns] of the last scan that was
        self._scans = 0  # that were
        self._session = self._recognizer.session
        self._local: Keyframe | None = None  # the newest keyframe with a local map

    def request(self, wanted: bool) -> None:
        """A localiser's own request, which may be repeated while it holds: it begins a search where it is new, or holds
        still PATIENCE after the last finding."""
        stamp = self._newest.stamp if self._newest is not None else 0
        late = self._told is None or abs(stamp - self._told.stamp) >= PATIENCE
        if wanted and not self._seeking and (late or not self._requested):
            self.restart(self._hint)
        self._requested = wanted

    def look(self, view: View) -> None:
        """The newest scan, after its keyframes were answered."""
        if self._recognizer.session != self._session:
            self.restart()
        self._newest = view
        if view.T_odom_base is None:
            self._continuity.clear()
            self._since = view.stamp
        elif self._continuity.breaks_at(view.stamp, view.T_odom_base):
            self._since = view.stamp
        due = self._searched is None or not 0 <= view.stamp - self._searched < PERIOD
        if due and self._is_wanted():
            self._searched, self._scans = view.stamp, self._scans + 1
            found = believed(self._guesses(self._scan(view)))
            if found is not None:
                self._tell(found.pose)

    def observe(self, described: Described, pose: MapPose | None) -> None:
        """A keyframe has been answered, and perhaps a `pose` found that several agree on. They overlap, and could share
        an error: it is told where the keyframe alone, held against what contradicts it, says the same."""
        keyframe = described.keyframe
        if keyframe.session != self._recognizer.session:  # the end of a drive before the clock was set back
            return
        if keyframe.is_local_map:
            self._local = keyframe
        if pose is not None and self._is_wanted():
            found = believed(self._guesses(keyframe))
            if found is not None and same_place(found.pose.T_map_base, pose.T_map_base):
                self._tell_now(found.pose, keyframe)

    def query(self) -> str:
        """The answer to a question for the pose, from the newest scan and local map; ValueError where there is none.
        Both are JSON."""
        begun, asked = time.monotonic(), self._now()
        view, database = self._newest, self._recognizer.database
        if view is None:
            raise ValueError(json.dumps({"error": "no_scan_received"}))
        if not is_searchable(database, self._recognizer.session):
            raise ValueError(json.dumps({"error": "no_other_session_in_the_map"}))
        scan = self._scan(view)
        guesses = self._guesses(scan)
        if believed(guesses) is None:
            by_map = self._guesses_of_local_map(scan)
            guesses = by_map if believed(by_map) is not None else guesses
        self._publish_candidates(view.stamp, guesses)
        told = [_summary(guess) for guess in guesses]
        runtime = time.monotonic() - begun
        answer: dict[str, Any] = {
            "candidate_count": len(told),
            "scan_point_count": len(view.points),
            "runtime_sec": round(runtime, 3),
            "scan_stamp_sec": view.stamp / SECOND,
            "scan_age_sec": round((asked - view.stamp) / SECOND, 3),
            "candidate_age_sec": round((asked - view.stamp) / SECOND + runtime, 3),
            "candidates": told,
        }
        if told:
            answer["top"] = told[0]
        if believed(guesses) is None:
            raise ValueError(json.dumps({"error": "no_place_is_probable_enough", **answer}))
        self._hint = None  # it was for this finding
        return json.dumps(answer)

    def values(self) -> dict[str, str]:
        """Values shown in diagnostics."""
        if self._publisher is None:
            return {}
        told, searched = self._told, f"searching, scans without a place: {self._scans}"
        if not self._seeking and told is not None:
            x, y = np.round(told.T_map_base[:2, 3], 2)
            searched = f"x {x} m, y {y} m at {told.stamp / SECOND:.3f} s; scans searched: {self._scans}"
        return {"initial pose": searched}

    @stage("stand")
    def _scan(self, view: View) -> Keyframe:
        """The newest scan as a keyframe of its own, which is added to no map."""
        seen = self._recognizer.describer.see(view.points, view.raster)
        return Keyframe(
            session=self._recognizer.session,
            stamp=view.stamp,
            descriptor=seen.descriptor,
            scan_descriptor=seen.descriptor,
            T_odom_base=view.T_odom_base,
            geometry=seen.geometry(),
        )

    def _guesses(self, query: Keyframe) -> list[Guess]:
        return self._search.guesses(query, self._recognizer.database, self._hint)

    def _guesses_of_local_map(self, scan: Keyframe) -> list[Guess]:
        """By the newest keyframe with a local map, carried on to the newest scan; none where nothing leads there."""
        way = None if self._local is None else self._way(self._local, scan)
        if self._local is None or way is None:
            return []
        found = self._guesses(self._local)
        return [dataclasses.replace(one, pose=carry(one.pose, way, scan.stamp)) for one in found]

    def _way(self, keyframe: Keyframe, scan: Keyframe) -> F64 | None:
        """T_keyframe_scan by odometry; None where it jumps, leads far, or the scan does not fit there into the
        keyframe's own surroundings: a vehicle that is carried does not turn its wheels."""
        if keyframe.T_odom_base is None or scan.T_odom_base is None or keyframe.stamp < self._since:
            return None
        way = inverse(keyframe.T_odom_base) @ scan.T_odom_base
        if np.linalg.norm(way[:3, 3]) > FAR or keyframe.geometry is None or scan.geometry is None:
            return None
        seen = self._verifier.verify(scan.geometry, keyframe.geometry).T_match_query
        return way if seen is not None and same_place(seen, way) else None

    def _tell_now(self, pose: MapPose, keyframe: Keyframe) -> None:
        """Tell a keyframe's pose, carried on to the newest scan where that is later."""
        view = self._newest
        if view is None or view.stamp <= keyframe.stamp:
            self._tell(pose)
        elif (way := self._way(keyframe, self._scan(view))) is not None:
            self._tell(carry(pose, way, view.stamp))

    def _is_wanted(self) -> bool:
        """Whether a finding is to be told: not before somebody listens, for it is told once."""
        listened = self._publisher is not None and self._publisher.get_subscription_count() > 0
        return self._seeking and listened and is_searchable(self._recognizer.database, self._session)

    def _tell(self, pose: MapPose) -> None:
        self._seeking, self._hint, self._told = False, None, pose
        if self._publisher is not None:
            self._publisher.publish(pose_message(pose, self._config.map_frame))
            x, y = pose.T_map_base[:2, 3]
            self._listener.inform(
                f"initial pose on {self._publisher.topic_name}: x {x:.1f} m, y {y:.1f} m, "
                f"{math.degrees(yaw(pose.T_map_base)):.0f} deg in {self._config.map_frame}"
            )

    def _publish_candidates(self, stamp: int, guesses: list[Guess]) -> None:
        header = Header(stamp=to_time(stamp), frame_id=self._config.map_frame)
        self._candidates.publish(PoseArray(header=header, poses=[to_pose(one.pose.T_map_base) for one in guesses]))

    def _now(self) -> int:
        return from_time(self._node.get_clock().now().to_msg())


def carry(pose: MapPose, T_then_now: F64, stamp: int) -> MapPose:
    """The pose at `stamp` [ns] of a body that has moved by `T_then_now` (4, 4) since, by odometry."""
    T = pose.T_map_base @ T_then_now
    J = np.eye(6)
    J[:3, 3:] = -skew(T[:3, 3] - pose.T_map_base[:3, 3])
    return MapPose(pose.id, stamp, T, J @ pose.covariance @ J.T + drift_covariance(T_then_now))


def _summary(guess: Guess) -> dict[str, float]:
    x, y, heading = *guess.pose.T_map_base[:2, 3], math.degrees(yaw(guess.pose.T_map_base))
    return {
        "x": round(float(x), 3),
        "y": round(float(y), 3),
        "yaw_deg": round(heading, 2),
        "score": round(guess.probability, 4),
    }
