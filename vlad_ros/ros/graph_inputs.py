# SPDX-License-Identifier: Apache-2.0
"""What the place node tells the pose graph: loop edges, and the odometry of other robots."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from nav_msgs.msg import Path
from sensor_msgs.msg import PointCloud2

from vlad_ros.covariance_conventions import from_upper_triangle
from vlad_ros.graph.pose_graph import LoopEdge
from vlad_ros.poses import decode_pose
from vlad_ros.ros.outputs.messages import COVARIANCE, ROW, stamps_of, transform_of
from vlad_ros.ros.outputs.trajectory_messages import GUEST
from vlad_ros.stamps import stamp_of
from vlad_ros.types import F64


def edges_of(message: PointCloud2) -> Iterator[tuple[LoopEdge, bool]]:
    """The rows of `~/loop_closures` that have a transform, and whether the place node has accepted them. ValueError for
    a message that has not these rows."""
    if len(message.data) % ROW.itemsize or message.point_step != ROW.itemsize:
        raise ValueError(f"rows of {message.point_step} bytes are not those of ~/loop_closures, {ROW.itemsize}")
    for row in np.frombuffer(message.data, ROW):
        if np.isfinite(row["tx"]) and np.isfinite(row["cov_00"]):
            query, match = stamps_of(row)
            covariance = from_upper_triangle(np.array([row[name] for name in COVARIANCE]))
            keys = (int(row["match_session"]), match), (int(row["query_session"]), query)
            yield LoopEdge(*keys, transform_of(row), covariance, float(row["probability"])), bool(row["accepted"])


def guests_of(message: Path) -> tuple[int, list[int], F64]:
    """Session, stamps (N,) [ns] and poses (N, 4, 4) of a message of `~/guests`. ValueError for one that is none."""
    session = re.fullmatch(f"{GUEST}([0-9]{{1,10}})", message.header.frame_id)
    if session is None or not message.poses:
        raise ValueError(f"{len(message.poses)} poses in frame {message.header.frame_id!r:.99} are no robot's session")
    poses = np.stack([decode_pose(one.pose) for one in message.poses])
    return int(session[1]), [stamp_of(one) for one in message.poses], poses
