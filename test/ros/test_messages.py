# SPDX-License-Identifier: Apache-2.0
"""What the node publishes: layouts by name and offset, and absent numbers that are NaN."""

from __future__ import annotations

import array
import struct

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from sensor_msgs.msg import PointCloud2, PointField  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from vlad_ros.config import BevConfig  # noqa: E402
from vlad_ros.loops.relocalisation import MapPose  # noqa: E402
from vlad_ros.poses import from_xyz_rpy, inverse, to_quaternion  # noqa: E402
from vlad_ros.ros.outputs import messages  # noqa: E402
from vlad_ros.stamps import from_time  # noqa: E402
from vlad_ros.types import LoopClosure, RejectReason  # noqa: E402

HEADER = Header(stamp=messages.to_time(12_000_000_034), frame_id="body")
BARE = LoopClosure(7, 3, 1, 0, 12_000_000_034, 5_000_000_006, 0.75, reject_reason=RejectReason.LOW_SIMILARITY)
# struct's own reading of a row, written down once more by hand from the design's table.
ROW = struct.Struct("<3f iIiI IIII ff 7d 21d BB")


def no_pose(_: int) -> None:
    return None


def first_row(message: PointCloud2) -> tuple[float, ...]:
    return ROW.unpack(bytes(message.data[: ROW.size]))


def test_layout_is_packed_and_named_once() -> None:
    sizes = {1: 1, 2: 1, 5: 4, 6: 4, 7: 4, 8: 8}
    end = 0
    for _, offset, kind in messages.LAYOUT:
        assert offset == end
        end += sizes[kind]
    assert end == ROW.size == messages.ROW.itemsize == 278
    names = [name for name, _, _ in messages.LAYOUT]
    assert len(set(names)) == len(names) == 43
    constants = (PointField.UINT8, PointField.INT32, PointField.UINT32, PointField.FLOAT32, PointField.FLOAT64)
    assert constants == (messages.UINT8, messages.INT32, messages.UINT32, messages.FLOAT32, messages.FLOAT64)


def test_descriptor_is_one_field_a_row_a_number() -> None:
    descriptor = np.arange(2048, dtype=np.float32)
    message = messages.descriptor_message(HEADER, descriptor)
    assert (message.height, message.width, message.point_step, message.row_step) == (1, 2048, 4, 8192)
    assert [(f.name, f.offset, f.datatype, f.count) for f in message.fields] == [("descriptor", 0, 7, 1)]
    assert np.array_equal(np.frombuffer(message.data, "<f4"), descriptor)
    assert message.header == HEADER


def test_a_bare_closure_has_nan_where_nothing_is_known() -> None:
    message = messages.closures_message(HEADER, [BARE], no_pose)
    row = first_row(message)
    assert (message.height, message.width, message.point_step) == (1, 1, 278)
    assert [(f.name, f.offset, f.datatype) for f in message.fields] == list(messages.LAYOUT)
    assert np.isnan(row[:3]).all()
    assert row[3:11] == (12, 34, 5, 6, 7, 3, 1, 0)
    assert row[11] == 0.75 and np.isnan(row[12:41]).all()
    assert row[41:] == (0, RejectReason.LOW_SIMILARITY)


def test_a_verified_closure_carries_pose_covariance_and_position() -> None:
    T = from_xyz_rpy((1.0, 2.0, 3.0, 0.1, 0.2, 0.3))
    covariance = np.arange(36, dtype=float).reshape(6, 6)
    covariance = covariance + covariance.T
    closure = LoopClosure(7, 3, 1, 0, 10, 20, 0.9, 0.8, T, covariance, True)
    row = first_row(messages.closures_message(HEADER, [closure], no_pose))
    assert row[:3] == pytest.approx((inverse(T) @ [0, 0, 0, 1])[:3], abs=1e-6)
    assert row[12] == pytest.approx(0.8)
    assert row[13:16] == (1.0, 2.0, 3.0)
    x, y, z, w = row[16:20]
    assert T[2, 1] == pytest.approx(2 * (y * z + x * w))  # an entry of the rotation matrix of x y z w
    assert row[20:41] == tuple(covariance[i, j] for i in range(6) for j in range(i, 6))
    assert row[41:] == (1, 0)


def test_position_comes_from_odometry_within_one_session_only() -> None:
    poses = {7: from_xyz_rpy((10.0, 0.0, 0.0, 0.0, 0.0, np.pi / 2)), 3: from_xyz_rpy((10.0, 5.0, 0.0, 0.0, 0.0, 0.0))}
    same = LoopClosure(7, 3, 0, 0, 10, 20, 0.9)
    assert messages.match_position(same, poses.get) == pytest.approx((5.0, 0.0, 0.0))
    assert np.isnan(messages.match_position(BARE, poses.get)).all()  # another session's odometry begins elsewhere
    assert np.isnan(messages.match_position(same, no_pose)).all()


def test_nothing_found_is_a_message_of_width_0() -> None:
    message = messages.closures_message(HEADER, [], no_pose)
    assert (message.width, len(message.data), len(message.fields)) == (0, 0, 43)


def test_stamps_survive() -> None:
    for stamp in (1, 999_999_999, 1_700_000_000_123_456_789):
        assert from_time(messages.to_time(stamp)) == stamp


def random_raster(config: BevConfig) -> np.ndarray:
    rng = np.random.default_rng(0)
    raster = (rng.random((config.channels, config.size, config.size)) < 0.3).astype(np.float32)
    raster[0] = rng.random((config.size, config.size)).astype(np.float32) * config.height_max
    return raster


def test_rasters_go_out_and_come_back() -> None:
    config = BevConfig()
    raster = random_raster(config)
    message = messages.bev_message(HEADER, raster, config)
    assert (message.encoding, message.height, message.width, message.step) == ("32FC5", 160, 160, 160 * 20)
    assert np.array_equal(messages.raster_of(message, config), raster)
    picture = messages.preview_message(HEADER, raster, config)
    assert (picture.encoding, picture.step, len(picture.data)) == ("rgb8", 480, 160 * 480)


def test_padded_rows_and_big_endian_images_are_read() -> None:
    config = BevConfig()
    raster = random_raster(config)
    message = messages.bev_message(HEADER, raster, config)
    rows = np.frombuffer(message.data, "<f4").reshape(160, 800).astype(">f4").view(np.uint8)
    padded = np.zeros((160, 3200 + 64), np.uint8)
    padded[:, :3200] = rows
    message.data, message.step, message.is_bigendian = array.array("B", padded.tobytes()), 3264, 1
    assert np.array_equal(messages.raster_of(message, config), raster)


def test_a_pose_is_told_with_stamp_frame_and_covariance() -> None:
    T, covariance = from_xyz_rpy((1.0, -2.0, 0.5, 0.1, 0.2, -2.0)), np.arange(36.0).reshape(6, 6)
    message = messages.pose_message(MapPose(3, 12_000_000_034, T, covariance + covariance.T), "town")
    assert (from_time(message.header.stamp), message.header.frame_id) == (12_000_000_034, "town")
    p, q = message.pose.pose.position, message.pose.pose.orientation
    assert (p.x, p.y, p.z) == pytest.approx((1.0, -2.0, 0.5))
    assert (q.x, q.y, q.z, q.w) == pytest.approx(tuple(to_quaternion(T)))
    assert message.pose.covariance[1] == covariance[0, 1] + covariance[1, 0]
