# SPDX-License-Identifier: Apache-2.0
"""The database against brute force: its search, and where it says that keyframes lie."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_rows import DIM, MAKE, geometry, keyframe, make, unit
from scipy.spatial.transform import Rotation

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.stamps import SECOND
from vlad_ros.types import Keyframe


def meets(query: Keyframe, row: Keyframe) -> bool:
    both_local = query.is_local_map and row.is_local_map
    return both_local or (query.scan_descriptor is not None and row.scan_descriptor is not None)


def naive_similarity(query: Keyframe, row: Keyframe) -> float:
    if query.is_local_map and row.is_local_map:
        return float(np.dot(query.descriptor.astype(np.float64), row.descriptor))
    return float(np.dot(query.scan_descriptor.astype(np.float64), row.scan_descriptor))


def naive_candidates(query, rows, exclude_time, exclude_distance) -> set[int]:
    """One row after the other, as the design's sentence says it. A row without a pose lies, as far as anybody knows,
    where the last one of its session with a pose was."""
    allowed, travel = set(), None
    for id, row in enumerate(rows):
        if id and rows[id - 1].session != row.session:
            travel = None
        travel = row.travel if row.travel is not None else travel
        young = query.stamp - row.stamp < exclude_time * SECOND
        near = query.travel is not None and travel is not None and travel > query.travel - exclude_distance
        if meets(query, row) and (row.session != query.session or not (young or near)):
            allowed.add(id)
    return allowed


def without_scan(one: Keyframe) -> Keyframe:
    return dataclasses.replace(one, scan_descriptor=None)


@st.composite
def drives(draw):
    """Rows of one to three sessions, with odometry that comes and goes, and a query in any session."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = []
    for session in draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True).map(sorted)):
        stamp, travel = draw(st.integers(0, 10)) * SECOND, 0.0
        for _ in range(draw(st.integers(0, 12))):
            stamp += draw(st.sampled_from([1, SECOND // 2, SECOND, 20 * SECOND]))
            travel += draw(st.sampled_from([0.0, 0.25, 1.0, 30.0]))
            posed = draw(st.booleans())
            one = keyframe(rng, session, stamp, draw(st.booleans()), travel if posed else None)
            rows.append(without_scan(one) if one.is_local_map and draw(st.booleans()) else one)
    query = keyframe(
        rng,
        draw(st.integers(0, 9)),
        draw(st.integers(0, 120)) * SECOND,
        draw(st.booleans()),
        draw(st.none() | st.integers(0, 200).map(float)),
    )
    query = without_scan(query) if query.is_local_map and draw(st.booleans()) else query
    return rows, query, draw(st.sampled_from([0.0, 0.5, 1.0, 30.0])), draw(st.sampled_from([0.0, 1.0, 20.0]))


@given(drives())
@settings(max_examples=150, deadline=None)
def test_search_equals_brute_force(drive):
    rows, query, exclude_time, exclude_distance = drive
    database = make(rows)
    allowed = naive_candidates(query, rows, exclude_time, exclude_distance)
    everything = database.search(query, 1000, exclude_time, exclude_distance)
    assert {candidate.id for candidate in everything} == allowed
    assert len(everything) == len(allowed)  # every row once
    for candidate in everything:
        row = rows[candidate.id]
        assert (candidate.session, candidate.stamp) == (row.session, row.stamp)
        assert candidate.similarity == pytest.approx(naive_similarity(query, row), abs=1e-5)
    similarities = [candidate.similarity for candidate in everything]
    assert similarities == sorted(similarities, reverse=True)
    best = database.search(query, 3, exclude_time, exclude_distance)
    assert [candidate.similarity for candidate in best] == similarities[:3]


def test_several_blocks_equal_brute_force():
    rng = np.random.default_rng(1)
    rows = [keyframe(rng, i // 5000, i * SECOND, bool(rng.random() < 0.5), float(i)) for i in range(10_000)]
    database = make(rows)
    for local in (False, True):
        query = keyframe(rng, 1, 10_000 * SECOND, local, 10_000.0)
        found = database.search(query, 10, 30.0, 100.0)
        reference = np.array([naive_similarity(query, row) for row in rows])
        allowed = sorted(naive_candidates(query, rows, 30.0, 100.0), key=lambda id: -reference[id])
        assert [candidate.id for candidate in found] == allowed[:10]
        assert np.allclose([candidate.similarity for candidate in found], reference[allowed[:10]], atol=1e-5)


def test_recent_neighbours_do_not_hide_the_true_loop():
    rng = np.random.default_rng(2)
    place = unit(rng)
    rows = [Keyframe(0, 0, place, place)]
    rows += [keyframe(rng, 0, i * SECOND) for i in range(1, 50)]
    rows += [Keyframe(0, (50 + i) * SECOND, place, place) for i in range(20)]
    query = Keyframe(0, 70 * SECOND, place, place)
    assert make(rows).search(query, 1, 30.0, 20.0)[0].id == 0


def test_exclusion_ends_exactly_at_its_bounds():
    rng = np.random.default_rng(3)
    database = make([keyframe(rng, 0, 0, travel=0.0)])
    assert database.search(keyframe(rng, 0, 30 * SECOND, travel=20.0), 1, 30.0, 20.0)
    assert not database.search(keyframe(rng, 0, 30 * SECOND - 1, travel=20.0), 1, 30.0, 20.0)
    assert not database.search(keyframe(rng, 0, 30 * SECOND, travel=19.9), 1, 30.0, 20.0)
    assert database.search(keyframe(rng, 0, 30 * SECOND), 1, 30.0, 20.0)  # no odometry: only the time counts
    assert database.search(keyframe(rng, 1, 1, travel=0.0), 1, 30.0, 20.0)  # another session is never excluded


def test_empty_and_small_databases():
    rng = np.random.default_rng(4)
    database = KeyframeDatabase(DIM, **MAKE)
    query = keyframe(rng, 1)
    assert database.search(query, 10, 30.0, 20.0) == []
    assert len(database) == 0 and database.next_session() == 0
    database.add(keyframe(rng))
    assert len(database.search(query, 10, 30.0, 20.0)) == 1
    with pytest.raises(ValueError, match="k must be"):
        database.search(query, 0, 30.0, 20.0)


def test_equal_candidates_come_in_the_order_of_their_ids():
    rng = np.random.default_rng(5)
    place = unit(rng)
    rows = [Keyframe(0, i, place, place, i % 2 == 0) for i in range(1200)]
    found = make(rows).search(Keyframe(1, 0, place, place, True), 1200, 30.0, 20.0)
    assert [candidate.id for candidate in found] == list(range(1200))


def test_rows_know_their_keyframes():
    rng = np.random.default_rng(6)
    database = make([keyframe(rng, 0, 5, travel=1.5), keyframe(rng, 4, 2)])
    row = database.keyframe(0)
    assert (row.session, row.stamp, row.travel) == (0, 5, 1.5) and row.T_odom_base[0, 3] == 1.5
    assert database.keyframe(1).T_odom_base is None and database.keyframe(1).travel is None
    assert database.next_session() == 5
    with pytest.raises(ValueError, match="no keyframe 2"):
        database.keyframe(2)


@pytest.mark.parametrize(
    "bad",
    [
        {"session": 0, "stamp": 10},  # the same stamp again
        {"session": 0, "stamp": 9},
        {"session": -1, "stamp": 11},
        {"session": 2**32, "stamp": 11},
        {"stamp": 2**63},
        {"travel": np.nan},
        {"travel": np.inf},
        {"T_odom_base": np.full((4, 4), np.nan)},
        {"T_odom_base": 2 * np.eye(4)},
        {"descriptor": np.zeros(DIM + 1, np.float32)},
        {"scan_descriptor": np.full(DIM, np.nan, np.float32)},
    ],
)
def test_a_keyframe_that_does_not_fit_changes_nothing(bad):
    rng = np.random.default_rng(7)
    database = make([keyframe(rng, 0, 10)])
    values = {"session": 0, "stamp": 11, "descriptor": unit(rng), "scan_descriptor": unit(rng)} | bad
    with pytest.raises(ValueError):
        database.add(Keyframe(**values, is_local_map=True))
    assert len(database) == 1
    assert len(database.search(keyframe(rng, 1), 10, 30.0, 20.0)) == 1


def test_sessions_know_where_they_lie_in_the_map():
    rng = np.random.default_rng(8)
    database = make([keyframe(rng, 0), keyframe(rng, 1)])
    assert np.array_equal(database.sessions[0], np.eye(4))  # `map` is the first session's odometry frame
    assert database.sessions[1] is None
    T = np.eye(4)
    T[0, 3] = 7.0
    database.set_T_map_odom(1, T)
    assert database.sessions[1][0, 3] == 7.0
    with pytest.raises(ValueError, match="no session 2"):
        database.set_T_map_odom(2, T)
    with pytest.raises(ValueError, match="T_map_odom"):
        database.set_T_map_odom(1, 2 * np.eye(4))


# -- geometry, and places in the map ----------------------------------------------------------------------------------


def test_geometry_and_descriptors_come_back_as_they_were_given():
    rng = np.random.default_rng(20)
    rows = [dataclasses.replace(keyframe(rng, 0, i, i % 2 == 0), geometry=geometry(rng, i, 2 * i)) for i in range(6)]
    rows.append(keyframe(rng, 0, 6))
    rows.append(without_scan(keyframe(rng, 0, 7, True)))
    database = make(rows)
    for id, row in enumerate(rows):
        whole = database.whole(id)
        assert database.geometry(id) is row.geometry
        assert np.array_equal(whole.descriptor, row.descriptor)
        if row.scan_descriptor is None:
            assert whole.scan_descriptor is None
        else:
            assert np.array_equal(whole.scan_descriptor, row.scan_descriptor)
        assert (whole.stamp, whole.is_local_map, whole.geometry) == (row.stamp, row.is_local_map, row.geometry)
    with pytest.raises(ValueError, match="no keyframe 8"):
        database.geometry(8)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"keypoints": np.zeros((5, 3), np.float32)}, "keypoints"),
        ({"keypoints": np.full((5, 2), np.inf, np.float32)}, "finite"),
        ({"features": np.zeros((5, 7), np.int8)}, "features"),  # the others have 6
        ({"features": np.zeros((5, 6), np.float32)}, "features"),
        ({"cloud": np.zeros((5, 3), np.float32)}, "cloud"),
        ({"T_level_body": np.full((4, 4), np.nan)}, "finite"),
    ],
)
def test_geometry_of_another_kind_is_refused(bad, word):
    rng = np.random.default_rng(21)
    database = make([dataclasses.replace(keyframe(rng, 0, 0), geometry=geometry(rng))])
    with pytest.raises(ValueError, match=word):
        wrong = dataclasses.replace(geometry(rng), **bad)
        database.add(dataclasses.replace(keyframe(rng, 0, 1), geometry=wrong))
    assert len(database) == 1


def posed(count: int, session: int = 0) -> list[Keyframe]:
    rng = np.random.default_rng(22)
    return [keyframe(rng, session, i * SECOND, travel=float(i)) for i in range(count)]


def test_a_pose_is_told_only_where_the_session_lies_in_the_map():
    rng = np.random.default_rng(23)
    database = make([*posed(2), *posed(2, session=1), keyframe(rng, 2, 0)])
    assert np.array_equal(database.T_map_base(1), database.keyframe(1).T_odom_base)
    assert database.T_map_base(2) is None and database.T_map_base(4) is None
    T = from_xyz_rpy((1.0, 2.0, 3.0, 0.0, 0.0, 0.5))
    database.set_T_map_odom(1, T)
    assert np.allclose(database.T_map_base(3), T @ database.keyframe(3).T_odom_base)
    database.place(4, T)
    assert np.array_equal(database.T_map_base(4), T) and np.array_equal(database.corrected(4), T)
    assert database.corrected(3) is None
    with pytest.raises(ValueError, match="T_map_base"):
        database.place(4, 2 * np.eye(4))


def between(A, B, share):
    """Slerp, written out, and linear interpolation."""
    turn = Rotation.from_matrix(A[:3, :3].T @ B[:3, :3]).as_rotvec()
    T = np.eye(4)
    T[:3, :3] = A[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
    T[:3, 3] = (1 - share) * A[:3, 3] + share * B[:3, 3]
    return T


def told_by(path, s):
    """The pose at second `s` of a path (second -> pose), as `Trajectory` says, by loops; None where it tells none."""
    known = sorted(path)
    if s in path:
        return path[s]
    steps = sorted(b - a for a, b in itertools.pairwise(known))
    for a, b in itertools.pairwise(known):
        if a < s < b and b - a <= max(1, 5 * steps[(len(steps) - 1) // 2]):
            return between(path[a], path[b], (s - a) / (b - a))
    return None


def without_travel(count):
    return [dataclasses.replace(keyframe, travel=None) for keyframe in posed(count)]


def draw_path(data, least, most):
    """Second -> pose; of those at an even second everyone says the same."""
    numbers = st.lists(st.floats(-3.0, 3.0), min_size=6, max_size=6)
    seconds = data.draw(st.lists(st.integers(least, most), min_size=1, max_size=6, unique=True))
    return {s: from_xyz_rpy(tuple(data.draw(numbers)) if s % 2 else (s, 0, 0, 0, 0, 0.1)) for s in seconds}


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_path_is_interpolated_by_stamp_and_nothing_is_extrapolated(data):
    database = make(without_travel(10))
    path = draw_path(data, -2, 12)
    moved = database.correct(0, [s * SECOND for s in path], list(path.values()))
    expected = [told_by(path, s) for s in range(10)]
    assert moved == sum(T is not None for T in expected)
    for s, T in enumerate(expected):
        if T is None:
            assert database.corrected(s) is None
        else:
            assert np.allclose(database.T_map_base(s), T, atol=1e-8)


@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_path_after_path_while_the_drive_goes_on(data):
    """Against loops that remember nothing of the last path: what a path does not tell stays, and what is later than
    the newest corrected keyframe follows it."""
    drive, database, T_map_odom = without_travel(20), make([]), np.eye(4)
    expected: dict[int, np.ndarray] = {}
    for _ in range(data.draw(st.integers(1, 5))):
        for _ in range(data.draw(st.integers(0, 6))):
            if len(database) < len(drive):
                database.add(drive[len(database)])
        if not len(database):
            continue
        path = draw_path(data, -1, len(database) + 2)
        told = {s: T for s in range(len(database)) if (T := told_by(path, s)) is not None}
        for s in range(len(database)):
            expected.setdefault(s, T_map_odom @ drive[s].T_odom_base)
        assert database.correct(0, [s * SECOND for s in path], list(path.values())) == len(told)
        expected.update(told)
        newest = max((s for s in range(len(database)) if database.corrected(s) is not None), default=None)
        if newest is not None:
            T_map_odom = expected[newest] @ inverse(drive[newest].T_odom_base)
            for s in range(newest + 1, len(database)):
                expected[s] = T_map_odom @ drive[s].T_odom_base
        for s in range(len(database)):
            assert np.allclose(database.T_map_base(s), expected[s], atol=1e-7), s


def test_one_changed_stretch_leaves_all_others_as_they_were(tmp_path):
    database = make(posed(40))
    whole = [from_xyz_rpy((i, 0.1 * i, 0.0, 0.0, 0.0, 0.0)) for i in range(30)]
    assert database.correct(0, [i * SECOND for i in range(30)], whole) == 30
    before = [database.T_map_base(id) for id in range(40)]
    moved = [T @ from_xyz_rpy((0.0, 0.5, 0.0, 0.0, 0.0, 0.1)) for T in whole[10:15]]
    assert database.correct(0, [i * SECOND for i in range(10, 15)], moved) == 5
    for id in range(40):
        assert np.array_equal(database.T_map_base(id), moved[id - 10] if 10 <= id < 15 else before[id])
    assert database.correct(0, [i * SECOND for i in range(30)], whole) == 30  # as the last but one
    assert all(np.array_equal(database.T_map_base(id), before[id]) for id in range(40))


def test_what_no_path_tells_stays_where_the_map_had_it_even_in_a_file(tmp_path):
    database = make(posed(12))
    stretch = [from_xyz_rpy((i, 2.0, 0.0, 0.0, 0.0, 0.0)) for i in (4, 5, 6)]
    assert database.correct(0, [i * SECOND for i in (4, 5, 6)], stretch) == 3
    for id in range(4):
        assert np.array_equal(database.T_map_base(id), posed(12)[id].T_odom_base) and database.corrected(id) is None
    for id in range(7, 12):  # later ones follow
        assert np.allclose(
            database.T_map_base(id), stretch[2] @ inverse(posed(12)[6].T_odom_base) @ posed(12)[id].T_odom_base
        )
    database.save(tmp_path / "corrected.map")
    again = KeyframeDatabase.open(tmp_path / "corrected.map")
    assert all(np.array_equal(again.T_map_base(id), database.T_map_base(id)) for id in range(12))


def test_a_hole_in_a_path_is_left_alone_but_not_a_stop():
    database = make(posed(60))
    seconds = [*range(0, 10), *range(40, 50)]
    there = [from_xyz_rpy((i, 5.0, 0.0, 0.0, 0.0, 0.0)) for i in seconds]
    assert database.correct(0, [i * SECOND for i in seconds], there) == 20
    for id in range(10, 40):
        assert np.array_equal(database.T_map_base(id), posed(60)[id].T_odom_base)
    stood = [dataclasses.replace(k, travel=float(min(i, 10) + max(i - 40, 0))) for i, k in enumerate(posed(60))]
    database = make(stood)  # at a metre a node, and half a minute before a traffic light
    assert database.correct(0, [i * SECOND for i in seconds], there) == 50


def test_what_comes_after_the_path_follows_its_end_by_odometry():
    database = make(posed(6))
    bend = [from_xyz_rpy((0.9 * i, 0.1 * i, 0, 0, 0, 0.05 * i)) for i in range(4)]
    assert database.correct(0, [i * SECOND for i in range(4)], bend) == 4
    step = inverse(database.keyframe(3).T_odom_base) @ database.keyframe(5).T_odom_base
    assert np.allclose(database.T_map_base(5), bend[3] @ step)
    database.correct(0, [2 * SECOND, 4 * SECOND], [bend[0], bend[1]])  # a window that slides
    assert np.allclose(database.T_map_base(1), bend[1]) and np.allclose(database.T_map_base(2), bend[0])


def test_a_path_of_another_frame_is_laid_where_the_session_is_known_to_lie():
    database = make([*posed(6), *posed(6, session=1)])
    stamps = [i * SECOND for i in range(6)]
    own = [from_xyz_rpy((i, 0.0, 0.0, 0.0, 0.0, 0.01 * i)) for i in range(6)]  # begins where the drive began
    assert database.correct(1, stamps, own) == 0 and database.sessions[1] is None  # nobody knows where that is
    T_map_odom = from_xyz_rpy((50.0, 20.0, 0.0, 0.0, 0.0, 2.0))
    database.set_T_map_odom(1, T_map_odom)
    assert database.correct(1, stamps, own) == 6
    newest = T_map_odom @ database.keyframe(11).T_odom_base
    assert np.allclose(database.T_map_base(11), newest)
    assert np.allclose(database.T_map_base(6), newest @ inverse(own[5]) @ own[0])
    better = [T @ from_xyz_rpy((0.0, 0.5, 0.0, 0.0, 0.0, 0.0)) for T in own]
    database.correct(1, stamps, better)  # the frame is the same as before
    assert np.allclose(database.T_map_base(11), newest @ inverse(own[5]) @ better[5])


def test_a_bad_path_is_named():
    database = make(posed(3))
    with pytest.raises(ValueError, match="no session 1"):
        database.correct(1, [0], [np.eye(4)])
    with pytest.raises(ValueError, match="at least one"):
        database.correct(0, [], [])
    with pytest.raises(ValueError, match="2 poses, 1 stamps"):
        database.correct(0, [0], [np.eye(4), np.eye(4)])
    with pytest.raises(ValueError, match="a pose of the path"):
        database.correct(0, [0], [np.full((4, 4), np.nan)])
    assert database.corrected(0) is None
