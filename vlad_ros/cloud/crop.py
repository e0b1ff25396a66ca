# SPDX-License-Identifier: Apache-2.0
"""Cropping: keep the points between two distances from the sensor that are not on the vehicle itself."""

from __future__ import annotations

import numpy as np

from vlad_ros.cloud.decode import NO_ROWS, CloudError, Rows, compact
from vlad_ros.types import F32, Bools

SAMPLE = 4000  # points sampled to detect missing returns
NO_HITS = 0.15  # at least this share of the points at one range, or in one plane, at the sensor's limit
EXACTLY = 2e-4  # tolerance, relative to that range


def crop_rows(points: F32, rows: Rows, min_range: float, max_range: float) -> tuple[F32, Rows]:
    """The `points` (N, 4) in the sensor's frame between both distances [m] from it, and their `rows` (N,) of the
    message; both are compacted in place. CloudError where none is left."""
    count = compact(points, rows, min_range, max_range)
    if count == 0:
        raise CloudError("out_of_range", f"none of the {len(points)} points lies {min_range:g}..{max_range:g} m away")
    return points[:count], rows[:count]


def outside(points: F32, box: tuple[float, ...]) -> Bools:
    """Mask (N,) of the `points` (N, >=3) outside of `box`, x0 y0 z0 x1 y1 z1 [m]; all True if it is empty."""
    if not box:
        return np.ones(len(points), bool)
    low, high = np.array(box[:3], np.float32), np.array(box[3:], np.float32)
    return np.asarray(~((points[:, :3] >= low) & (points[:, :3] <= high)).all(axis=1))


def clean(points: np.ndarray, min_range: float, max_range: float) -> F32:
    """The finite points (N, 4) float32 with min_range <= distance from the origin <= max_range [m]; a new array.

    `points` is (N, 3), then intensity is 0, or wider, then columns beyond the fourth are dropped. CloudError when
    there are fewer columns or nothing is left.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise CloudError("layout", f"points must be numbers (N, 3) or wider, not {points.dtype} {points.shape}")
    if len(points) == 0:
        raise CloudError("empty", "the cloud is empty: is the sensor sending yet?")
    out = np.zeros((len(points), 4), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        out[:, : min(4, points.shape[1])] = points[:, :4]
    count = compact(out, NO_ROWS, min_range, max_range)
    if count == 0 and not np.isfinite(out[:, :3]).all(axis=1).any():
        raise CloudError("not_finite", f"none of the {len(out)} points has finite coordinates")
    if count == 0:
        raise CloudError("out_of_range", f"none of the {len(out)} points lies {min_range:g}..{max_range:g} m away")
    return out[:count]


def missing_returns(points: F32) -> str:
    """A warning if the sensor reports missing returns as a sphere or a plane at its range limit, otherwise "". `points`
    (N, >=3) [m] in the sensor's frame, before they are cropped."""
    some = points[:: max(1, len(points) // SAMPLE), :3].astype(np.float64)
    ranges = np.linalg.norm(some, axis=1)
    for what, values in (("range", ranges), *zip(("x", "y", "z"), np.abs(some).T, strict=True)):
        limit = float(values.max())
        # A wall or a floor is nearer than other points; only the range limit is the cloud's maximum.
        share = float((values > limit * (1.0 - EXACTLY)).mean())
        if share >= NO_HITS and (what == "range" or limit >= float(np.abs(some).max())):
            return (
                f"{share:.0%} of the points lie at exactly {what} {limit:.1f} m: the sensor draws its missing returns "
                f"there; set max_range below {limit:.0f}"
            )
    return ""
