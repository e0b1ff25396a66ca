# SPDX-License-Identifier: Apache-2.0
"""Odometry between messages: against known motions, and never beyond them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vlad_ros.drive.odometry import OdometryBuffer
from vlad_ros.poses import check_rigid
from vlad_ros.stamps import SECOND


def pose(x: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw, degrees=True).as_matrix()
    T[0, 3] = x
    return T


@given(st.lists(st.integers(1, SECOND), min_size=2, max_size=40), st.data())
def test_a_steady_motion_is_met_at_every_stamp(steps, data):
    """A body at 15 m/s and 30 degrees a second: between messages at most 1 s apart it is where the motion says."""
    stamps, buffer = np.cumsum(steps).tolist(), OdometryBuffer()
    for stamp in stamps:
        buffer.add(stamp, pose(15.0 * stamp / SECOND, (30.0 * stamp / SECOND) % 360))
    at = data.draw(st.integers(min(stamps), max(stamps)))
    T = buffer.at(at)
    assert np.allclose(T, pose(15.0 * at / SECOND, (30.0 * at / SECOND) % 360), atol=1e-5)


def test_nothing_is_interpolated_across_a_gap():
    buffer = OdometryBuffer()
    for stamp in [*range(0, SECOND, SECOND // 10), *range(3 * SECOND, 4 * SECOND, SECOND // 10)]:
        buffer.add(stamp, pose(15.0 * stamp / SECOND))
    assert buffer.at(2 * SECOND) is None and buffer.at(3 * SECOND)[0, 3] == 45.0
    assert buffer.across(SECOND // 2, 3 * SECOND) is None


def test_nothing_is_extrapolated():
    buffer = OdometryBuffer()
    assert buffer.at(0) is None and buffer.newest is None and not buffer.covers(0)
    buffer.add(SECOND, pose(1.0))
    buffer.add(2 * SECOND, pose(2.0))
    assert buffer.at(SECOND - 1) is None and buffer.at(2 * SECOND + 1) is None
    assert not buffer.covers(2 * SECOND + 1)
    assert buffer.covers(SECOND) and buffer.newest == 2 * SECOND
    assert np.array_equal(buffer.at(SECOND), pose(1.0))  # the exact stamp needs no neighbour
    assert np.array_equal(buffer.at(2 * SECOND), pose(2.0))


@pytest.mark.parametrize("rate", [5, 20, 400])
def test_nothing_is_interpolated_across_a_reset(rate):
    """A filter that is reset: the odometry goes on 3 m to the side."""
    buffer, step = OdometryBuffer(), SECOND // rate
    for i in range(2 * rate):
        T = pose(15.0 * i / rate)
        T[1, 3] = 3.0 * (i >= rate)
        buffer.add(i * step, T)
    between = (rate - 1) * step + step // 2
    assert buffer.at(between) is None and buffer.across(between - step, between + step) is None
    assert buffer.at(between - step)[1, 3] == 0.0 and buffer.at(between + step)[1, 3] == 3.0


def test_messages_out_of_order_and_twice():
    buffer = OdometryBuffer()
    for stamp, x in ((0, 0.0), (SECOND, 9.0), (SECOND // 2, 2.0), (SECOND, 4.0)):
        buffer.add(stamp, pose(x))
    assert len(buffer) == 3
    assert buffer.at(SECOND // 4)[0, 3] == pytest.approx(1.0)
    assert buffer.at(3 * SECOND // 4)[0, 3] == pytest.approx(3.0)


def test_a_bag_played_again_begins_a_new_history():
    buffer = OdometryBuffer()
    buffer.add(100 * SECOND, pose(1.0))
    buffer.add(101 * SECOND, pose(2.0))
    buffer.add(100 * SECOND, pose(1.5))  # one second back is only late
    assert len(buffer) == 2
    buffer.add(3 * SECOND, pose(0.0))
    assert len(buffer) == 2 and buffer.newest == 101 * SECOND  # a single stamp that far back may be wrong
    buffer.add(3 * SECOND + 1, pose(0.0))
    assert len(buffer) == 2 and buffer.newest == 3 * SECOND + 1 and buffer.at(100 * SECOND) is None


@pytest.mark.parametrize("off", [3600, 2, -2, -3600])
def test_a_message_with_a_wrong_stamp_is_left_out(off):
    buffer, wrong = OdometryBuffer(), 0
    for i in range(100):
        wrong += buffer.add((5000 + off * (i == 50)) * SECOND + i * SECOND // 20, pose(0.5 * i))
    assert wrong == 1 and len(buffer) == 99
    assert buffer.at(5000 * SECOND + 50 * SECOND // 20)[0, 3] == pytest.approx(25.0)


def test_memory_is_bounded():
    buffer = OdometryBuffer()
    for i in range(5000):
        buffer.add(i * SECOND // 50, pose(float(i)))
    assert len(buffer) == 30 * 50 + 1
    assert buffer.at(4999 * SECOND // 50)[0, 3] == 4999.0


@pytest.mark.parametrize(
    ("T", "word"),
    [
        (np.full((4, 4), np.nan), "not finite"),
        (np.eye(3), r"not of shape \(3, 3\)"),
        (2 * np.eye(4), "not a rigid"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "not a rigid"),  # a mirror image
        (np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1.0]]), "not a rigid"),
    ],
)
def test_what_is_no_pose_is_named(T, word):
    with pytest.raises(ValueError, match=f"T_odom_base.*{word}"):
        OdometryBuffer().add(0, T)


def test_rounded_rotations_pass():
    T = pose(1.0, 33.0).astype(np.float32)
    assert check_rigid(T).dtype == np.float64
