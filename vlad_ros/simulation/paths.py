# SPDX-License-Identifier: Apache-2.0
"""Polylines in the plane: roads, aisles, routes. Points (K, 2) float64 [m]."""

from __future__ import annotations

import numpy as np

from vlad_ros.jit import kernel
from vlad_ros.types import F64


def arc_length(points: F64) -> F64:
    """Distance [m] along the polyline (K, 2) at each of its points, (K,)."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])


def locate(points: F64, s: np.ndarray, lateral: np.ndarray | float = 0.0) -> F64:
    """(x, y, yaw) at the arc lengths `s` (N,) [m], moved `lateral` metres to the left of the direction of travel."""
    return _locate(points, arc_length(points), s, lateral)


def locate_on(polylines: tuple[F64, ...], which: np.ndarray, s: np.ndarray, lateral: np.ndarray) -> F64:
    """`locate` on many polylines at once: (x, y, yaw) at `s` (N,) along the polylines numbered `which` (N,).

    Beyond its end `s` wraps around.
    """
    lengths = [arc_length(p) for p in polylines]
    ends = np.array([length[-1] for length in lengths])
    starts = np.concatenate([[0.0], np.cumsum(ends)[:-1]])
    along = np.concatenate([length + start for length, start in zip(lengths, starts, strict=True)])
    inside = np.minimum(s % ends[which], ends[which] - 1e-6)
    return _locate(np.concatenate(polylines), along, starts[which] + inside, lateral)


def _locate(points: F64, length: F64, s: np.ndarray, lateral: np.ndarray | float) -> F64:
    i = np.clip(np.searchsorted(length, s, side="right") - 1, 0, len(points) - 2)
    step = points[i + 1] - points[i]
    unit = step / np.maximum(np.hypot(step[:, 0], step[:, 1]), 1e-9)[:, None]
    normal = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
    xy = points[i] + unit * (s - length[i])[:, None] + normal * np.reshape(lateral, (-1, 1))
    return np.column_stack([xy, np.arctan2(unit[:, 1], unit[:, 0])])


def place(points: F64, s: float, lateral: float = 0.0) -> tuple[F64, float]:
    """Position (2,) and yaw at one arc length; see `locate`."""
    x, y, yaw = locate(points, np.array([s]), lateral)[0]
    return np.array([x, y]), float(yaw)


def resample(points: F64, spacing: float) -> F64:
    """The polyline at even steps of about `spacing` metres, both ends kept."""
    length = arc_length(points)
    s = np.linspace(0.0, length[-1], max(2, round(length[-1] / spacing) + 1))
    return np.column_stack([np.interp(s, length, points[:, k]) for k in (0, 1)])


def segments(polylines: tuple[F64, ...]) -> F64:
    """All segments (S, 4) x0 y0 x1 y1 of the polylines."""
    parts = [np.hstack([p[:-1], p[1:]]) for p in polylines]
    return np.concatenate(parts) if parts else np.zeros((0, 4))


@kernel
def distance_to_segments(points: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Distance [m] of each point (N, 2) to the nearest of the segments (S, >=4), (N,); inf when there are none."""
    out = np.full(len(points), np.inf)
    for i in range(len(points)):
        for k in range(len(lines)):
            ex, ey = lines[k, 2] - lines[k, 0], lines[k, 3] - lines[k, 1]
            wx, wy = points[i, 0] - lines[k, 0], points[i, 1] - lines[k, 1]
            u = min(1.0, max(0.0, (wx * ex + wy * ey) / max(ex * ex + ey * ey, 1e-12)))
            dx, dy = wx - u * ex, wy - u * ey
            out[i] = min(out[i], (dx * dx + dy * dy) ** 0.5)
    return out
