# SPDX-License-Identifier: Apache-2.0
"""Pose graphs as files that g2o and GTSAM read.

An edge `i j T` is `T_i_j`: the pose of j's body in i's. A loop is the edge `match query T_match_query`.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from vlad_ros.atomic import replacing
from vlad_ros.config import ExportConfig
from vlad_ros.covariance_conventions import g2o_information, gtsam_covariance
from vlad_ros.poses import inverse, to_quaternion
from vlad_ros.types import F64

SMALLEST_METRES, SMALLEST_DEGREES = 0.01, 0.05  # standard deviations of odometry at standstill


@dataclass(frozen=True, eq=False)
class GraphEdge:
    """`T` (4, 4) is T_i_j; `covariance` (6, 6) as of a LoopClosure: x y z, roll pitch yaw, on the side of i."""

    i: int
    j: int
    T: F64
    covariance: F64


@dataclass(frozen=True, eq=False)
class PoseGraph:
    """`poses` (N, 4, 4): the keyframes' odometry poses by id, the optimiser's initial values."""

    poses: F64
    odometry: list[GraphEdge]
    loops: list[GraphEdge]


def odometry_edges(T_odom_base: F64, session: np.ndarray, config: ExportConfig) -> list[GraphEdge]:
    """Edges between neighbours of one session, poses (N, 4, 4), NaN where unknown; with the covariance of
    odometry drift: a fraction of the distance, and a random walk of the attitude."""
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


def write_graph(path: str | os.PathLike[str], graph: PoseGraph, format: str) -> None:
    """Write the file atomically. `format` g2o: for g2o and what reads its files; gtsam: for
    `gtsam.readG2o(path, True)`, whose rotations, order and information are GTSAM's own."""
    vertex, edge = {"g2o": (_g2o_vertex, _g2o_edge), "gtsam": (_gtsam_vertex, _gtsam_edge)}[format]
    lines = [vertex(i, T) for i, T in enumerate(graph.poses)]
    if format == "g2o":
        lines.insert(1, "FIX 0")
    lines += [edge(one) for one in (*graph.odometry, *graph.loops)]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


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
