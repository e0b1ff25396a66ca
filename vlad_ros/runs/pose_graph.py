# SPDX-License-Identifier: Apache-2.0
"""The pose graph of a run: keyframes, odometry between them, accepted loops."""

from __future__ import annotations

import numpy as np

from vlad_ros.config import ExportConfig
from vlad_ros.graph.edge_formats import GraphEdge, PoseGraph, odometry_edges
from vlad_ros.poses import inverse
from vlad_ros.runs.tables import Run
from vlad_ros.types import F64


def pose_graph(run: Run, config: ExportConfig) -> PoseGraph:
    """The graph of a run. Odometry edges join neighbouring keyframes of a session; where odometry was missing there is
    none. ValueError for a run without odometry, whose keyframes would be connected only by loops."""
    if not np.isfinite(run.keyframes.T_odom_base).any():
        raise ValueError(f"{run.path}: a run without odometry is no pose graph; play the drive with its odometry")
    closures = run.closures
    loops = [
        GraphEdge(int(closures.match[k]), int(closures.query[k]), closures.T_match_query[k], closures.covariance[k])
        for k in np.flatnonzero(closures.accepted)
    ]
    if any(not np.isfinite(loop.covariance).all() for loop in loops):
        raise ValueError(
            f"{run.path}: an accepted loop has no transform or covariance; play the drive again with vlad run"
        )
    return PoseGraph(
        _initial(run, loops), odometry_edges(run.keyframes.T_odom_base, run.keyframes.session, config), loops
    )


def _initial(run: Run, loops: list[GraphEdge]) -> F64:
    """(N, 4, 4): by odometry; a later session is placed by its first loop with an earlier one; a keyframe
    without odometry gets the pose of the one before it."""
    keyframes = run.keyframes
    poses = np.tile(np.eye(4), (len(keyframes), 1, 1))
    for session in np.unique(keyframes.session):
        rows = np.flatnonzero(keyframes.session == session)
        T_map_odom = _joined(run, loops, poses, session)
        last = T_map_odom
        for row in rows:
            T = keyframes.T_odom_base[row]
            last = T_map_odom @ T if np.isfinite(T[0, 0]) else last
            poses[row] = last
    return poses


def _joined(run: Run, loops: list[GraphEdge], poses: F64, session: int) -> F64:
    """T_map_odom of a session, the identity where no loop leads to an earlier one."""
    keyframes = run.keyframes
    for loop in loops:
        T_odom_query = keyframes.T_odom_base[loop.j]
        if (
            keyframes.session[loop.j] == session
            and keyframes.session[loop.i] < session
            and np.isfinite(T_odom_query[0, 0])
        ):
            return poses[loop.i] @ loop.T @ inverse(T_odom_query)
    return np.eye(4)
