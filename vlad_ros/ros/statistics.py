# SPDX-License-Identifier: Apache-2.0
"""What the node counts and measures. Times are on the steady clock."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import NamedTuple

import numpy as np

from vlad_ros.loops.described import Described
from vlad_ros.ros.reasons import REFUSALS
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64

SILENCE = 5.0  # s without a cloud until it is reported and the waiting keyframes are answered
RECENT = 10  # s that health looks back
PARTIAL = 8  # local maps in a row
WINDOW = 100  # clouds that rates are measured on
THROTTLE = 5.0  # s between two warnings of one kind
LOOK = 2.0  # s between two silence checks, normally one second apart; if it is more, the node was stalled


class Flow(NamedTuple):
    """What has come in and gone out in the last `seconds`: "received", "used", "posed" scans, "keyframes", scans
    "dropped" from the queue, "refused REASON"; `metres` since the last keyframe; whether all recent local maps are
    partial; how long the worker has finished nothing [s]."""

    seconds: float
    counts: dict[str, int]
    metres: float
    all_partial: bool
    idle: float


class Statistics:
    """Counters, latencies and rates; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._warned: dict[str, float] = {}
        self._verdicts: Counter[str] = Counter()
        self._latencies: dict[str, deque[float]] = {}
        self._stamps: deque[int] = deque(maxlen=WINDOW)
        self._heard = self._done = self._looked = time.monotonic()
        self._flow: Counter[str] = Counter()
        self._metres = 0.0  # since the last keyframe
        self._seconds: deque[tuple[float, Counter[str]]] = deque(maxlen=RECENT)
        self._partial: deque[bool] = deque(maxlen=PARTIAL)
        self.received = 0

    def restart(self) -> None:
        """The node has been activated: silence and rates begin here."""
        with self._lock:
            self._stamps.clear()
            self._seconds.clear()
            self._heard = self._done = self._looked = time.monotonic()

    def count(self, reason: str, number: int = 1) -> int:
        """Count `reason`; how often so far."""
        with self._lock:
            self._counts[reason] += number
            return self._counts[reason]

    def may_warn(self, reason: str) -> bool:
        """Whether a warning of this kind is due again (rate limit)."""
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
                self._stamps.clear()  # restarted, or after a pause
            if stamp > 0 and (not self._stamps or stamp > self._stamps[-1]):
                self._stamps.append(stamp)

    def silent_for(self) -> float:
        """Seconds since the last cloud, or since activation. Called once a second: while the node itself was stalled
        nothing could arrive or be processed, and that does not count as silence."""
        with self._lock:
            now = time.monotonic()
            stood = max(0.0, now - self._looked - LOOK)
            self._heard, self._done = min(now, self._heard + stood), min(now, self._done + stood)
            self._looked = now
            return now - self._heard

    def took(self, stage: str, seconds: float) -> None:
        """Record a stage's duration."""
        with self._lock:
            self._latencies.setdefault(stage, deque(maxlen=1000)).append(seconds)

    def used(self, posed: bool, metres: float) -> None:
        """Record a used scan, with or without a pose, and its distance from the previous one."""
        with self._lock:
            self._flow.update(used=1, posed=int(posed))
            self._metres += metres

    def worked(self) -> None:
        """The worker has finished an item."""
        with self._lock:
            self._done = time.monotonic()

    def flow(self) -> Flow:
        """Called once a second: what has come in and gone out in the last seconds."""
        with self._lock:
            now = time.monotonic()
            total = self._flow + Counter(received=self.received, dropped=self._counts["queue_full"])
            refused = {name: number for name, number in self._counts.items() if name in REFUSALS}
            total.update({f"refused {name}": number for name, number in refused.items()})
            self._seconds.append((now, total))
            since, before = self._seconds[0]
            new = {name: value - before[name] for name, value in total.items()}
            partial = len(self._partial) == PARTIAL and all(self._partial)
            return Flow(now - since, new, self._metres, partial, now - self._done)

    def judged(self, described: Described) -> None:
        """Record a keyframe whose candidates have been judged."""
        with self._lock:
            self._flow["keyframes"] += 1
            self._metres = 0.0
            if described.keyframe.is_local_map:
                self._partial.append(described.keyframe.partial)
            for closure in described.closures:
                reason = closure.reject_reason.name.lower()
                self._verdicts["accepted" if closure.accepted else f"rejected, {reason}"] += 1

    def rates(self, expected: float) -> tuple[float, float] | None:
        """Received and expected scans a second of stamp time; None before ten scans.

        `expected` 0: the sensor's own rate, which the shortest steps between stamps show even when most are lost; where
        the steps show no loss (see `sensor_period`) it is the received one.
        """
        with self._lock:
            stamps = np.array(self._stamps, np.int64)
        if len(stamps) < 10:
            return None
        steps = np.diff(stamps) / SECOND
        return float(1.0 / steps.mean()), expected or 1.0 / sensor_period(steps)

    def values(self) -> dict[str, str]:
        """Counters and latencies as readable text."""
        with self._lock:
            out = {"clouds received": str(self.received)}
            out.update({f"count {reason}": str(number) for reason, number in sorted(self._counts.items())})
            out.update({f"candidates {verdict}": str(number) for verdict, number in sorted(self._verdicts.items())})
            for stage, seconds in self._latencies.items():
                p50, p99 = np.quantile(np.array(seconds), (0.5, 0.99)) * 1e3
                out[f"latency {stage} p50 / p99 [ms]"] = f"{p50:.1f} / {p99:.1f}"
        return out


def sensor_period(steps: F64) -> float:
    """The period of a sensor, from the steps (N,) [s] between the scans that arrived; their mean unless they look
    like a regular sensor's with scans missing at random: multiples of one step, in no regular order."""
    mean, base = float(steps.mean()), float(np.quantile(steps, 0.1))
    if base <= 0.0 or mean < 1.1 * base:
        return mean
    multiples = np.round(steps / base)
    if np.quantile(np.abs(steps / base - multiples), 0.9) > 0.15:
        return mean  # jitter, or independent sensors
    for lag in range(2, 6):  # two to five sensors on one topic: their steps repeat periodically
        sums = np.convolve(steps, np.ones(lag), "valid")
        if sums.std() < 0.05 * sums.mean():
            return mean
    lost = multiples > 1
    share = float(lost.mean())
    if (lost[1:] != lost[:-1]).mean() < 0.5 * 2.0 * share * (1.0 - share):
        return mean  # a varying rate
    return base
