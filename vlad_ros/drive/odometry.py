# SPDX-License-Identifier: Apache-2.0
"""The body's pose at a scan's stamp: odometry messages, interpolated, never extrapolated."""

from __future__ import annotations

import bisect

import numpy as np

from vlad_ros.cloud.deskew import LONGEST_SWEEP, Motion
from vlad_ros.drive.jumps import FASTEST, FASTEST_TURN, breaks
from vlad_ros.drive.stamp_gate import StampGate
from vlad_ros.poses import check_rigid, exp, interpolate
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64

HISTORY = 30_000_000_000  # ns; far longer than any scan waits for its pose
GAP = SECOND  # ns without a message; not interpolated across
BEFORE = 8  # messages used to check whether the next one jumps


class OdometryBuffer:
    """The last 30 s of `T_odom_base`, in order of their stamps [ns], with their twists where given."""

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._poses: list[F64] = []
        self._twists: list[F64 | None] = []
        self._gate: StampGate[tuple[int, F64, F64 | None]] = StampGate()

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest(self) -> int | None:
        """Stamp of the newest message [ns], None before the first."""
        return self._stamps[-1] if self._stamps else None

    def add(self, stamp: int, T_odom_base: F64, twist: F64 | None = None) -> int:
        """Add a message; returns how many had a wrong stamp. A message with a known stamp replaces the old one;
        ValueError unless `T_odom_base` is rigid.

        A clock set back (a bag played again) starts a new history; a single message with a wrong stamp is dropped:
        `StampGate` distinguishes them by the next message. `twist` (6,): x y z [m/s] and rotation [rad/s] in the base
        frame; treated as unknown if all zero (as often published), not finite, or faster than any vehicle.
        """
        wrong, message = 0, (stamp, check_rigid(T_odom_base), _known(twist))
        for (known, T, turning), verdict, _ in self._gate.judge(stamp, message):
            if verdict == "session_opened":
                self._forget()
            if verdict == "wrong_stamp":
                wrong += 1
            else:
                self._insert(known, T, turning)
        return wrong

    def _insert(self, stamp: int, T: F64, twist: F64 | None) -> None:
        at = bisect.bisect_left(self._stamps, stamp)
        if at < len(self._stamps) and self._stamps[at] == stamp:
            self._poses[at], self._twists[at] = T, twist
            return
        self._stamps.insert(at, stamp)
        self._poses.insert(at, T)
        self._twists.insert(at, twist)
        old = bisect.bisect_left(self._stamps, self._stamps[-1] - HISTORY)
        del self._stamps[:old], self._poses[:old], self._twists[:old]

    def clear(self) -> None:
        """Discard all messages."""
        self._forget()
        self._gate = StampGate()

    def _forget(self) -> None:
        self._stamps.clear()
        self._poses.clear()
        self._twists.clear()

    def covers(self, stamp: int) -> bool:
        """Whether `at` returns a pose for `stamp`."""
        return bool(self._stamps) and self._stamps[0] <= stamp <= self._stamps[-1]

    def at(self, stamp: int) -> F64 | None:
        """T_odom_base at `stamp` [ns]: the message with exactly that stamp, or slerp and linear interpolation between
        its neighbours; None outside of the messages, or if a gap of more than 1 s or a jump is between them."""
        if not self.covers(stamp):
            return None
        after = bisect.bisect_left(self._stamps, stamp)
        if self._stamps[after] == stamp:
            return self._poses[after]
        before = after - 1
        if not self._leads(before, after):
            return None
        fraction = (stamp - self._stamps[before]) / (self._stamps[after] - self._stamps[before])
        return interpolate(self._poses[before], self._poses[after], fraction)

    def across(self, first: int, last: int) -> Motion | None:
        """The motion from `first` to `last` [ns]; None if the messages do not cover it, jump, or have a gap of more
        than 1 s in it.

        Only beyond the first or last message, the motion is continued with the twist of the nearest message, if it is
        known and the gap is shorter than a sweep.
        """
        if not self._stamps:
            return None
        begin = max(bisect.bisect_right(self._stamps, first) - 1, 0)
        end = bisect.bisect_left(self._stamps, last) + 1
        stamps = self._stamps[begin:end]
        poses: list[F64 | None] = list(self._poses[begin:end])
        if not self._leads(begin, begin + len(stamps) - 1):
            return None
        if first < stamps[0]:
            stamps, poses = [first, *stamps], [self._carry_on(0, first), *poses]
        if last > stamps[-1]:
            stamps, poses = [*stamps, last], [*poses, self._carry_on(-1, last)]
        known = [pose for pose in poses if pose is not None]
        return Motion(np.array(stamps, np.int64), np.stack(known)) if len(known) == len(poses) else None

    def _leads(self, first: int, last: int) -> bool:
        """Whether odometry has no jump or gap from the message `first` to the message `last`."""
        begin = max(first - BEFORE, 0)
        stamps = np.array(self._stamps[begin : last + 1], np.int64)
        parted = breaks(stamps, np.stack(self._poses[begin : last + 1]))
        parted[1:] |= np.diff(stamps) > GAP
        return not parted[first - begin + 1 :].any()

    def _carry_on(self, index: int, stamp: int) -> F64 | None:
        """The pose at `stamp`, extrapolated with the twist of the oldest (0) or newest (-1) message."""
        gap, twist = stamp - self._stamps[index], self._twists[index]
        if twist is None or abs(gap) > LONGEST_SWEEP:
            return None
        return self._poses[index] @ exp(gap / SECOND * twist)


def _known(twist: F64 | None) -> F64 | None:
    """`twist`, or None if it is unusable."""
    if twist is None or not np.isfinite(twist).all() or not np.any(twist):
        return None
    if np.linalg.norm(twist[:3]) > FASTEST or np.linalg.norm(twist[3:]) > FASTEST_TURN:
        return None
    return np.asarray(twist, np.float64)
