# SPDX-License-Identifier: Apache-2.0
"""Where the pose graph's nodes are made: at keyframes however late they are told, and of odometry alone in between."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from vlad_ros.graph.feed import GRACE, NodeFeed
from vlad_ros.graph_config import PoseGraphConfig
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64

STEP = SECOND // 10


def pose(stamp: int, speed: float = 3.0) -> F64:
    """Straight ahead, from 0 at the stamp 0."""
    return from_xyz_rpy((speed * stamp / SECOND, 0.0, 0.0, 0.0, 0.0, 0.0))


def drive(feed: NodeFeed, seconds: int, begin: int = 0) -> Iterator[tuple[int, list[int]]]:
    """Odometry at 10 Hz; each stamp and those of the nodes that it brought."""
    for stamp in range(begin + STEP, begin + seconds * SECOND + 1, STEP):
        yield stamp, [node.stamp for node in feed.move(stamp, pose(stamp))]


def test_each_keyframe_is_a_node_and_odometry_makes_those_of_a_long_way_between() -> None:
    feed = NodeFeed(PoseGraphConfig(node_distance=5.0))
    made = []
    for stamp, nodes in drive(feed, 20):
        made += nodes
        if stamp in (SECOND, 2 * SECOND, 12 * SECOND):
            made += [node.stamp for node in feed.keyframe(stamp, pose(stamp))]
    assert made == sorted(made)
    between = [stamp for stamp in made if 2 * SECOND < stamp < 12 * SECOND]
    np.testing.assert_allclose(np.diff([2 * SECOND, *between]) * 3 / SECOND, 5.1)  # the first message beyond 5 m
    assert {SECOND, 2 * SECOND, 12 * SECOND} < set(made) and len(between) == 5
    assert feed.same_body


def test_a_keyframe_that_is_told_late_is_still_a_node() -> None:
    """A bag played at 20 times its speed: the place node is ten seconds behind."""
    feed = NodeFeed(PoseGraphConfig(node_distance=5.0))
    made = [node.stamp for node in feed.keyframe(STEP, pose(STEP))]
    late = 10 * SECOND
    for stamp, nodes in drive(feed, 40):
        made += nodes
        if stamp > late and stamp % SECOND == 0:
            made += [node.stamp for node in feed.keyframe(stamp - late, pose(stamp - late))]
    assert made == sorted(made) and set(range(SECOND, 30 * SECOND + 1, SECOND)) <= set(made)
    assert len(made) == len(set(made)) == 31


def test_without_any_keyframe_odometry_goes_on_alone_after_a_while() -> None:
    feed = NodeFeed(PoseGraphConfig(node_distance=5.0))
    stamp = [*drive(feed, 2)][-1][0]
    feed.keyframe(stamp, pose(stamp))
    made = [(at, node) for at, nodes in drive(feed, 60, stamp) for node in nodes]
    assert made and all(GRACE < at - node <= GRACE + 2 * STEP for at, node in made)


@pytest.mark.parametrize("off", ((0.5, 0.0), (0.0, 0.1)))
def test_odometry_of_another_body_makes_no_nodes(off: tuple[float, float]) -> None:
    feed = NodeFeed(PoseGraphConfig(node_distance=5.0))
    T = from_xyz_rpy((off[0], 0.0, 0.0, 0.0, 0.0, off[1]))
    made = []
    for stamp, nodes in drive(feed, 60):
        made += nodes
        if stamp % (20 * SECOND) == 0:
            made += [node.stamp for node in feed.keyframe(stamp, pose(stamp) @ T)]
    assert feed.same_body is False and made == [20 * SECOND, 40 * SECOND, 60 * SECOND]


def test_a_keyframe_waits_for_the_odometry_that_may_jump_before_it() -> None:
    feed = NodeFeed(PoseGraphConfig())
    stamp = [*drive(feed, 1)][-1][0]
    assert [node.part for node in feed.keyframe(stamp, pose(stamp))] == [0]
    after = stamp + 2 * STEP
    away = from_xyz_rpy((0.0, 300.0, 0.0, 0.0, 0.0, 0.0))
    assert not feed.keyframe(after, away @ pose(after))
    feed.move(stamp + STEP, away @ pose(stamp + STEP))
    nodes = [(node.stamp, node.part) for node in feed.move(after, away @ pose(after))]
    assert nodes == [(stamp + STEP, 1), (after, 1)]  # the first of them, for it lies 300 m on


def test_a_parked_vehicle_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message is looked at once, however long the last node lies back."""
    feed = NodeFeed(PoseGraphConfig())
    asked = 0

    def norm(vector: F64) -> float:
        nonlocal asked
        asked += 1
        return float(np.sqrt(vector @ vector))

    feed.move(STEP, np.eye(4))
    feed.keyframe(STEP, np.eye(4))
    monkeypatch.setattr("vlad_ros.graph.feed.np.linalg.norm", norm)
    number = 3000
    for k in range(2, number):
        feed.move(k * STEP, np.eye(4))
    assert asked < 4 * number
