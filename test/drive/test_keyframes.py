# SPDX-License-Identifier: Apache-2.0
"""Travel and the choice of keyframes, on drives whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.drive.keyframe_selection import KeyframeSelector
from vlad_ros.drive.scan import Place, check_scan
from vlad_ros.drive.travel import Track
from vlad_ros.stamps import SECOND

POINTS = np.ones((1, 4), np.float32)


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0, pitch: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("zy", [yaw, pitch], degrees=True).as_matrix()
    T[:2, 3] = x, y
    return T


def blank(stamp: int) -> np.ndarray:
    return np.ones(1, np.float32)


def chosen(config: RecognizerConfig, stamps, poses, look=blank) -> list[int]:
    """Indices of the keyframes among scans with these stamps [s] and poses; `look` describes the one of a stamp."""
    selector, track, out = KeyframeSelector(config), Track(), []
    for i, (seconds, T) in enumerate(zip(stamps, poses, strict=True)):
        at = Place(round(seconds * SECOND), T, track.move(T))
        if selector.wants(at) and selector.takes(at, look(at.stamp)):
            out.append(i)
    return out


def test_one_keyframe_a_metre():
    """0.3 m a scan: the first scan at or beyond each further metre is the fourth."""
    poses = [pose(0.3 * i) for i in range(20)]
    assert chosen(RecognizerConfig(), np.arange(20.0), poses) == [0, 4, 8, 12, 16]


def test_a_keyframe_after_20_degrees_of_turning():
    poses = [pose(yaw=170 + 6.0 * i) for i in range(12)]  # across +-180
    assert chosen(RecognizerConfig(), np.arange(12.0), poses) == [0, 4, 8]
    nodding = [pose(pitch=40.0 * (i % 2)) for i in range(8)]
    assert chosen(RecognizerConfig(), np.arange(8.0), nodding) == [0]


def test_at_most_four_a_second():
    poses = [pose(15.0 * 0.05 * i) for i in range(40)]  # 15 m/s, 20 Hz
    keyframes = chosen(RecognizerConfig(), 0.05 * np.arange(40), poses)
    assert keyframes == list(range(0, 40, 5))


@given(st.integers(0, 2**32 - 1))
def test_jitter_of_a_parked_car_is_no_travel(seed):
    rng = np.random.default_rng(seed)
    poses = [pose(*rng.uniform(-0.03, 0.03, 2)) for _ in range(300)]
    track = Track()
    assert {track.move(T) for T in poses} == {0.0}
    assert chosen(RecognizerConfig(), 0.1 * np.arange(300), poses) == [0]


def test_travel_adds_up_along_a_circle():
    angles = np.linspace(0, 2 * np.pi, 200)
    track = Track()
    travel = [track.move(pose(10 * np.cos(a), 10 * np.sin(a))) for a in angles]
    assert travel[-1] == pytest.approx(2 * np.pi * 10, rel=0.01)
    assert np.all(np.diff(travel) >= 0)


def test_what_parts_neighbours():
    track = Track()
    steps = [
        (None, None),  # never had odometry: nothing is missing
        (pose(0), None),
        (pose(0), None),
        (pose(2.2), "odometry_jump"),  # of a standing vehicle, in 0.1 s
        (pose(2.2), None),
        (pose(2.2, yaw=29.9), None),
        (pose(2.2, yaw=120.0), "odometry_jump"),
        (None, "no_odometry"),
        (None, "no_odometry"),
        (pose(500.0), None),  # no neighbour to have jumped from
        (pose(500.0, pitch=31.0), None),
        (pose(500.0, pitch=-80.0), "odometry_jump"),
    ]
    for i, (T, expected) in enumerate(steps):
        assert track.interruption(i * SECOND // 10, T) == expected
        track.move(T)


def looker(descriptors: dict[int, np.ndarray], seen: list[int]):
    def look(stamp: int):
        seen.append(stamp // SECOND)
        return descriptors[stamp // SECOND]

    return look


def test_without_odometry_one_a_second_unless_it_looks_the_same():
    """Standing for the first 5 s, then moving on, 4 scans a second."""
    east, north = np.eye(2, dtype=np.float32)
    views = {s: east if s < 5 else (north if s % 2 else east) for s in range(8)}
    seen: list[int] = []
    stamps = np.arange(0, 8, 0.25)
    keyframes = chosen(RecognizerConfig(), stamps, [None] * len(stamps), looker(views, seen))
    assert [stamps[i] for i in keyframes] == [0.0, 5.0, 6.0, 7.0]
    assert len(seen) <= 2 * 8  # not every scan is described, only one a period (and the last keyframe, remembered)


def test_exactly_as_similar_is_the_same_place():
    config = RecognizerConfig(keyframe_similarity=0.5)
    views = {0: np.array([1, 0], np.float32), 1: np.array([0.5, 0.75**0.5], np.float32)}
    assert chosen(config, [0.0, 1.0], [None, None], looker(views, [])) == [0]
    config = RecognizerConfig(keyframe_similarity=0.51)
    assert chosen(config, [0.0, 1.0], [None, None], looker(views, [])) == [0, 1]


def test_the_first_pose_after_a_keyframe_without_is_a_keyframe():
    poses = [None, pose(0.0), pose(0.1), pose(1.5)]
    assert chosen(RecognizerConfig(), np.arange(4.0), poses) == [0, 1, 3]


@pytest.mark.parametrize("stamp", [1.5, -1, 2**63, "1", None, float("nan")])
def test_a_stamp_is_an_integer_of_nanoseconds(stamp):
    with pytest.raises(ValueError, match="stamp must be an integer"):
        check_scan(POINTS, stamp, None, None, RecognizerConfig(), BevConfig())


def test_numpy_stamps_are_integers_too():
    assert check_scan(POINTS, np.int64(5), None, None, RecognizerConfig(), BevConfig()).stamp == 5
