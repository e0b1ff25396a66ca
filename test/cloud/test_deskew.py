# SPDX-License-Identifier: Apache-2.0
"""Sweeps undistorted: known motions undone, drivers' times read, nothing extrapolated, no cloud lost to a field."""

from __future__ import annotations

import random
import runpy
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweeps import FLOAT32, FLOAT64, MS, SECOND, STAMP, UINT32, cloud, moving

from vlad_ros.cloud.decode import CloudError, PointTimes, decode_message, decode_rows, point_times
from vlad_ros.cloud.deskew import Motion, deskew, reach, read_sweep, sweep_offsets
from vlad_ros.drive.odometry import OdometryBuffer
from vlad_ros.poses import exp, inverse, log

ROOT = Path(__file__).resolve().parents[2]


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
            times = PointTimes("timestamp", np.array(values) / unit, np.ones(len(values), bool))
            assert np.abs(sweep_offsets(times, stamp) - expected).max() <= 1


UNITS = {"s": 1e-9, "ms": 1e-6, "us": 1e-3, "ns": 1.0}  # per nanosecond


def swept(values: np.ndarray, of_point: np.ndarray | None = None) -> PointTimes:
    return PointTimes("t", np.asarray(values, np.float64), np.ones(len(values), bool) if of_point is None else of_point)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("rate", [1, 2, 5, 10, 20, 50])
@pytest.mark.parametrize("absolute", [False, True])
def test_every_unit_and_rate_is_understood(unit: str, rate: int, absolute: bool) -> None:
    for sign in (1, -1):
        true = sign * np.linspace(0, 0.999 * SECOND / rate, 500)
        values = (true + absolute * STAMP) * UNITS[unit]
        offsets = sweep_offsets(swept(values), STAMP)
        # A double holds the microseconds of seconds since 1970.
        assert offsets is not None and np.abs(offsets - true).max() < 1_000


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("bad", ["one", "zeros", "nan", "rolled over", "a tenth zeros"])
def test_bad_values_never_switch_deskewing_off(unit: str, absolute: bool, bad: str) -> None:
    true = np.linspace(0, 0.0999 * SECOND, 1000)
    values = (true + absolute * STAMP) * UNITS[unit]
    wrong, value = {
        "one": (np.array([500]), 3.6e9 * UNITS[unit]),
        "zeros": (np.arange(30), 0.0),
        "nan": (np.arange(0, 1000, 3), np.nan),
        "rolled over": (np.array([7]), 2**32 - 40_000.0),
        "a tenth zeros": (np.arange(0, 1000, 10), 0.0),
    }[bad]
    values[wrong] = value
    offsets = sweep_offsets(swept(values), STAMP)
    good = np.setdiff1d(np.arange(1000), wrong)
    assert offsets is not None and np.abs(offsets - true)[good].max() < 1_000
    assert np.abs(offsets[wrong]).max() <= 0.1 * SECOND


def test_most_points_may_be_missing() -> None:
    """Zeros for the times of points that are none, though they are the most."""
    values = STAMP + np.linspace(0, 0.0999 * SECOND, 1000)
    of_point = np.random.default_rng(0).random(1000) < 0.3
    values[~of_point] = 0.0
    offsets = sweep_offsets(swept(values, of_point), STAMP)
    assert offsets is not None and np.ptp(offsets[of_point]) > 0.09 * SECOND


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full(100, np.nan), "no point has a finite time"),
        (np.zeros(100), "all the same"),
        (np.full(100, np.float32(1.7e9)), "FLOAT32"),
        (np.linspace(0, 3.0, 100), "span 2.9"),
    ],
)
def test_what_cannot_be_understood_is_said(values: np.ndarray, words: str) -> None:
    offsets, fault = read_sweep(swept(values), STAMP)
    assert offsets is None and words in fault


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
    assert buffer.across(STAMP, STAMP + 1200 * MS) is None  # no sweep is so long


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


def test_edges_of_a_fast_drive_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """bench/deskew.py made small: 15 m/s and 60 deg/s there and back, registered from a guess beside the truth."""
    small_gicp = pytest.importorskip("small_gicp")
    monkeypatch.syspath_prepend(ROOT / "bench")
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
