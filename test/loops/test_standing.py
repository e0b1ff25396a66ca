# SPDX-License-Identifier: Apache-2.0
"""A place from a single scan: what loops add up to, a hint, and real scans turned at random."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from map_rows import make
from real_data import data_file

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.scan import crop
from vlad_ros.evaluation.edges import edge_error, is_right
from vlad_ros.files.sequence import load_sequence
from vlad_ros.loops.relocalisation import pose_covariance
from vlad_ros.loops.standing import Hint, StandingSearch, believed, is_searchable, places
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.poses import from_xyz_rpy, inverse, turn
from vlad_ros.stamps import SECOND
from vlad_ros.types import Keyframe, LoopClosure

ROW = np.eye(8, dtype=np.float32)[0]
COVARIANCE = np.diag([0.01, 0.02, 0.03, 1e-4, 2e-4, 3e-4])


def at(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    return from_xyz_rpy((x, y, 0.0, 0.0, 0.0, yaw))


MAP = [
    Keyframe(0, (1 + i) * SECOND, ROW, ROW, T_odom_base=at(10.0 * i, yaw=0.3 * i), travel=10.0 * i) for i in range(6)
]


def loop(match: int, T_map_base: np.ndarray, probability: float | None) -> LoopClosure:
    """A verified loop that puts the vehicle there."""
    T = inverse(MAP[match].T_odom_base) @ T_map_base
    return LoopClosure(-1, match, 1, 0, 99 * SECOND, MAP[match].stamp, 0.9, probability, T, COVARIANCE)


def test_loops_that_agree_are_one_place():
    here = at(21.0, 2.0, 1.0)
    off = here @ at(0.5, 0.3, 0.05)
    loops = [loop(2, off, 0.7), loop(3, here, 0.98), loop(1, here @ at(0.0, 0.0, 0.2), 0.01), loop(0, here, None)]
    (place, turned) = places(loops, make(MAP))
    assert (place.probability, place.loops, turned.loops) == (pytest.approx(0.98), 3, 1)
    np.testing.assert_allclose(place.pose.T_map_base, here, atol=1e-12)
    expected = pose_covariance(COVARIANCE, MAP[3].T_odom_base, loops[1].T_match_query)
    np.testing.assert_allclose(place.pose.covariance, expected)
    assert believed([place, turned]) is place


def test_places_share_their_probability():
    """Two copies of a place, both as probable as can be: neither is believed."""
    here, there = at(21.0), at(41.0)
    loops = [loop(2, here, 0.99), loop(3, here, 0.98), loop(4, there, 0.97), loop(5, there, 0.96)]
    found = places(loops, make(MAP))
    assert [one.probability for one in found] == pytest.approx([0.99 / 1.96, 0.97 / 1.96])
    assert believed(found) is None
    assert believed(places(loops, make(MAP), Hint(20.0, 3.0, 10.0))) is not None
    assert places(loops, make(MAP), Hint(20.0, 30.0, 10.0)) == []


def test_one_loop_alone_is_not_believed():
    (alone,) = places([loop(2, at(21.0), 0.999)], make(MAP))
    assert believed([alone]) is None and believed([]) is None
    assert believed([dataclasses.replace(alone, loops=2)]) is not None
    assert believed([dataclasses.replace(alone, loops=2, probability=0.94)]) is None


def test_loops_that_say_no_place():
    database = make([*MAP, Keyframe(1, SECOND, ROW, ROW, T_odom_base=np.eye(4), travel=0.0)])
    lost = dataclasses.replace(loop(0, at(1.0), 0.99), match_id=6, match_session=1)
    unverified = dataclasses.replace(loop(0, at(1.0), 0.99), T_match_query=None, covariance=None)
    assert database.sessions[1] is None and places([lost, unverified], database) == []
    assert is_searchable(database, 1) and not is_searchable(database, 0)


@pytest.mark.parametrize("wrong", [(np.nan, 0.0, 1.0), (0.0, np.inf, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, np.inf)])
def test_a_hint_is_a_place_and_a_radius(wrong):
    with pytest.raises(ValueError, match="finite place and a positive radius"):
        Hint(*wrong)


@pytest.fixture(scope="module")
def campus():
    """The map of every other scan of the first two thirds of a campus, and all scans with their poses."""
    sequence = load_sequence(data_file("loop_mid360.npz"))
    recognizer = PlaceRecognizer.from_pretrained(None, "cpu", RecognizerConfig(exclude_distance=10_000.0))
    poses = sequence.poses_to("map")
    for i in range(0, 120, 2):
        recognizer.step(sequence.scans[i], (1 + i) * SECOND, None, poses[i])
    recognizer.finish()
    recognizer.open_session()
    return recognizer, sequence.scans, poses


def ask(campus, i: int, hint: Hint | None = None):
    recognizer, scans, poses = campus
    angle = np.random.default_rng(i).uniform(-np.pi, np.pi)
    points = crop(turn(scans[i], angle), recognizer.config, recognizer.describer.bev)
    seen = recognizer.describer.see(points)
    query = Keyframe(recognizer.session, 9000 * SECOND, seen.descriptor, seen.descriptor, geometry=seen.geometry())
    search = StandingSearch(recognizer.calibration, recognizer.config)
    return search.guesses(query, recognizer.database, hint), poses[i] @ at(0.0, 0.0, -angle)


def test_real_scans_tell_where_they_were_taken(campus):
    before = len(campus[0].database), dict(campus[0].database.sessions)
    told = []
    for i in range(31, 95, 8):
        guesses, true = ask(campus, i)
        found = believed(guesses)
        told += [] if found is None else [is_right(*edge_error(found.pose.T_map_base, np.eye(4), true))]
        assert sum(guess.probability for guess in guesses) <= 1.0 + 1e-9
    assert all(told) and len(told) >= 5
    assert (len(campus[0].database), dict(campus[0].database.sessions)) == before


def test_real_scans_from_outside_of_the_map_tell_nothing(campus):
    apart = np.linalg.norm(campus[2][:, None, :3, 3] - campus[2][:120, :3, 3], axis=2).min(axis=1)
    far = np.flatnonzero(apart > 40.0)
    assert all(believed(ask(campus, int(i))[0]) is None for i in far[:: len(far) // 4])


def test_a_hint_restricts_the_candidates(campus):
    _, true = ask(campus, 51)
    away, _ = ask(campus, 51, Hint(true[0, 3] + 60.0, true[1, 3], 5.0))
    near, _ = ask(campus, 51, Hint(true[0, 3] + 5.0, true[1, 3], 10.0))
    assert all(abs(guess.pose.T_map_base[0, 3] - true[0, 3]) > 50.0 for guess in away)
    assert is_right(*edge_error(near[0].pose.T_map_base, np.eye(4), true))
