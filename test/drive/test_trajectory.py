# SPDX-License-Identifier: Apache-2.0
"""A back-end's path is interpolated between neighbours, and across no hole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlad_ros.drive.trajectory import Trajectory
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.stamps import SECOND

TENTH = SECOND // 10


def straight(tenths: list[int], **more: object) -> Trajectory:
    """Poses at these stamps, one metre a second along x."""
    return Trajectory(np.array(tenths) * TENTH, [from_xyz_rpy((t / 10, 0, 0, 0, 0, 0)) for t in tenths], **more)  # type: ignore[arg-type]


def told(path: Trajectory, tenths: range) -> list[int]:
    stamps = np.array(tenths) * TENTH
    found = stamps[path.tells(stamps)]
    np.testing.assert_allclose(path.at(found)[:, 0, 3], found / SECOND, atol=1e-9)
    return (found // TENTH).tolist()


def test_two_stretches_are_not_joined() -> None:
    path = straight([*range(20, 60, 5), *range(200, 240, 5)])
    assert told(path, range(0, 300)) == [*range(20, 56), *range(200, 236)]
    with pytest.raises(ValueError, match="nothing is extrapolated"):
        path.at(np.array([100 * TENTH]))


def test_a_second_is_no_hole_however_dense_the_path() -> None:
    path = straight([*range(0, 10), 19, 30])
    assert told(path, range(0, 40)) == [*range(0, 20), 30]


def test_a_path_explains_its_own_spacing() -> None:
    assert told(straight([0, 100, 200, 300, 700, 800, 1400]), range(0, 1500, 50)) == [*range(0, 850, 50), 1400]
    assert told(straight([0, 400]), range(0, 500, 100)) == [0, 100, 200, 300, 400]  # nothing else is known of it
    assert told(straight([0, 400, 410]), range(0, 420, 10)) == [0, 400, 410]


def test_a_single_pose_tells_its_own_stamp() -> None:
    assert told(straight([5]), range(0, 10)) == [5]
    assert told(straight([5], travel=(np.array([5 * TENTH]), np.array([1.0]))), range(0, 10)) == [5]


def test_nodes_made_by_distance_stay_neighbours_where_the_vehicle_stands() -> None:
    """A node a metre; it drives, stands for a minute at 5 m, drives on; round a block it has driven all the time."""
    nodes = [*range(0, 60, 10), *range(650, 700, 10)]
    at = np.array([*range(0, 55, 5), 300, *range(640, 700, 5)])
    stood = np.interp(at, [0, 50, 640, 700], [0.0, 5.0, 5.0, 11.0])
    path = straight(nodes, travel=(at * TENTH, stood))
    assert told(path, range(0, 700, 10)) == list(range(0, 700, 10))
    drove = straight(nodes, travel=(at * TENTH, at / 10.0))
    unknown = straight(nodes, travel=(at * TENTH, np.where(at == 300, np.nan, stood)))
    nowhere = straight(nodes, travel=(at[:0], stood[:0]))
    not_so_far = straight(nodes, travel=(at[at < 301] * TENTH, stood[at < 301]))
    too_late = straight(nodes, travel=(at[at > 299] * TENTH, stood[at > 299]))
    for path in (drove, unknown, nowhere, not_so_far, too_late):
        assert told(path, range(0, 700, 10)) == nodes


def test_in_any_order_and_of_equal_stamps_the_last_one_counts() -> None:
    x = [from_xyz_rpy((float(i), 0, 0, 0, 0, 0)) for i in range(4)]
    path = Trajectory([3 * SECOND, 1 * SECOND, 2 * SECOND, 1 * SECOND], x)
    assert path.at(np.array([1, 2, 3]) * SECOND)[:, 0, 3].tolist() == [3.0, 2.0, 0.0]


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
    st.data(),
)
def test_news_is_what_the_last_path_did_not_tell_so(before: list[int], now: list[int], data: st.DataObject) -> None:
    """Everything else is told as it was, to the last bit, by the last path."""
    moved = data.draw(st.sets(st.sampled_from(now)))
    curve = [from_xyz_rpy((t / 10, 0.01 * t * t, 0, 0, 0, 0)) for t in range(41)]
    last = Trajectory(np.array(before) * TENTH, [curve[t] for t in before])
    T = [curve[t] @ from_xyz_rpy((0.1 if t in moved else 0.0, 0, 0, 0, 0, 0)) for t in now]
    path = Trajectory(np.array(now) * TENTH, T, last=last)
    stamps = np.arange(0, 41 * TENTH, TENTH // 2)
    news = path.news(stamps)
    assert not news[~path.tells(stamps)].any()
    old = stamps[path.tells(stamps) & ~news]
    assert last.tells(old).all()
    assert np.array_equal(path.at(old), last.at(old))
    whole = Trajectory(np.array(now) * TENTH, T, last=path)
    assert not whole.news(stamps).any() and np.array_equal(whole.tells(stamps), path.tells(stamps))


def test_what_is_no_path() -> None:
    with pytest.raises(ValueError, match="at least one"):
        straight([])
    with pytest.raises(ValueError, match="2 poses, 1 stamps"):
        Trajectory([1], [np.eye(4)] * 2)
    for wrong, words in ((np.diag([1.0, 1, -1, 1]), "rigid"), (np.diag([1.0, 1, 2, 1]), "rigid"), (np.nan, "finite")):
        with pytest.raises(ValueError, match=f"a pose of the path is not .*{words}"):
            Trajectory([1, 2], [np.eye(4), wrong * np.ones((4, 4))])
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        Trajectory([1], np.eye(3)[None])
