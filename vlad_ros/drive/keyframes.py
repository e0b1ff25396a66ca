# SPDX-License-Identifier: Apache-2.0
"""Which scans become keyframes, and when the local map around each is complete.

All of it runs on the scans' stamps (integer nanoseconds) and on `T_odom_base`, never on the wall clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vlad_ros.cloud.raster import Bev
from vlad_ros.config import BevConfig, RecognizerConfig
from vlad_ros.drive.local_map import JoinedMap, LocalMap
from vlad_ros.drive.odometry import check_rigid
from vlad_ros.poses import inverse, rotation_angle, yaw
from vlad_ros.types import F32, F64, Geometry

SECOND = 1e9  # ns
LATE = 1_000_000_000  # ns; a stamp older than the newest by more is a clock or bag begun anew
ANCHOR = 0.1  # m; the noise of a standing vehicle's odometry is no travel
JUMP_DISTANCE = 2.0  # m between neighbouring scans
JUMP_ANGLE = math.radians(30.0)


class Seen(NamedTuple):
    """A cloud as the network sees it: its raster and descriptor (D,), and how to make what is kept to verify its loops:
    a keyframe that waits for its local map needs that of the map alone."""

    bev: Bev
    descriptor: F32
    geometry: Callable[[], Geometry]


@dataclass(eq=False)
class Scan:
    """A cleaned scan: `points` (N, 4) in the body frame, its stamp [ns], the raster given with it and its pose, each
    None without. `travel` [m] along the session is known once the scan has entered a `Drive` with its pose; `look`
    once somebody has looked at it. ValueError names a stamp that is no integer of 63 bits
    or a transform that is not rigid."""

    points: F32
    stamp: int
    raster: F32 | None = None
    T_odom_base: F64 | None = None
    travel: float | None = None
    look: Seen | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.stamp, (int, np.integer)) or not 0 <= self.stamp < 2**63:
            raise ValueError(f"stamp must be an integer number of nanoseconds, not {self.stamp!r}")
        self.stamp = int(self.stamp)
        if self.T_odom_base is not None:
            self.T_odom_base = check_rigid(self.T_odom_base)


class View(NamedTuple):
    """A keyframe that waits no longer. `scan_descriptor` (D,) is the single scan's; `seen` is what the keyframe is to
    be described by, the local map around it, or what was seen in the single scan."""

    stamp: int
    T_odom_base: F64 | None
    travel: float | None
    scan_descriptor: F32
    seen: JoinedMap | Seen


class _Waiting(NamedTuple):
    """The single scan has been described already: 2048 numbers wait, not its points."""

    stamp: int
    T_odom_base: F64
    travel: float
    scan_descriptor: F32


Look = Callable[[Scan], Seen]


class StampGate:
    """Lets stamps pass that grow, and tells what the others are."""

    def __init__(self) -> None:
        self._newest: int | None = None

    def judge(self, stamp: int) -> str:
        """ "ok", "repeated_stamp" (as the newest), "late_stamp" (up to 1 s older) or "session_opened" (older yet)."""
        newest = self._newest
        if newest is not None and newest - LATE <= stamp <= newest:
            return "repeated_stamp" if stamp == newest else "late_stamp"
        self._newest = stamp
        return "ok" if newest is None or stamp > newest else "session_opened"


class Track:
    """The travel [m] along a session, from the poses of its scans."""

    def __init__(self) -> None:
        self.travel = 0.0
        self._previous: F64 | None = None  # of the scan before, None where that had no pose
        self._anchor: F64 | None = None

    def interruption(self, T_odom_base: F64 | None) -> str | None:
        """What parts the next scan from the last ones: "no_odometry" once there was some, "odometry_jump" (more than
        2 m or 30 degrees from the neighbour before it), or nothing."""
        if T_odom_base is None:
            return None if self._anchor is None else "no_odometry"
        if self._previous is None:
            return None
        step = inverse(self._previous) @ T_odom_base
        jumped = np.linalg.norm(step[:3, 3]) > JUMP_DISTANCE or rotation_angle(step) > JUMP_ANGLE
        return "odometry_jump" if jumped else None

    def move(self, T_odom_base: F64 | None) -> float | None:
        """Travel at the next scan, None without a pose. Counted from anchor to anchor, each more than 0.1 m from the
        last, so that jitter does not add up. Across missing poses and jumps it counts the straight line."""
        self._previous = T_odom_base
        if T_odom_base is None:
            return None
        if self._anchor is None:
            self._anchor = T_odom_base
        moved = float(np.linalg.norm(T_odom_base[:3, 3] - self._anchor[:3, 3]))
        if moved > ANCHOR:
            self.travel += moved
            self._anchor = T_odom_base
        return self.travel


class KeyframeSelector:
    """Keyframes spread evenly: over the travel with odometry, over the time without.

    `look` describes a scan; it is asked at most once in `keyframe_period`, and only without odometry.
    """

    def __init__(self, config: RecognizerConfig, look: Look) -> None:
        self._config, self._look = config, look
        self._last: Scan | None = None
        self._looked = 0

    def wants(self, scan: Scan) -> bool:
        """Whether `scan` should be a keyframe. The first one is, and the first with a pose after one without."""
        config, last = self._config, self._last
        if last is None:
            return True
        age = (scan.stamp - last.stamp) / SECOND
        if age < 1.0 / config.keyframe_rate:
            return False
        if scan.T_odom_base is None or scan.travel is None:
            return age >= config.keyframe_period and self._looks_new(scan, last)
        if last.T_odom_base is None or last.travel is None:
            return True
        turned = abs(yaw(inverse(last.T_odom_base) @ scan.T_odom_base))
        moved = scan.travel - last.travel
        return moved >= config.keyframe_distance or turned >= math.radians(config.keyframe_yaw)

    def take(self, scan: Scan) -> None:
        """`scan` is a keyframe, whoever decided it."""
        self._last = scan
        self._looked = scan.stamp

    def _looks_new(self, scan: Scan, last: Scan) -> bool:
        if (scan.stamp - self._looked) / SECOND < self._config.keyframe_period:
            return False
        self._looked = scan.stamp
        return float(self._look(scan).descriptor @ self._look(last).descriptor) < self._config.keyframe_similarity


class Drive:
    """One session's scans, in order of their stamps, until each keyframe among them can be described.

    With odometry, and unless `single_scans`, a keyframe waits for the local map centred on it: until its window is
    full, at the latest until `accumulation_timeout`, a jump, a missing pose or `close`. The others do not wait. So
    keyframes come out in order of their stamps, each exactly once. `look` describes a scan, `bev` is the
    configuration of its raster; `counters` counts the interruptions.
    """

    def __init__(
        self, config: RecognizerConfig, bev: BevConfig, look: Look, counters: Counter[str], single_scans: bool
    ) -> None:
        self._config, self._look, self._counters = config, look, counters
        self._single_scans = single_scans or config.accumulation_m == 0.0
        self._track = Track()
        self._selector = KeyframeSelector(config, look)
        self._local_map = LocalMap(config, bev)
        self._waiting: deque[_Waiting] = deque()

    @property
    def waiting(self) -> int:
        """Keyframes whose window is still open."""
        return len(self._waiting)

    def advance(self, scan: Scan, is_keyframe: bool | None = None) -> Iterator[View]:
        """The next scan; yields the keyframes it completes. `is_keyframe` overrules the selector."""
        interruption = self._track.interruption(scan.T_odom_base)
        if interruption is not None:
            self._counters[interruption] += 1
            yield from self.close()
            self._local_map.break_window()
        scan.travel = self._track.move(scan.T_odom_base)
        wanted = self._selector.wants(scan) if is_keyframe is None else is_keyframe
        if wanted:
            self._selector.take(scan)
        if scan.T_odom_base is not None and scan.travel is not None and not self._single_scans:
            yield from self._accumulate(scan, scan.T_odom_base, scan.travel, wanted)
        elif wanted:
            seen = self._look(scan)
            yield View(scan.stamp, scan.T_odom_base, scan.travel, seen.descriptor, seen)

    def close(self) -> Iterator[View]:
        """Yields the waiting keyframes with as much of their windows as there is."""
        while self._waiting:
            yield self._first()

    def _first(self) -> View:
        waiting = self._waiting.popleft()
        return View(*waiting, self._local_map.join(waiting.stamp))

    def _accumulate(self, scan: Scan, T_odom_base: F64, travel: float, wanted: bool) -> Iterator[View]:
        """Add to the local map; yields the keyframes whose windows are full now."""
        self._local_map.add(scan.points, scan.stamp, T_odom_base, travel, wanted)
        if wanted:
            self._waiting.append(_Waiting(scan.stamp, T_odom_base, travel, self._look(scan).descriptor))
        while self._waiting:
            first = self._waiting[0]
            if not self._local_map.is_complete(first.travel, first.stamp, travel, scan.stamp):
                break
            yield self._first()
        oldest = self._waiting[0].travel if self._waiting else travel
        self._local_map.forget_before(oldest - self._config.accumulation_m / 2)
