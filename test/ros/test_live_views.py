# SPDX-License-Identifier: Apache-2.0
"""RViz, Foxglove and `vlad watch`: what they show is what the running node says, by topic, type and QoS."""

from __future__ import annotations

import array
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vlad_ros.stamps import SECOND
from vlad_ros.types import LoopClosure, RejectReason

ROOT = Path(__file__).resolve().parents[2]
START = 1_700_000_000 * SECOND

RVIZ = yaml.safe_load((ROOT / "config" / "vlad.rviz").read_text())["Visualization Manager"]
ALL = {display["Topic"]["Value"]: display for display in RVIZ["Displays"] if "Topic" in display}
DISPLAYS = {topic: display for topic, display in ALL.items() if not topic.startswith("/vlad_graph/")}
FOXGLOVE = json.loads((ROOT / "config" / "vlad_foxglove.json").read_text())

# What a display or panel of each class can draw.
DRAWS = {
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "Image": "sensor_msgs/msg/Image",
    "Diagnostic": "diagnostic_msgs/msg/DiagnosticArray",
}


def foxglove_topics() -> dict[str, str]:
    """Topic -> type that the panels expect."""
    topics: dict[str, str] = {}
    for panel, config in FOXGLOVE["configById"].items():
        kind = panel.split("!")[0]
        if kind == "3D":
            for topic, settings in config["topics"].items():
                topics[topic] = DRAWS["MarkerArray" if "namespaces" in settings else "PointCloud2"]
        elif kind == "Image":
            topics[config["imageMode"]["imageTopic"]] = DRAWS["Image"]
        else:
            assert kind.startswith("Diagnostic"), panel
            topics[config["topicToRender"]] = DRAWS["Diagnostic"]
    return topics


def panels(node: Any) -> list[str]:
    """The panels that a layout shows."""
    return [node] if isinstance(node, str) else panels(node["first"]) + panels(node["second"])


def test_both_show_cloud_bev_markers_and_diagnostics() -> None:
    assert set(ALL) - set(DISPLAYS) == {"/vlad_graph/path", "/vlad_graph/path_before"}
    assert set(DISPLAYS) == {"/points", "/vlad/markers", "/vlad/bev_preview"}
    assert set(foxglove_topics()) == {*DISPLAYS, "/diagnostics"}
    assert sorted(panels(FOXGLOVE["layout"])) == sorted(FOXGLOVE["configById"])
    # RViz has no display for diagnostics: there they are words among the markers.
    assert DISPLAYS["/vlad/markers"]["Namespaces"]["diagnostics"]


def test_rejected_edges_are_shown_on_demand_only() -> None:
    in_rviz = DISPLAYS["/vlad/markers"]["Namespaces"]
    in_foxglove = FOXGLOVE["configById"]["3D!cloud_and_loops"]["topics"]["/vlad/markers"]["namespaces"]
    assert in_rviz == {name: settings["visible"] for name, settings in in_foxglove.items()}
    assert [name for name, visible in in_rviz.items() if not visible] == ["rejected"]


@pytest.mark.ros
def test_edges_are_coloured_by_probability() -> None:
    pytest.importorskip("rclpy")
    from std_msgs.msg import Header

    from vlad_ros.ros.outputs.markers import MarkerBoard, colour_of

    board = MarkerBoard()
    for i in range(4):
        board.add(0, i, np.eye(4), [])
    sure = LoopClosure(4, 0, 0, 0, 1, 2, 0.9, probability=0.99, accepted=True)
    unsure = LoopClosure(5, 1, 0, 0, 1, 2, 0.9, probability=0.2, reject_reason=RejectReason.AMBIGUOUS)
    board.add(0, 4, np.eye(4), [sure])
    board.add(0, 5, np.eye(4), [unsure])
    board.say("active, 6 keyframes", False)
    markers = {marker.ns: marker for marker in board.message(Header()).markers}
    assert set(markers) == {"", *DISPLAYS["/vlad/markers"]["Namespaces"]}  # the first one wipes
    for name, closure in (("accepted", sure), ("rejected", unsure)):
        assert markers[name].colors == [colour_of(closure.probability, closure.accepted)] * 2
    assert markers["diagnostics"].text == "active, 6 keyframes"
    blues = [colour_of(p, True).b for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert blues == sorted(blues) and blues[-1] - blues[0] > 0.8  # blue against orange: seen by all eyes
    assert colour_of(None, True) == colour_of(float("nan"), True)
    assert colour_of(0.3, False).a < colour_of(0.3, True).a
    assert board.message(Header()) is None
    board.say("active, 7 keyframes", False)
    assert board.message(Header()) is None  # told with the next news
    board.say("no cloud for 5 s", True)
    assert [m.text for m in board.message(Header()).markers if m.ns == "diagnostics"] == ["no cloud for 5 s"]


def timed(stamp: int, points: np.ndarray) -> Any:
    """A cloud whose points were measured one after the other, within 50 ms from the stamp on (`t`, as Ouster)."""
    from ros_harness import XYZI, cloud
    from sensor_msgs.msg import PointField

    rows = np.zeros(len(points), [("xyzi", "<f4", 4), ("t", "<u4")])
    rows["xyzi"], rows["t"] = points, np.linspace(0, 50_000_000, len(points))
    field = PointField(name="t", offset=16, datatype=PointField.UINT32, count=1)
    data = array.array("B", rows.tobytes())
    return cloud(stamp, points, fields=[*XYZI, field], point_step=20, row_step=20 * len(points), data=data)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """A node that has seen six places; the pictures and the markers that it has published."""
    pytest.importorskip("rclpy")
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from ros_harness import live_node, odometry, place, untrained_weights, wait_for
    from sensor_msgs.msg import Image
    from visualization_msgs.msg import MarkerArray

    folder = tmp_path_factory.mktemp("live")
    weights = untrained_weights(folder / "untrained.safetensors")
    settings = {
        "weights": weights,
        "device": "cpu",
        "exclude_time": 0.5,
        "exclude_distance": 2.0,
        "accumulation_m": 0.0,
    }
    pictures: list[Any] = []
    markers: list[Any] = []
    with live_node(folder / "node.log", **settings) as (robot, _):
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        robot.node.create_subscription(Image, "/vlad/bev_preview", pictures.append, 5)
        robot.node.create_subscription(MarkerArray, "/vlad/markers", markers.append, latched)
        robot.wait_connected(odom=True)
        for i in range(6):
            stamp = START + i * SECOND // 2
            robot.send(odometry(stamp, 1.5 * i))
            robot.send(odometry(stamp + SECOND // 10, 1.5 * i + 0.3))
            robot.send(timed(stamp, place(i)))
        wait_for(lambda: len(robot.closures) >= 5 and pictures, "the node finds no keyframes")
        robot.wait_report()
        wait_for(lambda: markers and {m.ns for m in markers[-1].markers} >= {"keyframes", "diagnostics"}, "no markers")
        yield robot, pictures, markers


@pytest.mark.ros
@pytest.mark.parametrize("topic", DISPLAYS)
def test_each_display_fits_the_running_node(live: tuple[Any, list[Any], list[Any]], topic: str) -> None:
    """Type and QoS of what RViz subscribes to; the cloud is the driver's, there the node is its fellow subscriber."""
    from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

    node, display = live[0].node, DISPLAYS[topic]
    asked = display["Topic"]
    published = [info for info in node.get_publishers_info_by_topic(topic) if info.node_name == "vlad"]
    if topic == "/points":
        (ours,) = (info for info in node.get_subscriptions_info_by_topic(topic) if info.node_name == "vlad")
        assert ours.topic_type == DRAWS["PointCloud2"] and asked["Reliability Policy"] == "Best Effort"
        assert ours.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT  # as any driver can serve
        return
    (info,) = published
    assert info.topic_type == DRAWS[display["Class"].split("/")[1]]
    assert asked["Reliability Policy"] != "Reliable" or info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    latched = info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert (asked["Durability Policy"] == "Transient Local") == latched  # a late RViz sees the whole map


@pytest.mark.ros
@pytest.mark.parametrize(("topic", "kind"), foxglove_topics().items())
def test_each_panel_fits_the_running_node(live: tuple[Any, list[Any], list[Any]], topic: str, kind: str) -> None:
    node = live[0].node
    found = [*node.get_publishers_info_by_topic(topic), *node.get_subscriptions_info_by_topic(topic)]
    assert {info.topic_type for info in found if info.node_name == "vlad"} == {kind}


@pytest.mark.ros
def test_the_live_pictures(live: tuple[Any, list[Any], list[Any]]) -> None:
    robot, pictures, markers = live
    assert pictures[-1].encoding == "rgb8" and np.ptp(np.frombuffer(pictures[-1].data, np.uint8)) > 100
    shown = {marker.ns: marker for marker in markers[-1].markers}
    assert shown["keyframes"].header.frame_id == "odom" and len(shown["keyframes"].points) >= 2
    assert set(shown) - {""} <= set(DISPLAYS["/vlad/markers"]["Namespaces"])
    panel = FOXGLOVE["configById"]["DiagnosticStatusPanel!vlad"]
    assert panel["selectedName"] == "vlad: place recognition"
    assert robot.diagnostics["deskew"] == "on, points 0 .. 50 ms from the stamp"


@pytest.mark.ros
def test_vlad_watch_shows_the_running_node(live: tuple[Any, list[Any], list[Any]]) -> None:
    command = [sys.executable, "-m", "vlad_ros.cli", "watch", "--once", "--patience", "30"]
    shown = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"COLUMNS": "100"}, capture_output=True, text=True, check=True, timeout=240
    ).stdout
    for words in ("/vlad  active", "keyframes in the map", "cloud to candidate", "clouds received", "from the stamp"):
        assert words in shown, shown


@pytest.mark.ros
def test_vlad_watch_of_nobody() -> None:
    pytest.importorskip("rclpy")
    command = [sys.executable, "-m", "vlad_ros.cli", "watch", "--once", "--patience", "0.5", "--node", "/nobody"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1 and "no word from /nobody" in ended.stdout
