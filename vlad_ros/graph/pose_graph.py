# SPDX-License-Identifier: Apache-2.0
"""The pose graph of a vehicle that drives: keyframes and odometry in, loops in, a corrected trajectory out.

Nodes lie exactly at the place node's keyframes, and between them where odometry has gone on for long without one. All
poses are T_map_base of the body; `map` is the first drive's odometry frame, or the frame of a map in which the vehicle
was found. A later drive has no pose in it until loops or a relocalisation say where it began. Nothing here is ROS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlad_ros.graph.chain import Node
from vlad_ros.graph.consistency import Loop, pair_agrees
from vlad_ros.graph.drives import Drives, body_axes
from vlad_ros.graph.edits import BY_HAND, Edit, Key
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import check_all_rigid, check_rigid, inverse
from vlad_ros.types import F64

WAITING = 1000  # loops whose nodes are not known yet; beyond that the oldest is dropped
REMEMBERED = 10_000  # loops that the place node has refused, for a person who knows better
AGREEING = 3  # loops from different keyframes that place a drive among others
RECENT = 20  # loops of a drive, the newest, of which so many must agree
GAP = 10.0  # m between two keyframes of another robot, from which on others between them are missing here


class LoopEdge(NamedTuple):
    """A loop by keyframes' keys: `T_match_query` (4, 4), and its covariance (6, 6) on the match's side."""

    match: Key
    query: Key
    T_match_query: F64
    covariance: F64
    probability: float = 1.0


def check_edge(edge: LoopEdge) -> None:
    """ValueError for a transform or a covariance that cannot be used."""
    check_rigid(edge.T_match_query, "T_match_query")
    C = np.asarray(edge.covariance, np.float64)
    if C.shape != (6, 6) or not np.isfinite(C).all() or np.linalg.eigvalsh(C).min() <= 0.0:
        raise ValueError("the covariance of a loop must be a positive definite (6, 6) matrix")


class LiveGraph(Drives):
    """Feed it `add_node`, `add_loop`, `add_guests`, `relocalise` and `set_edits`, in the order of arrival."""

    def __init__(self, config: PoseGraphConfig) -> None:
        super().__init__(config)
        self.sessions: dict[int, int] = {}  # the place node's session -> drive
        self.waiting: deque[LoopEdge] = deque()
        self.edits: dict[tuple[Key, Key], Edit] = {}
        self._loops: dict[tuple[int, int], Loop] = {}  # by its nodes
        self._refused: dict[tuple[Key, Key], LoopEdge] = {}
        self._foreign: set[int] = set()  # stamps of queries whose match is in a map that this graph does not have

    def add_node(self, stamp: int, T_odom_base: F64, part: int = 0) -> bool:
        """As `Drives` does; then the loops that waited for it are used."""
        added = super().add_node(stamp, T_odom_base, part)
        self._retry()
        return added

    def add_loop(self, edge: LoopEdge) -> None:
        """A loop that the place node has accepted; it waits until its nodes are known and placed. ValueError for a
        transform or a covariance that cannot be used."""
        check_edge(edge)
        self.waiting.append(edge)
        if len(self.waiting) > WAITING:
            self.waiting.popleft()
            self.counters["unknown_node"] += 1
        self._retry()

    def remember(self, edge: LoopEdge) -> None:
        """A loop that the place node has not accepted; a person may force it."""
        self._refused[edge.match, edge.query] = edge
        if len(self._refused) > REMEMBERED:
            del self._refused[next(iter(self._refused))]

    def _retry(self) -> None:
        """Use the waiting loops whose nodes are known and placed by now."""
        for _ in range(len(self.waiting)):
            edge = self.waiting.popleft()
            ends = self.ends(edge.match, edge.query)
            if ends is None:
                if edge.query[1] not in self._foreign:
                    self.waiting.append(edge)
            elif {self.chain.nodes[end].drive for end in ends} <= self.placed:
                self._use(edge, ends)
            else:
                self.waiting.append(edge)
        if self.waiting and not {self.drive, *self.guests} <= self.placed:
            self._place_by_loops()

    def rebuild_with(self, poses: F64, loops: list[tuple[Loop, int, bool]]) -> None:
        """As `Drives` does; the loops are known by their nodes again."""
        super().rebuild_with(poses, loops)
        self._loops = {(loop.i, loop.j): loop for loop, _, _ in loops}

    def _use(self, edge: LoopEdge, ends: tuple[int, int]) -> None:
        loop = Loop(*ends, edge.T_match_query, edge.covariance, edge.probability)
        if ends in self._loops or ends[0] == ends[1]:
            self.counters["repeated_loop"] += 1
            return
        self._loops[ends] = loop
        edit = self.edits.get((edge.match, edge.query))
        if edit is not None:
            loop.forced, loop.forbidden = edit.forced, not edit.forced
        self.beliefs.add(loop)

    def ends(self, match: Key, query: Key) -> tuple[int, int] | None:
        """Indices of the nodes of two keys; None while one is unknown."""
        j = self._find(query)
        if j is None:
            return None
        if match[0] not in self.sessions and self.chain.find(self.drive, match[1]) is None:
            if query[1] not in self._foreign:
                self.counters["unknown_session"] += 1
            self._foreign.add(query[1])
            return None
        i = self._find(match)
        return None if i is None else (i, j)

    def _find(self, key: Key) -> int | None:
        """A keyframe's node. A session of the place node's is learnt by its stamps: those of the current drive."""
        session, stamp = key
        if self.sessions.get(session) in self.guests:
            return self.chain.find(self.sessions[session], stamp)
        index = self.chain.find(self.drive, stamp)
        if index is not None and self.sessions.get(session, self.drive) != self.drive:
            known = self.chain.find(self.sessions[session], stamp)
            if known is not None:
                return known
        if index is not None:
            self.sessions[session] = self.drive
            return index
        return self.chain.find(self.sessions[session], stamp) if session in self.sessions else None

    def _place_by_loops(self) -> None:
        """Place the current drive, or another robot's, once enough of the loops between it and placed ones agree."""
        leading: dict[int, list[Loop]] = {}
        for edge in self.waiting:
            ends = self.ends(edge.match, edge.query)
            if ends is not None:
                new = {self.chain.nodes[end].drive for end in ends} - self.placed
                if len(new) == 1:
                    loop = Loop(*ends, edge.T_match_query, edge.covariance, edge.probability)
                    leading.setdefault(new.pop(), []).append(loop)
        for drive, loops in leading.items():
            for loop in reversed(loops[-RECENT:]):
                agreeing = {o.j for o in loops[-RECENT:] if o is loop or pair_agrees(o, loop, self.chain, self.config)}
                if len(agreeing) >= AGREEING:
                    self.place(drive, self._T_map_odom_by(loop, drive))
                    whose = "another robot's drive" if drive in self.guests else "drive"
                    self.say(f"{whose} {drive} was found in the map by {len(agreeing)} loops that agree")
                    return self._retry()

    def _T_map_odom_by(self, loop: Loop, drive: int) -> F64:
        """Where a loop puts the odometry frame of the `drive` of one of its ends."""
        i, j = self.chain.nodes[loop.i], self.chain.nodes[loop.j]
        if j.drive == drive:
            return self.smoother.pose(loop.i) @ loop.T @ inverse(j.T_odom_base)
        return self.smoother.pose(loop.j) @ inverse(i.T_odom_base @ loop.T)

    def add_guests(self, session: int, stamps: Sequence[int], poses: F64) -> None:
        """Odometry of another robot: poses (N, 4, 4) at `stamps` (N,) [ns] of its keyframes in the place node's map,
        as its `session` there. They are nodes of a drive of its own, which has no pose in the map until loops lead
        there. ValueError for a session that is the vehicle's own, or a pose that is not rigid."""
        drive = self.sessions.setdefault(session, max(self.chain.next_drive, self.drive + 1))
        if drive not in self.guests and len(self.chain.drive(drive)):
            raise ValueError(f"session {session} is the vehicle's own, not another robot's")
        self.guests.add(drive)
        for stamp, T in zip(stamps, check_all_rigid(poses, "a pose of another robot"), strict=True):
            last = self.chain.newest(drive)
            if last is None:
                self._append(Node(drive, int(stamp), T, 0.0, 0), np.eye(4))
            elif stamp > (before := self.chain.nodes[last]).stamp:
                step = inverse(before.T_odom_base) @ T
                metres = float(np.linalg.norm(step[:3, 3]))
                apart = metres > GAP
                travel = before.travel + (0.0 if apart else metres)
                self._append(Node(drive, int(stamp), T, travel, before.part + apart), step)
        self._retry()

    def relocalise(self, stamp: int, T_map_base: F64, covariance: F64) -> bool:
        """A pose that the place node has found, of a PoseWithCovariance. Whether it was used: only one of keyframes
        whose loops lead into a loaded map that this graph does not have; the others are in the loops."""
        index = self.chain.find(self.drive, stamp)
        if index is None or stamp not in self._foreign:
            return False
        used = self.find_at(index, T_map_base, body_axes(covariance, T_map_base))
        self._retry()
        return used

    def set_edits(self, edits: Sequence[Edit]) -> int:
        """Replace a person's decisions; returns how many of their loops are known by now, the others are applied once
        they are."""
        before, self.edits = self.edits, {(edit.match, edit.query): edit for edit in edits}
        for keys in {**before, **self.edits}:
            edit, ends = self.edits.get(keys), self.ends(*keys)
            loop = None if ends is None else self._loops.get(ends)
            if loop is not None:
                self.beliefs.decide(loop, edit is not None and edit.forced, edit is not None and not edit.forced)
            elif edit is not None and edit.forced:
                self._force(edit)
        return sum(self.ends(*keys) in self._loops for keys in self.edits)

    def _force(self, edit: Edit) -> None:
        edge = self._refused.get((edit.match, edit.query))
        if edit.T_match_query is not None:
            edge = LoopEdge(edit.match, edit.query, edit.T_match_query, BY_HAND)
        if edge is not None:
            self.add_loop(edge)
