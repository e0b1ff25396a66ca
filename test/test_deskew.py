# SPDX-License-Identifier: Apache-2.0
"""Sweeps undistorted: known motions undone, drivers' times read, nothing extrapolated, no cloud lost to a field."""

from __future__ import annotations

import random
import runpy
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from vlad_ros.cloud import CloudError, PointTimes, decode_message, decode_rows, point_times
from vlad_ros.deskew import Motion, deskew, reach, sweep_offsets
from vlad_ros.geometry import exp, inverse, log
from vlad_ros.odometry import OdometryBuffer

ROOT = Path(__file__).parent.parent
MS = 1_000_000
SECOND = 1_000_000_000
STAMP = 1_700_000_000 * SECOND + 123_456_789
FLOAT32, FLOAT64, UINT32 = 7, 8, 6


def moving(twist: np.ndarray, seconds: np.ndarray | float) -> np.ndarray:
    """T_odom_body (..., 4, 4) of a steady twist, by the general matrix exponential."""
    x, y, z, a, b, c = twist
    T = expm(
        np.array([[0, -c, b, x], [c, 0, -a, y], [-b, a, 0, z], [0, 0, 0, 0]]) * np.asarray(seconds)[..., None, None]
    )
    T[..., 3, :] = 0, 0, 0, 1
    return T


def messages(twist: np.ndarray, first: int, last: int, step: int) -> OdometryBuffer:
    """Odometry every `step` from `first` on, as far as it takes to cover `last` [ns relative to STAMP]."""
    buffer = OdometryBuffer()
    for at in range(first, last + step, step):
        buffer.add(STAMP + at, moving(twist, at * 1e-9))
    return buffer


twists = st.tuples(*[st.floats(-15, 15)] * 3, *[st.floats(-1.05, 1.05)] * 3).map(np.array)


@settings(max_examples=40, deadline=None)
@given(twists, st.sampled_from([-100, -50, 0, 20]), st.integers(5, 100), st.integers(0, 99))
def test_a_steady_twist_is_undone_exactly(twist: np.ndarray, start: int, step: int, phase: int) -> None:
    """60 degrees a second about each axis and 15 m/s along each, odometry at 10 to 200 Hz, stamps anywhere."""
    rng = np.random.default_rng(phase)
    still = rng.uniform(-60, 60, (50, 4))  # where the body would see the points at the stamp
    offsets = np.sort(rng.integers(start * MS, (start + 100) * MS, 50))
    seen = still.copy()
    seen[:, :3] = np.linalg.solve(moving(twist, offsets * 1e-9), np.c_[still[:, :3], np.ones(50)][..., None])[:, :3, 0]
    motion = messages(twist, (min(start, 0) - phase) * MS, (start + 100) * MS, step * MS).across(*reach(offsets, STAMP))
    assert motion is not None
    for dtype, tolerance in ((np.float64, 5e-4), (np.float32, 1e-3)):
        undone = deskew(seen.astype(dtype), offsets, STAMP, motion)
        assert undone.dtype == dtype
        assert np.abs(undone[:, :3] - still[:, :3]).max() < tolerance
        assert np.array_equal(undone[:, 3], still[:, 3].astype(dtype))


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.sampled_from([0.0, 1e-9, 1e-5, 1e-3, 1.0]))
def test_exp_and_log_against_the_matrix_exponential(numbers: list[float], scale: float) -> None:
    d = np.array(numbers) * [1, 1, 1, scale / 2, scale / 2, scale / 2]
    assert np.allclose(exp(d), moving(d, 1.0), atol=1e-9)
    assert np.allclose(log(moving(d, 1.0)), d, atol=1e-9)


# What the drivers publish: field, its type, the times of the first and the last point, and where the stamp lies.
ABSOLUTE = STAMP / SECOND
DRIVERS = [
    ("time", FLOAT32, (-0.0998, 0.0), (-99_800_000, 0)),  # Velodyne, stamped at the end
    ("time", FLOAT32, (0.0, 0.0998), (0, 99_800_000)),  # Velodyne, timestamp_first_packet
    ("t", UINT32, (0, 99_800_000), (0, 99_800_000)),  # Ouster
    ("offset_time", UINT32, (0, 99_990_000), (0, 99_990_000)),  # Livox CustomMsg, converted
    ("timestamp", FLOAT64, (float(STAMP), float(STAMP + 99_990_016)), (0, 99_990_016)),  # Livox
    ("timestamp", FLOAT64, (ABSOLUTE, ABSOLUTE + 0.0999), (0, 99_900_000)),  # Hesai, stamped at the start
    ("timestamp", FLOAT64, (ABSOLUTE - 0.0999, ABSOLUTE), (-99_900_000, 0)),  # Hesai, stamped at the end
    ("timestamp", FLOAT64, (ABSOLUTE + 37.0, ABSOLUTE + 37.0999), (0, 99_900_000)),  # a clock of its own (TAI)
    ("timestamp", FLOAT64, (12.5, 12.5999), (0, 99_900_000)),  # seconds since the sensor was switched on
]


def cloud(field: str | None, kind: int, times: Any, **changes: Any) -> SimpleNamespace:
    """One row of points x = 0, 1, ... with such a field, at byte 16, and the whole message's other attributes."""
    code = {FLOAT32: "f", FLOAT64: "d", UINT32: "I"}[kind]
    rows = [
        struct.pack("<ffff", i, 5, 0, 1) + struct.pack(f"<{code}", time).ljust(8, b"\0") for i, time in enumerate(times)
    ]
    fields = [SimpleNamespace(name=name, offset=4 * k, datatype=FLOAT32, count=1) for k, name in enumerate("xyzi")]
    if field:
        fields.append(SimpleNamespace(name=field, offset=16, datatype=kind, count=1))
    message = dict(
        fields=fields, data=b"".join(rows), height=1, width=len(rows), point_step=24, row_step=24 * len(rows),
        is_bigendian=False,
    )  # fmt: skip
    return SimpleNamespace(**(message | changes))


@pytest.mark.parametrize(("field", "kind", "times", "expected"), DRIVERS)
def test_each_driver_is_understood(field: str, kind: int, times: tuple[float, ...], expected: tuple[int, int]) -> None:
    offsets = sweep_offsets(point_times(cloud(field, kind, times)), STAMP)
    assert offsets is not None and offsets.dtype == np.int64
    assert np.abs(offsets - expected).max() < 500  # ns: what a double holds of seconds since 1970
    assert reach(offsets, STAMP) == (STAMP + offsets.min(), STAMP + offsets.max())


@pytest.mark.parametrize("stamp", [SECOND, 5 * SECOND])
def test_simulated_clocks_start_near_zero(stamp: int) -> None:
    """Absolute times and stamps of a few seconds are still told from relative ones."""
    for values in ([stamp, stamp + 50 * MS], [stamp - 50 * MS, stamp], [50 * MS, 90 * MS], [-50 * MS, 0]):
        expected = np.array(values) - (stamp if max(values) >= stamp else 0)
        for unit in (1, SECOND):
            times = PointTimes("timestamp", np.array(values) / unit, False)
            assert np.abs(sweep_offsets(times, stamp) - expected).max() <= 1


def test_times_that_say_nothing() -> None:
    none = [
        None,
        point_times(cloud(None, FLOAT32, [0.0, 0.1])),
        point_times(cloud("time", FLOAT32, [0.0, 0.0])),
        point_times(cloud("time", FLOAT32, [np.nan, np.inf])),
        point_times(cloud("t", UINT32, [0, 2_000_000_000])),  # two seconds are no sweep
        point_times(cloud("time", FLOAT32, [0.0, 3e9])),
    ]
    assert [sweep_offsets(times, STAMP) for times in none] == [None] * len(none)


def test_a_point_without_a_time_stays() -> None:
    offsets = sweep_offsets(point_times(cloud("time", FLOAT32, [0.02, np.nan, 0.1])), STAMP)
    assert offsets is not None and offsets[1] == 0
    motion = Motion(np.array([STAMP, STAMP + SECOND]), np.stack([np.eye(4), moving(np.array([10, 0, 0, 0, 0, 0]), 1)]))
    moved = deskew(np.zeros((3, 3)), offsets, STAMP, motion)
    assert moved[:, 0] == pytest.approx([0.2, 0.0, 1.0], abs=1e-6)


def test_times_follow_their_points_when_others_are_dropped() -> None:
    message = cloud("t", UINT32, range(0, 6_000_000, 1_000_000))
    message.data = message.data[:24] + struct.pack("<f", np.nan) + message.data[28:]
    points, rows = decode_rows(message)
    assert rows.tolist() == [0, 2, 3, 4, 5] == points[:, 0].tolist()
    assert np.array_equal(points, decode_message(message))


def test_the_first_usable_field_is_taken() -> None:
    message = cloud("timestamp", FLOAT64, [ABSOLUTE, ABSOLUTE + 0.1])
    message.fields.append(SimpleNamespace(name="time", offset=20, datatype=FLOAT32, count=1))  # ends beyond the point?
    assert point_times(message).name == "time"
    message.fields[-1].offset = 21
    assert point_times(message).name == "timestamp"


def test_nothing_is_extrapolated() -> None:
    ahead = np.array([10.0, 0, 0, 0, 0, 0])
    buffer = messages(ahead, 0, 200 * MS, 50 * MS)
    assert OdometryBuffer().across(0, 1) is None
    assert buffer.across(STAMP, STAMP + 200 * MS) is not None
    for first, last in ((-1, 100 * MS), (100 * MS, 200 * MS + 1), (300 * MS, 400 * MS), (-400 * MS, -300 * MS)):
        assert buffer.across(STAMP + first, STAMP + last) is None
    motion = buffer.across(STAMP + 60 * MS, STAMP + 90 * MS)
    assert motion.stamps.tolist() == [STAMP + 50 * MS, STAMP + 100 * MS]
    assert motion.at(np.array([STAMP + 70 * MS]))[0, 0, 3] == pytest.approx(0.7)
    with pytest.raises(ValueError, match="whole sweep"):
        motion.at(np.array([STAMP + 101 * MS]))
    exact = buffer.across(STAMP + 50 * MS, STAMP + 50 * MS)
    assert exact.at(np.array([STAMP + 50 * MS]))[0, 0, 3] == pytest.approx(0.5)


def test_the_twist_serves_only_where_the_messages_do_not_reach() -> None:
    turning = np.array([10.0, 0, 0, 0, 0, 1.0])
    wrong = np.array([-10.0, 0, 0, 0, 0, 0])
    buffer = OdometryBuffer()
    for at, twist in ((0, turning), (50, wrong), (100, turning)):
        buffer.add(STAMP + at * MS, moving(turning, at * 1e-3), twist)
    motion = buffer.across(STAMP - 80 * MS, STAMP + 180 * MS)
    for at in (-80, -10, 25, 75, 130, 180):
        assert np.allclose(motion.at(np.array([STAMP + at * MS]))[0], moving(turning, at * 1e-3), atol=1e-9)
    assert buffer.across(STAMP, STAMP + 1101 * MS) is None  # no sweep is so long


@pytest.mark.parametrize(
    "twist", [np.zeros(6), None, np.array([np.nan, 0, 0, 0, 0, 0]), np.array([1e3, 0, 0, 0, 0, 0])]
)
def test_a_twist_that_says_nothing_is_not_followed(twist: np.ndarray | None) -> None:
    buffer = OdometryBuffer()
    buffer.add(STAMP, np.eye(4), twist)
    assert buffer.across(STAMP, STAMP + MS) is None


def test_a_jump_of_the_odometry_is_no_motion() -> None:
    buffer = OdometryBuffer()
    for at, x in ((0, 0.0), (50, 0.5), (100, 5.0), (150, 5.5), (200, 6.0)):
        buffer.add(STAMP + at * MS, moving(np.array([x, 0, 0, 0, 0, 0]), 1.0))
    assert buffer.across(STAMP, STAMP + 100 * MS) is None
    assert buffer.across(STAMP + 100 * MS, STAMP + 200 * MS) is not None
    buffer.add(STAMP + 250 * MS, moving(np.array([6.0, 0, 0, 0, 0, 2.0]), 1.0))
    assert buffer.across(STAMP + 150 * MS, STAMP + 250 * MS) is None


def test_what_does_not_fit_together_is_named() -> None:
    motion = Motion(np.array([STAMP]), np.eye(4)[None])
    with pytest.raises(ValueError, match="3 points with 2 times"):
        deskew(np.zeros((3, 3)), np.zeros(2, np.int64), STAMP, motion)
    with pytest.raises(ValueError, match="whole sweep"):
        deskew(np.zeros((2, 3)), np.array([0, 1]), STAMP, motion)
    assert len(deskew(np.zeros((0, 4)), np.zeros(0, np.int64), STAMP, motion)) == 0


def mutate(message: SimpleNamespace, rng: random.Random) -> None:
    """Break the time field, its numbers, or a number of the message."""
    field = message.fields[-1]
    kind = rng.randrange(5)
    if kind == 0:
        odd = rng.choice([None, -1, 0, 3, 9, 2**31, 2**32, 1.5, "7"])
        setattr(field, rng.choice(["offset", "datatype", "count"]), odd)
    elif kind == 1:
        field.name = rng.choice(["t", "time", "timestamp", "offset_time", "x", None, "", "ring"])
    elif kind == 2:
        field.datatype, field.offset = rng.randrange(1, 9), rng.randrange(24)
    elif kind == 3:
        setattr(
            message, rng.choice(["height", "width", "point_step", "row_step"]), rng.choice([0, 1, 3, 2**31, -1, None])
        )
    else:
        message.data = rng.randbytes(len(message.data))


def test_three_thousand_mutated_time_fields() -> None:
    """Times never cost a cloud that is read without them, and whatever they hold, they are a sweep or nothing."""
    rng = random.Random(7)
    sweeps = nothing = 0
    for _ in range(3000):
        field, kind, ends, _ = rng.choice(DRIVERS)
        message = cloud(field, kind, [ends[0], ends[1], ends[0], ends[1]])
        for _ in range(rng.randrange(3)):
            mutate(message, rng)
        times = point_times(message)
        offsets = sweep_offsets(times, STAMP)
        try:
            points, rows = decode_rows(message)
        except CloudError:
            continue
        assert np.array_equal(points, decode_message(message))
        if offsets is None:
            nothing += 1
            continue
        sweeps += 1
        assert len(offsets) == message.height * message.width and rows.max() < len(offsets)
        assert np.ptp(offsets) <= 2 * SECOND and np.abs(offsets).max() <= 2 * SECOND
    assert sweeps > 500 and nothing > 300, "the mutations are too mild or too wild to test anything"


def test_undoing_is_the_inverse_of_doing() -> None:
    """Whatever odometry says, moving the points back by the same poses gives what came (to millimetres: between two
    knots a kink of the odometry is rounded off)."""
    rng = np.random.default_rng(3)
    buffer = OdometryBuffer()
    pose = np.eye(4)
    for at in range(-20, 130, 10):
        pose = pose @ exp(rng.normal(0, [0.1, 0.02, 0.02, 0.001, 0.001, 0.003]))
        buffer.add(STAMP + at * MS, pose)
    offsets = np.array([0, 10, 55, 100]) * MS
    motion = buffer.across(*reach(offsets, STAMP))
    points = rng.uniform(-40, 40, (4, 3))
    moved = deskew(points, offsets, STAMP, motion)
    back = inverse(motion.at(STAMP + offsets)) @ motion.at(np.array([STAMP]))
    assert np.allclose((back[:, :3, :3] @ moved[:, :, None])[..., 0] + back[:, :3, 3], points, atol=5e-3)


# The node's part: scans wait for the odometry of their whole sweep, and are moved into the body frame first.


def bench(**changes: Any) -> tuple[Any, list[Any]]:
    """Inputs with topic odometry, and the scans that they release."""
    from vlad_ros.config import NodeConfig
    from vlad_ros.ros.inputs import Inputs, TopicOdometry

    out: list[Any] = []
    return Inputs(replace(NodeConfig(), **changes), TopicOdometry(), out.append, lambda reason: None), out


def sweep(first: float, last: float, frame: str = "lidar") -> SimpleNamespace:
    """A message of two points, measured so many milliseconds from its stamp."""
    message = cloud("time", FLOAT32, [first * 1e-3, last * 1e-3])
    message.header = SimpleNamespace(frame_id=frame)
    return message


@pytest.mark.ros
def test_a_scan_waits_for_the_odometry_of_its_whole_sweep() -> None:
    pytest.importorskip("rclpy")
    from vlad_ros.ros.inputs import Scan

    inputs, out = bench()
    for at in (-150, -50, 50):
        inputs.add_odometry(STAMP + at * MS, moving(np.array([10.0, 0, 0, 0, 0, 0]), at * 1e-3), "lidar")
    inputs.add_scan(Scan(sweep(-100, 0), STAMP, 0.0))
    assert len(out) == 1 and out[0].motion.stamps.tolist() == [STAMP + at * MS for at in (-150, -50, 50)]
    inputs.add_scan(Scan(sweep(0, 99), STAMP + 10 * MS, 0.0))
    assert len(out) == 1  # its pose is known, the end of its sweep is not
    inputs.add_odometry(STAMP + 110 * MS, moving(np.array([10.0, 0, 0, 0, 0, 0]), 0.110), "lidar")
    assert len(out) == 2 and out[1].motion is not None and out[1].T_odom_child[0, 3] == pytest.approx(0.1)
    inputs.add_scan(Scan(sweep(0, 100), STAMP + 110 * MS, 0.0))
    inputs.add_scan(Scan(sweep(0, 100), STAMP + 410 * MS, 0.0))  # odom_timeout later
    assert len(out) == 3 and out[2].motion is None and out[2].T_odom_child is not None
    silent, released = bench(deskew=False)
    silent.add_odometry(STAMP, np.eye(4), "lidar")
    silent.add_scan(Scan(sweep(0, 100), STAMP, 0.0))
    assert len(released) == 1 and released[0].offsets is None


class Told:
    """An undistorter, what it has said, and what it has counted."""

    def __init__(self, **changes: Any) -> None:
        from vlad_ros.config import NodeConfig
        from vlad_ros.ros.diagnostics import Statistics
        from vlad_ros.ros.frames import Frames
        from vlad_ros.ros.undistort import Undistorter

        self.said: list[str] = []
        self.config = replace(NodeConfig(), **changes)
        self.frames = Frames(self.config, None, self.said.append)
        self.frames.settle("lidar")
        self.statistics = Statistics()
        self.undistorter = Undistorter(self.config, self.frames, self.said.append, self.statistics)

    def undistort(self, scan: Any, points: np.ndarray) -> np.ndarray:
        return self.undistorter.undistort(scan, points, np.arange(len(points), dtype=np.int32))


@pytest.mark.ros
@pytest.mark.parametrize("child", ["base_link", "lidar"])
def test_points_are_moved_in_the_body_frame(child: str) -> None:
    """A sensor mounted sideways on a body that turns: what is at rest is seen at one place, whoever's the odometry."""
    pytest.importorskip("rclpy")
    from vlad_ros.geometry import from_xyz_rpy
    from vlad_ros.ros.inputs import Scan

    mounting = (1.0, 0.5, 1.2, 0.0, 0.1, 1.5)
    told = Told(base_frame="base_link", mounting_xyz_rpy=mounting)
    T_base_sensor = from_xyz_rpy(mounting)
    twist = np.array([15.0, 0, 0, 0, 0, 1.0])  # of the body
    inputs, out = bench(base_frame="base_link", mounting_xyz_rpy=mounting)
    for at in (0, 60, 120):
        T = moving(twist, at * 1e-3)
        inputs.add_odometry(STAMP + at * MS, T if child == "base_link" else T @ T_base_sensor, child)
    inputs.add_scan(Scan(sweep(0, 100), STAMP, 0.0))
    post = np.array([20.0, -7.0, 0.5, 1.0])  # in the body frame at the stamp
    seen = np.stack([post, np.linalg.inv(moving(twist, 0.1)) @ post]).astype(np.float32)
    moved = told.undistort(out[0], seen)
    assert moved.dtype == np.float32 and np.abs(moved - post).max() < 1e-3
    assert told.said == [] and told.undistorter.state == "on, points 0 .. 100 ms from the stamp"


@pytest.mark.ros
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"odom_source": "none"}, "no odometry"),
        ({}, "t, time, timestamp, offset_time"),
        ({"deskew": False}, ""),
    ],
)
def test_why_not_is_said_once(changes: dict[str, Any], words: str) -> None:
    pytest.importorskip("rclpy")
    from vlad_ros.ros.inputs import Scan

    told, points = Told(**changes), np.ones((2, 4), np.float32)
    for _ in range(3):
        assert told.undistort(Scan(None, STAMP, 0.0), points) is points
    assert len(told.said) == (1 if words else 0) and words in "".join(told.said)
    assert told.undistorter.state.startswith("off") and words in told.undistorter.state


@pytest.mark.ros
def test_a_sweep_that_odometry_does_not_cover_is_counted() -> None:
    pytest.importorskip("rclpy")
    from vlad_ros.ros.inputs import Scan

    told, points = Told(), np.ones((2, 4), np.float32)
    for _ in range(2):
        scan = Scan(None, STAMP, 0.0, np.eye(4), "lidar", offsets=np.array([0, 100 * MS]))
        assert told.undistort(scan, points) is points
    assert told.statistics.values()["count not_deskewed"] == "2" and len(told.said) == 1


def test_edges_of_a_fast_drive_before_and_after() -> None:
    """bench/deskew.py made small: 15 m/s and 60 deg/s there and back, registered from a guess beside the truth."""
    small_gicp = pytest.importorskip("small_gicp")
    measure = runpy.run_path(str(ROOT / "bench" / "deskew.py"))["measure"]

    def edge(query: np.ndarray, match: np.ndarray, true: np.ndarray) -> np.ndarray:
        guess = true @ exp(np.array([0.3, -0.2, 0.05, 0, 0, 0.02]))
        a, b = (points[:, :3].astype(np.float64) for points in (match, query))
        found = small_gicp.align(a, b, guess, max_correspondence_distance=2.0, downsampling_resolution=0.3)
        return np.asarray(found.T_target_source)

    row = measure("15 m/s and 60 deg/s", [0], 3, edge, columns=360)
    assert row["pairs"] == 3
    assert row["before_m_p50"] > 0.5 and row["before_deg_p50"] > 0.5
    assert row["after_m_p90"] < 0.1 and row["after_deg_p90"] < 0.3
    assert row["after_right"] == 1.0


@pytest.mark.ros
def test_with_tf_the_sweep_is_looked_up() -> None:
    pytest.importorskip("rclpy")
    from vlad_ros.config import NodeConfig
    from vlad_ros.ros.frames import TfOdometry
    from vlad_ros.ros.inputs import Inputs, Scan

    twist = np.array([15.0, 0, 0, 0, 0, 1.0])
    known = [STAMP + 60 * MS]  # TF answers up to here

    class Transforms:
        def find(self, target: str, source: str, stamp: int) -> np.ndarray | None:
            assert (target, source) == ("odom", "lidar")
            return moving(twist, (stamp - STAMP) * 1e-9) if stamp <= known[0] else None

    config, out = replace(NodeConfig(), odom_source="tf"), []
    inputs = Inputs(config, TfOdometry(Transforms(), config), out.append, lambda reason: None)
    inputs.add_scan(Scan(sweep(0, 100), STAMP, 0.0))
    assert out == []  # TF knows the stamp, not yet the end of the sweep
    known[0] += 50 * MS
    inputs.pump()
    points = np.array([[20.0, -7.0, 0.5], (np.linalg.inv(moving(twist, 0.1)) @ [20.0, -7.0, 0.5, 1.0])[:3]])
    moved = deskew(points, out[0].offsets, STAMP, out[0].motion)
    assert np.allclose(moved, points[0], atol=1e-3)
