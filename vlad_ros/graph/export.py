# SPDX-License-Identifier: Apache-2.0
"""The pose graph of a run, as files that g2o and GTSAM read: keyframes, odometry between them, accepted loops.

An edge `i j T` says `T_i_j`: where j's body lies in i's. A loop is the edge `match query T_match_query`.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vlad_ros.config import ExportConfig
from vlad_ros.covariance_conventions import g2o_information, gtsam_covariance
from vlad_ros.poses import inverse, to_quaternion
from vlad_ros.runs.tables import Run
from vlad_ros.types import F64

SMALLEST_METRES, SMALLEST_DEGREES = 0.01, 0.05  # standard deviations of the odometry of a standing vehicle


@dataclass(frozen=True, eq=False)
class GraphEdge:
    """`T` (4, 4) is T_i_j; `covariance` (6, 6) as of a LoopClosure: x y z, roll pitch yaw, on the side of i."""

    i: int
    j: int
    T: F64
    covariance: F64


@dataclass(frozen=True, eq=False)
class PoseGraph:
    """`poses` (N, 4, 4): the keyframes by id, as odometry has them, which is where an optimiser starts."""

    poses: F64
    odometry: list[GraphEdge]
    loops: list[GraphEdge]


def pose_graph(run: Run, config: ExportConfig) -> PoseGraph:
    """The graph of a run. Odometry edges join neighbouring keyframes of a session; where odometry was missing there is
    none. ValueError for a run without odometry, whose keyframes nothing but loops would hold together."""
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


def odometry_edges(T_odom_base: F64, session: np.ndarray, config: ExportConfig) -> list[GraphEdge]:
    """Edges between neighbours of one session, poses (N, 4, 4), NaN where unknown; as uncertain as odometry that
    drifts: its distances by a share, its attitude as a random walk."""
    edges = []
    for i, j in itertools.pairwise(range(len(T_odom_base))):
        T = inverse(T_odom_base[i]) @ T_odom_base[j]
        if session[i] != session[j] or not np.isfinite(T).all():
            continue
        length = float(np.linalg.norm(T[:3, 3]))
        metres = np.hypot(SMALLEST_METRES, config.drift_translation * length)
        degrees = np.hypot(SMALLEST_DEGREES, config.drift_rotation * np.sqrt(length / 10.0))
        edges.append(GraphEdge(i, j, T, np.diag([metres**2] * 3 + [np.radians(degrees) ** 2] * 3)))
    return edges


def _initial(run: Run, loops: list[GraphEdge]) -> F64:
    """(N, 4, 4): by odometry; a later session lies where its first loop with an earlier one puts it; a keyframe that
    odometry says nothing of lies where the one before it does."""
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


def write_graph(path: str | os.PathLike[str], graph: PoseGraph, format: str) -> None:
    """Write the file, whole or not at all. `format` g2o: for g2o and what reads its files; gtsam: for
    `gtsam.readG2o(path, True)`, whose rotations, order and information are GTSAM's own."""
    path = Path(path)
    vertex, edge = {"g2o": (_g2o_vertex, _g2o_edge), "gtsam": (_gtsam_vertex, _gtsam_edge)}[format]
    lines = [vertex(i, T) for i, T in enumerate(graph.poses)]
    if format == "g2o":
        lines.insert(1, "FIX 0")
    lines += [edge(one) for one in (*graph.odometry, *graph.loops)]
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text("\n".join(lines) + "\n")
    os.replace(temporary, path)


def _g2o_vertex(i: int, T: F64) -> str:
    return _line("VERTEX_SE3:QUAT", (i,), T[:3, 3], to_quaternion(T))


def _g2o_edge(edge: GraphEdge) -> str:
    information = g2o_information(edge.covariance, edge.T)[np.triu_indices(6)]
    return _line("EDGE_SE3:QUAT", (edge.i, edge.j), edge.T[:3, 3], to_quaternion(edge.T), information)


def _gtsam_vertex(i: int, T: F64) -> str:
    return _line("VERTEX3", (i,), T[:3, 3], _rpy(T))


def _gtsam_edge(edge: GraphEdge) -> str:
    """GTSAM takes the information of EDGE3 as it stands. Of EDGE_SE3:QUAT some of its releases misplace the blocks
    between rotation and translation."""
    information = np.asarray(np.linalg.inv(gtsam_covariance(edge.covariance, edge.T)), np.float64)[np.triu_indices(6)]
    return _line("EDGE3", (edge.i, edge.j), edge.T[:3, 3], _rpy(edge.T), information)


def _rpy(T: F64) -> F64:
    return np.asarray(Rotation.from_matrix(T[:3, :3]).as_euler("xyz"), np.float64)


def _line(tag: str, ids: tuple[int, ...], *numbers: F64) -> str:
    return " ".join([tag, *map(str, ids), *(repr(x) for x in np.concatenate(numbers).tolist())])
