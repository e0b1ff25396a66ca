# SPDX-License-Identifier: Apache-2.0
"""The nodes of a pose graph along their drives, and how far odometry may have drifted between two of them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import inverse
from vlad_ros.types import F64

REACH = 10.0  # m of travel that the named drift is about; beyond, it is a random walk
FLOOR_METRES, FLOOR_RADIANS = 0.02, np.radians(0.1)  # of odometry at standstill
JUMP_METRES, JUMP_RADIANS = 100.0, 1.0  # across a jump of odometry, of which only the vehicle is known to be continuous
JUMP_TRAVEL = 1e5  # m; a way across a jump says nothing about where a loop may lead


class Node(NamedTuple):
    """A pose to be estimated: key (drive, stamp [ns]); `T_odom_base` (4, 4), `travel` [m] of its drive, and the `part`
    of the drive: between two parts odometry has jumped, or is not believed."""

    drive: int
    stamp: int
    T_odom_base: F64
    travel: float
    part: int


def walked(length: float, config: PoseGraphConfig) -> tuple[float, float]:
    """Sigmas of a step of odometry [m], [rad] over `length` [m], independent of its neighbours' errors."""
    share = np.sqrt(length / REACH)
    metres = np.hypot(FLOOR_METRES, 0.01 * config.drift_translation * REACH * share)
    return float(metres), float(np.hypot(FLOOR_RADIANS, np.radians(config.drift_rotation) * share))


def strayed(length: float | F64, config: PoseGraphConfig) -> tuple[Any, Any]:
    """Sigmas of a long way of odometry [m], [rad], or of many: a wrong scale does not average out, and a wrong heading
    carries the rest of the way aside."""
    radians = np.radians(config.drift_rotation) * np.sqrt(length / REACH)
    metres = np.hypot(0.01 * config.drift_translation * length, radians * length / np.sqrt(3.0))
    return metres, radians


def diagonal(metres: float, radians: float) -> F64:
    """(6, 6) covariance, x y z, roll pitch yaw, of two sigmas."""
    return np.diag([metres**2] * 3 + [radians**2] * 3)


class Chain:
    """All nodes by index, in the order of their making; those of several drives may be interleaved."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._index: dict[tuple[int, int], int] = {}
        self._drives: dict[int, list[int]] = {}
        self._before: list[int | None] = []

    def __len__(self) -> int:
        return len(self.nodes)

    def add(self, node: Node) -> int:
        """Append a node; returns its index. ValueError unless it follows its drive's last one."""
        own, last = self._drives.setdefault(node.drive, []), self.newest(node.drive)
        if last is not None and node.stamp <= self.nodes[last].stamp:
            raise ValueError(f"node (drive, stamp) {node[:2]} does not follow {self.nodes[last][:2]}")
        index = len(self.nodes)
        self.nodes.append(node)
        self._before.append(last)
        self._index[node[:2]] = index
        own.append(index)
        return index

    def find(self, drive: int, stamp: int) -> int | None:
        """Index of the node of this key, None if there is none."""
        return self._index.get((drive, stamp))

    def drive(self, number: int) -> Sequence[int]:
        """Indices of a drive's nodes, ascending."""
        return self._drives.get(number, ())

    def newest(self, number: int) -> int | None:
        """Index of a drive's last node, None if it has none."""
        own = self._drives.get(number)
        return own[-1] if own else None

    def before(self, index: int) -> int | None:
        """Index of the node before this one in its drive, None for the first."""
        return self._before[index]

    @property
    def next_drive(self) -> int:
        """The first number above those of all drives."""
        return max(self._drives, default=-1) + 1

    def part(self, index: int) -> Sequence[int]:
        """Indices of the nodes to which odometry leads from a node, ascending."""
        drive, part = self.nodes[index].drive, self.nodes[index].part
        own = self._drives[drive]
        begin = bisect.bisect_left(own, part, key=lambda k: self.nodes[k].part)
        return own[begin : bisect.bisect_right(own, part, key=lambda k: self.nodes[k].part)]

    def split(self, index: int) -> None:
        """The node begins another part of its drive: odometry does not lead to it any more."""
        own = self._drives[self.nodes[index].drive]
        for k in own[bisect.bisect_left(own, index) :]:
            self.nodes[k] = self.nodes[k]._replace(part=self.nodes[k].part + 1)

    def way(self, i: int, j: int) -> tuple[F64, float] | None:
        """T_i_j (4, 4) by odometry and the travel [m] between the two; None where odometry does not lead there."""
        a, b = self.nodes[i], self.nodes[j]
        if (a.drive, a.part) != (b.drive, b.part):
            return None
        return inverse(a.T_odom_base) @ b.T_odom_base, abs(b.travel - a.travel)
