# SPDX-License-Identifier: Apache-2.0
"""The largest set of loops between two maps of which each two agree (PCM: Mangelson et al., "Pairwise consistent
measurement set maximization for robust multi-robot map merging", ICRA 2018)."""

from __future__ import annotations

import numpy as np

from vlad_ros.covariance_conventions import adjoint
from vlad_ros.graph.chain import diagonal, strayed
from vlad_ros.graph.consistency import CHI2, SLACK_METRES, SLACK_RADIANS
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.maps.parts import Loops, Rows
from vlad_ros.poses import inverse, log
from vlad_ros.types import F64, Bools, Ints

STEPS = 20_000  # of the exact search; what is best by then is taken
DRIFT = PoseGraphConfig()
SLACK = diagonal(SLACK_METRES, SLACK_RADIANS)


def agreement(loops: Loops, rows: Rows) -> Bools:
    """(L, L) whether each two loops can be true together: the one, odometry to the other, that one backwards and
    odometry back end where they began, up to what the two may be off by and odometry may have strayed."""
    number = len(loops)
    out = np.eye(number, dtype=bool)
    M, Q, own = rows.poses[loops.match], rows.poses[loops.query], loops.covariance + SLACK
    for a in range(number - 1):
        others = np.arange(a + 1, number)
        forth = loops.T[a] @ inverse(Q[a]) @ Q[others] @ inverse(loops.T[others])
        error = log(forth @ inverse(M[others]) @ M[a])
        J, queried = _adjoints(forth), adjoint(loops.T[a])
        ways = (rows.way(loops.query[a], loops.query[others]), rows.way(loops.match[a], loops.match[others]))
        S = own[a] + queried @ _strayed(ways[0]) @ queried.T
        S = S + J @ (own[others] + _strayed(ways[1])) @ J.swapaxes(1, 2)
        chi2 = np.einsum("na,na->n", error, np.linalg.solve(S, error[..., None])[..., 0])
        out[a, others] = out[others, a] = chi2 <= CHI2
    return out


def _adjoints(T: F64) -> F64:
    return np.array([adjoint(one) for one in T]).reshape(-1, 6, 6)


def _strayed(lengths: F64) -> F64:
    """(N, 6, 6) covariances of odometry's ways of these lengths (N,) [m]."""
    metres, radians = strayed(lengths, DRIFT)
    return np.asarray(np.stack([metres] * 3 + [radians] * 3, axis=1)[:, :, None] ** 2 * np.eye(6))


def largest_clique(agree: Bools) -> Ints:
    """The vertices (K,), ascending, of a largest set of which each two `agree` (N, N).

    Branch and bound with a greedy colouring as the bound (Tomita and Kameda, "An efficient branch-and-bound algorithm
    for finding a maximum clique", 2007); after STEPS steps the largest set found so far.
    """
    order = np.argsort(-agree.sum(axis=0), kind="stable")
    sorted_ = agree[np.ix_(order, order)]
    bits = [sum(1 << int(j) for j in np.flatnonzero(row)) & ~(1 << i) for i, row in enumerate(sorted_)]
    best: list[int] = []
    steps = 0

    def extend(chosen: list[int], left: int) -> None:
        nonlocal best, steps
        steps += 1
        for vertex, colours in reversed(_coloured(left, bits)):
            if len(chosen) + colours <= len(best) or (steps > STEPS and best):
                return
            extend([*chosen, vertex], left & bits[vertex])
            left &= ~(1 << vertex)
        if len(chosen) > len(best):
            best = chosen

    extend([], (1 << len(agree)) - 1)
    return np.sort(order[best]).astype(np.int64)


def _coloured(left: int, bits: list[int]) -> list[tuple[int, int]]:
    """The vertices of `left` in classes of which no two agree, each with the number of classes up to its own: no
    clique among it and those before it is larger."""
    out, colours = [], 0
    while left:
        colours += 1
        free = left
        while free:
            vertex = (free & -free).bit_length() - 1
            out.append((vertex, colours))
            left &= ~(1 << vertex)
            free &= ~(1 << vertex) & ~bits[vertex]
    return out
