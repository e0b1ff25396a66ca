# SPDX-License-Identifier: Apache-2.0
"""Bad input against the live node: each is counted and named, nothing is lost, and the next good scan is answered."""

from __future__ import annotations

import array
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ros_harness import (  # noqa: E402
    FLOAT32,
    SECOND,
    XYZI,
    PointField,
    Robot,
    cloud,
    live_node,
    odometry,
    place,
    resident,
    untrained_weights,
    wait_for,
)

from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402

GOOD = place(0)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Robot, NodeProcess]]:
    """An active node that describes every scan alone; scans wait 50 ms of stamp time for odometry."""
    folder = tmp_path_factory.mktemp("input")
    weights = untrained_weights(folder / "untrained.safetensors")
    settings = {"keyframe_source": "all", "accumulation_m": 0.0, "odom_timeout": 0.05, "device": "cpu"}
    with live_node(folder / "node.log", weights=weights, **settings) as (robot, process):
        robot.wait_connected(odom=True)
        yield robot, process


class Clock:
    """Stamps that grow by 100 ms; of all tests of this module together, as of one drive."""

    def __init__(self) -> None:
        self.stamp = 1000 * SECOND

    def tick(self) -> int:
        self.stamp += SECOND // 10
        return self.stamp


CLOCK = Clock()


def answered(robot: Robot, stamp: int) -> bool:
    return any(stamp == heard for heard, _, _ in robot.descriptors)


def works(robot: Robot) -> None:
    """A good scan is answered, once."""
    stamp = CLOCK.tick()
    for message in (odometry(stamp), cloud(stamp, GOOD)):
        robot.send(message)
    wait_for(lambda: answered(robot, stamp), "a good scan is not answered")
    assert sum(stamp == heard for heard, _, _ in robot.descriptors) == 1


def rejected(live: tuple[Robot, NodeProcess], message: object, reason: str, words: str = "") -> None:
    """The message is counted under `reason` and not answered; a good scan after it is."""
    robot, process = live
    before = robot.count(reason)
    robot.send(message)
    works(robot)
    wait_for(lambda: robot.count(reason) == before + 1, f"{reason} is not counted")
    if before == 0:
        warning = next(line for line in process.log.read_text().splitlines() if f" {reason} (" in line)
        assert words in warning and "so far" in warning


def test_descriptor_carries_stamp_frame_and_unit_norm(live: tuple[Robot, NodeProcess]) -> None:
    robot, _ = live
    works(robot)
    stamp, frame, descriptor = robot.descriptors[-1]
    assert (stamp, frame) == (CLOCK.stamp, "lidar")
    assert descriptor.shape == (2048,)
    assert np.linalg.norm(descriptor) == pytest.approx(1.0, abs=1e-5)


def test_empty_cloud(live: tuple[Robot, NodeProcess]) -> None:
    rejected(live, cloud(CLOCK.tick(), GOOD[:0]), "cloud_empty", "/points")


def test_all_nan(live: tuple[Robot, NodeProcess]) -> None:
    rejected(live, cloud(CLOCK.tick(), np.full_like(GOOD, np.nan)), "cloud_not_finite", "/points")


@pytest.mark.parametrize("missing", "xyz")
def test_missing_coordinate(live: tuple[Robot, NodeProcess], missing: str) -> None:
    fields = [field for field in XYZI if field.name != missing]
    rejected(live, cloud(CLOCK.tick(), GOOD, fields=fields), "cloud_fields", "/points")


@pytest.mark.parametrize("datatype", [0, 1, 6, 9, 255])
def test_wrong_or_unknown_datatype(live: tuple[Robot, NodeProcess], datatype: int) -> None:
    fields = [PointField(name="x", offset=0, datatype=datatype, count=1), *XYZI[1:]]
    rejected(live, cloud(CLOCK.tick(), GOOD, fields=fields), "cloud_fields", "/points")


def test_data_shorter_than_told(live: tuple[Robot, NodeProcess]) -> None:
    data = array.array("B", GOOD.tobytes()[:-100])
    rejected(live, cloud(CLOCK.tick(), GOOD, data=data), "cloud_layout", "/points")


@pytest.mark.parametrize("step", [0, 3, 2**32 - 1])
def test_zero_or_absurd_point_step(live: tuple[Robot, NodeProcess], step: int) -> None:
    rejected(live, cloud(CLOCK.tick(), GOOD, point_step=step), "cloud_layout", "/points")


def test_field_beyond_the_point(live: tuple[Robot, NodeProcess]) -> None:
    fields = [PointField(name="x", offset=2**32 - 1, datatype=FLOAT32, count=1), *XYZI[1:]]
    rejected(live, cloud(CLOCK.tick(), GOOD, fields=fields), "cloud_layout", "/points")


def test_points_at_1e30(live: tuple[Robot, NodeProcess]) -> None:
    rejected(live, cloud(CLOCK.tick(), np.full_like(GOOD, 1e30)), "cloud_out_of_range", "/points")


def test_stamp_zero(live: tuple[Robot, NodeProcess]) -> None:
    rejected(live, cloud(0, GOOD), "zero_stamp", "/points")


def test_frame_changing_mid_run(live: tuple[Robot, NodeProcess]) -> None:
    rejected(live, cloud(CLOCK.tick(), GOOD, frame="other"), "frame_changed", "'other'")


def test_stamp_repeated(live: tuple[Robot, NodeProcess]) -> None:
    works(live[0])
    rejected(live, cloud(CLOCK.stamp, GOOD), "repeated_stamp", "/points")


def test_stamp_a_little_late(live: tuple[Robot, NodeProcess]) -> None:
    works(live[0])
    rejected(live, cloud(CLOCK.stamp - SECOND // 20, GOOD), "late_stamp", "/points")


def test_scan_without_odometry_is_used_without_a_pose(live: tuple[Robot, NodeProcess]) -> None:
    robot, _ = live
    works(robot)
    before = robot.count("no_odometry")
    stamp = CLOCK.tick()
    robot.send(cloud(stamp, GOOD))
    robot.send(cloud(CLOCK.tick(), GOOD))  # its stamp ends the wait
    wait_for(lambda: answered(robot, stamp), "the scan without odometry is not answered")
    works(robot)
    wait_for(lambda: robot.count("no_odometry") > before, "no_odometry is not counted")


def test_clouds_do_not_overtake_their_odometry(live: tuple[Robot, NodeProcess]) -> None:
    robot, _ = live
    works(robot)
    robot.wait_report()
    before = robot.count("no_odometry")
    for _ in range(6):  # all at once, as after a pause
        stamp = CLOCK.tick()
        for i in range(10):
            robot.send(odometry(stamp - (9 - i) * SECOND // 100))
        robot.send(cloud(stamp, GOOD))
    wait_for(lambda: answered(robot, stamp), "the scans are not answered")
    works(robot)
    robot.wait_report()
    assert robot.count("no_odometry") == before


@pytest.mark.parametrize(
    ("x", "quaternion"),
    [
        (np.nan, (0, 0, 0, 1)),
        (0.0, (0, 0, np.nan, 1)),
        (0.0, (0, 0, 0, 0)),
        (0.0, (0, 0, 0, 2)),
        (np.inf, (0, 0, 0, 1)),
    ],
)
def test_odometry_that_is_no_pose(live: tuple[Robot, NodeProcess], x: float, quaternion: tuple[float, ...]) -> None:
    rejected(live, odometry(CLOCK.tick(), x, quaternion=quaternion), "bad_odometry", "/odom")


def test_odometry_of_a_third_frame_beside_the_right_one_is_left_aside(live: tuple[Robot, NodeProcess]) -> None:
    robot, _ = live
    before = robot.count("odometry_frame"), robot.count("wrong_odometry_stamp")
    for _ in range(3):
        robot.send(odometry(CLOCK.stamp + SECOND, x=500.0, child="wheel"))  # ahead, and elsewhere
        works(robot)
    assert (robot.count("odometry_frame"), robot.count("wrong_odometry_stamp")) == before


def test_a_bag_begun_again_keeps_the_map(live: tuple[Robot, NodeProcess]) -> None:
    robot, process = live
    works(robot)
    wait_for(lambda: robot.diagnostics.get("session") == "0", "diagnostics tell no session")
    CLOCK.stamp = 500 * SECOND
    keyframes = len(robot.descriptors)
    works(robot)
    wait_for(lambda: robot.diagnostics.get("session") == "1", "no new session")
    assert int(robot.diagnostics["keyframes in the map"]) >= keyframes
    assert "the map is kept" in process.log.read_text()
    works(robot)


def test_hundreds_of_bad_clouds_cost_no_memory(live: tuple[Robot, NodeProcess]) -> None:
    robot, process = live

    def storm(number: int) -> int:
        bad = cloud(CLOCK.tick(), np.full((60_000, 4), np.nan, np.float32))
        before = robot.count("cloud_not_finite") + robot.count("queue_full")
        for _ in range(number):
            bad.header.stamp = cloud(CLOCK.tick(), GOOD[:1]).header.stamp
            robot.send(bad)
        works(robot)
        wait_for(lambda: robot.count("cloud_not_finite") + robot.count("queue_full") > before, "nothing is counted")
        return resident(process.process.pid)

    storm(100)
    before = storm(50)
    assert storm(200) < before + 40 * 2**20  # 200 clouds are 190 MB
