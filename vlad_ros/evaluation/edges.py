# SPDX-License-Identifier: Apache-2.0
"""Loop edges against true poses: when an edge is right, and which keyframes are revisits."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from vlad_ros.drive.travel import path_length
from vlad_ros.poses import inverse
from vlad_ros.stamps import nanoseconds
from vlad_ros.types import F64, Bools, Ints

RIGHT_METRES, RIGHT_DEGREES = 1.0, 5.0  # an edge is right when its error is within both


def edge_error(T_match_query: F64, T_world_match: F64, T_world_query: F64) -> tuple[float, float]:
    """Error of an edge (4, 4) against the true poses: metres, and degrees of rotation."""
    true = inverse(T_world_match) @ T_world_query
    off = inverse(true) @ T_match_query
    return float(np.linalg.norm(off[:3, 3])), float(np.degrees(Rotation.from_matrix(off[:3, :3]).magnitude()))


def is_right(metres: float, degrees: float) -> bool:
    """Whether an edge with this error is right, however far the matched place is; nan is not."""
    return metres <= RIGHT_METRES and degrees <= RIGHT_DEGREES


def revisits(
    T_world_base: F64, stamps: Ints, sessions: Ints, *, radius: float, exclude_time: float, exclude_distance: float
) -> Bools:
    """(N,) bool: which keyframes, in the order in which they were described, are at a place seen before.

    An earlier one lies within `radius` [m] and is of another session, or at least `exclude_time` [s] older and
    `exclude_distance` [m] of true travel ago: what a node may match. `T_world_base` (N, 4, 4), `stamps` (N,) [ns].
    """
    positions = T_world_base[:, :3, 3]
    path = np.zeros(len(positions))
    for session in np.unique(sessions):
        path[sessions == session] = path_length(T_world_base[sessions == session])
    found = np.zeros(len(positions), bool)
    earlier, later = cKDTree(positions).query_pairs(radius, output_type="ndarray").reshape(-1, 2).T
    old = stamps[later] - stamps[earlier] >= nanoseconds(exclude_time)
    far = path[later] - path[earlier] >= exclude_distance
    found[later[(sessions[later] != sessions[earlier]) | (old & far)]] = True
    return found
