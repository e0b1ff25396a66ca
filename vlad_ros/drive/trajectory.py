# SPDX-License-Identifier: Apache-2.0
"""A back-end's path: poses by stamp, interpolated, never extrapolated and never across a gap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlad_ros.poses import check_all_rigid, interpolate
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Bools, Ints

FEW = 5  # up to this many times the usual spacing neighbours are connected; more is a gap


class Trajectory:
    """Poses `T` (N, 4, 4) at `stamps` (N,) integer nanoseconds, in any order; for equal stamps the last one is used.

    A path may cover a part of the drive, and may have gaps. It gives poses at its own stamps, and between neighbouring
    poses that are connected: at most max(1 s, 5 times the median spacing) apart in time. Between neighbours farther
    apart it gives none, with one exception: nodes created by distance are far apart in time where the vehicle stood or
    crawled. So neighbours are also connected if, by `travel` (stamps (M,) in order, and metres along the drive (M,),
    NaN where unknown), the vehicle moved between them at most 5 times the median distance of neighbours.

    `last` is the previous path; `news` omits what has not changed since. ValueError for no poses, different numbers of
    stamps and poses, or a pose that is not rigid.
    """

    def __init__(
        self,
        stamps: Sequence[int] | npt.NDArray[np.int64],
        T: Sequence[F64] | F64,
        travel: tuple[Ints, F64] | None = None,
        last: Trajectory | None = None,
    ) -> None:
        if len(stamps) != len(T) or not len(stamps):
            raise ValueError(
                f"a path needs as many poses as stamps, at least one: {len(T)} poses, {len(stamps)} stamps"
            )
        latest_first = np.asarray(stamps, np.int64)[::-1]
        self._stamps, index = np.unique(latest_first, return_index=True)
        self._poses = np.asarray(T, np.float64)[::-1][index]
        same, self._news_after = self._compare(last)
        self._news_at = ~same
        check_all_rigid(self._poses[self._news_at], "a pose of the path")
        self._joined = self._neighbours(travel)

    def _neighbours(self, travel: tuple[Ints, F64] | None) -> Bools:
        """Whether each pose (N,) and the next one are connected."""
        joined, steps = np.zeros(len(self._stamps), np.bool_), np.diff(self._stamps)
        if len(steps):
            joined[:-1] = steps <= max(SECOND, FEW * _median(steps))
        if len(steps) and travel is not None and len(travel[0]):
            begin, (at, metres) = self._stamps[0], travel  # relative to it, float64 is exact
            ways = np.diff(np.interp(self._stamps - begin, at - begin, metres, left=np.nan, right=np.nan))
            lost = np.searchsorted(self._stamps, at[np.isnan(metres)])  # without odometry in between
            ways[np.clip(lost - 1, 0, len(ways) - 1)] = np.nan
            joined[:-1] |= ways <= FEW * _median(np.linalg.norm(np.diff(self._poses[:, :3, 3], axis=0), axis=1))
        return joined

    def _compare(self, last: Trajectory | None) -> tuple[Bools, Bools]:
        """Which poses (N,) equal those in `last`, and after which (N,) the interval to the next one has changed."""
        if last is None:
            return np.zeros(len(self._stamps), np.bool_), np.ones(len(self._stamps), np.bool_)
        was = np.minimum(np.searchsorted(last._stamps, self._stamps), len(last._stamps) - 1)
        same = last._stamps[was] == self._stamps
        same &= (last._poses[was] == self._poses).all(axis=(1, 2))
        news_after = np.ones(len(self._stamps), np.bool_)
        news_after[:-1] = ~(same[:-1] & same[1:] & (np.diff(was) == 1) & last._joined[was[:-1]])
        return same, news_after

    def _around(self, stamps: Ints) -> tuple[Ints, Ints]:
        """The poses (M,) before and after `stamps`: the same one twice if a pose has exactly that stamp, or if it is
        the first or the last."""
        after = np.searchsorted(self._stamps, stamps)
        before = np.maximum(after - 1, 0)
        after = np.minimum(after, len(self._stamps) - 1)
        return np.where(self._stamps[after] == stamps, after, before), after

    def tells(self, stamps: Ints) -> Bools:
        """At which of `stamps` (M,) the path gives a pose."""
        before, after = self._around(stamps)
        return (self._stamps[after] == stamps) | ((before < after) & self._joined[before])

    def news(self, stamps: Ints) -> Bools:
        """At which of `stamps` (M,) it gives a pose that the last path did not give, or gave differently."""
        before, after = self._around(stamps)
        return self.tells(stamps) & np.where(before < after, self._news_after[before], self._news_at[before])

    def at(self, stamps: Ints) -> F64:
        """(M, 4, 4) at stamps where `tells` is True: slerp and linear interpolation. ValueError for any other stamp."""
        if not self.tells(stamps).all():
            raise ValueError("the path does not tell every pose asked for, and nothing is extrapolated")
        before, after = self._around(stamps)
        T = self._poses[before]
        (between,) = np.nonzero(before < after)
        if len(between):
            before, after = before[between], after[between]
            begin, end = self._stamps[before], self._stamps[after]
            T[between] = interpolate(self._poses[before], self._poses[after], (stamps[between] - begin) / (end - begin))
        return T


def _median(numbers: npt.NDArray) -> float:
    """The lower median: with a single regular step and one gap, the gap does not count as usual."""
    middle = (len(numbers) - 1) // 2
    return float(np.partition(numbers, middle)[middle])
