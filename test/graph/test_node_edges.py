# SPDX-License-Identifier: Apache-2.0
"""Edges between a back-end's own nodes: transforms against the true trajectory, covariance against sampling."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from loops import accepted_loop
from scipy.spatial.transform import Rotation

from vlad_ros.graph.node_edges import NodeEdges, compose, drift_covariance
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, LoopClosure, RejectReason

MS = 1_000_000
COVARIANCE = np.diag([0.04, 0.01, 0.02, 0.001, 0.002, 0.003])


def odometry(stamp: int) -> F64:
    """A smooth way with turns and hills, at about 2 m/s."""
    t = stamp / SECOND
    return from_xyz_rpy((2.0 * t, 3.0 * math.sin(0.2 * t), 0.1 * t, 0.02 * t, -0.01 * t, 0.3 * math.sin(0.2 * t)))


def moved(d: np.ndarray) -> np.ndarray:
    """(N, 4, 4) of small perturbations (N, 6)."""
    T = np.tile(np.eye(4), (len(d), 1, 1))
    T[:, :3, :3], T[:, :3, 3] = Rotation.from_rotvec(d[:, 3:]).as_matrix(), d[:, :3]
    return T


def loop(query: int, match: int, **changes: object) -> LoopClosure:
    """An accepted edge with the true transform."""
    T = inverse(odometry(match)) @ odometry(query)
    return accepted_loop(query, match, T, COVARIANCE, **{"query_id": 90, "match_id": 10} | changes)


@pytest.fixture
def withheld() -> Counter[str]:
    return Counter()


@pytest.fixture
def edges(withheld: Counter[str]) -> NodeEdges:
    """After a minute of scans at 10 Hz."""
    edges = NodeEdges(lambda reason: withheld.update([reason]))
    for stamp in range(0, 60 * SECOND, 100 * MS):
        edges.move(stamp, odometry(stamp))
    return edges


def add(edges: NodeEdges, closure: LoopClosure) -> None:
    edges.add(closure, odometry(closure.query_stamp), odometry(closure.match_stamp))


def test_an_edge_joins_the_nearest_nodes(edges: NodeEdges, withheld: Counter[str]) -> None:
    for stamp in (49_900 * MS, 50_350 * MS, 53 * SECOND, 39_800 * MS, 41 * SECOND):
        edges.announce(stamp)
    add(edges, loop(50_200 * MS, 40 * SECOND))
    (edge,) = edges.take()
    assert (edge.query_stamp, edge.match_stamp) == (50_350 * MS, 39_800 * MS)
    expected = inverse(odometry(39_800 * MS)) @ odometry(50_350 * MS)
    assert edge.T_match_query is not None and edge.covariance is not None
    np.testing.assert_allclose(edge.T_match_query, expected, atol=2e-3)  # the way between two scans is not straight
    assert np.all(np.linalg.eigvalsh(edge.covariance - 0.9 * COVARIANCE.min() * np.eye(6)) > 0)
    assert (edge.query_id, edge.probability, edge.accepted) == (90, 0.99, True)
    assert edges.take() == [] and not withheld


def test_nothing_is_added_where_nodes_are_keyframes(edges: NodeEdges) -> None:
    closure = loop(50 * SECOND, 40 * SECOND)
    for stamp in (40 * SECOND, 50 * SECOND):
        edges.announce(stamp)
    edges.add(closure, None, None)  # even without odometry
    (edge,) = edges.take()
    np.testing.assert_allclose(edge.T_match_query, closure.T_match_query)  # type: ignore[arg-type]
    np.testing.assert_allclose(edge.covariance, COVARIANCE)  # type: ignore[arg-type]


def test_an_edge_waits_for_its_nodes_and_they_for_odometry(edges: NodeEdges) -> None:
    edges.announce(40 * SECOND)
    add(edges, loop(59_800 * MS, 40 * SECOND))
    assert edges.take() == []
    edges.announce(60_050 * MS)  # odometry has not come so far
    assert edges.take() == []
    edges.move(60_100 * MS, odometry(60_100 * MS))
    (edge,) = edges.take()
    assert edge.query_stamp == 60_050 * MS


def test_a_path_of_nodes_told_again_and_again_is_news_once(edges: NodeEdges, withheld: Counter[str]) -> None:
    """Whole paths that grow, in any order, with what is known already: as one announcement after the other."""
    one_by_one = NodeEdges(lambda reason: withheld.update([reason]))
    for stamp in range(0, 60 * SECOND, 100 * MS):
        one_by_one.move(stamp, odometry(stamp))
    nodes = [stamp + 30 * MS for stamp in range(0, 62 * SECOND, 700 * MS)]
    for stamp in nodes:
        one_by_one.announce(stamp)
    rng = np.random.default_rng(0)
    for end in (1, 20, 20, 50, len(nodes)):
        edges.announce(*rng.permutation(nodes[:end]).tolist())
    edges.announce()
    found = []
    for each in (edges, one_by_one):
        for query in range(50_000, 60_000, 500):
            add(each, loop(query * MS, 40 * SECOND))
        for stamp in range(60 * SECOND, 62 * SECOND, 100 * MS):
            each.move(stamp, odometry(stamp))
        found.append([(edge.query_stamp, edge.match_stamp) for edge in each.take()])
    assert found[0] == found[1] and len(found[0]) > 10


def test_half_a_second_is_near_and_more_is_far(edges: NodeEdges, withheld: Counter[str]) -> None:
    for stamp in (40 * SECOND, 49_500 * MS, 52 * SECOND):
        edges.announce(stamp)
    add(edges, loop(50 * SECOND, 40 * SECOND))
    assert len(edges.take()) == 1
    add(edges, loop(50_100 * MS, 40 * SECOND))
    assert edges.take() == [] and withheld == {"node_far": 1}


@pytest.mark.parametrize("which", ["query", "match", "node"])
def test_without_odometry_it_is_withheld(edges: NodeEdges, withheld: Counter[str], which: str) -> None:
    if which == "node":  # of before the odometry began
        edges = NodeEdges(lambda reason: withheld.update([reason]))
        for stamp in range(41 * SECOND, 60 * SECOND, 100 * MS):
            edges.move(stamp, odometry(stamp))
    for stamp in (39_900 * MS, 50_100 * MS):
        edges.announce(stamp)
    closure = loop(50 * SECOND, 40 * SECOND)
    poses = [odometry(50 * SECOND), odometry(40 * SECOND)]
    if which != "node":
        poses[which == "match"] = None  # type: ignore[call-overload]
    edges.add(closure, *poses)
    assert edges.take() == [] and withheld == {"node_without_odometry": 1}


def test_a_jump_of_odometry_leads_nowhere(withheld: Counter[str]) -> None:
    edges = NodeEdges(lambda reason: withheld.update([reason]))
    away = from_xyz_rpy((100.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    for stamp in range(0, 60 * SECOND, 100 * MS):
        edges.move(stamp, away @ odometry(stamp) if stamp > 50 * SECOND else odometry(stamp))
    for stamp in (40 * SECOND, 50_200 * MS):
        edges.announce(stamp)
    add(edges, loop(50 * SECOND, 40 * SECOND))
    assert edges.take() == [] and withheld == {"node_without_odometry": 1}


def test_a_gap_of_odometry_is_not_bridged(withheld: Counter[str]) -> None:
    edges = NodeEdges(lambda reason: withheld.update([reason]))
    for stamp in range(0, 60 * SECOND, 100 * MS):
        edges.move(stamp, None if 50 * SECOND < stamp < 52 * SECOND else odometry(stamp))
    for stamp in (40 * SECOND, 50_300 * MS):
        edges.announce(stamp)
    add(edges, loop(50 * SECOND, 40 * SECOND))
    add(edges, loop(49_900 * MS, 40 * SECOND))
    assert edges.take() == [] and withheld == {"node_without_odometry": 2}


def test_only_accepted_and_verified_edges_of_one_session(edges: NodeEdges, withheld: Counter[str]) -> None:
    for stamp in (40 * SECOND, 50 * SECOND):
        edges.announce(stamp)
    add(edges, loop(50 * SECOND, 40 * SECOND, accepted=False, reject_reason=RejectReason.LOW_PROBABILITY))
    add(edges, loop(50 * SECOND, 40 * SECOND, T_match_query=None, covariance=None))
    assert not withheld
    add(edges, loop(50 * SECOND, 40 * SECOND, match_session=1))
    assert edges.take() == [] and withheld == {"node_other_session": 1}


def test_no_pair_of_nodes_twice(edges: NodeEdges, withheld: Counter[str]) -> None:
    for stamp in (40 * SECOND, 50 * SECOND, 52 * SECOND):
        edges.announce(stamp)
    for query in (50 * SECOND, 50_100 * MS):
        add(edges, loop(query, 40 * SECOND))
    assert len(edges.take()) == 1 and not withheld


def test_stamps_that_go_back_end_everything(edges: NodeEdges, withheld: Counter[str]) -> None:
    for stamp in (40 * SECOND, 50 * SECOND):
        edges.announce(stamp)
    add(edges, loop(55 * SECOND, 40 * SECOND))
    edges.move(SECOND, odometry(SECOND))
    assert edges.take() == [] and withheld == {"node_far": 1}
    add(edges, loop(50 * SECOND, 40 * SECOND))
    edges.announce(SECOND)
    assert edges.take() == []  # the nodes of the time before are forgotten


def test_the_covariance_is_that_of_samples() -> None:
    A, T, B = (from_xyz_rpy(v) for v in ((0.5, 0.2, 0, 0, 0.1, 0.4), (6, -3, 1, 0.2, -0.3, 2), (-0.8, 0, 0, 0, 0, 0.2)))
    covariances = (drift_covariance(A), 1e-2 * COVARIANCE, drift_covariance(B))
    whole, covariance = compose(A, T, B, covariances)
    np.testing.assert_allclose(whole, A @ T @ B)
    rng = np.random.default_rng(0)
    a, t, b = (moved(rng.multivariate_normal(np.zeros(6), c, 5000)) for c in covariances)
    off = a @ A @ t @ T @ b @ B @ inverse(whole)
    samples = np.column_stack([off[:, :3, 3], Rotation.from_matrix(off[:, :3, :3]).as_rotvec()])
    scale = np.outer(*[np.sqrt(np.diag(covariance))] * 2)
    np.testing.assert_allclose(np.cov(samples.T) / scale, covariance / scale, atol=0.07)


def test_a_longer_way_is_less_certain() -> None:
    short, long = (drift_covariance(from_xyz_rpy((x, 0, 0, 0, 0, 0))) for x in (0.1, 10.0))
    assert long[0, 0] > 4 * short[0, 0] > 0
