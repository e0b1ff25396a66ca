# SPDX-License-Identifier: Apache-2.0
"""The drives of a pose graph: nodes joined by odometry, and what holds them in the map."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

import numpy as np

from vlad_ros.graph.beliefs import Beliefs
from vlad_ros.graph.breaks import Break
from vlad_ros.graph.chain import JUMP_METRES, JUMP_RADIANS, Chain, Node, diagonal, strayed, walked
from vlad_ros.graph.consistency import CHI2, Loop
from vlad_ros.graph.smoother import Smoother
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import check_rigid, inverse, log
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Ints

LATE = SECOND  # a node older by more than this begins a drive: the clock was set back
FIRM = diagonal(1e-3, 1e-4)  # of the first node, where the map's frame is its odometry's
LOOSE = diagonal(100.0, 1.0)  # of a later drive's first node: without its loops it still has a pose
MAP = diagonal(0.05, np.radians(0.3))  # of a loaded map itself, which a pose found in it does not tell
APART = 10.0  # m of travel between two relocalisations that count


class Anchor(NamedTuple):
    """A pose held from outside of the graph: of a `node` (index), with its covariance in the body's own axes; `found`:
    by relocalisation in a loaded map."""

    node: int
    T_map_base: F64
    covariance: F64
    found: bool = False


def body_axes(covariance: F64, T_map_base: F64) -> F64:
    """The covariance (6, 6) of a PoseWithCovariance, along the map's axes, along the body's own."""
    J = np.zeros((6, 6))
    J[:3, :3] = J[3:, 3:] = T_map_base[:3, :3].T
    return np.asarray(J @ covariance @ J.T, np.float64)


class Drives:
    """`counters` counts what was not used, by reason; `take_news` gives sentences for the log."""

    def __init__(self, config: PoseGraphConfig) -> None:
        self.config = config
        self.chain = Chain()
        self.drive = 0  # the current drive's number
        self._jumps = 0  # of odometry, as they were last told
        self.placed: set[int] = set()  # drives with a pose in the map
        self.guests: set[int] = set()  # drives of other robots
        self.anchors: list[Anchor] = []
        self.counters: Counter[str] = Counter()
        self._known: F64 = np.empty((0, 4, 4))
        self._news: list[str] = []
        self._begin_smoothing()

    def _begin_smoothing(self) -> None:
        self.smoother = Smoother()
        self.beliefs = Beliefs(self.chain, self.smoother, self.config)

    def say(self, sentence: str) -> None:
        """A sentence for the log."""
        self._news.append(sentence)

    def take_news(self) -> list[str]:
        """The sentences since the last call."""
        news, self._news = self._news, []
        return news

    def add_node(self, stamp: int, T_odom_base: F64, part: int = 0) -> bool:
        """A node at `stamp` [ns]; `part` counts the odometry's jumps before it. False, counted, for one that comes too
        late. ValueError unless the pose is rigid. A stamp set back by more than 1 s begins a drive."""
        T_odom_base = check_rigid(T_odom_base)
        last = self.newest
        if last is not None and stamp <= last.stamp:
            if last.stamp - stamp <= LATE:
                self.counters["late_node"] += 1
                return False
            self.begin_drive()
            self.say(f"the clock was set back: drive {self.drive} begins")
            last = None
        step = np.eye(4) if last is None else inverse(last.T_odom_base) @ T_odom_base
        jumped = last is not None and part != self._jumps
        self._jumps = part
        travel = 0.0 if last is None else last.travel + (0.0 if jumped else float(np.linalg.norm(step[:3, 3])))
        part = 0 if last is None else last.part + jumped
        self._append(Node(self.drive, stamp, T_odom_base, travel, part), np.eye(4) if jumped else step)
        if jumped:
            self.counters["odometry_jump"] += 1
            self.say(f"odometry jumped by {np.linalg.norm(step[:3, 3]):.1f} m: no loop is judged by odometry across it")
        return True

    def _append(self, node: Node, step: F64) -> None:
        """The next node, `step` (4, 4) after the last one of its drive."""
        index = self.chain.add(node)
        before = self.chain.before(index)
        if not self.placed and node.drive == self.drive:
            self.placed.add(self.drive)
            self._insert(index, node.T_odom_base)
            self._hold(Anchor(index, node.T_odom_base, FIRM))
        elif node.drive in self.placed and before is not None:
            self._insert(index, self.smoother.pose(before) @ step)
        self.smoother.settle(steps=1, refresh=False)  # odometry alone changes no pose

    def begin_drive(self) -> None:
        """What comes from now on is another drive, with odometry of its own."""
        self.drive = self.chain.next_drive

    def _insert(self, index: int, T_map_base: F64) -> None:
        """Hand a node to the smoother, with the odometry that leads to it."""
        self.smoother.add_node(index, T_map_base)
        last = self.chain.before(index)
        if last is None:
            return
        before, node = self.chain.nodes[last], self.chain.nodes[index]
        if before.part != node.part:
            self.smoother.add_between(last, index, np.eye(4), diagonal(JUMP_METRES, JUMP_RADIANS))
            return
        covariance = diagonal(*walked(node.travel - before.travel, self.config))
        self.smoother.add_between(last, index, inverse(before.T_odom_base) @ node.T_odom_base, covariance)

    def _hold(self, anchor: Anchor) -> None:
        self.anchors.append(anchor)
        self.smoother.add_prior(anchor.node, anchor.T_map_base, anchor.covariance)

    def place(self, drive: int, T_map_odom: F64, anchor: Anchor | None = None) -> None:
        """Hand a drive, which had no pose in the map, to the smoother: it begins at `T_map_odom` (4, 4), held by
        `anchor` or, without one, by its loops alone."""
        rows = self.chain.drive(drive)
        for index in rows:
            self._insert(index, T_map_odom @ self.chain.nodes[index].T_odom_base)
        first = T_map_odom @ self.chain.nodes[rows[0]].T_odom_base
        self._hold(anchor or Anchor(rows[0], first, LOOSE))
        self.placed.add(drive)
        self.smoother.settle()
        self.poses()  # from which `recover` would begin anew

    def find_at(self, index: int, T_map_base: F64, covariance: F64) -> bool:
        """The pose of a node of the current drive in a loaded map, its covariance (6, 6) along the body's own axes.
        Whether it was used: not where it contradicts an earlier one, or lies near it."""
        anchor = Anchor(index, check_rigid(T_map_base, "T_map_base"), covariance + MAP, True)
        before = [other for other in self.anchors if other.found and self.chain.nodes[other.node].drive == self.drive]
        if before:
            return self._confirm(anchor, before[-1])
        if self.drive not in self.placed:
            self.place(self.drive, anchor.T_map_base @ inverse(self.chain.nodes[index].T_odom_base), anchor)
        elif self.placed - self.guests == {self.drive}:  # its own frame was the map's until now
            T = anchor.T_map_base @ inverse(self.smoother.pose(index))
            others = [other for other in self.anchors if self.chain.nodes[other.node].drive != self.drive]
            self.anchors = [anchor, *(other._replace(T_map_base=T @ other.T_map_base) for other in others)]
            self.rebuild(T @ self.poses())
        else:
            return False
        x, y = anchor.T_map_base[:2, 3]
        self.say(f"drive {self.drive} was found in the loaded map at x {x:.1f} m, y {y:.1f} m")
        return True

    def _confirm(self, anchor: Anchor, last: Anchor) -> bool:
        """Use a later relocalisation if it is far from the last one, and agrees with the graph."""
        travel = abs(self.chain.nodes[anchor.node].travel - self.chain.nodes[last.node].travel)
        if travel < APART:
            return False
        error = log(inverse(anchor.T_map_base) @ self.smoother.pose(anchor.node))
        S = anchor.covariance + last.covariance + diagonal(*strayed(travel, self.config))
        if error @ np.linalg.solve(S, error) > CHI2:
            self.counters["relocalisation_disagrees"] += 1
            return False
        self._hold(anchor)
        self.smoother.settle()
        return True

    def rebuild(self, poses: F64) -> None:
        """Begin the least squares anew at `poses` (N, 4, 4), NaN for what is not placed, with the same beliefs."""
        self.rebuild_with(poses, [(loop, loop.cluster, loop.on) for loop in self.beliefs.loops])

    def rebuild_with(self, poses: F64, loops: list[tuple[Loop, int, bool]]) -> None:
        """The same with these loops, the numbers of their clusters, and whether they are believed."""
        self._begin_smoothing()
        for index in np.flatnonzero(np.isfinite(poses[:, 0, 0])).tolist():
            self._insert(index, poses[index])
        for anchor in self.anchors:
            self.smoother.add_prior(anchor.node, anchor.T_map_base, anchor.covariance)
        for loop, cluster, believed in loops:
            loop.ticket = None
            self.beliefs.restore(loop, cluster, believed)
        self.smoother.settle()

    def upkeep(self, budget: float = 0.0) -> None:
        """What the graph has left for later (see `Beliefs.upkeep`), one piece at least, for `budget` seconds."""
        end = time.monotonic() + budget
        while self._keep_up() and time.monotonic() < end:
            pass

    def _keep_up(self) -> bool:
        more = self.beliefs.upkeep()
        if self.beliefs.broken is not None:
            self._break(self.beliefs.broken)
        return more

    def _break(self, broken: Break) -> None:
        """Believe odometry no more in one step; what lies behind it is placed by its loops."""
        poses, rows = self.poses().copy(), [k for k in self.chain.part(broken.node) if k >= broken.node]
        poses[rows] = broken.T_map_odom @ np.stack([self.chain.nodes[k].T_odom_base for k in rows])
        self.chain.split(broken.node)
        self.rebuild(poses)
        self.beliefs.admit(broken.loops)
        self.counters["odometry_broken"] += 1
        node, places = self.chain.nodes[broken.node], len({loop.j for loop in broken.loops})
        self.say(
            f"odometry is not believed at {node.travel:.0f} m of drive {node.drive}: loops of {places} places agree"
        )

    def recover(self) -> None:
        """After a failure of the least squares: begin anew at the last poses that were asked for, and by odometry from
        there on."""
        poses = np.full((len(self.chain), 4, 4), np.nan)
        poses[: len(self._known)] = self._known
        for index in range(len(self._known), len(poses)):
            before = self.chain.before(index)
            if before is not None:
                step = inverse(self.chain.nodes[before].T_odom_base) @ self.chain.nodes[index].T_odom_base
                poses[index] = poses[before] @ step
        self.rebuild(poses)

    # What comes out.

    @property
    def newest(self) -> Node | None:
        """The newest node of the current drive, None where it has none."""
        last = self.chain.newest(self.drive)
        return None if last is None else self.chain.nodes[last]

    @property
    def T_map_odom(self) -> F64 | None:
        """(4, 4) at the newest node; None while the current drive has no pose in the map."""
        last = self.chain.newest(self.drive)
        if last is None or self.drive not in self.placed:
            return None
        return self.smoother.pose(last) @ inverse(self.chain.nodes[last].T_odom_base)

    def poses(self) -> F64:
        """T_map_base (N, 4, 4) of all nodes, NaN for drives that have no pose in the map."""
        self._known = self.smoother.poses(len(self.chain))
        return self._known

    def trajectory(self, drive: int | None = None) -> tuple[Ints, F64]:
        """Stamps (M,) [ns] and T_map_base (M, 4, 4) of a drive's nodes, by default the current one's; none while it has
        no pose in the map."""
        number = self.drive if drive is None else drive
        rows = self.chain.drive(number) if number in self.placed else ()
        stamps = np.array([self.chain.nodes[k].stamp for k in rows], np.int64)
        return stamps, self.poses()[list(rows)] if len(rows) else np.empty((0, 4, 4))
