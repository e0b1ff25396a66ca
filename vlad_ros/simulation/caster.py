# SPDX-License-Identifier: Apache-2.0
"""The ray caster: one LiDAR sweep over walls and cylinders on flat ground, compiled by numba.

Walls and cylinders are entered into the azimuth columns that they span, each with its distance there; a column's hits
are sorted once, and every ray of the column takes the nearest whose height range it meets. That makes the cost follow
what is visible instead of columns times objects.
"""

from __future__ import annotations

import math

import numpy as np

from vlad_ros.jit import kernel

# Intensities, so that materials can be told apart; exact in float32.
GROUND, WALL, CYLINDER, FOLIAGE, CEILING, RAIN = 0.25, 0.5, 0.375, 0.3125, 0.625, 0.0625


@kernel
def _span(low: float, high: float, first: float, step: float) -> tuple[int, int]:
    """First and one past the last column whose azimuth lies in [low, high] [rad]; columns may wrap around."""
    return math.ceil((low - first) / step), math.floor((high - first) / step) + 1


@kernel
def _enter(
    hits: np.ndarray, count: np.ndarray, column: int, distance: float, chord: float, z0: float, z1: float, kind: float
) -> None:
    """Insert a hit into its column, nearest first; the farthest falls out when the column is full."""
    n = count[column]
    if n == hits.shape[1]:
        if hits[column, n - 1, 0] <= distance:
            return
        n -= 1
    while n > 0 and hits[column, n - 1, 0] > distance:
        hits[column, n] = hits[column, n - 1]
        n -= 1
    hits[column, n, 0] = distance
    hits[column, n, 1] = z0
    hits[column, n, 2] = z1
    hits[column, n, 3] = kind
    hits[column, n, 4] = chord
    count[column] = min(count[column] + 1, hits.shape[1])


@kernel
def _enter_walls(
    walls: np.ndarray,
    origin: tuple[float, float],
    first: float,
    step: float,
    columns: int,
    reach: float,
    hits: np.ndarray,
    count: np.ndarray,
) -> None:
    """Enter every wall within `reach` into the columns that see it."""
    px, py = origin
    turn = round(2 * math.pi / step)
    for k in range(len(walls)):
        ax, ay = walls[k, 0] - px, walls[k, 1] - py
        ex, ey = walls[k, 2] - walls[k, 0], walls[k, 3] - walls[k, 1]
        length2 = max(ex * ex + ey * ey, 1e-12)
        u = min(1.0, max(0.0, -(ax * ex + ay * ey) / length2))
        if (ax + u * ex) ** 2 + (ay + u * ey) ** 2 > reach * reach:
            continue
        cross = ax * ey - ay * ex  # of the wall's start with its direction
        if abs(cross) < 1e-9:
            continue
        a0 = math.atan2(ay, ax)
        a1 = math.atan2(ay + ey, ax + ex)
        sweep = (a1 - a0 + math.pi) % (2 * math.pi) - math.pi
        low, high = _span(min(a0, a0 + sweep), max(a0, a0 + sweep), first, step)
        for c in range(low, high):
            column = c % turn
            if column >= columns:
                continue
            azimuth = first + c * step
            distance = cross / (math.cos(azimuth) * ey - math.sin(azimuth) * ex)
            if 0.0 < distance < reach:
                _enter(hits, count, column, distance, 0.0, walls[k, 4], walls[k, 5], WALL)


@kernel
def _enter_cylinders(
    cylinders: np.ndarray,
    foliage: np.ndarray,
    origin: tuple[float, float],
    first: float,
    step: float,
    columns: int,
    reach: float,
    hits: np.ndarray,
    count: np.ndarray,
) -> None:
    """Enter every cylinder within `reach` into the columns that see it; one around the origin is left out."""
    px, py = origin
    turn = round(2 * math.pi / step)
    for k in range(len(cylinders)):
        wx, wy, r = cylinders[k, 0] - px, cylinders[k, 1] - py, cylinders[k, 2]
        d = math.hypot(wx, wy)
        if d > reach + r or d <= r:
            continue
        half = math.asin(r / d)
        azimuth = math.atan2(wy, wx)
        low, high = _span(azimuth - half, azimuth + half, first, step)
        for c in range(low, high):
            column = c % turn
            if column >= columns:
                continue
            off = first + c * step - azimuth
            b = d * math.cos(off)
            chord = math.sqrt(max(0.0, r * r - (d * math.sin(off)) ** 2))
            kind = FOLIAGE if foliage[k] else CYLINDER
            if b - chord < reach:
                _enter(hits, count, column, b - chord, 2 * chord, cylinders[k, 3], cylinders[k, 4], kind)


@kernel
def _nearest(hits: np.ndarray, n: int, height: float, slope: float, ceiling: float) -> tuple[float, float]:
    """Horizontal distance and material of what a ray of this slope hits first: a column's hits, floor or ceiling."""
    best, kind = 1e9, GROUND
    if slope < -1e-4:
        best = -height / slope
    elif slope > 1e-4 and ceiling > height:
        best, kind = (ceiling - height) / slope, CEILING
    for q in range(n):
        t = hits[q, 0]
        if t >= best:
            break
        z = height + t * slope
        if z < hits[q, 1] or z > hits[q, 2]:
            continue
        if hits[q, 3] != FOLIAGE:
            return t, hits[q, 3]
        if np.random.random() < 0.7:  # else through a gap between the leaves
            deep = t + hits[q, 4] * 0.7 * np.random.random() ** 2
            if deep < best:
                best, kind = deep, FOLIAGE
    return best, kind


@kernel
def _measure(distance: float, limits: tuple[float, float], noise: tuple[float, float, float]) -> float:
    """The range that the sensor reports for the true `distance`; 0: none."""
    if distance < limits[0] or distance > limits[1]:
        return 0.0
    if np.random.random() < noise[1] + 0.3 * (distance / limits[1]) ** 2:  # far points are lost more often
        return 0.0
    return min(max(distance + noise[0] * np.random.normal(), limits[0]), limits[1])


@kernel
def sweep(
    scene: tuple[np.ndarray, np.ndarray, np.ndarray, float],
    pose: tuple[float, float, float, float],
    tilt: tuple[float, float],
    slopes: np.ndarray,
    azimuths: tuple[float, float, int],
    limits: tuple[float, float],
    noise: tuple[float, float, float],
    seed: int,
) -> np.ndarray:
    """Cast a sweep over flat ground: (N, 4) float64 x y z in the world and material.

    scene = (walls, cylinders, foliage, ceiling [m], 0: none); pose = (x, y, height, yaw). tilt (roll, pitch) [rad]: to
    first order it changes the slope of the rays, not their azimuth. slopes (columns, rays) or (1, rays): tangents of
    the elevations. azimuths = (first, step, columns) in the sensor frame, a whole number of steps in a full turn.
    limits = (min_range, max_range) [m], noise = (range sigma [m], drop-out, rain), the latter two probabilities.
    """
    np.random.seed(seed)
    px, py, height, yaw = pose
    first, step, columns = azimuths
    hits = np.empty((columns, 48, 5), np.float32)
    count = np.zeros(columns, np.int64)
    _enter_walls(scene[0], (px, py), first + yaw, step, columns, limits[1], hits, count)
    _enter_cylinders(scene[1], scene[2], (px, py), first + yaw, step, columns, limits[1], hits, count)
    out = np.empty((columns * slopes.shape[1], 4))
    n = 0
    for c in range(columns):
        azimuth = first + c * step
        lean = math.tan(tilt[0]) * math.sin(azimuth) - math.tan(tilt[1]) * math.cos(azimuth)
        dx, dy = math.cos(azimuth + yaw), math.sin(azimuth + yaw)
        for e in range(slopes.shape[1]):
            slope = slopes[c % slopes.shape[0], e] + lean
            stretch = math.sqrt(1 + slope * slope)  # range per horizontal distance
            t, kind = _nearest(hits[c], count[c], height, slope, scene[3])
            if noise[2] > 0.0 and np.random.random() < noise[2]:
                t, kind = min(t, np.random.uniform(limits[0], 12.0) / stretch), RAIN
            t = _measure(t * stretch, limits, noise) / stretch
            if t > 0.0:
                out[n] = px + t * dx, py + t * dy, height + t * slope, kind
                n += 1
    return out[:n]
