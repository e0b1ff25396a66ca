# SPDX-License-Identifier: Apache-2.0
"""From messages to points in the body frame: scans wait for the odometry of their whole sweep, and are moved by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sweeps import FLOAT32, MS, STAMP, cloud, moving

from vlad_ros.cloud.deskew import deskew


def bench(**changes: Any) -> tuple[Any, list[Any]]:
    """Inputs with topic odometry, and the scans that they release."""
    from vlad_ros.config import NodeConfig
    from vlad_ros.drive.pairing import Inputs, TopicOdometry

    out: list[Any] = []
    return Inputs(replace(NodeConfig(), **changes), TopicOdometry(), out.append, lambda reason: None), out


def sweep(first: float, last: float, frame: str = "lidar") -> SimpleNamespace:
    """A message of two points, measured so many milliseconds from its stamp."""
    message = cloud("time", FLOAT32, [first * 1e-3, last * 1e-3])
    message.header = SimpleNamespace(frame_id=frame)
    return message


def test_a_scan_waits_for_the_odometry_of_its_whole_sweep() -> None:
    from vlad_ros.drive.pairing import PendingScan

    inputs, out = bench()
    for at in (-150, -50, 50):
        inputs.add_odometry(STAMP + at * MS, moving(np.array([10.0, 0, 0, 0, 0, 0]), at * 1e-3), "lidar")
    inputs.add_scan(PendingScan(sweep(-100, 0), STAMP, 0.0))
    assert len(out) == 1 and out[0].motion.stamps.tolist() == [STAMP + at * MS for at in (-150, -50, 50)]
    inputs.add_scan(PendingScan(sweep(0, 99), STAMP + 10 * MS, 0.0))
    assert len(out) == 1  # its pose is known, the end of its sweep is not
    inputs.add_odometry(STAMP + 110 * MS, moving(np.array([10.0, 0, 0, 0, 0, 0]), 0.110), "lidar")
    assert len(out) == 2 and out[1].motion is not None and out[1].T_odom_child[0, 3] == pytest.approx(0.1)
    inputs.add_scan(PendingScan(sweep(0, 100), STAMP + 110 * MS, 0.0))
    inputs.add_scan(PendingScan(sweep(0, 100), STAMP + 410 * MS, 0.0))  # odom_timeout later
    assert len(out) == 3 and out[2].motion is None and out[2].T_odom_child is not None
    silent, released = bench(deskew=False)
    silent.add_odometry(STAMP, np.eye(4), "lidar")
    silent.add_scan(PendingScan(sweep(0, 100), STAMP, 0.0))
    assert len(released) == 1 and released[0].offsets is None


class Told:
    """A reader of clouds, what it has said, and what it has counted."""

    def __init__(self, **changes: Any) -> None:
        from vlad_ros.config import NodeConfig, RecognizerConfig
        from vlad_ros.drive.body_points import BodyPoints
        from vlad_ros.drive.frames import Frames

        self.said: list[str] = []
        self.config = replace(NodeConfig(), **changes)
        self.frames = Frames(self.config, None, self.said.append)
        self.frames.settle("lidar")
        self.counts: Counter[str] = Counter()
        self.reader = BodyPoints(
            self.config, RecognizerConfig(), self.frames, self.said.append, lambda why: self.counts.update([why])
        )

    def undistort(self, scan: Any, points: np.ndarray) -> np.ndarray:
        return self.reader._undistort(scan, points, np.arange(len(points), dtype=np.int32))


@pytest.mark.parametrize("child", ["base_link", "lidar"])
def test_points_are_moved_in_the_body_frame(child: str) -> None:
    """A sensor mounted sideways on a body that turns: what is at rest is seen at one place, whoever's the odometry."""
    from vlad_ros.drive.pairing import PendingScan
    from vlad_ros.poses import from_xyz_rpy

    mounting = (1.0, 0.5, 1.2, 0.0, 0.1, 1.5)
    told = Told(base_frame="base_link", mounting_xyz_rpy=mounting)
    T_base_sensor = from_xyz_rpy(mounting)
    twist = np.array([15.0, 0, 0, 0, 0, 1.0])  # of the body
    inputs, out = bench(base_frame="base_link", mounting_xyz_rpy=mounting)
    for at in (0, 60, 120):
        T = moving(twist, at * 1e-3)
        inputs.add_odometry(STAMP + at * MS, T if child == "base_link" else T @ T_base_sensor, child)
    inputs.add_scan(PendingScan(sweep(0, 100), STAMP, 0.0))
    post = np.array([20.0, -7.0, 0.5, 1.0])  # in the body frame at the stamp
    seen = np.stack([post, np.linalg.inv(moving(twist, 0.1)) @ post]).astype(np.float32)
    moved = told.undistort(out[0], seen)
    assert moved.dtype == np.float32 and np.abs(moved - post).max() < 1e-3
    assert told.said == [] and told.reader.state == "on, points 0 .. 100 ms from the stamp"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"odom_source": "none"}, "no odometry"),
        ({}, "t, time, timestamp, time_stamp, offset_time"),
        ({"deskew": False}, ""),
    ],
)
def test_why_not_is_said_once(changes: dict[str, Any], words: str) -> None:
    from vlad_ros.drive.pairing import PendingScan

    told, points = Told(**changes), np.ones((2, 4), np.float32)
    for _ in range(3):
        assert told.undistort(PendingScan(None, STAMP, 0.0), points) is points
    assert len(told.said) == (1 if words else 0) and words in "".join(told.said)
    assert told.reader.state.startswith("off") and words in told.reader.state


def test_a_sweep_that_odometry_does_not_cover_is_counted() -> None:
    from vlad_ros.drive.pairing import PendingScan

    told, points = Told(), np.ones((2, 4), np.float32)
    for _ in range(2):
        scan = PendingScan(None, STAMP, 0.0, np.eye(4), "lidar", offsets=np.array([0, 100 * MS]))
        assert told.undistort(scan, points) is points
    assert told.counts["not_deskewed"] == 2 and len(told.said) == 1


@pytest.mark.ros
def test_with_tf_the_sweep_is_looked_up() -> None:
    pytest.importorskip("rclpy")
    from vlad_ros.config import NodeConfig
    from vlad_ros.drive.pairing import Inputs, PendingScan
    from vlad_ros.ros.inputs.tf import TfOdometry

    twist = np.array([15.0, 0, 0, 0, 0, 1.0])
    known = [STAMP + 60 * MS]  # TF answers up to here

    class Transforms:
        def find(self, target: str, source: str, stamp: int) -> np.ndarray | None:
            assert (target, source) == ("odom", "lidar")
            return moving(twist, (stamp - STAMP) * 1e-9) if stamp <= known[0] else None

    config, out = replace(NodeConfig(), odom_source="tf"), []
    inputs = Inputs(config, TfOdometry(Transforms(), config), out.append, lambda reason: None)
    inputs.add_scan(PendingScan(sweep(0, 100), STAMP, 0.0))
    assert out == []  # TF knows the stamp, not yet the end of the sweep
    known[0] += 50 * MS
    inputs.pump()
    points = np.array([[20.0, -7.0, 0.5], (np.linalg.inv(moving(twist, 0.1)) @ [20.0, -7.0, 0.5, 1.0])[:3]])
    moved = deskew(points, out[0].offsets, STAMP, out[0].motion)
    assert np.allclose(moved, points[0], atol=1e-3)
