# SPDX-License-Identifier: Apache-2.0
"""The network of a world's roads: junctions, and the ways between them."""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from vlad_ros.simulation.paths import arc_length, resample
from vlad_ros.simulation.world import World
from vlad_ros.types import F64

Edge = tuple[int, int]
USED_AGAIN = 5.0  # cost factor of roads to be avoided


class RoadNetwork:
    """Junctions, dead ends and chosen stops of the roads inside a world's square; `ways[u][v]` leads from u to v.

    nodes: list of (2,) [m]; ways: polylines (K, 2); chains: for each road its nodes in order.
    """

    def __init__(self, world: World, stops: dict[int, list[float]] | None = None) -> None:
        self.nodes: list[F64] = []
        self.ways: dict[int, dict[int, F64]] = {}
        self.chains: list[list[int]] = []
        roads = [inside(road, world.size) for road in world.roads]
        cuts: list[list[tuple[float, int]]] = [[] for _ in roads]
        for i, road in enumerate(roads):
            if len(road) > 1:
                for s in [0.0, *(stops or {}).get(i, []), float(arc_length(road)[-1])]:
                    cuts[i].append((s, self._node(at(road, s))))
        for i, j in itertools.combinations(range(len(roads)), 2):
            for s, t in crossings(roads[i], roads[j]):
                node = self._node(at(roads[i], s))
                cuts[i].append((s, node))
                cuts[j].append((t, node))
        for road, cut in zip(roads, cuts, strict=True):
            self._chain(road, sorted(cut))

    def _node(self, position: F64) -> int:
        self.nodes.append(position)
        self.ways[len(self.nodes) - 1] = {}
        return len(self.nodes) - 1

    def _chain(self, road: F64, cut: list[tuple[float, int]]) -> None:
        """Make ways of the pieces of a road; a cut less than a metre after another is dropped."""
        kept = [cut[k] for k in range(len(cut)) if k == 0 or cut[k][0] - cut[k - 1][0] > 1.0]
        length = arc_length(road) if len(road) > 1 else np.zeros(0)
        for (s, u), (t, v) in itertools.pairwise(kept):
            within = (length > s) & (length < t)
            way = np.vstack([self.nodes[u], road[within], self.nodes[v]])
            self.ways[u][v], self.ways[v][u] = way, way[::-1]
        self.chains.append([node for _, node in kept])

    def length(self, nodes: list[int]) -> float:
        """Metres along these nodes."""
        return float(sum(arc_length(self.ways[u][v])[-1] for u, v in itertools.pairwise(nodes)))

    def polyline(self, nodes: list[int]) -> F64:
        """The line (K, 2) along these nodes."""
        parts = [self.ways[u][v][:-1] for u, v in itertools.pairwise(nodes)]
        return np.vstack([*parts, self.nodes[nodes[-1]]])

    def shortest(self, start: int, goal: int, avoid: set[Edge], forbidden: bool = False) -> list[int] | None:
        """The nodes of the shortest way (Dijkstra 1959); edges to avoid cost more, or are closed if `forbidden`."""
        best = {start: 0.0}
        before: dict[int, int] = {}
        queue = [(0.0, start)]
        while queue:
            cost, u = heapq.heappop(queue)
            if u == goal:
                nodes = [goal]
                while nodes[-1] != start:
                    nodes.append(before[nodes[-1]])
                return nodes[::-1]
            if cost > best[u]:
                continue
            for v, way in self.ways[u].items():
                shut = (u, v) in avoid
                if shut and forbidden:
                    continue
                onward = cost + float(arc_length(way)[-1]) * (USED_AGAIN if shut else 1.0)
                if onward < best.get(v, np.inf):
                    best[v], before[v] = onward, u
                    heapq.heappush(queue, (onward, v))
        return None


def both_ways(nodes: list[int]) -> set[Edge]:
    """The edges along these nodes, in both directions."""
    edges = set(itertools.pairwise(nodes))
    return edges | {(v, u) for u, v in edges}


def inside(road: F64, size: float) -> F64:
    """The longest part of the road within the square [0, size]^2, at steps of 2 m; empty when there is none."""
    fine = resample(road, 2.0)
    within = np.concatenate([[False], ((fine > 0) & (fine < size)).all(axis=1), [False]])
    edges = np.flatnonzero(within[1:] != within[:-1]).reshape(-1, 2)
    if not len(edges):
        return fine[:0]
    first, last = edges[np.argmax(edges[:, 1] - edges[:, 0])]
    return fine[first:last]


def at(road: F64, s: float) -> F64:
    """The point at an arc length."""
    length = arc_length(road)
    return np.array([np.interp(s, length, road[:, 0]), np.interp(s, length, road[:, 1])])


def crossings(a: F64, b: F64) -> list[tuple[float, float]]:
    """Arc lengths along both polylines where they cross."""
    if len(a) < 2 or len(b) < 2:
        return []
    r, t = np.diff(a, axis=0)[:, None], np.diff(b, axis=0)[None]
    w = b[None, :-1] - a[:-1, None]
    across = _cross(r, t)
    across = np.where(np.abs(across) < 1e-9, np.nan, across)
    u, v = _cross(w, t) / across, _cross(w, r) / across
    i, j = np.nonzero((u >= 0) & (u < 1) & (v >= 0) & (v < 1))
    sa = arc_length(a)[i] + u[i, j] * np.linalg.norm(r[i, 0], axis=1)
    sb = arc_length(b)[j] + v[i, j] * np.linalg.norm(t[0, j], axis=1)
    return [(float(x), float(y)) for x, y in zip(sa, sb, strict=True)]


def _cross(a: F64, b: F64) -> F64:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
