# SPDX-License-Identifier: Apache-2.0
"""A back-end's path: poses by stamp, interpolated, never extrapolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation, Slerp

from vlad_ros.poses import check_rigid
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64


class Trajectory:
    """Poses `T` (N, 4, 4) at `stamps` (N,) integer nanoseconds, in any order; of equal stamps the last one counts.

    ValueError for no poses, numbers of stamps and poses that differ, or a pose that is not rigid.
    """

    def __init__(self, stamps: Sequence[int] | npt.NDArray[np.int64], T: Sequence[F64] | F64) -> None:
        if len(stamps) != len(T) or not len(stamps):
            raise ValueError(
                f"a path needs as many poses as stamps, at least one: {len(T)} poses, {len(stamps)} stamps"
            )
        poses = np.stack([check_rigid(pose, "a pose of the path") for pose in T])
        latest_first = np.asarray(stamps, np.int64)[::-1]
        self.stamps, index = np.unique(latest_first, return_index=True)
        self._poses = poses[::-1][index]

    def covers(self, stamp: int) -> bool:
        """Whether `stamp` lies between the first and the last pose, both included."""
        return bool(self.stamps[0] <= stamp <= self.stamps[-1])

    def at(self, stamps: npt.NDArray[np.int64]) -> F64:
        """(M, 4, 4) at stamps that the path covers: slerp and linear interpolation. ValueError for any other stamp."""
        if len(stamps) and not (self.covers(stamps.min()) and self.covers(stamps.max())):
            raise ValueError("the path does not cover every stamp asked for, and nothing is extrapolated")
        T = np.tile(np.eye(4), (len(stamps), 1, 1))
        if len(self.stamps) == 1:
            T[:] = self._poses[0]
            return T
        known, wanted = ((s - self.stamps[0]) / SECOND for s in (self.stamps, stamps))  # s; near 0, so nothing is lost
        T[:, :3, :3] = Slerp(known, Rotation.from_matrix(self._poses[:, :3, :3]))(wanted).as_matrix()
        for axis in range(3):
            T[:, axis, 3] = np.interp(wanted, known, self._poses[:, axis, 3])
        return T
