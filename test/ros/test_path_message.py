# SPDX-License-Identifier: Apache-2.0
"""A Path read from its bytes: as rclpy reads it, in both byte orders, and whatever has happened to them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from geometry_msgs.msg import PoseStamped  # noqa: E402
from nav_msgs.msg import Path  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402

from vlad_ros.ros.inputs.path_message import read_path  # noqa: E402
from vlad_ros.stamps import stamp_of  # noqa: E402

FRAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
NUMBERS = st.lists(st.floats(width=64), min_size=7, max_size=7)
POSES = st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1), FRAMES, NUMBERS)


def message(frame: str, poses: list[tuple[int, int, str, list[float]]]) -> Path:
    path = Path()
    path.header.frame_id = frame
    for sec, nanosec, name, (x, y, z, qx, qy, qz, qw) in poses:
        pose = PoseStamped()
        pose.header.stamp.sec, pose.header.stamp.nanosec, pose.header.frame_id = sec, nanosec, name
        p, q = pose.pose.position, pose.pose.orientation
        p.x, p.y, p.z, q.x, q.y, q.z, q.w = x, y, z, qx, qy, qz, qw
        path.poses.append(pose)
    return path


def written(order: str, path: Path) -> bytes:
    """CDR by hand, one field after the other."""
    out = bytearray()

    def put(code: str, *values: float) -> None:
        for value in values:
            out.extend(bytes(-len(out) % struct.calcsize(code)) + struct.pack(order + code, value))

    def header(stamped: Path | PoseStamped) -> None:
        put("i", stamped.header.stamp.sec)
        put("I", stamped.header.stamp.nanosec)
        name = stamped.header.frame_id.encode() + b"\0"
        put("I", len(name))
        out.extend(name)

    header(path)
    put("I", len(path.poses))
    for pose in path.poses:
        header(pose)
        p, q = pose.pose.position, pose.pose.orientation
        put("d", p.x, p.y, p.z, q.x, q.y, q.z, q.w)
    return (b"\0\1\0\0" if order == "<" else b"\0\0\0\0") + bytes(out)


def expected(path: Path) -> tuple[list[int], list[tuple[float, ...]]]:
    where = [(pose.pose.position, pose.pose.orientation) for pose in path.poses]
    return [stamp_of(pose) for pose in path.poses], [(p.x, p.y, p.z, q.x, q.y, q.z, q.w) for p, q in where]


def assert_reads(data: bytes, path: Path) -> None:
    stamps, numbers = read_path(data)
    wanted_stamps, wanted = expected(path)
    assert stamps.dtype == np.int64 and stamps.tolist() == wanted_stamps
    assert numbers.dtype == np.float64 and numbers.shape == (len(path.poses), 7)
    np.testing.assert_array_equal(numbers, np.array(wanted, np.float64).reshape(-1, 7))


@given(FRAMES, st.lists(POSES, max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_path_is_read_as_rclpy_wrote_it(frame: str, poses: list[tuple[int, int, str, list[float]]]) -> None:
    path = message(frame, poses)
    assert_reads(serialize_message(path), path)
    by_hand = deserialize_message(written("<", path), Path)
    np.testing.assert_array_equal(expected(by_hand)[1], expected(path)[1])  # so the other order is right, too
    assert_reads(written(">", path), path)


@given(FRAMES, FRAMES, st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_one_frame_for_all_poses_as_back_ends_have_it(frame: str, name: str, count: int) -> None:
    path = message(frame, [(i, 2 * i, name, [float(i + k) for k in range(7)]) for i in range(count)])
    assert_reads(serialize_message(path), path)
    assert_reads(written(">", path), path)


def sample(even: bool) -> Path:
    return message("map", [(i, i, "m" * (3 if even else i % 5), [float(i + k) for k in range(7)]) for i in range(20)])


@pytest.mark.parametrize("even", [True, False])
def test_every_cut_is_noticed(even: bool) -> None:
    data = written("<", sample(even))
    for end in range(len(data)):
        with pytest.raises(ValueError, match="the path"):
            read_path(data[:end])
    assert_reads(data + b"\0" * 3, sample(even))  # as padded as some DDS make it


def test_what_it_says_of_damage() -> None:
    data = written("<", sample(True))
    for wrong, words in (
        (b"\0\3" + data[2:], "plain CDR"),
        (b"", "nothing"),
        (data[:12], "within its header"),
        (data[:12] + b"\xff" * 4 + data[16:], "within its header"),
        (data[:20] + b"\xff" * 4 + data[24:], "no room for its 4294967295 poses"),
        (data[:32] + struct.pack("<I", 2**32 - 1) + data[36:], "within pose 1 of 20"),
        (written("<", sample(False))[:-8], "within pose 20 of 20"),
    ):
        with pytest.raises(ValueError, match=words):
            read_path(wrong)


@given(st.booleans(), st.lists(st.tuples(st.integers(0, 1600), st.integers(0, 255)), min_size=1, max_size=6), st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_bytes_are_refused_or_read_as_rclpy_reads_them(
    even: bool, changes: list[tuple[int, int]], draw: st.DataObject
) -> None:
    data = bytearray(written("<", sample(even)))
    for at, value in changes:
        data[at % len(data)] = value
    damaged = bytes(data[: draw.draw(st.integers(len(data) // 2, len(data)))])
    try:
        stamps, numbers = read_path(damaged)
    except ValueError as error:
        assert len(str(error)) < 200
        return
    assert len(stamps) == len(numbers) <= len(damaged) // 64
    if damaged[:2] == b"\0\1":
        try:
            path = deserialize_message(damaged, Path)
        except Exception:
            return  # a frame that is no text, say: that is not read here
        assert_reads(damaged, path)
