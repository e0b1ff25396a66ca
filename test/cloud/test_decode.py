# SPDX-License-Identifier: Apache-2.0
"""Clouds of every layout, against `struct` and the ROS messages themselves; bad ones, against their sentence."""

from __future__ import annotations

import array
import math
import struct
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.cloud.crop import clean
from vlad_ros.cloud.decode import CloudError, decode_message

CODES = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 8: "d"}


def field(name: str, offset: int, datatype: int = 7, count: int = 1) -> SimpleNamespace:
    return SimpleNamespace(name=name, offset=offset, datatype=datatype, count=count)


def cloud(**changes: Any) -> SimpleNamespace:
    """Three points in one row, x y z and a byte of intensity, with padding; `changes` replace attributes."""
    rows = [(1.0, 2.0, 3.0, 7), (4.0, 5.0, 6.0, 8), (-1.5, 0.25, 100.0, 255)]
    data = b"".join(struct.pack("<fff", *row[:3]) + bytes([row[3], 0, 0, 0]) for row in rows)
    fields = [field("x", 0), field("y", 4), field("z", 8), field("intensity", 12, 2)]
    message = dict(fields=fields, data=data, height=1, width=3, point_step=16, row_step=48, is_bigendian=False)
    return SimpleNamespace(**(message | changes))


EXPECTED = np.array([[1, 2, 3, 7], [4, 5, 6, 8], [-1.5, 0.25, 100, 255]], np.float32)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[SimpleNamespace, list[tuple[float, ...]]]:
    """A message of any layout, and its rows of x y z intensity as `struct` reads them back."""
    order = draw(st.sampled_from("<>"))
    kinds = {axis: draw(st.sampled_from([7, 8])) for axis in "xyz"}
    intensity = draw(st.sampled_from([None, "intensity", "i", "reflectivity"]))
    if intensity:
        kinds[intensity] = draw(st.integers(1, 8))
    kinds["ring"] = draw(st.integers(1, 8))
    fields, offset = [], 0
    for name in draw(st.permutations(list(kinds))):
        offset += draw(st.integers(0, 5))
        fields.append(field(name, offset, kinds[name]))
        offset += struct.calcsize("<" + CODES[kinds[name]])
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    point_step = offset + draw(st.integers(0, 9))
    row_step = width * point_step + draw(st.integers(0, 20))
    data = bytearray(draw(st.randoms(use_true_random=False)).randbytes(height * row_step + draw(st.integers(0, 9))))
    rows = []
    for row in range(height):
        for column in range(width):
            values = {}
            for f in fields:
                code = order + CODES[f.datatype]
                at = row * row_step + column * point_step + f.offset
                whole = st.integers(0, 100) if f.datatype < 7 else st.floats(-500, 500, width=32)
                struct.pack_into(code, data, at, draw(whole))
                values[f.name] = struct.unpack_from(code, data, at)[0]
            rows.append(tuple(values.get(name, 0.0) for name in ("x", "y", "z", intensity or "none")))
    message = SimpleNamespace(
        fields=fields, data=bytes(data), height=height, width=width, point_step=point_step, row_step=row_step,
        is_bigendian=order == ">",
    )  # fmt: skip
    return message, rows


@settings(max_examples=150, deadline=None)
@given(layouts())
def test_any_layout_reads_as_struct_reads_it(case: tuple[SimpleNamespace, list[tuple[float, ...]]]) -> None:
    message, rows = case
    points = decode_message(message)
    assert points.dtype == np.float32 and points.flags.c_contiguous
    np.testing.assert_array_equal(points, np.array(rows, np.float64).astype(np.float32))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: array.array("B", b), np.frombuffer])
def test_any_buffer_is_read_and_left_alone(kind: Any) -> None:
    raw = cloud().data
    data = np.frombuffer(raw, np.uint8).copy() if kind is np.frombuffer else kind(raw)
    points = decode_message(cloud(data=data))
    np.testing.assert_array_equal(points, EXPECTED)
    points[:] = 9
    assert bytes(data) == raw


def test_a_ros_message_reads_as_its_maker_wrote_it() -> None:
    pytest.importorskip("sensor_msgs.msg", reason="needs the ROS 2 message packages")
    from sensor_msgs.msg import PointCloud2, PointField

    message = PointCloud2(height=1, width=3, point_step=16, row_step=48, data=array.array("B", cloud().data))
    message.fields = [PointField(**vars(f)) for f in cloud().fields]
    np.testing.assert_array_equal(decode_message(message), EXPECTED)


def test_what_is_not_finite_is_dropped_and_huge_values_are_no_warning() -> None:
    values = [(1, 1, 1, 5), (math.nan, 1, 1, 5), (1, math.inf, 1, 5), (1e300, 0, 0, 5), (1e30, 0, 0, math.nan)]
    data = b"".join(struct.pack("<dddd", *row) for row in values)
    fields = [field(name, 8 * k, 8) for k, name in enumerate(["x", "y", "z", "intensity"])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = decode_message(cloud(fields=fields, data=data, width=5, point_step=32, row_step=0))
        near = clean(points, 1.0, 100.0)
    np.testing.assert_array_equal(points, np.array([[1, 1, 1, 5], [1e30, 0, 0, 0]], np.float32))
    np.testing.assert_array_equal(near, points[:1])


def test_row_step_is_not_looked_at_where_there_is_one_row() -> None:
    for row_step in (0, 5, 2**32 - 1):
        np.testing.assert_array_equal(decode_message(cloud(row_step=row_step)), EXPECTED)


XYZ = [field("x", 0), field("y", 4), field("z", 8)]


@pytest.mark.parametrize(
    ("height", "width", "row_step"),
    [
        (64, 32, 0),  # velodyne
        (64, 32, 16 * 64 * 32),  # the whole cloud, as PointCloud2Modifier.resize(width, height) leaves it
        (64, 32, 64 * 32),  # the whole cloud in points
        (64, 32, 32),  # a row in points
        (48, 60, 16 * 64),  # of an earlier, larger size
        (2048, 1, 16 * 2048),
        (2048, 1, 16),
        (2048, 1, 1),
    ],
)
def test_a_wrong_row_step_is_no_reason_to_refuse_a_cloud(height: int, width: int, row_step: int) -> None:
    points = np.random.default_rng(0).normal(0, 10, (height * width, 4)).astype("<f4")
    message = cloud(height=height, width=width, row_step=row_step, data=points.tobytes())
    np.testing.assert_array_equal(decode_message(message)[:, :3], points[:, :3])


def test_rows_with_padding_are_read_whichever_way_they_are_told() -> None:
    points = np.random.default_rng(0).normal(0, 10, (3, 5, 4)).astype("<f4")
    padded = np.zeros((3, 8, 4), "<f4")
    padded[:, :5] = points
    for row_step in (16 * 8, 8, 0):  # in bytes, in points, not told
        message = cloud(height=3, width=5, row_step=row_step, data=padded.tobytes())
        np.testing.assert_array_equal(decode_message(message)[:, :3], points.reshape(-1, 4)[:, :3])


@pytest.mark.parametrize(
    ("changes", "reason", "sentence"),
    [
        ({"width": 0}, "empty", "is empty"),
        ({"width": 0, "height": 0, "point_step": 0, "fields": [], "data": b""}, "empty", "is empty"),
        ({"data": struct.pack("<ffff", *[math.nan] * 4) * 3}, "not_finite", "none of the 3 points"),
        ({"fields": XYZ[:2]}, "fields", "no field z"),
        ({"fields": []}, "fields", "it has none"),
        ({"fields": [*XYZ, field("x", 12)]}, "fields", "2 fields called 'x'"),
        ({"fields": [field("x", 0, 0), *XYZ[1:]]}, "fields", "unknown datatype 0"),
        ({"fields": [field("x", 0, 9), *XYZ[1:]]}, "fields", "unknown datatype 9"),
        ({"fields": [field("x", 0, 5), *XYZ[1:]]}, "fields", r"FLOAT32 \(7\) or FLOAT64"),
        ({"fields": [field("x", 0, 7, 3), *XYZ[1:]]}, "fields", "count 3"),
        ({"fields": [field("x", 0, 7, 0), *XYZ[1:]]}, "fields", "count 0"),
        ({"fields": [field("x", -4), *XYZ[1:]]}, "layout", "offset of field 'x' must lie in"),
        ({"fields": [field("x", 2**40), *XYZ[1:]]}, "layout", "offset of field 'x' must lie in"),
        ({"fields": [field("x", 14), *XYZ[1:]]}, "layout", "ends at byte 18"),
        ({"fields": [SimpleNamespace(name="x"), *XYZ[1:]]}, "layout", "must be a whole number"),
        ({"point_step": 0}, "layout", "point_step is 0"),
        ({"point_step": 11}, "layout", "point_step is 11"),
        ({"point_step": 2**31}, "layout", "data holds 48 bytes"),
        ({"point_step": 1.5}, "layout", "point_step must be a whole number"),
        ({"width": 4}, "layout", "data holds 48 bytes, but 1 rows of 64 need 64"),
        ({"width": -3}, "layout", "width must lie in"),
        ({"height": 4, "width": 1, "row_step": 16}, "layout", "data holds 48 bytes, but 4 rows"),
        ({"data": b""}, "layout", "data holds 0 bytes"),
        ({"data": [0] * 48}, "layout", "contiguous bytes, not list"),
    ],
)
def test_a_bad_cloud_is_named_in_one_sentence(changes: dict[str, Any], reason: str, sentence: str) -> None:
    with pytest.raises(CloudError, match=sentence) as caught:
        decode_message(cloud(**changes))
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_clean_keeps_the_finite_points_in_range_in_order(dtype: type) -> None:
    points = np.array([[0.5, 0, 0], [3, 4, 0], [np.nan, 0, 1], [0, 60, 0], [0, 0, 1], [0, 0, 50]], dtype)
    kept = clean(points, 1.0, 50.0)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, [[3, 4, 0, 0], [0, 0, 1, 0], [0, 0, 50, 0]])
    wide = np.hstack([points, np.arange(12).reshape(6, 2)]).astype(dtype)
    np.testing.assert_array_equal(clean(wide, 1.0, 50.0)[:, 3], [2, 8, 10])


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (np.zeros((0, 4), np.float32), "empty"),
        (np.full((5, 4), np.nan), "not_finite"),
        (np.ones((5, 2)), "layout"),
        (np.ones(5), "layout"),
        (np.array([["a", "b", "c"]]), "layout"),
        (np.full((5, 3), 1e30), "out_of_range"),
        (np.full((5, 3), 1e300), "not_finite"),
        (np.zeros((5, 3)), "out_of_range"),
    ],
)
def test_clean_refuses_what_nothing_is_left_of(points: np.ndarray, reason: str) -> None:
    with pytest.raises(CloudError) as caught:
        clean(points, 1.0, 100.0)
    assert caught.value.reason == reason
