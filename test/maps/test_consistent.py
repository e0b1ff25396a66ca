# SPDX-License-Identifier: Apache-2.0
"""Consistent sets of loops, against graphs searched by brute force and against the pose graph's own test of pairs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.graph.chain import Chain, Node
from vlad_ros.graph.consistency import Loop, pair_agrees
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.maps.consistent import agreement, largest_clique
from vlad_ros.maps.parts import Loops, Rows
from vlad_ros.maps.placing import bend, meet
from vlad_ros.poses import exp, from_xyz_rpy, inverse, rotation_angle

COVARIANCE = np.diag([0.01, 0.01, 0.04, 1e-5, 1e-5, 1e-4])
T_MAP_OTHER = from_xyz_rpy((40.0, -25.0, 1.0, 0.01, -0.02, 2.1))  # of the second drive's odometry frame


def street(x: float) -> np.ndarray:
    return from_xyz_rpy((x, 12 * np.sin(x / 25), 0.0, 0.0, 0.0, np.arctan(np.cos(x / 25) / 2)))


class Days:
    """Two drives, a keyframe a metre: 0..100 m of a street, and 100 m of it from `first` on; true and other loops."""

    def __init__(self, first: float, drift: float = 0.0, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.truth = np.stack([street(x) for x in (*range(101), *(first + np.arange(101.0)))])
        own = inverse(T_MAP_OTHER) @ self.truth[101:]
        bent = [own[0]]
        for a, b in itertools.pairwise(own):
            bent.append(bent[-1] @ inverse(a) @ b @ from_xyz_rpy((drift, 0.0, 0.0, 0.0, 0.0, drift / 30)))
        travel = np.tile(np.arange(101.0), 2)
        side = np.repeat([0, 1], 101)
        poses = np.concatenate([self.truth[:101], bent])
        self.rows = Rows(side, np.tile(np.arange(101), 2), side, side, poses, travel)
        self.loops: list[tuple[int, int, np.ndarray, float]] = []

    def loop(self, match: int, query: int, shift: float = 0.0, probability: float = 0.99) -> None:
        """A loop from the second drive's keyframe `query` to `match`, as if it lay `shift` m farther along."""
        off = exp(self.rng.normal(0, (0.05, 0.05, 0.05, 0.003, 0.003, 0.003)))
        T = inverse(self.truth[match]) @ from_xyz_rpy((shift, 0, 0, 0, 0, 0)) @ self.truth[101 + query] @ off
        self.loops.append((match, 101 + query, T, probability))

    def all(self) -> Loops:
        match, query, T, probability = zip(*self.loops, strict=True)
        covariance = np.tile(COVARIANCE, (len(T), 1, 1))
        return Loops(np.array(match), np.array(query), np.stack(T), covariance, np.array(probability))

    def meet(self):
        side = self.rows.part
        return meet(self.all(), self.rows, side == 0, side == 1)


@given(st.integers(0, 2**32 - 1), st.integers(1, 11), st.floats(0.1, 0.95))
@settings(max_examples=80, deadline=None)
def test_the_largest_clique_is_that_of_brute_force(seed, size, density):
    rng = np.random.default_rng(seed)
    agree = np.triu(rng.random((size, size)) < density, 1)
    agree = agree | agree.T | np.eye(size, dtype=bool)
    best = 0
    for count in range(1, size + 1):
        for some in itertools.combinations(range(size), count):
            best = max(best, count * bool(agree[np.ix_(some, some)].all()))
    found = largest_clique(agree)
    assert len(found) == best and agree[np.ix_(found, found)].all() and (np.diff(found) > 0).all()


def test_nothing_is_the_clique_of_nothing():
    assert len(largest_clique(np.zeros((0, 0), bool))) == 0


@given(st.integers(0, 2**32 - 1), st.floats(-6.0, 6.0))
@settings(max_examples=15, deadline=None)
def test_pairs_agree_as_in_the_pose_graph(seed, shift):
    days = Days(50.0, 0.01, seed)
    for query in days.rng.choice(50, 6, replace=False):
        days.loop(50 + int(query), int(query), float(days.rng.choice([0.0, shift])))
    loops, rows = days.all(), days.rows
    chain = Chain()
    for row in range(len(rows)):
        chain.add(Node(int(rows.session[row]), int(rows.id[row]), rows.poses[row], float(rows.travel[row]), 0))
    each = [Loop(int(loops.match[n]), int(loops.query[n]), loops.T[n], loops.covariance[n]) for n in range(len(loops))]
    found = agreement(loops, rows)
    for a, b in itertools.combinations(range(len(loops)), 2):
        assert found[a, b] == found[b, a] == pair_agrees(each[a], each[b], chain, PoseGraphConfig())


@pytest.mark.parametrize("shared", [20, 50, 100])
def test_right_loops_place_a_drive_among_wrong_ones(shared):
    days = Days(100.0 - shared, 0.01)
    first = 100 - shared
    for query in range(0, shared + 1, 2):
        days.loop(first + query, query)
    for query in range(1, 100, 7):  # each by itself, to places of its own
        days.loop(int(days.rng.integers(101)), query, float(days.rng.uniform(15, 90)))
    met = days.meet()
    assert not met.refusal and met.places >= shared // 2
    assert np.all(np.abs(met.loops.match - (met.loops.query - 101) - first) == 0)
    part = np.arange(101, 202)
    moved = bend(days.rows, part, met.loops)
    errors = inverse(days.truth[101:]) @ moved
    near = np.linalg.norm(errors[: shared + 1, :3, 3], axis=1)
    assert near.max() < 0.5 and max(map(rotation_angle, errors[: shared + 1])) < np.radians(1.5)
    rigid = T_MAP_OTHER @ days.rows.poses[part]  # its frame known exactly: only the drift is left
    assert (
        near.mean() < np.linalg.norm((inverse(days.truth[101:]) @ rigid)[: shared + 1, :3, 3], axis=1).mean()
        or shared < 50
    )


def test_how_far_two_odometries_are_apart_is_said():
    days = Days(0.0, drift=0.02)
    for query in range(0, 101, 2):
        days.loop(query, query)
    met = days.meet()
    assert 0.3 < np.median(met.metres) < 1.5 and met.metres.max() < 3.0  # 2 m in 100, and 4 degrees
    true = Days(0.0)
    for query in range(0, 101, 2):
        true.loop(query, query)
    assert np.median(true.meet().metres) < 0.15


@pytest.mark.parametrize(
    ("loops", "why"),
    [
        ([(50 + q, q, 0.0) for q in range(0, 8, 2)], "of 5 that are needed"),
        ([(50 + q // 4, q // 4, 0.0) for q in range(16)], "needed"),
        # Blocks that are alike: as many say that it lies one block on.
        ([(60 + q, q, 0.0) for q in range(0, 40, 2)] + [(80 + q, q, 20.0) for q in range(0, 21, 2)], "looks the same"),
        # A consistent set, but most of what would lie together there does not know each other.
        ([(q, q, 0.0) for q in range(0, 12, 2)], "only"),
    ],
)
def test_what_is_not_enough_keeps_maps_apart(loops, why):
    days = Days(50.0 if loops[0][0] == 50 else 60.0 if loops[0][0] == 60 else 0.0)
    for match, query, shift in loops:
        days.loop(match, query, shift)
    met = days.meet()
    assert why in met.refusal and not len(met.loops)


def test_a_consistent_wrong_set_does_not_win_over_a_larger_right_one():
    days = Days(40.0)
    for query in range(0, 60, 2):
        days.loop(40 + query, query)
    for query in range(0, 20, 2):
        days.loop(70 + query, query, 30.0)
    met = days.meet()
    assert not met.refusal and met.rival == 10 and np.all(met.loops.match - (met.loops.query - 101) == 40)


def test_improbable_loops_place_nothing():
    days = Days(40.0)
    for query in range(0, 60, 2):
        days.loop(40 + query, query, probability=0.7)
    assert "0 places" in days.meet().refusal
