# SPDX-License-Identifier: Apache-2.0
"""OK means that places come out; what keeps them from it is one sentence with its remedy."""

from __future__ import annotations

import dataclasses

import pytest

pytest.importorskip("rclpy")

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.ros.outputs.health import explain_odometry, health
from vlad_ros.ros.statistics import Flow
from vlad_ros.stamps import SECOND

pytestmark = pytest.mark.ros
FINE = Flow(9.0, {"received": 90, "used": 90, "posed": 90, "keyframes": 20, "dropped": 0}, 3.0, False, 0.1)


def told(waiting: int = 0, config: NodeConfig | None = None, **changes: object) -> str:
    counts = FINE.counts | changes.pop("counts", {})  # type: ignore[operator]
    flow = FINE._replace(counts=counts, **changes)
    return "; ".join(health(flow, waiting, config or NodeConfig(), RecognizerConfig()))


def test_a_drive_that_goes_well_is_fine() -> None:
    assert told() == "" and told(waiting=3) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counts": {"used": 0, "refused cloud_fields": 90}}, "none of the last 90 clouds could be used; cloud_fields"),
        ({"counts": {"dropped": 7}}, "7 of 90 clouds were dropped from the queue"),
        ({"metres": 40.0, "counts": {"keyframes": 0}}, "no keyframe for 40 m of travel"),
        ({"all_partial": True}, "every local map is partial"),
        ({"idle": 30.0, "waiting": 4}, "the worker has finished nothing for 30 s, 4 scans wait"),
    ],
)
def test_what_keeps_places_from_coming_out_is_said(changes: dict[str, object], words: str) -> None:
    assert told(**changes).startswith(words)  # type: ignore[arg-type]


def test_a_back_end_that_announces_nothing_is_named() -> None:
    config = dataclasses.replace(NodeConfig(), keyframe_source="topic")
    assert "does the back-end publish on keyframes?" in told(config=config, counts={"keyframes": 0})
    assert told(counts={"keyframes": 0}) == ""  # a standing vehicle needs none


def test_why_no_scan_has_a_pose() -> None:
    stamps = (100 * SECOND, 100 * SECOND)
    frames = ("base", "lidar")
    assert explain_odometry("/odom", [], [], frames, (None, 5)) == ""  # nobody has any
    assert "/wheels publish" in explain_odometry("/odom", ["/wheels"], [], frames, (None, 5))
    sentence = explain_odometry("/odom", ["ekf"], ["wheel", "foot"], frames, stamps)
    assert "wheel, foot" in sentence and "set base_frame" in sentence
    for child in ("base", "lidar", ""):
        late = explain_odometry("/odom", ["ekf"], [child], frames, stamps)
        assert "too late" in late
    behind = explain_odometry("/odom", ["ekf"], ["base"], frames, (100 * SECOND, 3700 * SECOND))
    assert "3600.0 s behind the clouds'" in behind and "use_sim_time" in behind
