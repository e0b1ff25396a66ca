# SPDX-License-Identifier: Apache-2.0
"""Loop edges between a back-end's own nodes, where those are not our keyframes.

A loop between the keyframes q and m becomes one between the nodes q' and m' nearest to them in time:
`T_m'q' = T_m'_m T_match_query T_q_q'`, where odometry gives the two short transforms at the ends.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vlad_ros.covariance_conventions import adjoint, symmetric
from vlad_ros.drive.jumps import Continuity
from vlad_ros.drive.odometry import GAP, OdometryBuffer
from vlad_ros.drive.stamp_gate import LATE
from vlad_ros.poses import inverse, rotation_angle
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, LoopClosure

REACH = SECOND // 2  # to the nearest node
WAITING = 1000  # edges whose nodes are not known yet; beyond that the oldest is dropped

# A standard deviation of odometry over less than a second: a floor, and a fraction of the distance.
TRANSLATION_FLOOR, TRANSLATION_SHARE = 0.02, 0.02  # m, m per m
ROTATION_FLOOR, ROTATION_SHARE = math.radians(0.2), 0.02  # rad, rad per rad

Withhold = Callable[[str], None]


class Pose(NamedTuple):
    """The body's odometry pose at `stamp` [ns]; unknown where `T_odom_base` is None. Poses of different `part`s
    have a gap or a jump of odometry between them."""

    stamp: int
    T_odom_base: F64 | None
    part: int


class _WaitingEdge(NamedTuple):
    closure: LoopClosure
    query: Pose
    match: Pose


def drift_covariance(T: F64) -> F64:
    """(6, 6) of odometry's own error over the short way `T`, in the order x y z, roll pitch yaw."""
    translation = TRANSLATION_FLOOR + TRANSLATION_SHARE * float(np.linalg.norm(T[:3, 3]))
    rotation = ROTATION_FLOOR + ROTATION_SHARE * rotation_angle(T)
    return np.diag([translation**2] * 3 + [rotation**2] * 3)


def compose(T_m2_m: F64, T_match_query: F64, T_q_q2: F64, covariances: tuple[F64, F64, F64]) -> tuple[F64, F64]:
    """`T_m'q'` of m' = m2 and q' = q2, and its covariance (6, 6), from those of the three transforms, in their order.

    Each is of a perturbation on its transform's left: `exp(a) A exp(t) T exp(b) B` has all of them on the left of the
    whole as `a + Ad_A t + Ad_AT b`, to first order.
    """
    ends = T_m2_m @ T_match_query
    J = (np.eye(6), adjoint(T_m2_m), adjoint(ends))
    total = sum((j @ c @ j.T for j, c in zip(J, covariances, strict=True)), np.zeros((6, 6)))
    return ends @ T_q_q2, symmetric(total)


class NodeEdges:
    """Turns loop closures into edges between the back-end's nodes; all stamps are integer nanoseconds.

    Fed in the order of the stamps with `move` (the odometry of every scan), `announce` (the nodes) and `add` (the
    closures); `take` gives the edges whose nodes are known by now. An edge waits until a node later than both of its
    keyframes is known. `withhold` is called with the reason for a withheld edge: "node_far", "node_without_odometry" or
    "node_other_session"; a second edge between the same two nodes is skipped.
    """

    def __init__(self, withhold: Withhold) -> None:
        self._withhold = withhold
        self._given: set[tuple[int, int]] = set()
        self._edges: deque[_WaitingEdge] = deque()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Discard all poses, nodes and edges: the stamps went back."""
        self._odometry = OdometryBuffer()
        self._last: int | None = None  # stamp of the last pose
        self._continuity = Continuity()
        self._breaks: list[int] = []
        self._known: set[int] = set()  # all that was announced: to `_announced` until odometry comes there
        self._announced: list[int] = []
        self._nodes: list[Pose] = []
        self._given.clear()
        self.give_up()

    def move(self, stamp: int, T_odom_base: F64 | None) -> None:
        """Add the body's odometry pose at a scan; None without odometry."""
        if self._last is not None and stamp < self._last - LATE:
            self._begin_anew()
        if T_odom_base is None:
            self._continuity.clear()
            return
        after_gap = self._last is not None and stamp - self._last > GAP
        if self._continuity.breaks_at(stamp, T_odom_base) or after_gap:
            self._settle()
            self._odometry.clear()
            self._breaks.append(stamp)
        self._odometry.add(stamp, T_odom_base)
        self._last = stamp
        self._settle()

    def announce(self, *stamps: int) -> None:
        """Add the back-end's nodes at these stamps; known ones are ignored."""
        news = set(stamps).difference(self._known)
        if news:
            self._known |= news
            self._announced = sorted([*self._announced, *news])
            self._settle()

    def _settle(self) -> None:
        """Find the poses of the nodes that odometry has reached."""
        newest = self._odometry.newest
        if newest is None:
            return
        come = bisect.bisect_right(self._announced, newest)
        for stamp in self._announced[:come]:
            bisect.insort(self._nodes, self._at(stamp, self._odometry.at(stamp)), key=lambda node: node.stamp)
        del self._announced[:come]

    def _at(self, stamp: int, T_odom_base: F64 | None) -> Pose:
        return Pose(stamp, T_odom_base, bisect.bisect_right(self._breaks, stamp))

    def add(self, closure: LoopClosure, T_odom_query: F64 | None, T_odom_match: F64 | None) -> None:
        """Add a loop closure with its keyframes' odometry; only accepted and verified ones become edges."""
        if not closure.accepted or closure.T_match_query is None or closure.covariance is None:
            return
        if closure.query_session != closure.match_session:
            self._withhold("node_other_session")
            return
        query, match = self._at(closure.query_stamp, T_odom_query), self._at(closure.match_stamp, T_odom_match)
        self._edges.append(_WaitingEdge(closure, query, match))
        if len(self._edges) > WAITING:
            self._edges.popleft()
            self._withhold("node_far")

    def take(self) -> list[LoopClosure]:
        """The edges whose nodes are known by now: the closures with the nodes' stamps, transform and covariance."""
        newest = self._nodes[-1].stamp if self._nodes else None
        found = []
        for _ in range(len(self._edges)):
            edge = self._edges.popleft()
            if newest is None or newest < max(edge.query.stamp, edge.match.stamp):
                self._edges.append(edge)
                continue
            between_nodes = self._between_nodes(edge)
            if between_nodes is not None:
                found.append(between_nodes)
        return found

    def give_up(self) -> None:
        """Drop the waiting edges: no more nodes will come for them."""
        while self._edges:
            self._edges.popleft()
            self._withhold("node_far")

    def _between_nodes(self, edge: _WaitingEdge) -> LoopClosure | None:
        query, match = self._nearest(edge.query.stamp), self._nearest(edge.match.stamp)
        if query is None or match is None:
            self._withhold("node_far")
            return None
        T_q_q2, T_m2_m = _way(edge.query, query), _way(match, edge.match)
        if T_q_q2 is None or T_m2_m is None:
            self._withhold("node_without_odometry")
            return None
        if (query.stamp, match.stamp) in self._given:
            return None
        self._given.add((query.stamp, match.stamp))
        closure = edge.closure
        assert closure.T_match_query is not None and closure.covariance is not None  # by `add`
        covariances = (
            _covariance(match, edge.match, T_m2_m),
            closure.covariance,
            _covariance(edge.query, query, T_q_q2),
        )
        T, covariance = compose(T_m2_m, closure.T_match_query, T_q_q2, covariances)
        return dataclasses.replace(
            closure, query_stamp=query.stamp, match_stamp=match.stamp, T_match_query=T, covariance=covariance
        )

    def _nearest(self, stamp: int) -> Pose | None:
        """The node nearest in time, None where that is more than 0.5 s away."""
        at = bisect.bisect_left(self._nodes, stamp, key=lambda node: node.stamp)
        near = self._nodes[max(at - 1, 0) : at + 1]
        best = min(near, key=lambda node: abs(node.stamp - stamp), default=None)
        return best if best is not None and abs(best.stamp - stamp) <= REACH else None


def _way(target: Pose, source: Pose) -> F64 | None:
    """T_target_source by odometry; None if odometry does not connect the two."""
    if target.stamp == source.stamp:
        return np.eye(4)
    if target.T_odom_base is None or source.T_odom_base is None or target.part != source.part:
        return None
    return inverse(target.T_odom_base) @ source.T_odom_base


def _covariance(target: Pose, source: Pose, T: F64) -> F64:
    """Nothing is added where a node is a keyframe."""
    return np.zeros((6, 6)) if target.stamp == source.stamp else drift_covariance(T)
