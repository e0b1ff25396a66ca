# SPDX-License-Identifier: Apache-2.0
"""Relocalisation on drives whose every transform is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from vlad_ros.config import BevConfig
from vlad_ros.loops.relocalisation import Relocaliser, pose_covariance
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.stamps import SECOND
from vlad_ros.types import Keyframe, LoopClosure

DESCRIPTOR = np.eye(4, dtype=np.float32)[0]
COVARIANCE = np.diag([0.01, 0.01, 0.04, 1e-5, 1e-5, 1e-4])
T_MAP_ODOM = from_xyz_rpy((30.0, -12.0, 1.0, 0.0, 0.05, 2.0))  # of the vehicle that is lost


def street(x: float) -> np.ndarray:
    """T_map_base after x metres of a road that bends and climbs."""
    return from_xyz_rpy((x, 10 * np.sin(x / 20), x / 100, 0.0, -0.01, np.arctan(np.cos(x / 20) / 2)))


class Drive:
    """A mapped street (session 0, a keyframe a metre, 60 of them) and a vehicle that drives it the other way."""

    def __init__(self, odometry: bool, T_map_odom: np.ndarray = T_MAP_ODOM, seed: int = 0) -> None:
        self.database = KeyframeDatabase(4, model_hash="0" * 64, bev=BevConfig())
        for i in range(60):
            T = street(i)
            self.database.add(Keyframe(0, i * SECOND, DESCRIPTOR, DESCRIPTOR, T_odom_base=T, travel=float(i)))
        self.odometry, self.T_map_odom = odometry, T_map_odom
        self.rng = np.random.default_rng(seed)
        self.relocaliser = Relocaliser()
        self.travel, self.session, self.stamp = 0.0, 1, 1000 * SECOND

    def truth(self, x: float) -> np.ndarray:
        """Coming the other way, half a lane aside."""
        return street(x) @ from_xyz_rpy((0.0, 1.5, 0.0, 0.0, 0.0, np.pi))

    def see(self, x: float, claims=None, seconds: float = 1.0, accepted: bool = True, noise: float = 0.0):
        """The keyframe at x: the finding. `claims`: positions that its closures claim instead of x."""
        T_map_base = self.truth(x)
        T_odom_base = inverse(self.T_map_odom) @ T_map_base if self.odometry else None
        self.stamp += round(seconds * SECOND)
        self.travel += 1.0
        travel = self.travel if self.odometry else None
        row = Keyframe(self.session, self.stamp, DESCRIPTOR, DESCRIPTOR, T_odom_base=T_odom_base, travel=travel)
        id = self.database.add(row)
        closures = [self.closure(id, claim, accepted, noise) for claim in ([x] if claims is None else claims)]
        return self.relocaliser.observe(id, closures, self.database)

    def closure(self, id: int, x: float, accepted: bool, noise: float) -> LoopClosure:
        match = int(np.clip(round(x), 0, 59))
        error = from_xyz_rpy(tuple(noise * self.rng.standard_normal(6) * [1, 1, 1, 0.01, 0.01, 0.01]))
        T_match_query = inverse(street(match)) @ self.truth(x) @ error
        return LoopClosure(
            id, match, self.session, 0, self.stamp, match * SECOND, 0.9, 0.99, T_match_query, COVARIANCE, accepted
        )


@given(
    x=st.floats(20.0, 50.0),
    step=st.floats(0.1, 3.0),
    odometry=st.booleans(),
    shift=st.lists(st.floats(-100.0, 100.0), min_size=3, max_size=3),
    turn=st.floats(-3.0, 3.0),
)
@settings(max_examples=60, deadline=None)
def test_the_third_keyframe_that_agrees_tells_the_pose(x, step, odometry, shift, turn):
    T_map_odom = from_xyz_rpy((*shift, 0.02, -0.03, turn))
    drive = Drive(odometry, T_map_odom)
    findings = [drive.see(x - i * step) for i in range(5)]
    assert [finding.pose is not None for finding in findings] == [False, False, True, True, True]
    for i in range(2, 5):
        assert np.allclose(findings[i].pose.T_map_base, drive.truth(x - i * step), atol=1e-9)
    assert ("has found itself" in findings[2].news) == odometry
    if odometry:
        assert np.allclose(drive.database.sessions[1], T_map_odom, atol=1e-8)
        assert np.allclose(drive.database.T_map_base(60), drive.truth(x), atol=1e-8)  # the first one, in hindsight
    else:
        assert drive.database.sessions[1] is None


def test_the_mean_of_a_row_is_nearer_than_its_edges():
    errors, edges = [], []
    for seed in range(40):
        drive = Drive(True, seed=seed)
        findings = [drive.see(40.0 - i, noise=0.1) for i in range(3)]
        errors.append(np.linalg.norm((inverse(drive.truth(38.0)) @ drive.database.T_map_base(62))[:3, 3]))
        edges.append(np.linalg.norm((inverse(drive.truth(38.0)) @ findings[2].pose.T_map_base)[:3, 3]))
    assert np.mean(errors) < 0.75 * np.mean(edges)  # 1 / sqrt(3) of it, were there infinitely many


@pytest.mark.parametrize("odometry", [False, True])
def test_what_does_not_agree_tells_nothing(odometry):
    drive = Drive(odometry)
    for i in range(8):  # all over the street: no vehicle moves like that
        claim = [5.0, 55.0][i % 2]
        assert drive.see(40.0 - i, [claim], seconds=0.5).pose is None
    drive = Drive(odometry)
    assert all(drive.see(40.0 - i, accepted=False).pose is None for i in range(5))
    drive = Drive(odometry)
    assert all(drive.see(40.0 - i, []).pose is None for i in range(5))


@pytest.mark.parametrize("odometry", [False, True])
def test_a_false_edge_beside_the_right_one_does_not_hide_it(odometry):
    drive = Drive(odometry)
    findings = [drive.see(40.0 - i, [[3.0, 57.0, 20.0][i], 40.0 - i], seconds=0.5) for i in range(3)]
    last = findings[-1].pose
    told = last is not None and np.allclose(last.T_map_base, drive.truth(38.0))
    assert told == odometry or last is None
    again = [drive.see(37.0 - i) for i in range(3)]
    assert np.allclose(again[-1].pose.T_map_base, drive.truth(35.0))


@pytest.mark.parametrize("odometry", [False, True])
def test_of_two_edges_the_one_that_agrees_is_believed(odometry):
    """A more probable one to another place each time; no vehicle comes there in half a second."""
    drive = Drive(odometry)
    assert drive.see(40.0).pose is None
    false = [3.0, 3.0, 57.0, 10.0, 3.0]
    findings = [drive.see(39.0 - i, [false[i], 39.0 - i], seconds=0.5) for i in range(5)]
    assert [finding.pose is not None for finding in findings] == [False, True, True, True, True]
    for i in range(1, 5):
        np.testing.assert_allclose(findings[i].pose.T_map_base, drive.truth(39.0 - i), atol=1e-9)
    if odometry:
        np.testing.assert_allclose(drive.database.sessions[1], T_MAP_ODOM, atol=1e-8)


def test_what_odometry_confirms_outweighs_a_false_place_that_agrees_with_itself():
    drive = Drive(True)
    for i in range(3):
        drive.see(50.0 - i)
    drive.see(47.0, [22.0])
    for i in range(4):  # a street that looks the same, 25 m away: more probable each time
        finding = drive.see(46.0 - i, [21.0 - i, 46.0 - i])
        assert finding.pose is None and not finding.carried
    findings = [drive.see(42.0 - i) for i in range(3)]
    assert [finding.pose is not None for finding in findings] == [False, False, True]
    assert not any(finding.carried for finding in findings)


def test_without_odometry_a_long_silence_begins_anew():
    drive = Drive(False)
    told = [drive.see(40.0 - i, seconds=s).pose is not None for i, s in enumerate([1, 1, 1, 5.0, 5.1, 1, 1])]
    assert told == [False, False, True, True, False, False, True]


def test_without_odometry_nobody_accelerates_like_that():
    drive = Drive(False)
    told = [drive.see(x, seconds=1.0).pose is not None for x in (10.0, 40.0, 10.0, 9.0, 8.0)]
    assert told == [False, False, False, False, True]  # 30 m/s forth, 30 m/s back: each plausible, both not


def test_a_lost_session_does_not_speak_through_itself():
    drive = Drive(True)
    drive.see(40.0, [])
    row = drive.database.keyframe(60)
    for i in range(5):
        id = drive.database.add(
            Keyframe(1, row.stamp + (100 + i) * SECOND, DESCRIPTOR, DESCRIPTOR, T_odom_base=row.T_odom_base, travel=5.0)
        )
        stamp = drive.database.keyframe(id).stamp
        own = LoopClosure(id, 60, 1, 1, stamp, row.stamp, 0.9, 0.99, np.eye(4), COVARIANCE, True)
        assert drive.relocaliser.observe(id, [own], drive.database).pose is None


def test_restart_asks_for_agreement_again():
    drive = Drive(True)
    assert [drive.see(40.0 - i).pose is None for i in range(4)] == [True, True, False, False]
    drive.relocaliser.restart()
    drive.T_map_odom = from_xyz_rpy((1.0, 2.0, 0.0, 0.0, 0.0, 0.1))
    assert [drive.see(36.0 - i).pose is None for i in range(4)] == [True, True, False, False]
    assert np.allclose(drive.database.sessions[1], drive.T_map_odom, atol=1e-8)


@given(distance=st.floats(15.0, 25.0), seen=st.integers(3, 6))
@settings(max_examples=20, deadline=None)
def test_carried_away_is_noticed_at_the_third_contradiction(distance, seen):
    drive = Drive(True)
    for i in range(seen):
        assert not drive.see(55.0 - i).carried
    at = 55.0 - seen - distance  # odometry has not noticed
    drive.T_map_odom = drive.truth(at) @ inverse(drive.truth(55.0 - seen)) @ drive.T_map_odom
    findings = [drive.see(at - i) for i in range(3)]
    assert [finding.carried for finding in findings] == [False, False, True]
    assert all(finding.pose is None for finding in findings)
    assert "carried away" in findings[2].news
    drive.session = 2  # as the caller is told to
    findings = [drive.see(at - 3 - i) for i in range(3)]
    assert findings[2].pose is not None and not findings[2].carried
    assert np.allclose(drive.database.sessions[2], drive.T_map_odom, atol=1e-8)
    assert not np.allclose(drive.database.sessions[1], drive.T_map_odom, atol=1.0)  # the old one stays where it was


def test_two_contradictions_and_a_confirmation_are_no_kidnapping():
    drive = Drive(True)
    for i in range(3):
        drive.see(55.0 - i)
    for i in range(9):
        claim = 52.0 - i if i % 3 == 2 else 5.0
        assert not drive.see(52.0 - i, [claim]).carried


def test_drift_is_no_kidnapping():
    drive = Drive(True)
    for i in range(50):
        drift = from_xyz_rpy((0.02 * i, 0.01 * i, 0.0, 0.0, 0.0, 0.002 * i))
        drive.T_map_odom = T_MAP_ODOM @ drift
        assert not drive.see(55.0 - i).carried


def test_a_correction_of_the_map_is_no_kidnapping():
    drive, stamps = Drive(True), [i * SECOND for i in range(60)]
    drive.database.correct(0, stamps, [street(i) for i in range(60)])
    for i in range(5):
        drive.see(55.0 - i)
    moved = from_xyz_rpy((8.0, 5.0, 0.0, 0.0, 0.0, 0.3))
    drive.database.correct(0, stamps, [moved @ street(i) for i in range(60)])  # the vehicle's odometry goes on
    for i in range(5, 10):
        finding = drive.see(55.0 - i)
        assert not finding.carried
        assert np.allclose(finding.pose.T_map_base, moved @ drive.truth(55.0 - i), atol=1e-9)


def test_the_first_drive_through_an_empty_map_follows_itself():
    """Its frame is the map's, so its own loops tell its pose, and a jump of its odometry is noticed."""
    database = KeyframeDatabase(4, model_hash="0" * 64, bev=BevConfig())
    relocaliser, told = Relocaliser(), []
    for i in range(80):
        x, jump = i % 40, np.eye(4) if i < 60 else from_xyz_rpy((0.0, 15.0, 0.0, 0.0, 0.0, 0.0))
        pose = jump @ street(x)
        id = database.add(Keyframe(0, i * SECOND, DESCRIPTOR, DESCRIPTOR, T_odom_base=pose, travel=float(i)))
        own = [LoopClosure(id, x, 0, 0, i * SECOND, x * SECOND, 0.9, 0.99, np.eye(4), COVARIANCE, True)]
        told.append(relocaliser.observe(id, own if i >= 40 else [], database))
    assert [i for i, finding in enumerate(told) if finding.carried] == [62]
    assert [i for i, finding in enumerate(told) if finding.pose] == list(range(42, 60))


def test_covariance_is_that_of_the_pose_around_the_body():
    """Against finite differences of a PoseWithCovariance's own error under the edge's perturbation."""
    rng = np.random.default_rng(0)
    T_map_match, T_match_query = (
        from_xyz_rpy((5.0, -3.0, 2.0, 0.1, -0.2, 2.5)),
        from_xyz_rpy((4.0, 1.0, 0.3, 0, 0, 3.0)),
    )
    T_map_base = T_map_match @ T_match_query
    A = np.diag([0.1, 0.1, 0.1, 0.02, 0.02, 0.05]) @ rng.standard_normal((6, 6))
    edge = A @ A.T

    def error(d: np.ndarray) -> np.ndarray:
        generator = np.zeros((4, 4))
        generator[:3, :3] = [[0, -d[5], d[4]], [d[5], 0, -d[3]], [-d[4], d[3], 0]]
        generator[:3, 3] = d[:3]
        T = T_map_match @ expm(generator) @ T_match_query
        turned = Rotation.from_matrix(T[:3, :3] @ T_map_base[:3, :3].T).as_rotvec()
        return np.concatenate([T[:3, 3] - T_map_base[:3, 3], turned])

    J = np.stack([(error(step) - error(-step)) / 2e-5 for step in 1e-5 * np.eye(6)], axis=1)
    assert np.allclose(pose_covariance(edge, T_map_match, T_match_query), J @ edge @ J.T, atol=1e-7)
