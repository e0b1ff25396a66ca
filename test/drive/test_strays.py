# SPDX-License-Identifier: Apache-2.0
"""A damaged message, believed for a moment, must not stand in the way of the sound ones behind it."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from vlad_ros.config import NodeConfig
from vlad_ros.drive.pairing import Inputs
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.drive.pose_source import CHILDREN, NoOdometry, TopicOdometry
from vlad_ros.poses import check_rigid, decode, from_xyz_rpy
from vlad_ros.stamps import SECOND

STEP = SECOND // 10
CLOUD = SimpleNamespace(header=SimpleNamespace(frame_id="body"))


@pytest.mark.parametrize("first", ["bev", "cloud"])
@pytest.mark.parametrize("ahead", [5 * SECOND, 2**31 * SECOND])
def test_rasters_from_the_future(first: str, ahead: int) -> None:
    """Many more than the queue holds: every cloud still gets its own."""
    out: list[PendingScan] = []
    counts: Counter[str] = Counter()
    config = NodeConfig(use_bev=True, queue_size=5)
    inputs = Inputs(config, NoOdometry(), out.append, lambda reason: counts.update([reason]))
    for k in range(100):
        stamp = SECOND + k * STEP
        if k % 3 == 0:
            inputs.add_bev(stamp + ahead, "wrong")
        if first == "bev":
            inputs.add_bev(stamp, k)
        inputs.add_scan(PendingScan(CLOUD, stamp, 0.0))
        if first == "cloud":
            inputs.add_bev(stamp, k)
    assert [scan.bev for scan in out] == list(range(100))
    assert set(counts) == {"bev_unpaired"} and counts["bev_unpaired"] >= 28


def test_of_two_rasters_of_one_stamp_the_last_counts() -> None:
    out: list[PendingScan] = []
    inputs = Inputs(NodeConfig(use_bev=True), NoOdometry(), out.append, lambda reason: None)
    inputs.add_bev(SECOND, "damaged")
    inputs.add_bev(SECOND, "sound")
    inputs.add_scan(PendingScan(CLOUD, SECOND, 0.0))
    assert [scan.bev for scan in out] == ["sound"]


def test_child_frames_that_came_once_make_room() -> None:
    """Damaged names beside the body's own: a frame that comes again and again is kept, one that came once goes."""
    source = TopicOdometry()
    for k in range(3 * CHILDREN):
        source.add(SECOND + k * STEP, np.eye(4), f"b\x01dy{k}", None)
        source.add(SECOND + k * STEP, np.eye(4), "/body", None)
    scan = PendingScan(CLOUD, SECOND + 2 * STEP, 0.0)
    assert source.find(scan) and scan.child == "body" and scan.T_odom_child is not None


def test_nine_frames_that_go_on_are_named() -> None:
    source = TopicOdometry()
    for k in range(2 * CHILDREN):
        source.add(SECOND + k * STEP, np.eye(4), f"robot{k % CHILDREN}", None)
    with pytest.raises(ValueError, match=r"9 child frames: 'robot0', .*, 'a\\nb'"):
        source.add(9 * SECOND, np.eye(4), "a\nb", None)


@pytest.mark.parametrize("far", [1e300, -1e30, 2e8])
def test_a_position_that_is_nowhere_on_earth_is_no_pose(far: float) -> None:
    with pytest.raises(ValueError, match="nowhere on Earth"):
        decode(np.array([0.0, far, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="nowhere on Earth"):
        check_rigid(from_xyz_rpy((far, 0, 0, 0, 0, 0)))
    check_rigid(from_xyz_rpy((6.4e6, -6.4e6, 0, 0, 0, 0)))  # earth-centred
