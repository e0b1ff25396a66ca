# SPDX-License-Identifier: Apache-2.0
"""Whether loops can be true together with odometry: pairs of them, and one with the whole graph.

Pairs as in Mangelson et al., "Pairwise consistent measurement set maximization for robust multi-robot map merging",
ICRA 2018: a loop, odometry to another loop, that loop backwards and odometry back must end where they began. Against
the graph: the way between a loop's ends that drifts least, along odometry and along loops already believed, bounds how
far the graph's own estimate of their relative pose can be off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from vlad_ros.covariance_conventions import adjoint
from vlad_ros.graph.chain import JUMP_TRAVEL, Chain, Node, diagonal, strayed
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import inverse, log
from vlad_ros.types import F64, Ints

CHI2 = 27.9  # of six degrees of freedom: exceeded by one true loop of 10,000
SLACK_METRES, SLACK_RADIANS = 0.2, np.radians(1.0)  # more than an edge's own covariance says: it knows one alignment
STATION = 5.0  # m of travel; ways are measured between stations, not between single nodes
LOOP_TRAVEL = 5.0  # m of travel whose drift is about a loop's own error


@dataclass(eq=False)
class Loop:
    """A loop edge between the nodes `i` (the match) and `j` (the query): T_i_j (4, 4), covariance (6, 6) on the side of
    i. `forced` and `forbidden` are decided by hand; `ticket` is its factor's while it is believed."""

    i: int
    j: int
    T: F64
    covariance: F64
    probability: float = 1.0
    forced: bool = False
    forbidden: bool = False
    ticket: int | None = None
    cluster: int = -1

    @property
    def on(self) -> bool:
        """Whether the graph believes it."""
        return self.ticket is not None


def pair_agrees(a: Loop, b: Loop, chain: Chain, config: PoseGraphConfig) -> bool:
    """Whether two loops between the same two stretches of road agree through odometry; False where it does not lead
    from one to the other."""
    queries, matches = chain.way(a.j, b.j), chain.way(b.i, a.i)
    if queries is None or matches is None:
        return False
    ends = [a.T, a.T @ queries[0], a.T @ queries[0] @ inverse(b.T)]
    error = log(ends[2] @ matches[0])
    # Every perturbation, moved to the left of the whole.
    terms = (
        (np.eye(6), a.covariance + diagonal(SLACK_METRES, SLACK_RADIANS)),
        (adjoint(ends[0]), diagonal(*strayed(queries[1], config))),
        (adjoint(ends[2]), b.covariance + diagonal(SLACK_METRES, SLACK_RADIANS)),
        (adjoint(ends[2]), diagonal(*strayed(matches[1], config))),
    )
    S = sum((J @ C @ J.T for J, C in terms), np.zeros((6, 6)))
    return bool(error @ np.linalg.solve(S, error) <= CHI2)


def disagreement(loop: Loop, T_i: F64, T_j: F64, travel: float, config: PoseGraphConfig) -> float:
    """Chi square of a loop against the graph's poses of its ends, between which the best way is `travel` [m] long."""
    error = log(inverse(T_i) @ T_j @ inverse(loop.T))
    S = loop.covariance + diagonal(SLACK_METRES, SLACK_RADIANS)
    if travel > 0.0:
        J = adjoint(loop.T)  # the way's error is about the query, the loop's about the match
        metres, radians = strayed(min(travel, JUMP_TRAVEL), config)
        way = diagonal(metres, radians)
        S = S + 0.5 * (way + J @ way @ J.T)
    return float(error @ np.linalg.solve(S, error))


def tensions(loops: Sequence[Loop], poses: F64, slack: bool = True) -> F64:
    """Chi square (L,) of believed loops by the graph's `poses` (N, 4, 4), which they have bent; without `slack` by the
    loops' own covariances alone."""
    i, j = (np.array([getattr(loop, end) for loop in loops]) for end in "ij")
    errors = log(inverse(poses[i]) @ poses[j] @ inverse(np.stack([loop.T for loop in loops])))
    S = np.stack([loop.covariance for loop in loops]) + slack * diagonal(SLACK_METRES, SLACK_RADIANS)
    return np.asarray(np.einsum("na,na->n", errors, np.linalg.solve(S, errors[..., None])[..., 0]), np.float64)


class Ways:
    """The shortest ways between nodes, by odometry and believed loops, measured between stations of the drives."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._station: list[int] = []  # of each node
        self._number = 0  # of stations
        self._newest: dict[int, tuple[int, float]] = {}  # of each drive: its last station, and the travel there
        self._joined: dict[tuple[int, int], float] = {}  # stations of a drive that follow each other, and the travel
        self._along: tuple[Ints, F64] = np.empty((0, 2), np.int64), np.empty(0)  # the same as arrays
        self._loops: Counter[tuple[int, int]] = Counter()

    def extend(self) -> None:
        """Take over the chain's new nodes."""
        for index in range(len(self._station), len(self._chain)):
            node, before = self._chain.nodes[index], self._chain.before(index)
            last, begun = self._newest.get(node.drive, (-1, 0.0))
            if before is None:
                self._open(node)
            elif node.part != self._chain.nodes[before].part:
                self._joined[last, self._open(node)] = JUMP_TRAVEL
            elif node.travel - begun >= STATION:
                self._joined[last, self._open(node)] = node.travel - begun
            else:
                self._station.append(last)

    def _open(self, node: Node) -> int:
        """A new station begins at a new node."""
        number = self._number
        self._number += 1
        self._newest[node.drive] = number, node.travel
        self._station.append(number)
        return number

    def add(self, loop: Loop) -> None:
        """A loop that is believed from now on."""
        self._loops[self._ends(loop)] += 1

    def remove(self, loop: Loop) -> None:
        """A loop that is believed no more."""
        ends = self._ends(loop)
        self._loops[ends] -= 1
        if not self._loops[ends]:
            del self._loops[ends]

    def _ends(self, loop: Loop) -> tuple[int, int]:
        return self._station[loop.i], self._station[loop.j]

    def shortest(self, loop: Loop) -> tuple[float, set[tuple[int, int]]]:
        """Travel [m] of the shortest way between the ends of a loop that is not believed yet (inf where none leads
        there), and the stations that the believed loops on it join."""
        source, target = self._station[loop.j], self._station[loop.i]
        distances, before = dijkstra(
            self._matrix(), directed=False, indices=source, return_predecessors=True, limit=JUMP_TRAVEL * 10
        )
        used, at = set(), target
        while at != source and before[at] >= 0:
            if not self._are_joined(int(before[at]), at):
                used.add((int(before[at]), at))
            at = int(before[at])
        return float(distances[target]) + STATION, used | {(b, a) for a, b in used}

    def _are_joined(self, a: int, b: int) -> bool:
        return (min(a, b), max(a, b)) in self._joined

    def _matrix(self) -> Any:
        if len(self._along[1]) != len(self._joined):
            self._along = np.array([*self._joined], np.int64).reshape(-1, 2), np.array([*self._joined.values()])
        over = [pair for pair in self._loops if pair[0] != pair[1] and not self._are_joined(*pair)]
        ends = np.concatenate([self._along[0], np.array(over, np.int64).reshape(-1, 2)])
        weights = np.concatenate([self._along[1], np.full(len(over), LOOP_TRAVEL)])
        return csr_matrix((weights, (ends[:, 0], ends[:, 1])), (self._number, self._number))

    def carries(self, loop: Loop, used: Iterable[tuple[int, int]]) -> bool:
        """Whether a believed loop joins two of the stations."""
        return self._ends(loop) in used


@dataclass(eq=False)
class Cluster:
    """Loops that follow each other on both stretches of road and agree by odometry: true or wrong together."""

    loops: list[Loop] = field(default_factory=list)
    barred: int = 0  # support up to which it is not let in: it was thrown out with so much
    weighed: int = 0  # support with which it was last weighed against others in vain
    stood: set[int] = field(default_factory=set)  # stronger clusters, by `id`, beside which it has stood its trial

    @property
    def support(self) -> int:
        """Places that vouch for it: different query nodes."""
        return len({loop.j for loop in self.loops})

    @property
    def on(self) -> bool:
        """Whether the graph believes it."""
        return any(loop.on for loop in self.loops)

    @property
    def forced(self) -> bool:
        """Whether one of its loops is believed by decree."""
        return any(loop.forced for loop in self.loops)
