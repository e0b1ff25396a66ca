# SPDX-License-Identifier: Apache-2.0
"""Defaults of the pose graph and of its node, each defined once, as in `config`."""

from __future__ import annotations

from dataclasses import dataclass

from vlad_ros.settings import Checked, option


@dataclass(frozen=True)
class PoseGraphConfig(Checked):
    """How far odometry and loops are believed, and where nodes are made."""

    drift_translation: float = option(2.0, "drift of odometry: share of 10 m of travel, one sigma", "%", 0.01, 100.0)
    drift_rotation: float = option(
        0.5, "drift of odometry: random walk of attitude in 10 m, one sigma", "deg", 0.01, 90.0
    )
    node_distance: float = option(5.0, "travel without a keyframe after which odometry makes a node", "m", 0.5, 100.0)


@dataclass(frozen=True)
class GraphNodeConfig(Checked):
    """What only the ROS node needs: frames, files, rates."""

    autostart: bool = option(False, "configure and activate after start (the launch file sets true)")
    map_frame: str = option("map", "frame of ~/path, ~/odometry and TF: the odometry frame of the first session")
    publish_tf: bool = option(True, "publish TF map -> odom at the rate of odometry")
    jump_metres: float = option(1.0, "a correction by more than this is named in log and diagnostics", "m", 0.01, 100.0)
    graph_path: str = option(
        "", "graph file: resumed at configure if it exists, written at deactivation and while driving"
    )
    trajectory_path: str = option("trajectory.tum", "file that ~/save_trajectory writes (TUM format)")
    edits_path: str = option("", "YAML file of loops forced or forbidden by hand, each with its reason")
