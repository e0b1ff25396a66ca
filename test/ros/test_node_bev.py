# SPDX-License-Identifier: Apache-2.0
"""The live node with a BEV topic: the node's own raster fed back, and rasters that do not fit."""

from __future__ import annotations

import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from rclpy.qos import QoSProfile  # noqa: E402
from ros_harness import SECOND, Image, Robot, cloud, live_node, place, untrained_weights, wait_for  # noqa: E402

from vlad_ros.cloud.raster_image import from_image, to_image  # noqa: E402
from vlad_ros.config import BevConfig  # noqa: E402
from vlad_ros.ros.outputs.messages import raster_of  # noqa: E402
from vlad_ros.ros.tools.node_process import NodeProcess  # noqa: E402

CONFIG = BevConfig()
STAMPS = [(100 + i) * SECOND for i in range(4)]
SETTINGS = {"keyframe_source": "all", "odom_source": "none", "device": "cpu", "accumulation_m": 0.0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_weights(tmp_path_factory.mktemp("weights") / "untrained.safetensors")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[list[Image], dict[int, np.ndarray]]:
    """The node's own rasters of four places, and its descriptors by stamp."""
    images: list[Image] = []
    previews: list[Image] = []
    log = tmp_path_factory.mktemp("recorded") / "node.log"
    with live_node(log, weights=weights, **SETTINGS) as (robot, _):
        robot.node.create_subscription(Image, "/vlad/bev", images.append, QoSProfile(depth=20))
        robot.node.create_subscription(Image, "/vlad/bev_preview", previews.append, QoSProfile(depth=20))
        wait_for(lambda: robot.node.count_publishers("/vlad/bev") == 1, "there is no ~/bev")
        stamp = 10 * SECOND
        while not (images and previews):  # until both have found each other
            robot.send(cloud(stamp, place(99)))
            stamp += SECOND
            wait_for(lambda end=stamp: len(robot.descriptors) >= end // SECOND - 10, "no descriptor")
        images.clear()
        for i, stamp in enumerate(STAMPS):
            robot.send(cloud(stamp, place(i)))
            wait_for(lambda i=i: len(images) > i, "the raster does not come")
        wait_for(lambda: robot.descriptors[-1][0] == STAMPS[-1], "the descriptor does not come")
        descriptors = {stamp: descriptor for stamp, _, descriptor in robot.descriptors}
    assert previews[0].encoding == "rgb8" and len(previews[0].data) == 3 * CONFIG.size**2
    return images, descriptors


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[tuple[Robot, NodeProcess]]:
    """A node that takes its rasters from outside and drops scans without one."""
    log = tmp_path_factory.mktemp("fed") / "node.log"
    with live_node(log, weights=weights, use_bev="true", bev_missing="drop", **SETTINGS) as (robot, process):
        robot.wait_connected(bev=True)
        yield robot, process


def test_own_raster_fed_back_gives_the_same_descriptor(
    recorded: tuple[list[Image], dict[int, np.ndarray]], fed: tuple[Robot, NodeProcess]
) -> None:
    images, descriptors = recorded
    robot, _ = fed
    for i, (stamp, image) in enumerate(zip(STAMPS, images, strict=True)):
        robot.send(cloud(stamp, place(i)))
        robot.send(image)
        wait_for(lambda s=stamp: robot.descriptors and robot.descriptors[-1][0] == s, "no descriptor")
        assert robot.descriptors[-1][2] == pytest.approx(descriptors[stamp], abs=1e-5)


def test_as_bytes_it_gives_nearly_the_same(
    recorded: tuple[list[Image], dict[int, np.ndarray]], fed: tuple[Robot, NodeProcess]
) -> None:
    images, descriptors = recorded
    robot, _ = fed
    for i, (stamp, image) in enumerate(zip(STAMPS, images, strict=True)):
        later = stamp + 100 * SECOND
        robot.send(cloud(later, place(i)))
        robot.send(as_bytes(image, later))
        wait_for(lambda s=later: robot.descriptors[-1][0] == s, "no descriptor")
        assert robot.descriptors[-1][2] @ descriptors[stamp] >= 0.999


def as_bytes(image: Image, stamp: int) -> Image:
    """The same raster as 8UC5."""
    small = Image(height=image.height, width=image.width, encoding="8UC5", step=image.width * 5)
    small.header.stamp = cloud(stamp, place(0)).header.stamp
    small.data = array.array("B", to_image(from_image(image.data, "32FC5", CONFIG), "8UC5", CONFIG))
    return small


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "mono8"}, "encoding"),
        ({"encoding": "32FC4"}, "32FC4"),
        ({"height": 80, "width": 80, "step": 1600}, "80"),
        ({"step": 12}, "step 12"),
        ({"data": array.array("B", bytes(1000))}, "1000 bytes"),
    ],
)
def test_a_raster_that_does_not_fit_is_told(
    recorded: tuple[list[Image], dict[int, np.ndarray]],
    fed: tuple[Robot, NodeProcess],
    changes: dict[str, object],
    words: str,
) -> None:
    robot, _ = fed
    stamp = next_stamp(robot)
    bad = as_bytes(recorded[0][0], stamp)
    for name, value in changes.items():
        setattr(bad, name, value)
    before = robot.count("bad_bev")
    robot.send(cloud(stamp, place(0)))
    robot.send(bad)
    wait_for(lambda: robot.count("bad_bev") == before + 1, "bad_bev is not counted")
    with pytest.raises(ValueError, match=words):
        raster_of(bad, CONFIG)
    works(robot, recorded[0][0])


def test_a_scan_whose_raster_never_comes_is_dropped_and_both_are_counted(
    recorded: tuple[list[Image], dict[int, np.ndarray]], fed: tuple[Robot, NodeProcess]
) -> None:
    robot, _ = fed
    missing, unpaired = robot.count("bev_missing"), robot.count("bev_unpaired")
    stamp = next_stamp(robot)
    robot.send(as_bytes(recorded[0][0], stamp + SECOND // 4))  # 250 ms beside its cloud
    robot.send(cloud(stamp, place(0)))
    works(robot, recorded[0][0])
    assert all(heard != stamp for heard, _, _ in robot.descriptors)
    wait_for(lambda: robot.count("bev_missing") == missing + 1, "bev_missing is not counted")
    wait_for(lambda: robot.count("bev_unpaired") == unpaired + 1, "bev_unpaired is not counted")


def next_stamp(robot: Robot) -> int:
    """A stamp one second after everything so far."""
    return max(stamp for stamp, _, _ in robot.descriptors) + SECOND


def works(robot: Robot, image: Image) -> None:
    """A good pair, its stamps not quite the same, is answered."""
    stamp = next_stamp(robot) + SECOND
    robot.send(as_bytes(image, stamp + SECOND // 50))
    robot.send(cloud(stamp, place(0)))
    wait_for(lambda: robot.descriptors[-1][0] == stamp, "a good pair is not answered")
