# SPDX-License-Identifier: Apache-2.0
"""Deskewing: transform a moving sensor's sweep as if all points were measured at the message's stamp.

Offline, for one message of a bag and the odometry around it::

    points, rows = decode_rows(message)            # vlad_ros.cloud.decode
    times = point_times(message)                   # None: no per-point time
    offsets = sweep_offsets(times, stamp)[rows]    # None: no sweep; (N,) ns relative to the stamp
    motion = buffer.across(*reach(offsets, stamp)) # OdometryBuffer; None: not covered
    points = deskew(points, offsets, stamp, motion)

Points and poses must use the same frame: with ``T_odom_base`` the points are in the body frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vlad_ros.cloud.decode import PointTimes
from vlad_ros.jit import kernel
from vlad_ros.poses import exp, inverse, log
from vlad_ros.stamps import SECOND
from vlad_ros.stopwatch import stage
from vlad_ros.types import F64

Stamps = npt.NDArray[np.int64]

LONGEST_SWEEP = SECOND + SECOND // 20  # ns, 1 Hz; also the largest distance between stamp and sweep on one clock
SHORTEST_SWEEP = SECOND // 200  # ns
UNITS = (1.0, 1e3, 1e6, 1e9)  # ns
BULK, APART = 0.8, 3.0  # outlier: over 3 times as far from the median as four fifths of the times
RARE, MARGIN = 0.002, 0.02  # one time in 500 does not define the sweep's begin and end
KNOT = SECOND // 500  # ns; between knots the matrices are linear: 60 deg/s over 100 m are 0.1 mm off


@dataclass(frozen=True, eq=False)
class Motion:
    """`poses` (M, 4, 4) T_odom_body at increasing `stamps` (M,) [ns], M >= 1; the twist is constant between them."""

    stamps: Stamps
    poses: F64

    def at(self, stamps: Stamps) -> F64:
        """(K, 4, 4); ValueError for a stamp that is not covered, because nothing is extrapolated."""
        stamps = np.asarray(stamps, np.int64)
        if stamps.min() < self.stamps[0] or stamps.max() > self.stamps[-1]:
            raise ValueError(
                f"the poses cover {self.stamps[0]} .. {self.stamps[-1]} ns, not {stamps.min()} .. {stamps.max()}: "
                "give the odometry of the whole sweep and of its stamp"
            )
        if len(self.stamps) == 1:
            return np.repeat(self.poses, len(stamps), axis=0)
        before = np.clip(np.searchsorted(self.stamps, stamps, side="right") - 1, 0, len(self.stamps) - 2)
        fraction = (stamps - self.stamps[before]) / np.diff(self.stamps)[before]
        steps = log(inverse(self.poses[:-1]) @ self.poses[1:])
        return self.poses[before] @ exp(fraction[:, None] * steps[before])


class Sweep(NamedTuple):
    """`offsets` (N,) [ns]: when each row of a message was measured, relative to its stamp; None if its times cannot be
    interpreted; `fault` then says why, and is empty if the message has no times."""

    offsets: Stamps | None
    fault: str = ""


def sweep_offsets(times: PointTimes | None, stamp: int) -> Stamps | None:
    """The offsets of `read_sweep`."""
    return read_sweep(times, stamp).offsets


def read_sweep(times: PointTimes | None, stamp: int) -> Sweep:
    """When each point was measured, relative to the header's `stamp` [ns].

    Seconds, milliseconds, microseconds or nanoseconds, relative to the stamp or absolute: by the unit in which the
    sweep lies at the stamp or, where it does not (a sensor's own clock; then the stamp is taken for the sweep's start),
    by the only one in which it lasts 5 ms to 1 s. The sign and range show whether the stamp is the sweep's start
    (0 .. 0.1 s) or end (-0.1 .. 0 s). Outliers (zeros of invalid points, a counter that has rolled over) are ignored
    for this; their points are kept, as are points whose time is not finite.
    """
    if times is None or not len(times.values):
        return Sweep(None)
    known = times.values[np.isfinite(times.values) & times.of_point]
    if not len(known):
        return Sweep(None, f"no point has a finite time (field {times.name})")
    middle = np.median(known)
    spread = np.quantile(np.abs(known - middle), BULK)
    if spread == 0.0:
        hint = ": FLOAT32 holds no time since 1970, publish FLOAT64" if abs(middle) > 2**24 else ""
        return Sweep(None, f"the times of its points are all the same (field {times.name}){hint}")
    bulk = known[np.abs(known - middle) <= APART * spread]
    low, high = (float(q) for q in np.quantile(bulk, (RARE, 1.0 - RARE)))
    margin = MARGIN * (high - low)
    found = _unit_and_origin(low, high, stamp)
    if found is None:
        return Sweep(None, f"the times of its points span {high - low:g} in field {times.name}: no sweep in any unit")
    unit, origin = found
    inside = np.isfinite(times.values) & (times.values >= low - margin) & (times.values <= high + margin)
    if origin is None:
        origin = float(times.values[inside & times.of_point].min())
    with np.errstate(invalid="ignore", over="ignore"):
        return Sweep(np.where(inside, np.rint((times.values - origin) * unit), 0.0).astype(np.int64))


def _unit_and_origin(low: float, high: float, stamp: int) -> tuple[float, float | None] | None:
    """Nanoseconds per unit of the times `low` .. `high`, and their value at the header's stamp, None if that is of
    another clock."""
    found: list[tuple[float, float, float]] = []
    for unit in UNITS:
        span = (high - low) * unit
        if span > LONGEST_SWEEP:
            continue
        for origin in (0.0, stamp / unit):  # relative, absolute
            away = max(low - origin, origin - high, 0.0) * unit
            # A chance match with the stamp: relative times in a unit that makes the sweep too short.
            if away <= LONGEST_SWEEP and (span >= SHORTEST_SWEEP or origin):
                found.append((away, unit, origin))
    if found:
        _, unit, origin = min(found)
        return unit, origin
    own = [unit for unit in UNITS if SHORTEST_SWEEP <= (high - low) * unit <= LONGEST_SWEEP]
    return (own[0], None) if own else None


def reach(offsets: Stamps, stamp: int) -> tuple[int, int]:
    """First and last stamp [ns] at which `deskew` needs a pose: of the sweep and of its own stamp."""
    return stamp + min(0, int(offsets.min())), stamp + max(0, int(offsets.max()))


@stage("deskew")
def deskew(points: np.ndarray, offsets: Stamps, stamp: int, motion: Motion) -> np.ndarray:
    """`points` (N, >=3) [m] moved to where the body saw them at `stamp` [ns]; a new array, further columns unchanged.

    `offsets` (N,) [ns]: when each was measured, relative to the stamp. `motion` is of the frame that the points are in.
    ValueError where it does not cover the sweep and its stamp, or the numbers of points and times differ.
    """
    if len(points) != len(offsets):
        raise ValueError(f"{len(points)} points with {len(offsets)} times: one a point is needed")
    if not len(points):
        return points.copy()
    first, last = reach(offsets, stamp)
    knots = np.linspace(0, last - first, 2 + (last - first) // KNOT).astype(np.int64)
    T = motion.at(np.append(first + knots, stamp))
    T_stamp_knot = inverse(T[-1]) @ T[:-1]
    return _move(np.array(points), offsets, first - stamp, (len(knots) - 1) / max(last - first, 1), T_stamp_knot)


@kernel
def _move(points: np.ndarray, offsets: Stamps, first: int, per_ns: float, T: F64) -> np.ndarray:
    """Move each point, in place, by the linearly interpolated matrices of the knots on both sides of its time."""
    last = len(T) - 2
    for k in range(len(points)):
        at = (offsets[k] - first) * per_ns
        before = min(int(at), last)
        b = at - before
        a = 1.0 - b
        left, right = T[before], T[before + 1]
        x, y, z = points[k, 0], points[k, 1], points[k, 2]
        for row in range(3):
            points[k, row] = (
                (a * left[row, 0] + b * right[row, 0]) * x
                + (a * left[row, 1] + b * right[row, 1]) * y
                + (a * left[row, 2] + b * right[row, 2]) * z
                + (a * left[row, 3] + b * right[row, 3])
            )
    return points
