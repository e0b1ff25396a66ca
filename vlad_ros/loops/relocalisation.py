# SPDX-License-Identifier: Apache-2.0
"""The vehicle's pose in the map, reported once consecutive keyframes agree, and detection of being carried away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from vlad_ros.loops.acceptance import AGREE_ANGLE, AGREE_METRES, DRIFT, DRIFT_FLOOR, MAX_SPEED
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import inverse, rotation_angle, skew, yaw
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, LoopClosure

IN_A_ROW = 3  # keyframes that must agree to report a pose, or disagree to conclude that the vehicle was carried away
MAX_GAP = 5.0  # s between two keyframes of a row without odometry
MAX_GAP_METRES = 100.0  # between two of a row with odometry
MAX_TURN = math.radians(120.0)  # rad/s
MAX_ACCELERATION = 10.0  # m/s^2
ANGLE_DRIFT = math.radians(0.5)  # of odometry, three standard deviations after one metre; grows with the square root
CARRIED = 3.0  # standard deviations of the odometry's drift from which on a loop contradicts it


@dataclass(frozen=True, eq=False)
class MapPose:
    """Where a keyframe's body is. `covariance` (6, 6) is that of a PoseWithCovariance in the map's frame: the errors of
    x y z [m] along the map's axes, then of the rotation about axes parallel to them through the body's origin [rad].
    It is the loop edge's; errors of the map itself are not in it."""

    id: int
    stamp: int
    T_map_base: F64
    covariance: F64


@dataclass(frozen=True, eq=False)
class Finding:
    """The result of a keyframe: a pose or none, whether the vehicle was `carried` away, and a message for the log."""

    pose: MapPose | None = None
    carried: bool = False
    news: str = ""


class _Sighting(NamedTuple):
    """One accepted loop with a keyframe whose pose in the map is known."""

    closure: LoopClosure
    pose: MapPose
    T_odom_base: F64 | None
    travel: float
    match_session: int
    match_travel: float


class Relocaliser:
    """Tracks one vehicle in one map (create one for each); feed it each described keyframe in order, with its
    loop closures.

    Without odometry a pose is reported from the third keyframe on whose loops imply a possible vehicle motion, with
    odometry from the third on that agree through it; then the session's `T_map_odom` is written into the database.
    With odometry it also notices three keyframes in a row whose loops contradict it: the vehicle was carried away.
    Its keyframes from then on belong in a new session, which the caller must open.
    """

    def __init__(self) -> None:
        self._session: int | None = None
        self._lost = False  # by decree, whatever the database says of the session
        self._row: list[_Sighting] = []  # the last sightings that agree
        self._trusted: _Sighting | None = None  # the last one that odometry has confirmed
        self._contradictions = 0

    def restart(self) -> None:
        """Discard the vehicle's pose: keyframes must agree again, and loops with keyframes of its own session, whose
        pose is in doubt, no longer count."""
        self._lost, self._row, self._trusted, self._contradictions = True, [], None, 0

    def observe(self, id: int, closures: Sequence[LoopClosure], database: KeyframeDatabase) -> Finding:
        """What the keyframe `id` of `database`, with its closures, most probable first, says about the vehicle's pose.

        Closures that are not accepted do not count.
        """
        session = database.keyframe(id).session
        if session != self._session:
            self.restart()
            self._session, self._lost = session, False
        sightings = self._sightings(closures, database)
        if not sightings:
            return Finding()
        self._row = self._sightings([earlier.closure for earlier in self._row], database)  # the map may have moved
        agreeing = [sighting for sighting in sightings if self._row and _continues(self._row, sighting)]
        chosen = (agreeing or sightings)[0]
        self._row = [*self._row[1 - IN_A_ROW :], chosen] if agreeing else [chosen]
        if self._is_placed(database) and chosen.T_odom_base is not None:
            return self._follow(chosen, sightings, database)
        return self._find(chosen, database)

    def _is_placed(self, database: KeyframeDatabase) -> bool:
        return self._session is not None and database.sessions[self._session] is not None and not self._lost

    def _find(self, chosen: _Sighting, database: KeyframeDatabase) -> Finding:
        """Handle a vehicle with unknown pose or without odometry."""
        if len(self._row) < IN_A_ROW:
            return Finding()
        news = ""
        T_map_odom = _T_map_odom(self._row)
        if T_map_odom is not None and self._session is not None:
            database.set_T_map_odom(self._session, T_map_odom)
            self._lost, self._trusted = False, chosen
            x, y = chosen.pose.T_map_base[:2, 3]
            heading = math.degrees(yaw(chosen.pose.T_map_base))
            news = f"session {self._session} has found itself in the map at x {x:.1f} m, y {y:.1f} m, {heading:.0f} deg"
        return Finding(chosen.pose, news=news)

    def _follow(self, chosen: _Sighting, sightings: list[_Sighting], database: KeyframeDatabase) -> Finding:
        """Handle a vehicle with odometry and a known pose, unless its loops contradict it."""
        confirmed = [sighting for sighting in sightings if not self._contradicts(sighting, database)]
        if confirmed:
            self._contradictions, self._trusted = 0, (chosen if chosen in confirmed else confirmed[0])
            return Finding(chosen.pose if chosen in confirmed and len(self._row) == IN_A_ROW else None)
        self._contradictions += 1
        if self._contradictions < IN_A_ROW:
            return Finding()
        self.restart()
        x, y = chosen.pose.T_map_base[:2, 3]
        return Finding(
            carried=True,
            news=f"the vehicle was carried away, or its odometry has jumped: {IN_A_ROW} loops in a row contradict it, "
            f"the last one puts the vehicle at x {x:.1f} m, y {y:.1f} m of the map",
        )

    def _sightings(self, closures: Sequence[LoopClosure], database: KeyframeDatabase) -> list[_Sighting]:
        """The closures that count, with the map's current poses."""
        sightings = []
        for closure in closures:
            doubtful = self._lost and closure.match_session == closure.query_session
            T_map_match = None if doubtful else database.T_map_base(closure.match_id)
            if not closure.accepted or T_map_match is None:
                continue
            if closure.T_match_query is None or closure.covariance is None:
                continue
            covariance = pose_covariance(closure.covariance, T_map_match, closure.T_match_query)
            pose = MapPose(closure.query_id, closure.query_stamp, T_map_match @ closure.T_match_query, covariance)
            query, match = database.keyframe(closure.query_id), database.keyframe(closure.match_id)
            travels = query.travel or 0.0, match.travel or 0.0
            sightings.append(_Sighting(closure, pose, query.T_odom_base, travels[0], match.session, travels[1]))
        return sightings

    def _contradicts(self, sighting: _Sighting, database: KeyframeDatabase) -> bool:
        """Whether the loop contradicts odometry, given its drift since it was last confirmed."""
        T_odom_base = sighting.T_odom_base
        if T_odom_base is None or self._session is None:
            return False
        trusted = next(iter(self._sightings([self._trusted.closure], database)), None) if self._trusted else None
        if trusted is None or trusted.T_odom_base is None:
            T_map_odom = database.sessions[self._session]
            drifted = sighting.travel + sighting.match_travel
        else:
            T_map_odom = trusted.pose.T_map_base @ inverse(trusted.T_odom_base)
            drifted = abs(sighting.travel - trusted.travel) + _map_travel(trusted, sighting)
        if T_map_odom is None:
            return False
        error = inverse(T_map_odom @ T_odom_base) @ sighting.pose.T_map_base
        far = np.linalg.norm(error[:3, 3]) > CARRIED * (DRIFT_FLOOR + DRIFT * drifted)
        return bool(far or rotation_angle(error) > AGREE_ANGLE + ANGLE_DRIFT * math.sqrt(drifted))


def pose_covariance(covariance: F64, T_map_match: F64, T_match_query: F64) -> F64:
    """An edge's covariance (``T_true = exp(d) T``, axes of the match) as that of the pose T_map_query (see `MapPose`).

    The rotation of d moves the body about the match's origin, so that p = T_match_query's translation is its lever.
    """
    J = np.eye(6)
    J[:3, 3:] = -skew(T_match_query[:3, 3])
    J[:3] = T_map_match[:3, :3] @ J[:3]
    J[3:] = T_map_match[:3, :3] @ J[3:]
    return np.asarray(J @ covariance @ J.T, np.float64)


def _map_travel(before: _Sighting, after: _Sighting) -> float:
    """The travel [m] between two matches, over which the map itself may have drifted."""
    if before.match_session == after.match_session:
        return abs(before.match_travel - after.match_travel)
    return before.match_travel + after.match_travel


def _continues(row: list[_Sighting], after: _Sighting) -> bool:
    """Whether a sighting agrees with the row of sightings before it."""
    before = row[-1]
    moved = inverse(before.pose.T_map_base) @ after.pose.T_map_base
    if before.T_odom_base is not None and after.T_odom_base is not None:
        expected = inverse(before.T_odom_base) @ after.T_odom_base
        travelled = abs(after.travel - before.travel)
        error = inverse(expected) @ moved
        near = np.linalg.norm(error[:3, 3]) <= AGREE_METRES + DRIFT * travelled
        turned = rotation_angle(error) <= AGREE_ANGLE + ANGLE_DRIFT * math.sqrt(travelled)
        return bool(near and turned and travelled <= MAX_GAP_METRES)
    seconds = (after.pose.stamp - before.pose.stamp) / SECOND
    if seconds > MAX_GAP:
        return False
    near = np.linalg.norm(moved[:3, 3]) <= AGREE_METRES + MAX_SPEED * seconds
    turned = rotation_angle(moved) <= AGREE_ANGLE + MAX_TURN * seconds
    return bool(near and turned and _accelerates_plausibly(row, after, seconds))


def _accelerates_plausibly(row: list[_Sighting], after: _Sighting, seconds: float) -> bool:
    """Whether the velocity change over the last three sightings is possible for a vehicle, with some tolerance."""
    if len(row) < 2:
        return True
    earlier, before = row[-2].pose, row[-1].pose
    seconds_before = (before.stamp - earlier.stamp) / SECOND
    change = (after.pose.T_map_base - before.T_map_base)[:3, 3] / seconds
    change = change - (before.T_map_base - earlier.T_map_base)[:3, 3] / seconds_before
    noise = AGREE_METRES * (1 / seconds + 1 / seconds_before)
    return bool(np.linalg.norm(change) <= noise + MAX_ACCELERATION * (seconds + seconds_before) / 2)


def _T_map_odom(row: list[_Sighting]) -> F64 | None:
    """The mean pose of a row's sightings, propagated by odometry to the last one; None without odometry."""
    last = row[-1].T_odom_base
    carried = [
        sighting.pose.T_map_base @ inverse(sighting.T_odom_base) @ last
        for sighting in row
        if sighting.T_odom_base is not None and last is not None
    ]
    if last is None or len(carried) < len(row):
        return None
    T_map_base = np.eye(4)
    T_map_base[:3, :3] = Rotation.from_matrix(np.stack(carried)[:, :3, :3]).mean().as_matrix()
    T_map_base[:3, 3] = np.mean([T[:3, 3] for T in carried], axis=0)
    return T_map_base @ inverse(last)
