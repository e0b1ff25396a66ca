# SPDX-License-Identifier: Apache-2.0
"""Pair scans with odometry, BEVs and keyframe announcements by stamp; no ROS, no clock, no own thread.

A scan waits until its data has arrived or can no longer arrive, and is then released, in order of arrival. Timeouts are
in stamp time: one expires when a cloud arrives that is newer by that much; for a scan whose stamp was held
(`StampGate`) not with the cloud that confirms it, before which it could not meet any data.
"""

from __future__ import annotations

import bisect
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from vlad_ros.cloud.decode import point_times
from vlad_ros.cloud.deskew import read_sweep
from vlad_ros.config import NodeConfig
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.drive.pose_source import NoOdometry, PoseSource, TopicOdometry
from vlad_ros.drive.stamp_gate import AHEAD, Judged, StampGate
from vlad_ros.stamps import nanoseconds
from vlad_ros.types import F64

SCANS_A_SECOND = 100  # upper limit for a LiDAR; bounds the queue even if stamps do not advance


class Inputs:
    """`release` gets each scan once, in order; `count` gets the reason (see `ros.reasons.REASONS`) of each failure.

    Thread-safe; `release` is called with the lock held and must not block.
    """

    def __init__(
        self,
        config: NodeConfig,
        poses: PoseSource,
        release: Callable[[PendingScan], None],
        count: Callable[[str], None],
    ) -> None:
        self._config = config
        self._poses = poses
        self._release = release
        self._count = count
        self._lock = threading.RLock()
        self._waiting: deque[PendingScan] = deque()
        self._bevs: list[tuple[int, Any]] = []  # in order of arrival
        self._gate: StampGate[PendingScan] = StampGate()
        self._announced: list[int] = []  # stamps not yet passed by a released scan
        self._known: set[int] = set()  # all announced stamps: every Path repeats its nodes
        self._newest: int | None = None
        self._confirmed: int | None = None  # stamp that the newest cloud has confirmed
        self._released: int | None = None
        self._most_waiting = config.queue_size
        if config.keyframe_source == "topic":  # an announcement may come as late as keyframe_timeout
            self._most_waiting = max(config.queue_size, round(SCANS_A_SECOND * config.keyframe_timeout))

    @property
    def odometry(self) -> TopicOdometry | None:
        """The odometry messages, None if they do not come from a topic."""
        return self._poses if isinstance(self._poses, TopicOdometry) else None

    @property
    def newest(self) -> int:
        """Stamp of the newest cloud [ns], 0 before the first."""
        return self._newest or 0

    def add_scan(self, scan: PendingScan) -> None:
        """Queue a scan until its data has arrived, unless its stamp is implausible (`StampGate`)."""
        with self._lock:
            self._take(self._gate.judge(scan.stamp, scan))

    def _take(self, judged: list[Judged[PendingScan]]) -> None:
        self._confirmed = None
        for scan, verdict, _ in judged:
            if verdict == "session_opened":
                self._begin_anew()
            if verdict in ("pause", "session_opened"):
                self._confirmed = scan.stamp
            if verdict in ("ok", "pause", "session_opened"):
                self._admit(scan)
            else:
                self._count(verdict)

    def _admit(self, scan: PendingScan) -> None:
        self._newest = scan.stamp
        if self._config.deskew and not isinstance(self._poses, NoOdometry):
            scan.offsets, scan.times_fault = read_sweep(point_times(scan.message), scan.stamp)
        if self._config.keyframe_source == "all":
            scan.is_keyframe = True
        self._waiting.append(scan)
        self.pump()
        while len(self._waiting) > self._most_waiting:
            self._let_go(self._waiting.popleft())

    def add_odometry(self, stamp: int, T_odom_child: F64, child: str, twist: F64 | None = None) -> None:
        """Add a message of odom_source topic, as in `OdometryBuffer.add`. ValueError unless the transform is rigid."""
        with self._lock:
            if isinstance(self._poses, TopicOdometry):
                for _ in range(self._poses.add(stamp, T_odom_child, child, twist)):
                    self._count("wrong_odometry_stamp")
            self.pump()

    def add_bev(self, stamp: int, image: Any) -> None:
        """Add a BEV message; the queue has the same limit as that of the clouds."""
        with self._lock:
            self._bevs.append((stamp, image))
            self.pump()
            while len(self._bevs) > self._most_waiting:
                self._bevs.pop(0)
                self._count("bev_unpaired")

    def announce(self, stamp: int) -> None:
        """The back-end announces this stamp as a keyframe; counted as late if its scan was already released."""
        with self._lock:
            if stamp in self._known:
                return
            self._known.add(stamp)
            if self._released is not None and stamp + nanoseconds(self._config.keyframe_tolerance) < self._released:
                self._count("keyframe_late")
                return
            bisect.insort(self._announced, stamp)
            self.pump()

    def may_wait(self, scan: PendingScan) -> bool:
        """Whether a scan that was released with many others, because their announcement was late, is recent enough to
        wait for the worker as well."""
        return self._config.keyframe_source == "topic" and not self._late(scan, self._config.keyframe_timeout)

    def pump(self) -> None:
        """Release the scans that no longer need to wait."""
        with self._lock:
            while self._waiting and self._ready(self._waiting[0]):
                self._let_go(self._waiting.popleft())
            self._drop_unpaired()

    def release_all(self, believe: bool = False) -> None:
        """Release all waiting scans when the input has stopped; `believe`: also accept a held stamp."""
        with self._lock:
            if believe:
                self._take(self._gate.believe())
            while self._waiting:
                self._ready(self._waiting[0])
                self._let_go(self._waiting.popleft())

    @property
    def waiting(self) -> int:
        """Number of scans that wait for their data, or for the next scan to confirm their stamp."""
        with self._lock:
            return len(self._waiting) + self._gate.holds

    def clear(self) -> int:
        """Drop everything; returns the number of scans that were waiting."""
        with self._lock:
            dropped = self.waiting
            self._gate = StampGate()
            self._waiting.clear()
            self._bevs.clear()
            self._poses.clear()
            self._forget()
            return dropped

    def _begin_anew(self) -> None:
        self.release_all()
        self._bevs.clear()
        self._forget()

    def _forget(self) -> None:
        self._announced.clear()
        self._known.clear()
        self._newest = self._released = None

    def _let_go(self, scan: PendingScan) -> None:
        if self._config.keyframe_source == "topic":
            scan.is_keyframe = bool(scan.is_keyframe)
        if scan.offsets is not None:
            self._poses.follow(scan)
        self._bevs = [entry for entry in self._bevs if entry[1] is not scan.bev]
        self._released = scan.stamp if self._released is None else max(self._released, scan.stamp)
        tolerance = nanoseconds(self._config.keyframe_tolerance)
        del self._announced[: bisect.bisect_left(self._announced, self._released - tolerance)]
        self._release(scan)

    def _ready(self, scan: PendingScan) -> bool:
        """Fill in the data that has arrived; returns whether the scan can be released."""
        config = self._config
        ready = self._poses.find(scan) or self._late(scan, config.odom_timeout)
        if config.use_bev:
            ready = (self._find_bev(scan) or self._late(scan, config.bev_timeout)) and ready
        if config.keyframe_source == "topic":
            ready = (self._find_announcement(scan) or self._late(scan, config.keyframe_timeout)) and ready
        return ready

    def _late(self, scan: PendingScan, timeout: float) -> bool:
        if self._newest is None or scan.stamp == self._confirmed:
            return False
        return self._newest >= scan.stamp + nanoseconds(timeout)

    def _find_bev(self, scan: PendingScan) -> bool:
        """The BEV nearest in stamp, within the tolerance, of equal ones the last that came; final if its stamp is equal
        or a later one has arrived, though not one from the future: a wrong stamp is no evidence for this scan."""
        tolerance = nanoseconds(self._config.bev_tolerance)
        near = [(abs(stamp - scan.stamp), stamp, image) for stamp, image in reversed(self._bevs)]
        near = [entry for entry in near if entry[0] <= tolerance]
        scan.bev = None
        if near:
            distance, _, scan.bev = min(near, key=lambda entry: entry[:2])
            if distance == 0:
                return True
        ahead = (self._newest or scan.stamp) + AHEAD
        return any(scan.stamp < stamp <= ahead for stamp, _ in self._bevs)

    def _find_announcement(self, scan: PendingScan) -> bool:
        tolerance = nanoseconds(self._config.keyframe_tolerance)
        at = bisect.bisect_left(self._announced, scan.stamp - tolerance)
        scan.is_keyframe = at < len(self._announced) and self._announced[at] <= scan.stamp + tolerance
        if scan.is_keyframe or at == len(self._announced) or self._newest is None:
            return bool(scan.is_keyframe)
        return self._announced[at] <= self._newest + AHEAD  # a stamp in the future is no evidence for this scan

    def _drop_unpaired(self) -> None:
        """Drop BEVs that are too old for any waiting or future scan."""
        if self._newest is None or self._released is None:
            return
        oldest = min((scan.stamp for scan in self._waiting), default=self._newest + 1)
        tolerance = nanoseconds(self._config.bev_tolerance)
        useful = [entry for entry in self._bevs if entry[0] + tolerance >= oldest]
        for _ in range(len(self._bevs) - len(useful)):
            self._count("bev_unpaired")
        self._bevs = useful
