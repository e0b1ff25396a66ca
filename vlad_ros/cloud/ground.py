# SPDX-License-Identifier: Apache-2.0
"""The ground plane under a scan, and the rotation that levels it.

The lowest point of each coarse cell around the body is a candidate for ground. Planes of several slopes are slid over
the candidates; the offsets that most of them agree on, with few of them below, are refined by iteratively re-weighted
least squares with Tukey's biweight (Beaton and Tukey, 1974) and a prior toward the horizontal. All of it is float64,
in a fixed order, and one implementation serves every device.
"""

from __future__ import annotations

import math

import numpy as np

from vlad_ros.cloud.decode import four_columns
from vlad_ros.jit import kernel
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64

GRID = 30  # cells a side
CELLS = (2.0, 0.5, 8.0)  # [m] side of a cell; the others are tried if the first gives too few cells
FEW_CELLS = 12
SLOPES = np.array(sorted(np.arange(-6, 7) * 0.1, key=abs))  # a hand-held sensor leans by 30 degrees
STEEPEST = 0.8  # rise over run; steeper planes are walls
STEP = 0.2  # [m] of the coarse offsets
DEEPEST = 30.0  # [m] below the body; the ground is searched down to here
HIGHEST = 0.5  # [m] above the body's origin: a body is never below ground, an upside-down scan has no ground
HYPOTHESES = 12  # coarse planes that are refined
GATES = np.array([1.0, 0.7, 0.5, 0.4, 0.3, 0.3])  # [m]
RIDGE = 50.0  # [m^2] weight that keeps a refinement step near the previous slopes
NEAR = 15.0  # [m] at which a cell has half weight: the ground around the body matters, not that beyond an edge
BELOW = 2.0  # no point is below ground: a cell just below a plane costs twice what one on it adds
LEVEL = 1.5  # [m] cells farther below are another level, over an edge,
DEEP = 0.5  # or a reflection, and get less weight
SLOPE_COST = 0.5  # of the total weight, times the slope squared
MIN_SUPPORT = 2.0  # weight of the cells that must agree; with less the scan has no ground


@kernel
def _before(p: F32, q: F32) -> bool:
    """Whether p is lower than q; ties go to the smaller x, then y, so that the points' order does not matter."""
    if p[2] != q[2]:
        return p[2] < q[2]
    if p[0] != q[0]:
        return p[0] < q[0]
    return p[1] < q[1]


@kernel
def _lowest(points: F32, cell: float, grid: int) -> F64:
    """Lowest point (x, y, z) of each occupied cell of the grid around the body, (M, 3)."""
    half = cell * grid / 2
    inverse = 1.0 / cell
    best = np.full(grid * grid, -1, np.int64)
    for k in range(len(points)):
        u = (points[k, 0] + half) * inverse
        v = (points[k, 1] + half) * inverse
        if not (u >= 0 and u < grid and v >= 0 and v < grid):
            continue
        index = int(u) * grid + int(v)
        other = best[index]
        if other < 0 or _before(points[k], points[other]):
            best[index] = k
    out = np.empty((grid * grid, 3))
    count = 0
    for index in range(grid * grid):
        if best[index] >= 0:
            for axis in range(3):
                out[count, axis] = points[best[index], axis]
            count += 1
    return out[:count]


@kernel
def _offset(cells: F64, weights: F64, a: float, b: float) -> tuple[float, float]:
    """Score and offset c of the best plane with slopes a, b: the weight on it less the cost of the weight under it."""
    bins = int((HIGHEST + DEEPEST) / STEP)
    level = int(LEVEL / STEP)
    histogram = np.zeros(bins)
    for k in range(len(cells)):
        u = (cells[k, 2] - a * cells[k, 0] - b * cells[k, 1] + DEEPEST) / STEP
        if u >= 0 and u < bins:
            histogram[int(u)] += weights[k]
    best_score, best_offset, cost = -np.inf, 0.0, 0.0
    for k in range(2, bins - 2):
        if k >= 3:
            cost += BELOW * histogram[k - 3]
        if k >= 3 + level:
            cost -= (BELOW - DEEP) * histogram[k - 3 - level]
        # The width matches the coarse steps of the slopes.
        near, far = histogram[k - 1] + histogram[k + 1], histogram[k - 2] + histogram[k + 2]
        score = histogram[k] + 0.75 * near + 0.4 * far - cost
        if histogram[k] > 0.0 and score > best_score:
            best_score, best_offset = score, (k + 0.5) * STEP - DEEPEST
    return best_score, best_offset


@kernel
def _coarse(cells: F64, weights: F64) -> F64:
    """The best plane of every pair of slopes, (S * S, 4) rows of score, a, b, c."""
    total = weights.sum()
    out = np.empty((len(SLOPES) ** 2, 4))
    for k in range(len(out)):
        a, b = SLOPES[k // len(SLOPES)], SLOPES[k % len(SLOPES)]
        score, offset = _offset(cells, weights, a, b)
        out[k] = score - SLOPE_COST * total * (a * a + b * b), a, b, offset
    return out


@kernel
def _refine(cells: F64, weights: F64, plane: F64, gates: F64, ridge: float) -> F64:
    """Re-weighted least squares of z = a x + b y + c, shrinking gates; a ridge keeps a, b near the last step's."""
    for gate in gates:
        A = np.zeros((3, 3))
        A[0, 0] = A[1, 1] = ridge
        right = np.array([ridge * plane[0], ridge * plane[1], 0.0])
        for k in range(len(cells)):
            x, y, z = cells[k]
            u = (z - plane[0] * x - plane[1] * y - plane[2]) / gate
            if u * u >= 1.0:
                continue
            w = weights[k] * (1.0 - u * u) ** 2
            row = (x, y, 1.0)
            for i in range(3):
                right[i] += w * row[i] * z
                for j in range(3):
                    A[i, j] += w * row[i] * row[j]
        if A[2, 2] < 1e-6:
            break
        plane = _solve(A, right)
    return plane


@kernel
def _solve(A: F64, b: F64) -> F64:
    """Solution of a symmetric positive definite 3 x 3 system by elimination."""
    M = A.copy()
    x = b.copy()
    for i in range(3):
        for j in range(i + 1, 3):
            factor = M[j, i] / M[i, i]
            for k in range(i, 3):
                M[j, k] -= factor * M[i, k]
            x[j] -= factor * x[i]
    for i in range(2, -1, -1):
        for k in range(i + 1, 3):
            x[i] -= M[i, k] * x[k]
        x[i] /= M[i, i]
    return x


def _score(cells: F64, weights: F64, plane: F64) -> float:
    """Support of the cells for a refined plane."""
    residual = cells[:, 2] - cells[:, :2] @ plane[:2] - plane[2]
    support = weights @ np.maximum(1.0 - (residual / GATES[-1]) ** 2, 0.0) ** 2
    under = BELOW * (residual < -GATES[-1]) - (BELOW - DEEP) * (residual < -LEVEL)
    return float(support - weights @ under - SLOPE_COST * weights.sum() * (plane[0] ** 2 + plane[1] ** 2))


@stage("ground")
def fit_ground(points: np.ndarray) -> F64:
    """The plane a, b, c of the ground, z = a x + b y + c [m], float64 (3,), of `points` (N, >=3) in the body frame.

    Does not change when points are repeated. A scan without ground gets a horizontal plane at a low quantile of the
    cells' lowest points, at most at the body's origin. ValueError when there are no finite points or < 3 columns.
    """
    points = four_columns(points)
    cells = _lowest(points, CELLS[0], GRID)
    if len(cells) < FEW_CELLS:
        cells = max([cells, *(_lowest(points, cell, GRID) for cell in CELLS[1:])], key=len)
    cells = cells[np.isfinite(cells[:, 2])]
    if len(cells) == 0:
        raise ValueError(f"no finite points within {CELLS[-1] * GRID / 2:.0f} m among the {len(points)} points")
    weights = 1.0 / (1.0 + (cells[:, 0] ** 2 + cells[:, 1] ** 2) / NEAR**2)
    coarse = _coarse(cells, weights)
    order = np.argsort(-coarse[:, 0], kind="stable")  # ties: the flatter slopes, which come first
    planes = [_refine(cells, weights, start, GATES, RIDGE) for start in coarse[order[:HYPOTHESES], 1:]]
    planes = [plane for plane in planes if math.hypot(plane[0], plane[1]) < STEEPEST]
    best = max(planes, key=lambda plane: _score(cells, weights, plane), default=None)
    if best is None or _score(cells, weights, best) < MIN_SUPPORT:
        return np.array([0.0, 0.0, min(0.0, float(np.quantile(cells[:, 2], 0.1)))])
    return best


def levelling(plane: F64) -> tuple[F64, float]:
    """The smallest rotation R_level_body (3, 3) that turns the plane's normal to z, and the plane's offset d [m] along
    it: p_level = R p, and the height of p above ground is p_level.z - d."""
    normal = np.array([-plane[0], -plane[1], 1.0])
    length = float(np.linalg.norm(normal))
    n = normal / length
    K = np.array([[0.0, 0.0, -n[0]], [0.0, 0.0, -n[1]], [n[0], n[1], 0.0]])
    return np.eye(3) + K + K @ K / (1.0 + n[2]), float(plane[2]) / length
