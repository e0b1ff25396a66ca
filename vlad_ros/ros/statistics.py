# SPDX-License-Identifier: Apache-2.0
"""What the node counts and measures. Times are on the steady clock."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque

import numpy as np

from vlad_ros.loops.described import Described
from vlad_ros.stamps import SECOND

SILENCE = 5.0  # s without a cloud until it is said and the waiting keyframes are answered
WINDOW = 100  # clouds that rates are measured on
THROTTLE = 5.0  # s between two warnings of one kind


class Statistics:
    """Counters, latencies and rates; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._warned: dict[str, float] = {}
        self._verdicts: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._stamps: deque[int] = deque(maxlen=WINDOW)
        self._heard = time.monotonic()
        self.received = 0

    def restart(self) -> None:
        """The node has been activated: silence and rates begin here."""
        with self._lock:
            self._stamps.clear()
            self._heard = time.monotonic()

    def count(self, reason: str, number: int = 1) -> int:
        """Count `reason`; how often so far."""
        with self._lock:
            self._counts[reason] += number
            return self._counts[reason]

    def may_warn(self, reason: str) -> bool:
        """Whether the last warning of this kind is long enough ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._warned.get(reason, -np.inf) < THROTTLE:
                return False
            self._warned[reason] = now
            return True

    def heard(self, stamp: int) -> None:
        """A cloud with this stamp [ns] has arrived."""
        with self._lock:
            self.received += 1
            self._heard = time.monotonic()
            if self._stamps and not 0 <= stamp - self._stamps[-1] < SILENCE * SECOND:
                self._stamps.clear()  # begun anew, or after a pause
            if stamp > 0 and (not self._stamps or stamp > self._stamps[-1]):
                self._stamps.append(stamp)

    def silent_for(self) -> float:
        """Seconds since the last cloud, or since activation."""
        with self._lock:
            return time.monotonic() - self._heard

    def took(self, stage: str, seconds: float) -> None:
        """A stage has taken so long."""
        with self._lock:
            self._latencies.setdefault(stage, deque(maxlen=1000)).append(seconds)

    def judged(self, described: Described) -> None:
        """A keyframe's candidates have been judged, and its stages have taken so long."""
        with self._lock:
            for closure in described.closures:
                reason = closure.reject_reason.name.lower()
                self._verdicts["accepted" if closure.accepted else f"rejected, {reason}"] += 1
        for stage, milliseconds in described.milliseconds.items():
            self.took(stage, milliseconds / 1e3)

    def rates(self, expected: float) -> tuple[float, float] | None:
        """Received and expected scans a second of stamp time; None before ten scans.

        `expected` 0: the sensor's own rate, which the shortest steps between stamps show even when most are lost.
        """
        with self._lock:
            stamps = np.array(self._stamps, np.int64)
        if len(stamps) < 10:
            return None
        steps = np.diff(stamps) / SECOND
        return float(1.0 / steps.mean()), expected or float(1.0 / np.quantile(steps, 0.05))

    def values(self) -> dict[str, str]:
        """Counters and latencies for people."""
        with self._lock:
            out = {"clouds received": str(self.received)}
            out.update({f"count {reason}": str(number) for reason, number in sorted(self._counts.items())})
            out.update({f"candidates {verdict}": str(number) for verdict, number in sorted(self._verdicts.items())})
            for stage, seconds in self._latencies.items():
                p50, p99 = np.quantile(np.array(seconds), (0.5, 0.99)) * 1e3
                out[f"latency {stage} p50 / p99 [ms]"] = f"{p50:.1f} / {p99:.1f}"
        return out
