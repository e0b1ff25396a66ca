# SPDX-License-Identifier: Apache-2.0
"""Where nodes are made: at the keyframes that the place node tells, and in between where odometry goes on for long."""

from __future__ import annotations

import bisect
from collections import deque
from typing import NamedTuple

import numpy as np

from vlad_ros.drive.jumps import Continuity
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import check_rigid, interpolate, inverse, rotation_angle
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64

GRACE = 2 * SECOND  # a keyframe is told at most this long after its stamp; before that odometry makes no node
SILENT = SECOND  # odometry this far behind a keyframe is not waited for
RECENT = 5000  # odometry messages kept
SAME_METRES, SAME_RADIANS = 0.1, np.radians(2.0)  # between a keyframe's pose and odometry's, of one body


class NodeAt(NamedTuple):
    """A node to be made: stamp [ns], pose, and how often odometry has jumped before it."""

    stamp: int
    T_odom_base: F64
    part: int


class NodeFeed:
    """Give it odometry (`move`) and keyframes as they arrive; both return the nodes that are due, in order of their
    stamps. A keyframe waits until odometry has come as far, so that a jump before it is known."""

    def __init__(self, config: PoseGraphConfig) -> None:
        self._distance = config.node_distance
        self._odometry: deque[tuple[int, F64]] = deque(maxlen=RECENT)
        self._continuity = Continuity()
        self._breaks: list[int] = []
        self._pending: deque[tuple[int, F64]] = deque()
        self._last: NodeAt | None = None
        self.same_body: bool | None = None  # whether odometry is of the keyframes' body; None: not known yet

    def move(self, stamp: int, T_odom_base: F64) -> list[NodeAt]:
        """Odometry at `stamp` [ns]. ValueError unless the pose is rigid."""
        check_rigid(T_odom_base)
        if self._odometry and stamp < self._odometry[-1][0] - SECOND:  # the clock was set back
            self._odometry.clear()
            self._continuity.clear()
        if self._odometry and stamp <= self._odometry[-1][0]:
            return []
        if self._continuity.breaks_at(stamp, T_odom_base):
            self._breaks.append(stamp)
        self._odometry.append((stamp, T_odom_base))
        return [*self._release(stamp), *self._between(stamp - GRACE)]

    def keyframe(self, stamp: int, T_odom_base: F64) -> list[NodeAt]:
        """A keyframe of the place node. ValueError unless the pose is rigid."""
        self._pending.append((stamp, check_rigid(T_odom_base)))
        if not self._odometry or abs(stamp - self._odometry[-1][0]) > SILENT:
            return self._release(stamp)
        return self._release(self._odometry[-1][0])

    def _release(self, until: int) -> list[NodeAt]:
        nodes: list[NodeAt] = []
        while self._pending and (self._pending[0][0] <= until or self._pending[0][0] > until + 2 * SILENT):
            stamp, T = self._pending.popleft()
            self._compare(stamp, T)
            nodes += self._between(stamp)
            nodes.append(self._make(stamp, T))
        return nodes

    def _make(self, stamp: int, T: F64) -> NodeAt:
        self._last = NodeAt(stamp, T, bisect.bisect_right(self._breaks, stamp))
        while len(self._odometry) > 1 and self._odometry[1][0] <= stamp:
            self._odometry.popleft()
        return self._last

    def _between(self, until: int) -> list[NodeAt]:
        """Nodes of odometry alone, after the last node and before the stamp `until`."""
        nodes: list[NodeAt] = []
        if not self.same_body or self._last is None or self._odometry[-1][0] <= self._last.stamp:
            return nodes
        for stamp, T in tuple(self._odometry):
            if self._last.stamp < stamp < until:
                far = float(np.linalg.norm(T[:3, 3] - self._last.T_odom_base[:3, 3])) >= self._distance
                if far:
                    nodes.append(self._make(stamp, T))
        return nodes

    def _compare(self, stamp: int, T: F64) -> None:
        """Whether odometry gives the same pose as the keyframe."""
        after = next((k for k, (at, _) in enumerate(self._odometry) if at >= stamp), None)
        if after is None or self._odometry[max(after - 1, 0)][0] > stamp:
            return
        (begin, before), (end, there) = self._odometry[max(after - 1, 0)], self._odometry[after]
        pose = there if end in (stamp, begin) else interpolate(before, there, (stamp - begin) / (end - begin))
        off = inverse(pose) @ T
        self.same_body = bool(np.linalg.norm(off[:3, 3]) <= SAME_METRES and rotation_angle(off) <= SAME_RADIANS)
