# SPDX-License-Identifier: Apache-2.0
"""Scans meet odometry, BEV and announcements by stamp alone; the queue drops its oldest; frames fit or are named."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from vlad_ros.config import NodeConfig
from vlad_ros.drive.pairing import Inputs
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.drive.pose_source import NoOdometry, TopicOdometry
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.stamps import SECOND

TENTH = SECOND // 10
CLOUD = SimpleNamespace(header=SimpleNamespace(frame_id="body"))


class Bench:
    """Inputs with everything that comes out of them."""

    def __init__(self, odometry: bool = False, **changes: object) -> None:
        self.out: list[PendingScan] = []
        self.counts: Counter[str] = Counter()
        config = dataclasses.replace(NodeConfig(), **changes)
        poses = TopicOdometry() if odometry else NoOdometry()
        self.inputs = Inputs(config, poses, self.out.append, lambda reason: self.counts.update([reason]))

    def scan(self, tenths: int) -> None:
        self.inputs.add_scan(PendingScan(CLOUD, tenths * TENTH, 0.0))

    def pose(self, tenths: float, x: float, child: str = "body") -> None:
        self.inputs.add_odometry(round(tenths * TENTH), from_xyz_rpy((x, 0, 0, 0, 0, 0)), child)

    @property
    def stamps(self) -> list[int]:
        return [scan.stamp // TENTH for scan in self.out]


def test_a_scan_waits_for_odometry_on_both_sides_and_gets_what_lies_between() -> None:
    bench = Bench(odometry=True)
    bench.pose(9.5, 1.0)
    bench.scan(10)
    assert bench.out == []
    bench.pose(10.5, 3.0)
    assert bench.stamps == [10]
    assert bench.out[0].T_odom_child[0, 3] == pytest.approx(2.0)  # not the newest message's 3.0
    assert bench.out[0].child == "body"


def test_a_scan_whose_stamp_is_in_doubt_waits_too() -> None:
    """Who sends more must leave it its place: the next one lets both go."""
    bench = Bench()
    for tenths in (10, 11, 12):
        bench.scan(tenths)
    assert bench.inputs.waiting == 0
    bench.scan(400)
    assert (bench.stamps, bench.inputs.waiting) == ([10, 11, 12], 1)
    bench.scan(401)
    assert (bench.stamps, bench.inputs.waiting) == ([10, 11, 12, 400, 401], 0)


@pytest.mark.parametrize("odometry_first", [False, True])
@pytest.mark.parametrize("stamps", [(10, 30, 50, 70), (10, 22, 40, 55), (10, 11, 500, 530, 560)])
def test_scans_seconds_apart_lose_no_pose(stamps: tuple[int, ...], odometry_first: bool) -> None:
    """Scans and odometry are held together, each until its own next stamp confirms it."""
    bench = Bench(odometry=True)
    for tenths in stamps:
        steps = [bench.scan, lambda at: bench.pose(at, 0.1 * at)]
        for step in reversed(steps) if odometry_first else steps:
            step(tenths)
    assert bench.stamps == list(stamps)
    assert [scan.T_odom_child[0, 3] for scan in bench.out] == pytest.approx([0.1 * at for at in stamps])


def test_a_confirmed_scan_waits_for_one_more_cloud_only() -> None:
    bench = Bench(odometry=True)
    for tenths in (10, 30, 50):
        bench.scan(tenths)
    assert bench.stamps == [10]
    bench.scan(70)
    assert bench.stamps == [10, 30, 50]


def test_odometry_of_the_very_stamp_is_enough() -> None:
    bench = Bench(odometry=True)
    bench.scan(10)
    bench.pose(10, 5.0)
    assert bench.out[0].T_odom_child[0, 3] == 5.0


def test_the_wait_ends_in_stamp_time_and_in_order() -> None:
    bench = Bench(odometry=True, odom_timeout=0.3)
    for tenths in (10, 11, 12):
        bench.scan(tenths)
    assert bench.out == []
    bench.scan(13)
    assert bench.stamps == [10]
    assert bench.out[0].T_odom_child is None
    bench.pose(10.5, 0.0)
    bench.pose(13, 2.5)
    assert bench.stamps == [10, 11, 12, 13]
    assert [scan.T_odom_child[0, 3] for scan in bench.out[1:]] == pytest.approx([0.5, 1.5, 2.5])


def test_odometry_that_begins_after_the_scan_is_not_waited_for() -> None:
    bench = Bench(odometry=True)
    bench.pose(11, 0.0)
    bench.scan(10)
    assert bench.stamps == [10] and bench.out[0].T_odom_child is None


def test_another_child_frame_is_never_interpolated_with_the_last() -> None:
    bench = Bench(odometry=True)
    bench.pose(9.5, 0.0, "body")
    bench.scan(10)
    bench.pose(10.5, 9.0, "other")
    bench.pose(10.6, 9.0, "other")
    assert bench.out == []  # the body's own odometry is waited for
    bench.pose(10.5, 3.0, "/body")  # a leading slash does not count
    assert bench.out[0].T_odom_child[0, 3] == pytest.approx(1.5) and bench.out[0].child == "body"


@pytest.mark.parametrize(
    ("base", "child", "found"), [("", "", "body"), ("base", "", "base"), ("/base", "base", "base")]
)
def test_an_empty_child_frame_is_the_body(base: str, child: str, found: str) -> None:
    odometry = TopicOdometry(base)
    odometry.add(0, np.eye(4), child, None)
    scan = PendingScan(CLOUD, 0, 0.0)
    assert odometry.find(scan) and scan.child == found and scan.T_odom_child is not None


def test_one_wrong_stamp_of_a_cloud_or_a_pose_costs_that_message() -> None:
    bench = Bench(odometry=True)
    for i in range(40):
        bench.pose(i + 36_000 * (i == 20), float(i))
        bench.scan(i - 36_000 * (i == 30) + 36_000 * (i == 10))
    assert bench.stamps == [i for i in range(40) if i not in (10, 30)]
    assert [scan.T_odom_child[0, 3] for scan in bench.out] == pytest.approx(bench.stamps)
    assert bench.counts == {"wrong_stamp": 2, "wrong_odometry_stamp": 1}


def test_a_bag_begun_again_lets_the_old_scans_go_and_pairs_the_new_ones() -> None:
    bench = Bench(odometry=True)
    bench.pose(1000, 0.0)
    bench.scan(1001)
    bench.scan(10)
    assert bench.stamps == []  # one stamp alone may be wrong
    bench.pose(9.5, 1.0)
    bench.pose(10.5, 3.0)
    bench.scan(11)
    assert bench.stamps == [1001, 10]
    assert bench.out[1].T_odom_child[0, 3] == pytest.approx(2.0)


def test_more_scans_than_the_queue_holds_do_not_wait() -> None:
    bench = Bench(odometry=True, odom_timeout=10.0, queue_size=3)
    for tenths in range(10, 16):
        bench.scan(tenths)
    assert bench.stamps == [10, 11, 12]


def test_silence_and_deactivation() -> None:
    bench = Bench(odometry=True)
    bench.scan(10)
    bench.inputs.release_all()
    assert bench.stamps == [10]
    bench.scan(11)
    assert bench.inputs.clear() == 1
    bench.pose(11, 0.0)
    assert bench.stamps == [10]


def bev(bench: Bench, tenths: float, name: str) -> None:
    bench.inputs.add_bev(round(tenths * TENTH), name)


def test_the_nearest_bev_within_the_tolerance_is_taken_once() -> None:
    bench = Bench(use_bev=True, bev_tolerance=0.05)
    bev(bench, 9.7, "before")
    bench.scan(10)
    assert bench.out == []
    bev(bench, 10.2, "after")
    assert bench.out[0].bev == "after"
    bench.scan(11)
    bev(bench, 11, "exact")
    assert bench.out[1].bev == "exact"
    bench.scan(20)
    bev(bench, 20, "exact")
    assert bench.counts == {"bev_unpaired": 1}  # "before"


def test_a_bev_that_never_comes_is_not_waited_for_for_ever() -> None:
    bench = Bench(use_bev=True, bev_timeout=0.3)
    bench.scan(10)
    bev(bench, 8, "old")
    bench.scan(13)
    assert bench.stamps == [10] and bench.out[0].bev is None
    assert bench.counts == {"bev_unpaired": 1}


def test_bevs_without_clouds_do_not_pile_up() -> None:
    bench = Bench(use_bev=True, queue_size=5)
    for tenths in range(50):
        bev(bench, tenths, "lonely")
    assert bench.counts == {"bev_unpaired": 45}


def test_announcements_make_keyframes_and_a_newer_one_ends_the_wait() -> None:
    bench = Bench(keyframe_source="topic", keyframe_timeout=0.5)
    for tenths in (10, 11, 12):
        bench.scan(tenths)
    bench.inputs.announce(11 * TENTH + SECOND // 200)
    assert [(scan.stamp // TENTH, scan.is_keyframe) for scan in bench.out] == [(10, False), (11, True)]
    bench.scan(17)
    assert [(scan.stamp // TENTH, scan.is_keyframe) for scan in bench.out[2:]] == [(12, False)]
    bench.inputs.announce(12 * TENTH - SECOND // 20)
    assert bench.counts["keyframe_late"] == 1


@pytest.mark.parametrize("queue_size", [1, 2, 10])
def test_an_announcement_three_seconds_late_names_its_scan_whatever_the_queue_holds(queue_size: int) -> None:
    """A LiDAR at 10 Hz, a node a second, each told three seconds later."""
    bench = Bench(keyframe_source="topic", keyframe_timeout=4.0, queue_size=queue_size)
    for tenths in range(10, 200):
        bench.scan(tenths)
        if tenths % 10 == 5 and tenths >= 45:
            bench.inputs.announce((tenths - 30) * TENTH)
    named = [scan.stamp // TENTH for scan in bench.out if scan.is_keyframe]
    assert named == list(range(15, 170, 10)) and not bench.counts
    assert bench.stamps == list(range(10, 166))  # in order, none lost, and the last node ends the wait


def test_scans_released_together_by_a_late_announcement_all_reach_the_worker() -> None:
    """The worker's queue holds two, and the worker is as fast as the sensor; one that stands still is another thing."""
    from vlad_ros.ros.worker import WorkQueue

    dropped: list[int] = []
    bench = Bench(keyframe_source="topic", keyframe_timeout=4.0, queue_size=2)
    queue = WorkQueue(2, lambda: dropped.append(1), bench.inputs.may_wait)
    bench.inputs._release = queue.put  # type: ignore[assignment]
    done = []
    for tenths in range(10, 110):
        bench.scan(tenths)
        if tenths % 10 == 5 and tenths >= 45:
            bench.inputs.announce((tenths - 30) * TENTH)
        if queue.scans():
            done.append(queue.get())
    assert not dropped and [scan.stamp // TENTH for scan in done][:55] == list(range(10, 65))
    for tenths in range(110, 210):
        bench.scan(tenths)
    assert queue.scans() <= 2 and len(dropped) > 50


def test_a_node_told_again_and_again_is_not_late() -> None:
    bench = Bench(keyframe_source="topic", keyframe_timeout=0.5)
    bench.scan(10)
    for _ in range(3):
        bench.inputs.announce(10 * TENTH)
        for tenths in (16, 17):
            bench.scan(tenths)
    assert "keyframe_late" not in bench.counts
    for _ in range(3):
        bench.inputs.announce(5 * TENTH)
    assert bench.counts["keyframe_late"] == 1


def test_an_announcement_of_the_far_future_ends_no_wait() -> None:
    bench = Bench(keyframe_source="topic", keyframe_timeout=0.5)
    bench.inputs.announce(100 * SECOND)
    for tenths in (10, 11, 12):
        bench.scan(tenths)
    bench.inputs.announce(11 * TENTH)
    assert [(scan.stamp // TENTH, scan.is_keyframe) for scan in bench.out] == [(10, False), (11, True)]


def test_scans_that_wait_are_bounded_where_their_stamps_stand_still() -> None:
    bench = Bench(keyframe_source="topic", keyframe_timeout=0.5, queue_size=2)
    for _ in range(200):
        bench.scan(10)
    assert bench.out == [] and bench.counts == {"repeated_stamp": 199}  # one waits, the others are none


def test_every_scan_is_a_keyframe_where_asked_for() -> None:
    bench = Bench(keyframe_source="all")
    bench.scan(10)
    own = Bench()
    own.scan(10)
    assert (bench.out[0].is_keyframe, own.out[0].is_keyframe) == (True, None)


def test_the_queue_drops_its_oldest_scan_and_never_a_job() -> None:
    pytest.importorskip("rclpy")
    from vlad_ros.ros.worker import Job, WorkQueue

    dropped: list[int] = []
    queue = WorkQueue(2, lambda: dropped.append(1))
    job = Job(lambda: "done")
    scans = [PendingScan(CLOUD, i, 0.0) for i in range(4)]
    for item in (scans[0], job, *scans[1:]):
        assert queue.put(item)
    assert len(dropped) == 2 and queue.scans() == 2
    assert [queue.get() for _ in range(3)] == [job, scans[2], scans[3]]
    assert queue.close() == [] and queue.get() is None
    assert not queue.put(scans[0])


def test_whoever_waits_for_a_job_hears_success_and_failure() -> None:
    pytest.importorskip("rclpy")
    from vlad_ros.ros.worker import Job

    def fail() -> str:
        raise ValueError("the disk is full")

    for action, answer in ((lambda: "done", (True, "done")), (fail, (False, "the disk is full"))):
        job = Job(action)
        threading.Timer(0.01, job.run).start()
        assert job.wait() == answer


def test_frames() -> None:
    from vlad_ros.drive.frames import FrameError, Frames

    said: list[str] = []
    mounting = (1.0, 0.0, 2.0, 0.0, 0.0, float(np.pi))
    frames = Frames(NodeConfig(base_frame="base", mounting_xyz_rpy=mounting), None, said.append)
    frames.settle("lidar")
    assert frames.body == "base" and np.allclose(frames.T_base_sensor, from_xyz_rpy(mounting))
    assert frames.to_body(from_xyz_rpy((5.0, 0, 0, 0, 0, 0)), "base")[0, 3] == 5.0
    # The sensor, turned round, is at x 5; the base is 1 m before it in the sensor's backward direction.
    assert frames.to_body(from_xyz_rpy((5.0, 0, 0, 0, 0, 0)), "lidar")[:3, 3] == pytest.approx((6.0, 0.0, -2.0))
    with pytest.raises(FrameError, match="wheel") as error:
        frames.to_body(from_xyz_rpy((5.0, 0, 0, 0, 0, 0)), "wheel")
    assert error.value.reason == "odometry_frame"
    with pytest.raises(FrameError, match="other") as error:
        frames.check("other")
    assert error.value.reason == "frame_changed"
    assert said == []


def test_frames_without_base_frame_or_mounting() -> None:
    from vlad_ros.drive.frames import FrameError, Frames

    said: list[str] = []
    plain = Frames(NodeConfig(), None, said.append)
    plain.settle("lidar")
    assert (plain.body, plain.moves, said) == ("lidar", False, [])
    unknown = Frames(NodeConfig(base_frame="base"), None, said.append)
    unknown.settle("lidar")
    unknown.settle("lidar")
    assert not unknown.moves and len(said) == 1 and "identity" in said[0]  # said once
    with pytest.raises(ValueError, match="base_frame is empty"):
        Frames(NodeConfig(mounting_xyz_rpy=(0.0,) * 6), None, said.append)

    known: dict[tuple[str, str], np.ndarray] = {}
    waiting = Frames(NodeConfig(base_frame="base"), lambda *pair: known.get(pair), said.append)
    with pytest.raises(FrameError) as error:
        waiting.settle("lidar")
    assert error.value.reason == "no_transform"
    known["base", "lidar"] = from_xyz_rpy((0, 0, 3, 0, 0, 0))
    waiting.settle("lidar")
    assert waiting.T_base_sensor[2, 3] == 3.0
