# SPDX-License-Identifier: Apache-2.0
"""A bag's drive as the node would take it: one bad message costs that message, body frames other than the cloud's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_builder import (
    COUNT,
    NAN,
    START,
    STEP,
    Heard,
    Raw,
    changed,
    cloud,
    messages,
    odometry,
    points,
    pose,
    rotation,
    spoil,
    stamped,
    static,
    write,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer

from vlad_ros.files.bags import CLOUD, ODOMETRY, TYPES, cloud_message, odometry_message
from vlad_ros.poses import from_xyz_rpy

STAMPS = [START + k * STEP for k in range(COUNT)]


def test_a_tidy_bag(tmp_path: Path) -> None:
    write(tmp_path / "bag", messages())
    heard = Heard(tmp_path / "bag")
    assert heard.count == COUNT and [scan.stamp for scan in heard.scans] == STAMPS
    for k, scan in enumerate(heard.scans):
        np.testing.assert_array_equal(scan.points, cloud(k))
        np.testing.assert_allclose(scan.T_odom_base, pose(k), atol=1e-9)
    assert heard.counters == {} and heard.said == []


def position(**values: float) -> Callable[[Any], None]:
    def change(message: Any) -> None:
        for name, value in values.items():
            setattr(message.pose.pose.position, name, value)

    return change


@pytest.mark.parametrize("at", [0, 5, COUNT - 1])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rotation(x=0.0, y=0.0, z=0.0, w=0.0), "not of unit length, its norm is 0"),  # robot_pose_ekf's first
        (rotation(w=NAN), "the pose is not finite"),
        (rotation(x=1e300, y=1e300), "not of unit length"),
        (position(x=NAN), "the pose is not finite"),
        (position(z=float("-inf")), "the pose is not finite"),
        (stamped(0), "its stamp is 0 ns"),
        (stamped(-(2**31), 5), "its stamp is -2147483647999999995 ns"),
    ],
    ids=["zero quaternion", "NaN quaternion", "huge quaternion", "NaN", "infinite", "zero stamp", "negative stamp"],
)
def test_one_odometry_that_is_no_pose(tmp_path: Path, at: int, change: Callable[[Any], None], words: str) -> None:
    """It is counted and said once; the scan between its neighbours is interpolated, at an end it goes without."""
    write(tmp_path / "bag", changed(odometry(at, change)))
    heard = Heard(tmp_path / "bag")
    assert [scan.stamp for scan in heard.scans] == STAMPS
    assert heard.posed == (COUNT if at == 5 else COUNT - 1)
    assert heard.counters == {"bad_odometry": 1} and len(heard.said) == 1 and words in heard.said[0]
    if at == 5:
        middle = heard.scans[5].T_odom_base
        assert middle is not None
        np.testing.assert_allclose(middle[:3, 3], (pose(4) + pose(6))[:3, 3] / 2, atol=1e-6)


def resized(message: Any) -> None:
    message.width += 1


def stripped(message: Any) -> None:
    message.fields = message.fields[1:]


def blinded(message: Any) -> None:
    message.data = np.full(len(message.data) // 4, np.nan, "<f4").view(np.uint8)


def emptied(message: Any) -> None:
    message.width, message.row_step, message.data = 0, 0, message.data[:0]


@pytest.mark.parametrize("at", [0, 5, COUNT - 1])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (resized, "cloud_layout"),
        (stripped, "cloud_fields"),
        (blinded, "cloud_not_finite"),
        (emptied, "cloud_empty"),
        (stamped(0), "zero_stamp"),
        (stamped(-5), "zero_stamp"),
    ],
)
def test_one_cloud_that_is_none(tmp_path: Path, at: int, change: Callable[[Any], None], reason: str) -> None:
    write(tmp_path / "bag", changed(points(at, change)))
    heard = Heard(tmp_path / "bag")
    assert [scan.stamp for scan in heard.scans] == STAMPS[:at] + STAMPS[at + 1 :] and heard.posed == COUNT - 1
    assert heard.counters == {reason: 1} and len(heard.said) == 1 and heard.said[0].startswith(f"{reason}: ")
    assert heard.why == {reason: heard.said[0].removeprefix(f"{reason}: ")}


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 400, b"hello, this is no CDR"])
@pytest.mark.parametrize("topic", ["/points", "/odom"])
def test_one_message_that_is_none(tmp_path: Path, topic: str, data: bytes) -> None:
    content: list[Any] = list(messages())
    k = 10 + (topic == "/points")
    path, kind = tmp_path / "bag", CLOUD if topic == "/points" else ODOMETRY
    content[k] = (topic, content[k][1], Raw(data, kind))
    write(path, content)
    heard = Heard(path)
    reason = "cloud_unreadable" if topic == "/points" else "bad_odometry"
    assert heard.counters == {reason: 1} and f"not a readable {kind}" in heard.said[0]
    assert len(heard.scans) == heard.posed == COUNT - (topic == "/points")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 2**31), min_size=2 * COUNT, max_size=2 * COUNT), cut=st.booleans())
def test_no_message_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, seeds: list[int], cut: bool) -> None:
    """Every message of the bag spoilt or cut short; each one is used or counted."""
    content = []
    for seed, (topic, time, message) in zip(seeds, messages(), strict=True):
        data = bytes(TYPES.serialize_cdr(message, message.__msgtype__))
        data = data[: seed % len(data)] if cut else spoil(data, seed)
        content.append((topic, time, Raw(data, message.__msgtype__)))
    path = tmp_path_factory.mktemp("spoilt") / "bag"
    write(path, content)
    heard = Heard(path, deskew=True)
    stamps = ("zero_stamp", "wrong_stamp", "late_stamp", "repeated_stamp")
    lost = [why for why in heard.counters if why.startswith("cloud_") or why in (*stamps, "frame_changed", "unusable")]
    refused = sum(heard.counters[why] for why in lost)
    assert len(heard.scans) + refused == COUNT
    assert all("\n" not in sentence for sentence in heard.said)
    assert len(set(heard.said)) == len(heard.said)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mounting_xyz_rpy": (1.0,) * 6}, "base_frame is empty"),
        ({"base_frame": "base_link", "mounting_xyz_rpy": (1.0, 2.0)}, "must hold six numbers"),
        (
            {"points_topic": "/velodyne"},
            r"no topic /velodyne of type sensor_msgs/msg/PointCloud2 .* there are: /points",
        ),
        ({"points_topic": "/tf_static"}, r"\(/tf_static is a tf2_msgs/msg/TFMessage\); there are: /points"),
        ({"odom_topic": "/tf_static"}, r"\(/tf_static is a tf2_msgs/msg/TFMessage\); there are: /odom.*--no-odometry"),
        ({"points_topic": "/odom"}, "points_topic and odom_topic must differ, both are '/odom'"),
        ({"drift": True}, "--drift is for sequence files"),
    ],
)
def test_what_is_refused_before_the_drive(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    write(tmp_path / "bag", [static(("base_link", "lidar", (0.0,) * 6)), *messages()])
    with pytest.raises(ValueError, match=words):
        Heard(tmp_path / "bag", **options)


def test_a_topic_of_two_types(tmp_path: Path) -> None:
    """Two programs that did not agree: the messages of the right type are the drive's."""
    content = list(messages())
    text = TYPES.types["std_msgs/msg/String"]("hello")
    other = [("/points", time, text) for topic, time, _ in content if topic == "/points"]
    write(tmp_path / "bag", itertools.chain(content, other))
    heard = Heard(tmp_path / "bag")
    assert heard.count == len(heard.scans) == heard.posed == COUNT and heard.counters == {}


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_topics_without_messages(tmp_path: Path, storage: str) -> None:
    """Announced and never published: a driver that did not get through."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        for topic, kind in (("/points", CLOUD), ("/odom", ODOMETRY)):
            writer.add_connection(topic, kind, typestore=TYPES)
    heard = Heard(tmp_path / "bag")
    assert heard.count == 0 and heard.scans == [] and heard.counters == {} and heard.said == []


def test_only_clouds(tmp_path: Path) -> None:
    write(tmp_path / "bag", [(topic, time, m) for topic, time, m in messages() if topic == "/points"])
    with pytest.raises(ValueError, match=r"no topic /odom .*--no-odometry"):
        Heard(tmp_path / "bag")
    heard = Heard(tmp_path / "bag", odometry=False, deskew=True)
    assert len(heard.scans) == COUNT and heard.posed == 0 and heard.counters == {}


def test_why_clouds_are_not_deskewed(tmp_path: Path) -> None:
    write(tmp_path / "bag", messages())
    heard = Heard(tmp_path / "bag", deskew=True)
    assert heard.counters == {"not_deskewed": COUNT} and len(heard.said) == 1
    assert "they tell no times of their points" in heard.said[0]
    assert "they tell no times of their points" in heard.why["not_deskewed"]


def sweep(stamp: int) -> Any:
    """A wall 20 m ahead, measured over 0.1 s from a vehicle at 10 m/s."""
    late = np.linspace(0.0, 0.1, 11).astype(np.float32)
    data = np.zeros((11, 5), np.float32)
    data[:, 0], data[:, 1], data[:, 4] = 20.0 - 10.0 * late, np.arange(-5, 6), late
    message = cloud_message(stamp, data[:, :4], "lidar")
    message.fields.append(TYPES.types["sensor_msgs/msg/PointField"](name="time", offset=16, datatype=7, count=1))
    message.point_step, message.row_step, message.data = 20, 220, data.reshape(-1).view(np.uint8)
    return message


@pytest.mark.parametrize("speed", [0.0, 10.0])
def test_a_twist_carries_on_behind_the_last_odometry(tmp_path: Path, speed: float) -> None:
    """As in the node: the sweep ends after the last message, whose twist leads on from there, where it has one."""
    content = []
    for k in range(-2, 1):
        message = odometry_message(START + k * STEP, from_xyz_rpy((float(k), 0, 0, 0, 0, 0)), "odom", "lidar")
        message.twist.twist.linear.x = speed
        content.append(("/odom", START + k * STEP, message))
    write(tmp_path / "bag", [*content, ("/points", START, sweep(START))])
    heard = Heard(tmp_path / "bag", deskew=True)
    if speed:
        np.testing.assert_allclose(heard.scans[0].points[:, 0], 20.0, atol=1e-3)
        assert heard.counters == {}
    else:
        assert heard.counters == {"not_deskewed": 1} and "odometry does not cover" in heard.why["not_deskewed"]
