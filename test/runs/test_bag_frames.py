# SPDX-License-Identifier: Apache-2.0
"""Body frames other than the cloud's, in a bag's drive as in the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_builder import COUNT, NAN, SECOND, START, Heard, Raw, changed, cloud, messages, points, pose, static, write

from vlad_ros.poses import from_xyz_rpy, transform

MOUNTED = (1.2, -0.3, 1.6, 0.0, 0.1, 1.5)


JOINTS = (("base_link", "mast", (1.0, 0.0, 1.0, 0.0, 0.0, 0.5)), ("mast", "velodyne", (0.0, 0.2, 0.6, 0.0, 0.1, 1.0)))


def seen(k: int, xyz_rpy: tuple[float, ...]) -> np.ndarray:
    """The k-th cloud in the body frame."""
    return transform(cloud(k), from_xyz_rpy(xyz_rpy))


@pytest.mark.parametrize("child", ["base_link", "velodyne"])
@pytest.mark.parametrize("late", [False, True])
def test_where_the_sensor_is_says_tf_static(tmp_path: Path, child: str, late: bool) -> None:
    """Over two joints, told first or at the very end of the bag; odometry of the body or of the sensor."""
    content = list(messages(child=child, frame="velodyne"))
    told = static(*JOINTS, time=START + SECOND if late else START - 1)
    write(tmp_path / "bag", [*content, told] if late else [told, *content])
    heard = Heard(tmp_path / "bag", base_frame="base_link")
    T = from_xyz_rpy(JOINTS[0][2]) @ from_xyz_rpy(JOINTS[1][2])
    assert heard.counters == {} and heard.said == [] and heard.posed == COUNT
    for k, scan in enumerate(heard.scans):
        np.testing.assert_allclose(scan.points, transform(cloud(k), T), atol=1e-5)
        expected = pose(k) if child == "base_link" else pose(k) @ np.linalg.inv(T)
        np.testing.assert_allclose(scan.T_odom_base, expected, atol=1e-9)


def test_a_given_mounting_comes_before_tf(tmp_path: Path) -> None:
    write(tmp_path / "bag", [static(*JOINTS), *messages(child="base_link", frame="velodyne")])
    heard = Heard(tmp_path / "bag", base_frame="base_link", mounting_xyz_rpy=MOUNTED)
    assert heard.counters == {} and heard.posed == COUNT
    np.testing.assert_allclose(heard.scans[3].points, seen(3, MOUNTED), atol=1e-5)


def test_without_either_the_identity_is_said(tmp_path: Path) -> None:
    """As in the node where there is no TF."""
    write(tmp_path / "bag", messages(child="base_link", frame="velodyne"))
    heard = Heard(tmp_path / "bag", base_frame="base_link")
    np.testing.assert_array_equal(heard.scans[3].points, cloud(3))
    assert heard.posed == COUNT and heard.counters == {} and len(heard.said) == 1
    assert "neither TF nor mounting_xyz_rpy says where velodyne is in base_link" in heard.said[0]


def test_tf_that_leads_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "bag", [static(("map", "camera", MOUNTED)), *messages(child="base_link", frame="velodyne")])
    heard = Heard(tmp_path / "bag", base_frame="base_link")
    assert heard.scans == [] and heard.counters == {"no_transform": COUNT} and len(heard.said) == 1
    assert "say where the sensor is with --mounting-xyz-rpy" in heard.said[0]


def test_one_transform_that_is_none(tmp_path: Path) -> None:
    topic, time, message = static(("base_link", "imu", MOUNTED), *JOINTS)
    message.transforms[0].transform.rotation.w = NAN
    content: list[Any] = [(topic, time, message), ("/tf_static", time, Raw(b"junk", message.__msgtype__))]
    write(tmp_path / "bag", [*content, *messages(child="base_link", frame="velodyne")])
    heard = Heard(tmp_path / "bag", base_frame="base_link")
    assert heard.posed == COUNT and heard.counters == {"bad_transform": 2}
    assert "from 'imu' to 'base_link': the pose is not finite" in heard.said[0]


def test_odometry_of_a_third_frame(tmp_path: Path) -> None:
    """Named once with what helps; the clouds are used without it, as in the node."""
    write(tmp_path / "bag", messages(child="base_link", frame="velodyne"))
    heard = Heard(tmp_path / "bag")
    assert len(heard.scans) == COUNT and heard.posed == 0 and heard.counters == {"odometry_frame": COUNT}
    assert len(heard.said) == 1 and "'base_link'" in heard.said[0] and "--base-frame" in heard.said[0]


@pytest.mark.parametrize("frame", ["雷达", "a frame", "ä" * 200, "x/y", ""])
def test_names_of_frames(tmp_path: Path, frame: str) -> None:
    write(tmp_path / "bag", messages(child=frame, frame=frame))
    heard = Heard(tmp_path / "bag")
    assert heard.posed == COUNT and heard.counters == {}


def test_one_cloud_of_another_sensor(tmp_path: Path) -> None:
    def other(message: Any) -> None:
        message.header.frame_id = "radar"

    write(tmp_path / "bag", changed(points(4, other)))
    heard = Heard(tmp_path / "bag")
    assert len(heard.scans) == heard.posed == COUNT - 1 and heard.counters == {"frame_changed": 1}


@pytest.mark.parametrize(
    ("frame", "child", "base"),
    [
        ("lidar", "", ""),
        ("lidar", "", "base_link"),
        ("/lidar", "lidar", ""),
        ("lidar", "/lidar", ""),
        ("//lidar", "/base_link", "base_link"),
        ("lidar", "base_link", "/base_link"),
    ],
)
def test_an_empty_child_is_the_body_and_slashes_do_not_count(tmp_path: Path, frame: str, child: str, base: str) -> None:
    write(tmp_path / "bag", [static(("/base_link", "/lidar", MOUNTED)), *messages(child=child, frame=frame)])
    heard = Heard(tmp_path / "bag", base_frame=base)
    assert heard.posed == COUNT and heard.counters == {}
    for k, scan in enumerate(heard.scans):
        np.testing.assert_allclose(scan.T_odom_base, pose(k), atol=1e-9)
        np.testing.assert_allclose(scan.points, seen(k, MOUNTED) if base else cloud(k), atol=1e-5)
