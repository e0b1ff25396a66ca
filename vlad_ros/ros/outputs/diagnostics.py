# SPDX-License-Identifier: Apache-2.0
"""What the node counts and measures, and the words it has for it. Times are on the steady clock."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.qos import ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from vlad_ros.pipeline import Described

SILENCE = 5.0  # s without a cloud until it is said and the waiting keyframes are answered
LOSSY = 0.8  # share of the expected rate under which clouds are lost on the way
WINDOW = 100  # clouds that rates are measured on
THROTTLE = 5.0  # s between two warnings of one kind

# Every reason that something is not used, and what it means to the person who reads the warning.
REASONS = {
    "queue_full": "the computer is too slow for this rate; the oldest waiting scan was dropped",
    "inactive": "the scan was waiting when the node was deactivated",
    "cloud_empty": "the cloud is empty",
    "cloud_fields": "the cloud's fields cannot be used",
    "cloud_layout": "the cloud's layout is contradictory",
    "cloud_not_finite": "the cloud has no finite point",
    "cloud_out_of_range": "no point lies between min_range and max_range",
    "unusable": "the pipeline cannot use the scan",
    "zero_stamp": "the stamp is zero",
    "frame_changed": "the cloud's frame_id has changed mid-run",
    "no_transform": "there is no transform from the cloud's frame to base_frame",
    "repeated_stamp": "the stamp is the last one's",
    "late_stamp": "the stamp is older than the last one's",
    "session_opened": "the stamps went back (a bag restarted?); a new session begins, the map is kept",
    "no_odometry": "no odometry around the stamp; the scan is used without a pose",
    "odometry_jump": "the odometry has jumped; local maps end there",
    "not_deskewed": "the odometry does not cover the sweep, and has no twist; the scan is used as it came",
    "bad_odometry": "the odometry message is not a pose",
    "odometry_frame": "the odometry's child_frame_id is neither the body nor the cloud's frame; set base_frame to it",
    "bad_bev": "the BEV image cannot be used",
    "bev_missing": "no BEV for this scan",
    "bev_unpaired": "no cloud within bev_tolerance of this BEV",
    "keyframe_late": "the keyframe was announced after its scan had gone; raise keyframe_timeout",
    "bad_keyframe": "the keyframe announcement names no stamp",
    "bad_path": "the back-end's path cannot be used to correct the map",
    "carried_away": "the place by odometry is no longer believed; a new session begins",
    "node_far": "the back-end has no node within 0.5 s of one of the loop's keyframes; the edge is withheld",
    "node_without_odometry": "no odometry leads from a loop's keyframe to the back-end's node; the edge is withheld",
    "node_other_session": "a loop into another session has no nodes of this run's back-end; the edge is withheld",
    "save_failed": "the map could not be saved",
    "internal_error": "an error of the program itself; see the log",
}

# The topic that a reason is about, where it is not the points.
TOPICS = {
    "no_odometry": "odom",
    "odometry_jump": "odom",
    "bad_odometry": "odom",
    "odometry_frame": "odom",
    "bad_bev": "bev",
    "bev_missing": "bev",
    "bev_unpaired": "bev",
    "keyframe_late": "keyframes",
    "bad_keyframe": "keyframes",
    "bad_path": "keyframes",
    "carried_away": "odom",
    "node_far": "keyframes",
    "node_without_odometry": "odom",
    "node_other_session": "keyframes",
    "save_failed": "~/save_map",
}

SLOW_DDS = (
    "clouds are lost between the driver and this node: export FASTRTPS_DEFAULT_PROFILES_FILE (and "
    "FASTDDS_DEFAULT_PROFILES_FILE) with this package's config/fastdds_shm.xml in the driver's shell too, "
    "or set points_reliable"
)


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
            if self._stamps and not 0 <= stamp - self._stamps[-1] < SILENCE * 1e9:
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
        steps = np.diff(stamps) * 1e-9
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


def status(name: str, warnings: Sequence[str], fine: str, values: dict[str, str]) -> DiagnosticStatus:
    """One DiagnosticStatus: WARN with the sentences, or OK with `fine`."""
    return DiagnosticStatus(
        level=DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK,
        name=name,
        message="; ".join(warnings) or fine,
        hardware_id="",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def explain_silence(topic: str, ours: str, reliable: bool, publishers: list[TopicEndpointInfo], silence: float) -> str:
    """Why no cloud comes: topic, publishers found, their types and offered QoS, and what to do about it."""
    start = f"no cloud on {topic} for {silence:.0f} s"
    if not publishers:
        return f"{start}: nobody publishes there; start the driver, or name its topic (points:=/your_topic)"
    found, remedies = [], []
    for publisher in publishers:
        offered = publisher.qos_profile
        node = f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
        found.append(f"{node} publishes {publisher.topic_type} ({offered.reliability.name.lower()})")
        if publisher.topic_type != ours:
            livox = "livox" in publisher.topic_type
            remedies.append("set xfer_format: 0 in the Livox driver" if livox else f"{ours} is needed")
        elif reliable and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
            remedies.append("set points_reliable: false, the publisher is best effort")
    if not remedies:
        remedies.append(
            "type and QoS fit: the publisher sends nothing, or its clouds are lost (see config/fastdds_shm.xml)"
        )
    return f"{start}: {', '.join(found)}; {', '.join(dict.fromkeys(remedies))}"
