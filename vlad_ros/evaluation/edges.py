# SPDX-License-Identifier: Apache-2.0
"""Loop edges against true poses: when an edge is right, where a loop was to be found, and the numbers of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from vlad_ros.drive.drift import travel
from vlad_ros.evaluation.protocols import Bools, Ints
from vlad_ros.poses import inverse
from vlad_ros.types import F64

if TYPE_CHECKING:
    from vlad_ros.runs.tables import ClosureTable, KeyframeTable

RIGHT_METRES, RIGHT_DEGREES = 1.0, 5.0  # an edge is right when it agrees with the poses to within both
SECOND = 1e9  # ns


def edge_error(T_match_query: F64, T_world_match: F64, T_world_query: F64) -> tuple[float, float]:
    """How far an edge (4, 4) is from that of the true poses: metres, and degrees of rotation."""
    true = inverse(T_world_match) @ T_world_query
    off = inverse(true) @ T_match_query
    return float(np.linalg.norm(off[:3, 3])), float(np.degrees(Rotation.from_matrix(off[:3, :3]).magnitude()))


def is_right(metres: float, degrees: float) -> bool:
    """Whether an edge with this error is right, wherever the matched frame lies; nan is not."""
    return metres <= RIGHT_METRES and degrees <= RIGHT_DEGREES


def revisits(
    T_world_base: F64, stamps: Ints, sessions: Ints, *, radius: float, exclude_time: float, exclude_distance: float
) -> Bools:
    """(N,) bool: the keyframes, in the order in which they were described, at a place seen before.

    An earlier one lies within `radius` [m], and is of another session, or both at least `exclude_time` [s] older and
    `exclude_distance` [m] of true travel ago: what a node may announce. `T_world_base` (N, 4, 4), `stamps` (N,) [ns].
    """
    positions = T_world_base[:, :3, 3]
    path = np.zeros(len(positions))
    for session in np.unique(sessions):
        path[sessions == session] = travel(T_world_base[sessions == session])
    found = np.zeros(len(positions), bool)
    earlier, later = cKDTree(positions).query_pairs(radius, output_type="ndarray").reshape(-1, 2).T
    old = stamps[later] - stamps[earlier] >= exclude_time * SECOND
    far = path[later] - path[earlier] >= exclude_distance
    found[later[(sessions[later] != sessions[earlier]) | (old & far)]] = True
    return found


def summarise(keyframes: KeyframeTable, closures: ClosureTable, has_truth: bool) -> dict[str, dict[str, Any]]:
    """The numbers of a run, `{name: {"value": ..., "unit": ...}}`; None where there is nothing to divide by.

    precision: right edges of the accepted ones; recall: keyframes at a place seen before with a right accepted edge.
    """
    counts = {"keyframes": len(keyframes), "candidates": len(closures), "accepted": int(closures.accepted.sum())}
    numbers = {name: {"value": value, "unit": name} for name, value in counts.items()}
    numbers["accepted"]["unit"] = "edges"
    if not has_truth:
        return numbers
    right = closures.accepted & closures.is_right
    closed = np.zeros(len(keyframes), bool)
    closed[closures.query[right]] = True
    revisits = int(keyframes.is_revisit.sum())
    closed_revisits = int((closed & keyframes.is_revisit).sum())
    numbers |= {
        "false_edges": {"value": int((closures.accepted & ~closures.is_right).sum()), "unit": "edges"},
        "revisits": {"value": revisits, "unit": "keyframes"},
        "closed_revisits": {"value": closed_revisits, "unit": "keyframes"},
        "precision": {"value": _share(int(right.sum()), counts["accepted"]), "unit": "share, 0..1"},
        "recall": {"value": _share(closed_revisits, revisits), "unit": "share, 0..1"},
    }
    for name, errors in (("m", closures.error_m[right]), ("deg", closures.error_deg[right])):
        for percent in (50, 95):
            value = float(np.percentile(errors, percent)) if len(errors) else None
            numbers[f"error_{name}_p{percent}"] = {"value": value, "unit": f"{name}, of right accepted edges"}
    return numbers


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
