# SPDX-License-Identifier: Apache-2.0
"""Incremental least squares over poses: GTSAM's iSAM2 behind numpy (Kaess et al., "iSAM2: Incremental smoothing and
mapping using the Bayes tree", IJRR 2012)."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlad_ros.covariance_conventions import ROTATION_FIRST, gtsam_covariance
from vlad_ros.types import F64

RELINEARIZE = 0.05  # m or rad that an estimate moves before its factors are linearised again
MOST_STEPS = 10  # Gauss-Newton steps until a new loop has settled


def find_gtsam() -> Any:
    """The module; ValueError with a remedy where it is not installed."""
    try:
        import gtsam
    except ImportError as error:
        raise ValueError(
            "the pose graph needs gtsam, which is not installed: pip install gtsam (CPython 3.11 or newer)"
        ) from error
    return gtsam


class Smoother:
    """Poses T_graph_base by integer key. Whatever is added or removed takes effect with `settle`."""

    def __init__(self) -> None:
        self._gtsam = gtsam = find_gtsam()
        parameters = gtsam.ISAM2Params()
        parameters.setRelinearizeThreshold(RELINEARIZE)
        parameters.relinearizeSkip = 1
        parameters.findUnusedFactorSlots = True
        self._isam = gtsam.ISAM2(parameters)
        self._slots: dict[int, int] = {}  # ticket -> index of iSAM2's factor
        self._tickets = 0
        self._keys: list[int] = []
        self.is_settled = True  # whether another step would change nothing
        self._begin()

    def _begin(self) -> None:
        self._factors, self._values = self._gtsam.NonlinearFactorGraph(), self._gtsam.Values()
        self._new: list[int] = []
        self._old: list[int] = []

    def add_node(self, key: int, T: F64) -> None:
        """A pose with its initial value (4, 4)."""
        self._values.insert(key, self._gtsam.Pose3(T))
        self._keys.append(key)

    def add_prior(self, key: int, T: F64, covariance: F64) -> int:
        """Hold a pose at T (4, 4); `covariance` (6, 6) x y z, roll pitch yaw of a perturbation in the body's own axes.
        Returns a ticket for `remove`."""
        noise = self._gtsam.noiseModel.Gaussian.Covariance(covariance[np.ix_(ROTATION_FIRST, ROTATION_FIRST)])
        return self._add(self._gtsam.PriorFactorPose3(key, self._gtsam.Pose3(T), noise))

    def add_between(self, i: int, j: int, T: F64, covariance: F64) -> int:
        """T_i_j (4, 4) and its covariance (6, 6) as of a LoopClosure, on the side of i. Returns a ticket."""
        noise = self._gtsam.noiseModel.Gaussian.Covariance(gtsam_covariance(covariance, T))
        return self._add(self._gtsam.BetweenFactorPose3(i, j, self._gtsam.Pose3(T), noise))

    def _add(self, factor: Any) -> int:
        self._factors.push_back(factor)
        self._tickets += 1
        self._new.append(self._tickets)
        return self._tickets

    def remove(self, ticket: int) -> None:
        """Take a factor out again."""
        if ticket in self._new:
            self.settle(steps=1)
        self._old.append(self._slots.pop(ticket))

    def settle(self, steps: int = MOST_STEPS) -> None:
        """Take over what was added and removed, in at most so many steps of Gauss-Newton."""
        result = self._isam.update(self._factors, self._values, self._old)
        self._slots.update(zip(self._new, result.getNewFactorsIndices(), strict=True))
        self._begin()
        for _ in range(steps - 1):
            if not result.getVariablesRelinearized():
                break
            result = self._isam.update()
        self.is_settled = not result.getVariablesRelinearized()

    def cost(self) -> float:
        """Chi square of all factors at the estimate."""
        return 2.0 * float(self._isam.getFactorsUnsafe().error(self._isam.calculateEstimate()))

    def pose(self, key: int) -> F64:
        """The estimate (4, 4) of one pose."""
        return np.asarray(self._isam.calculateEstimatePose3(key).matrix(), np.float64)

    def poses(self, number: int) -> F64:
        """The estimates (number, 4, 4) of the keys 0 .. number - 1, NaN where there is none."""
        rows = self._gtsam.utilities.extractPose3(self._isam.calculateEstimate())  # by increasing key
        out = np.full((number, 4, 4), np.nan)
        T = np.zeros((len(rows), 4, 4))
        T[:, :3, :3] = rows[:, :9].reshape(-1, 3, 3)
        T[:, :3, 3] = rows[:, 9:]
        T[:, 3, 3] = 1.0
        out[np.sort(np.array(self._keys, np.int64))] = T
        return out
