# SPDX-License-Identifier: Apache-2.0
"""~/save_cloud of the live node: the map as a picture, written beside the scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from ply_reader import read_ply  # noqa: E402
from ros_harness import SECOND, cloud, live_node, odometry, place, untrained_weights, wait_for  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402


def test_a_drive_s_cloud(tmp_path: Path) -> None:
    """Five scans, 10 m and a second apart; their points lie where odometry has put them."""
    weights = untrained_weights(tmp_path / "w.safetensors")
    settings = {"weights": weights, "device": "cpu", "keyframe_source": "all", "accumulation_m": 0.0}
    path = tmp_path / "clouds" / "map.ply"
    with live_node(tmp_path / "node.log", **settings, cloud_path=path) as (robot, _):
        robot.wait_connected(odom=True)
        success, sentence = robot.ask("save_cloud")
        assert not success and "it needs odometry" in sentence
        for number in range(5):
            stamp = (100 + number) * SECOND
            robot.send(odometry(stamp, 10.0 * number))
            robot.send(cloud(stamp, place(number)))
            wait_for(lambda n=number: robot.answered > n, "a scan is not answered")
        success, sentence = robot.ask("save_cloud")
        assert not success and "clouds" in sentence, sentence  # there is no such folder
        path.parent.mkdir()
        success, sentence = robot.ask("save_cloud")
        assert success and "5 keyframes keep" in sentence and str(path) in sentence
    _, points = read_ply(path)
    world = np.concatenate([place(number)[:, :3] + (10.0 * number, 0.0, 0.0) for number in range(5)])
    assert len(points) > 5000 and np.ptp(points[:, 0]) > 90.0
    assert np.quantile(cKDTree(world).query(points)[0], 0.9) < 0.6  # they are means of voxels of 0.4 and 1 m
