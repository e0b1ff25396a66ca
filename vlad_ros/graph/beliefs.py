# SPDX-License-Identifier: Apache-2.0
"""Which loops the graph believes: clusters of loops are let in, kept out, or thrown out for better ones.

An edge that the graph believes is a plain Gaussian factor, one that it does not believe is no factor at all: without
wrong edges the result is plain least squares. A robust kernel on each edge was the alternative; it also weakens the
first right edge of a long way, which lies farthest off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from vlad_ros.graph.breaks import Break, find_break, suspects, witnesses
from vlad_ros.graph.chain import Chain
from vlad_ros.graph.consistency import CHI2, Cluster, Loop, Ways, disagreement, pair_agrees, tensions
from vlad_ros.graph.smoother import Smoother
from vlad_ros.graph_config import PoseGraphConfig

NEIGHBOURS = 20.0  # m of travel between two loops that follow each other
RECENT = 40  # clusters that a new loop may join, newest first
SAMPLE = 5  # loops of a cluster that are tried
STRAINED = 40.0  # chi square from which on a believed cluster, bent by its graph, is doubted
BESIDE = 100.0  # m of travel between two clusters that are tried against each other
BENT, BENT_EACH = 18.5, 3.0  # chi square that a true cluster does not cost the others: a constant, and for each place
PERIOD = 20  # loops between two looks at the strain where nothing else has changed
SOON = 2  # steps of Gauss-Newton until a new loop is told; `upkeep` makes the others
REVISIONS = 5  # clusters thrown out for one


class Beliefs:
    """Owns the loops; `add` and `decide` change the smoother's factors at once, `upkeep` what takes longer."""

    def __init__(self, chain: Chain, smoother: Smoother, config: PoseGraphConfig) -> None:
        self._chain, self._smoother, self._config = chain, smoother, config
        self._ways = Ways(chain)
        self.clusters: list[Cluster] = []
        self.loops: list[Loop] = []
        self._contested: deque[Cluster] = deque()  # clusters to be weighed against what contradicts them
        self._strained = False  # whether to look for clusters that their own graph strains
        self._grown: dict[int, Cluster] = {}  # by `id`: beside these, weaker ones are to stand a trial
        self._settled_last = False  # what `upkeep` has done last
        self.broken: Break | None = None  # a step of odometry that is not to be believed, found by `upkeep`

    def add(self, loop: Loop) -> None:
        """Take a loop into account whose nodes are in the smoother."""
        self._ways.extend()
        self.loops.append(loop)
        cluster = self._cluster(loop)
        self._review(cluster)

    def restore(self, loop: Loop, cluster: int, believed: bool) -> None:
        """Take over a loop as it was saved, without a trial; the smoother is not settled."""
        self._ways.extend()
        self.loops.append(loop)
        while cluster >= len(self.clusters):
            self.clusters.append(Cluster())
        loop.cluster = cluster
        self.clusters[cluster].loops.append(loop)
        if believed:
            self._believe([loop])

    def decide(self, loop: Loop, forced: bool, forbidden: bool) -> None:
        """What a person says of a loop."""
        unforced = loop.forced and not forced
        loop.forced, loop.forbidden = forced, forbidden
        if loop.on and (forbidden or unforced):
            self._doubt([loop])
            self._smoother.settle()
        self.clusters[loop.cluster].barred = 0
        self._review(self.clusters[loop.cluster])

    def _cluster(self, loop: Loop) -> Cluster:
        """The cluster that the loop goes on, or a new one."""
        for index in range(len(self.clusters) - 1, max(-1, len(self.clusters) - 1 - RECENT), -1):
            last = self.clusters[index].loops[-1]
            near = self._near(loop.j, last.j) and self._near(loop.i, last.i)
            if near and pair_agrees(last, loop, self._chain, self._config):
                self.clusters[index].loops.append(loop)
                loop.cluster = index
                return self.clusters[index]
        self.clusters.append(Cluster([loop]))
        loop.cluster = len(self.clusters) - 1
        return self.clusters[-1]

    def _near(self, a: int, b: int) -> bool:
        first, second = self._chain.nodes[a], self._chain.nodes[b]
        return first.drive == second.drive and abs(first.travel - second.travel) <= NEIGHBOURS

    def _review(self, cluster: Cluster) -> None:
        """Let a cluster in, or what is new of it, if it fits; what takes long is left to `upkeep`."""
        forced = [loop for loop in cluster.loops if loop.forced and not loop.on]
        if forced:
            self._believe(forced)
            self._smoother.settle(SOON)
        if cluster.on:
            new = [loop for loop in cluster.loops if not loop.on and not loop.forbidden]
            fitting = [loop for loop in new if self._chi2(loop)[0] <= CHI2]
            if fitting:
                self._believe(fitting)
                self._smoother.settle(steps=1)  # the next nodes' steps go on from there
        elif cluster.support > cluster.barred:
            if self._fits(cluster)[0]:
                self._enter(cluster)
            elif cluster.support > cluster.weighed:
                self._contested.append(cluster)
        self._strained = self._strained or bool(forced) or not len(self.loops) % PERIOD
        self._grown[id(cluster)] = cluster

    def upkeep(self) -> bool:
        """One of the things that take longer than a loop may: whether there was one. Call it between the messages."""
        due = not self._smoother.is_settled
        self._settled_last = due and not self._settled_last  # each new loop unsettles; the others get their turn, too
        if self._settled_last:
            self._smoother.settle()
        elif self._contested:
            cluster = self._contested.popleft()
            if not cluster.on and cluster.support > cluster.weighed:
                self._weigh(cluster)
        elif self._strained:
            self._strained = self._relieve()
        elif self._grown:
            self._try_beside(next(iter(self._grown.values())))
        elif due:
            self._smoother.settle()
        else:
            return False
        return True

    def _try_beside(self, cluster: Cluster) -> None:
        """A weaker cluster stands its trial. Those beside the clusters that grew earlier come first: a wrong one makes
        right ones beside it look wrong, too."""
        weak = self._weaker(cluster) if cluster.on else None
        if weak is None:
            del self._grown[id(cluster)]
        elif self._is_bent_by(weak):
            self._reconsider()

    def _weigh(self, cluster: Cluster) -> None:
        """Let a cluster in if it fits by now, or outweighs what contradicts it, unless that is broken odometry."""
        fits, rivals = self._fits(cluster)
        if not fits and self._finds_break(cluster):
            return
        if fits or self._outweighs(cluster, rivals):
            self._enter(cluster)
            self._reconsider()
        cluster.weighed = cluster.support

    def _reconsider(self) -> None:
        """What was thrown out has kept others out, too."""
        for cluster in sorted(self.clusters, key=lambda cluster: -cluster.support):
            if not cluster.on and cluster.support > cluster.barred and self._fits(cluster)[0]:
                self._enter(cluster)

    def _enter(self, cluster: Cluster) -> None:
        self._believe([loop for loop in cluster.loops if not loop.on and not loop.forbidden])
        self._smoother.settle(SOON)
        self._strained = True

    def _weaker(self, cluster: Cluster) -> Cluster | None:
        """A believed cluster near by that has half of its support or less, and has not stood a trial beside it."""
        for other in self.clusters:
            weak = other is not cluster and 2 * other.support <= cluster.support and not other.forced
            if weak and other.on and id(cluster) not in other.stood and self._beside(other, cluster):
                other.stood.add(id(cluster))
                return other
        return None

    def _beside(self, a: Cluster, b: Cluster) -> bool:
        """Whether odometry leads from one to the other in less than `BESIDE` of travel."""
        stretches = [self._stretches(a), self._stretches(b)]
        return any(
            one[0] == two[0] and one[1] - BESIDE <= two[2] and two[1] - BESIDE <= one[2]
            for one in stretches[0]
            for two in stretches[1]
        )

    def _stretches(self, cluster: Cluster) -> list[tuple[tuple[int, int], float, float]]:
        """Drive and part, begin and end [m] of a cluster's matches and queries."""
        out = []
        for end in "ij":
            nodes = [self._chain.nodes[getattr(cluster.loops[k], end)] for k in (0, -1)]
            travels = sorted(node.travel for node in nodes)
            out.append(((nodes[0].drive, nodes[0].part), travels[0], travels[1]))
        return out

    def _is_bent_by(self, weak: Cluster) -> bool:
        """Whether the rest of the graph is better off without a weak cluster by more than a true one costs: it is
        thrown out then. A wrong edge between right ones bends odometry, not itself, so that no strain shows on it."""
        own = [loop for loop in weak.loops if loop.on]
        poses = self._smoother.poses(len(self._chain))
        bent = self._smoother.cost() - float(tensions(own, poses, slack=False).sum())
        self._doubt(own)
        self._smoother.settle()
        if bent - self._smoother.cost() > BENT + BENT_EACH * weak.support:
            weak.barred = 2 * weak.support
            return True
        self._believe(own)
        self._smoother.settle()
        return False

    def _chi2(self, loop: Loop) -> tuple[float, set[tuple[int, int]]]:
        travel, used = self._ways.shortest(loop)
        T_i, T_j = self._smoother.pose(loop.i), self._smoother.pose(loop.j)
        return disagreement(loop, T_i, T_j, travel, self._config), used

    def _fits(self, cluster: Cluster) -> tuple[bool, list[Cluster]]:
        """Whether a cluster agrees with the graph; and the believed clusters that lead from its matches to its
        queries."""
        usable = [loop for loop in cluster.loops if not loop.forbidden]
        if not usable:
            return False, []
        chosen = [usable[k] for k in np.unique(np.linspace(0, len(usable) - 1, SAMPLE).round().astype(int))]
        tried = [self._chi2(loop) for loop in chosen]
        if np.median([chi2 for chi2, _ in tried]) <= CHI2:
            return True, []
        return False, self._on(set().union(*(used for _, used in tried)))

    def _on(self, used: Iterable[tuple[int, int]]) -> list[Cluster]:
        numbers = {loop.cluster for loop in self.loops if loop.on and self._ways.carries(loop, used)}
        return [self.clusters[number] for number in numbers]

    def _outweighs(self, cluster: Cluster, rivals: list[Cluster]) -> bool:
        """Throw weaker clusters out until `cluster` fits; where it does not come to that, take them back."""
        out: list[Cluster] = []
        for _ in range(REVISIONS):
            weaker = [other for other in rivals if other.support < cluster.support and not other.forced]
            if not weaker:
                break
            out.append(min(weaker, key=lambda other: other.support))
            self._doubt(out[-1].loops)
            self._smoother.settle()
            fits, rivals = self._fits(cluster)
            if fits:
                return True
        for other in out:
            self._believe([loop for loop in other.loops if not loop.forbidden])
        if out:
            self._smoother.settle()
        return False

    def _finds_break(self, cluster: Cluster) -> bool:
        """Whether it is odometry that contradicts a cluster wrongly. The loops across the break are out then."""
        leader = cluster.loops[len(cluster.loops) // 2]
        agreeing = witnesses(leader, self.loops, self._chain, self._config)
        steps, across = suspects(agreeing, self.loops, self._chain) if agreeing else (np.empty(0, np.int64), [])
        if not len(steps):
            return False
        self._doubt(across)
        self._smoother.settle()
        if not self._fits(cluster)[0]:
            poses, (way, _) = self._smoother.poses(len(self._chain)), self._ways.shortest(agreeing[0])
            self.broken = find_break(agreeing, steps, poses, way, self._chain, self._config)
        self._believe([loop for loop in across if not loop.on and (self.broken is None or loop.j < self.broken.node)])
        self._smoother.settle()
        return self.broken is not None

    def admit(self, loops: Iterable[Loop]) -> None:
        """Believe the clusters of these loops, and then whatever fits."""
        for number in {loop.cluster for loop in loops}:
            self._enter(self.clusters[number])
        self._reconsider()

    def _relieve(self) -> bool:
        """Throw out the weakest of the clusters that their own graph strains; whether there was one."""
        believed = [loop for loop in self.loops if loop.on]
        if not believed:
            return False
        strained: dict[int, list[float]] = {}
        for loop, chi2 in zip(believed, tensions(believed, self._smoother.poses(len(self._chain))), strict=True):
            strained.setdefault(loop.cluster, []).append(chi2)
        doubted = [self.clusters[c] for c, values in strained.items() if np.median(values) > STRAINED]
        doubted = [cluster for cluster in doubted if not cluster.forced]
        if doubted:
            weakest = min(doubted, key=lambda cluster: cluster.support)
            self._doubt(weakest.loops)
            weakest.barred = 2 * weakest.support
            self._smoother.settle()
        return bool(doubted)

    def _believe(self, loops: Iterable[Loop]) -> None:
        for loop in loops:
            loop.ticket = self._smoother.add_between(loop.i, loop.j, loop.T, loop.covariance)
            self._ways.add(loop)

    def _doubt(self, loops: Iterable[Loop]) -> None:
        for loop in loops:
            if loop.ticket is not None and not loop.forced:
                self._smoother.remove(loop.ticket)
                loop.ticket = None
                self._ways.remove(loop)
