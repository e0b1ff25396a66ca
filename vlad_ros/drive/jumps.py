# SPDX-License-Identifier: Apache-2.0
"""Detect odometry jumps: motions that no vehicle can make in the time between two poses.

If earlier poses give the velocity (and, with one more, the acceleration), the next pose is predicted from them and the
distance to the prediction is tested: high speed alone is no jump, and lost scans only widen the tolerance. So from 0 to
60 m/s a displacement of 3 m is found between poses at most 0.4 s apart; for a standing vehicle, as long as no ordinary
start explains it. Up to 2.1 m from a steady motion nothing is a jump: simulators and sparse recordings stop and start
within one step. Before the velocity is known, only the speed limit is tested.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from vlad_ros.jit import kernel
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Bools

FASTEST, FASTEST_TURN = 70.0, 4 * math.pi  # m/s, rad/s; anything faster is always a jump
SLACK, SLACK_TURN = 0.5, math.radians(30.0)  # m, rad; shocks, hand-held sensors
TIMING = 0.005  # s; tolerated error of a pose's stamp
ACCELERATION, SPEED_UP = 10.0, 5.0  # m/s^2; full braking and hard turns together; a hard start
TURN_ACCELERATION = 8.0  # rad/s^2
SOON, TELEPORT = 0.42, 2.9  # s, m; within SOON, a deviation of TELEPORT is always a jump
LEAST = 2.1  # m; less than this from a steady motion is no jump: a correction of odometry, a stop within one step
STANDING, START = 0.3, 3.0  # m/s, m/s^2; a standing vehicle may have started since
HISTORY = 50  # maximum number of poses used for a prediction
STALE = 2.0  # s; a velocity over this long is not used for prediction


@kernel
def _turn(A: F64, B: F64) -> F64:
    """Rotation vector (3,) of A^T B, for (3, 3) rotations; its direction is unreliable near half a turn."""
    R = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for k in range(3):
                R[i, j] += A[k, i] * B[k, j]
    v = np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    sine = 0.5 * math.sqrt((v * v).sum())
    angle = math.atan2(sine, 0.5 * (R[0, 0] + R[1, 1] + R[2, 2] - 1.0))
    return 0.5 * v if sine < 1e-9 else v * (0.5 * angle / sine)


@kernel
def _allowed(before: float, dt: float, speed: float) -> float:
    """Allowed distance [m] from the prediction: `dt` [s] after the last pose, whose velocity spans `before` [s]."""
    slack, reach = SLACK + TIMING * speed * (1.0 + dt / before), 0.5 * dt * (before + dt)
    if dt <= SOON:
        return min(slack + ACCELERATION * reach, TELEPORT)
    if speed < STANDING:
        return min(slack + START * reach, max(TELEPORT, 0.5 * START * dt * dt))
    # A slow vehicle cannot brake for long, and no vehicle starts as hard as it brakes.
    return slack + max(SPEED_UP * reach, min(ACCELERATION * reach, 1.5 * speed * dt))


@kernel
def _earlier(seconds: F64, at: int, first: int, dt: float) -> int:
    """Index of the pose, not before `first`, from which the velocity at `at` is measured: at least `dt` [s] earlier, so
    that noise is not extrapolated."""
    j = at
    while j > first and seconds[at] - seconds[j] < dt:
        j -= 1
    return j


@kernel
def _breaks(seconds: F64, poses: F64, begin: int) -> Bools:
    """Like `breaks`, for times (N,) [s]; checks only from pose `begin` on, before which there is no break."""
    out = np.zeros(len(seconds), np.bool_)
    first = 0  # first pose since the last break
    for i in range(max(begin, 1), len(seconds)):
        dt = seconds[i] - seconds[i - 1]
        step = poses[i, :3, 3] - poses[i - 1, :3, 3]
        turn = _turn(poses[i - 1, :3, :3], poses[i, :3, :3])
        far = math.sqrt((step * step).sum()) > SLACK + FASTEST * dt
        far = far or math.sqrt((turn * turn).sum()) > SLACK_TURN + FASTEST_TURN * dt
        j = _earlier(seconds, i - 1, first, dt)
        before = seconds[i - 1] - seconds[j]
        if not far and 0.0 < before < STALE:
            velocity = (poses[i - 1, :3, 3] - poses[j, :3, 3]) / before
            speed = math.sqrt((velocity * velocity).sum())
            unsteady = step - velocity * dt
            k = _earlier(seconds, j, first, dt)
            earlier = seconds[j] - seconds[k]
            if 0.0 < earlier < STALE and dt <= SOON:
                change = velocity - (poses[j, :3, 3] - poses[k, :3, 3]) / earlier
                velocity = velocity + change * ((before + dt) / (earlier + before))
            off = step - velocity * dt
            spin = _turn(poses[i - 2, :3, :3], poses[i - 1, :3, :3]) / (seconds[i - 1] - seconds[i - 2])
            spun = turn - spin * dt
            swing = SLACK_TURN + 0.5 * TURN_ACCELERATION * dt * (before + dt)
            far = math.sqrt((unsteady * unsteady).sum()) > LEAST
            far = far and math.sqrt((off * off).sum()) > _allowed(before, dt, speed)
            far = far or math.sqrt((spun * spun).sum()) > swing
        if far:
            out[i] = True
            first = i
    return out


def breaks(stamps: np.ndarray, poses: F64) -> Bools:
    """(N,) whether odometry jumps between each of `poses` (N, 4, 4) and the one before it, at increasing `stamps` (N,)
    [ns]; False for the first. After a break the motion is estimated from the following poses only."""
    return _breaks((stamps - stamps[0]) / SECOND, np.ascontiguousarray(poses), 1)


class Continuity:
    """The same check for poses that arrive one by one."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, F64]] = deque(maxlen=HISTORY)

    def clear(self) -> None:
        """Discard the motion history."""
        self._recent.clear()

    def breaks_at(self, stamp: int, T_odom_base: F64) -> bool:
        """Whether odometry jumps between the poses since the last break and this one at `stamp` [ns]. The pose is added
        to the history; after a break the history starts with it."""
        self._recent.append((stamp, T_odom_base))
        stamps, poses = zip(*self._recent, strict=True)
        seconds = (np.array(stamps) - stamps[0]) / SECOND
        broken = bool(_breaks(seconds, np.stack(poses), len(seconds) - 1)[-1])
        if broken:
            self.clear()
            self._recent.append((stamp, T_odom_base))
        return broken
