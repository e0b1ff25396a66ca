# SPDX-License-Identifier: Apache-2.0
"""Drives to be played: a sequence file with the requested odometry, or a rosbag2 with its own."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vlad_ros.config import EvaluationConfig, NodeConfig, RecognizerConfig, RunConfig
from vlad_ros.drive.body_points import BodyPoints
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.frames import Frames
from vlad_ros.drive.pairing import Inputs
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.drive.pose_source import NoOdometry, TopicOdometry
from vlad_ros.files.bags import CLOUD, ODOMETRY, open_bag, read_messages
from vlad_ros.files.sequence import load_sequence
from vlad_ros.poses import decode_pose, decode_twist
from vlad_ros.runs import static_transforms as static
from vlad_ros.runs.unused import OF_STAMPS, Unused
from vlad_ros.stamps import SECOND, stamp_of
from vlad_ros.types import F32, F64

DEFAULTS = RecognizerConfig()


@dataclass(frozen=True, eq=False)
class PlayedScan:
    """`points` (N, 4) x y z intensity in the body frame, `stamp` [ns]; poses (4, 4), None where unknown.
    `cropped`: about the sensor, and without the vehicle itself."""

    stamp: int
    points: F32
    T_odom_base: F64 | None = None
    T_world_base: F64 | None = None
    cropped: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    """A drive to be played once: `scans`, about `count` of them; `odometry` describes the source of the odometry.
    While it is played `counters` counts what could not be used, by reason, and `why` keeps the first of each in words.
    """

    name: str
    odometry: str
    count: int
    scans: Iterator[PlayedScan]
    counters: Counter[str]
    why: dict[str, str] = field(default_factory=dict)


def to_stderr(sentence: str) -> None:
    """Text shown beside the progress bar."""
    tqdm.write(sentence, file=sys.stderr)


def open_source(
    path: str | os.PathLike[str],
    config: RunConfig,
    judge: EvaluationConfig,
    warn: Callable[[str], None] = to_stderr,
    crop: RecognizerConfig = DEFAULTS,
) -> Source:
    """A sequence (.npz) or a rosbag2, whose clouds are cropped about the sensor as `crop` says; `warn` is told, once,
    what cannot be done with them. ValueError says what is wrong with the file or with the request."""
    path = Path(path)
    return open_sequence(path, config, judge) if path.suffix == ".npz" else open_bag_source(path, config, warn, crop)


def open_sequence(path: Path, config: RunConfig, judge: EvaluationConfig) -> Source:
    """A sequence; its true poses serve as odometry, unless drift or no odometry is requested."""
    if config.base_frame or config.mounting_xyz_rpy:
        raise ValueError("--base-frame and --mounting-xyz-rpy are for bags; the poses of a sequence are its sensor's")
    sequence = load_sequence(path)
    poses, words = sequence.poses, "the true poses"
    if config.drift and not config.odometry:
        raise ValueError("with --no-odometry there is nothing that could --drift; leave one of them out")
    if config.drift:
        if poses is None:
            raise ValueError(f"{path}: has no poses that could drift; leave out --drift")
        poses = drifting_odometry(poses, judge.drift_scale, judge.drift_yaw, judge.seed)
        words = f"the true poses drifting by {judge.drift_scale:.1%} and {judge.drift_yaw:g} deg in 10 m"
    if poses is None or not config.odometry:
        poses, words = None, "none"

    def scans() -> Iterator[PlayedScan]:
        for i, stamp in enumerate(sequence.stamps_ns(config.rate)):
            truth = None if sequence.poses is None else sequence.poses[i]
            yield PlayedScan(stamp, sequence.scans[i], None if poses is None else poses[i], truth)

    return Source(sequence.name, words, len(sequence), scans(), Counter())


def open_bag_source(
    path: Path, config: RunConfig, warn: Callable[[str], None] = to_stderr, crop: RecognizerConfig = DEFAULTS
) -> Source:
    """A bag's clouds with the odometry interpolated to their stamps, as the node does; what one of its messages lacks
    loses that message. ValueError lists the bag's topics if the requested one is missing; there is
    no ground truth."""
    if config.drift:
        raise ValueError("--drift is for sequence files; a bag is played with its own odometry")
    with open_bag(path) as bag:
        connections = bag.connections
    topics = {config.points_topic: CLOUD} | ({config.odom_topic: ODOMETRY} if config.odometry else {})
    for topic, kind in topics.items():
        _check_topic(path, topic, kind, connections)
    unused = Unused(warn)
    transforms = _transforms(path, connections, unused) if config.base_frame else None
    drive = _BagDrive(config, crop, transforms, unused)
    count = sum(c.msgcount for c in connections if (c.topic, c.msgtype) == (config.points_topic, CLOUD))
    words = f"the bag's {config.odom_topic}" if config.odometry else "none"
    return Source(path.name, words, count, drive.play(path, topics), unused.counters, unused.why)


def _check_topic(path: Path, topic: str, kind: str, connections: list[Any]) -> None:
    """ValueError unless the bag has the topic."""
    known = [(c.topic, c.msgtype) for c in connections]
    if (topic, kind) in known:
        return
    there = ", ".join(name for name, of in known if of == kind) or "none"
    other = "".join(f" ({topic} is a {of})" for name, of in known if name == topic)
    remedy = "" if kind == CLOUD else ", or leave it out with --no-odometry"
    raise ValueError(f"{path}: no topic {topic} of type {kind} in this bag{other}; there are: {there}{remedy}")


def _transforms(path: Path, connections: list[Any], unused: Unused) -> static.StaticTransforms | None:
    """The whole bag's /tf_static transforms, None if it has no such topic."""
    if (static.TOPIC, static.TYPE) not in [(c.topic, c.msgtype) for c in connections]:
        return None

    def failed(topic: str, why: str) -> None:
        if topic:  # file damage is reported when the drive is played
            unused("bad_transform", why)

    transforms = static.StaticTransforms()
    for _, message in read_messages(path, {static.TOPIC: static.TYPE}, failed):
        for stamped in message.transforms:
            try:
                transforms.add(stamped)
            except ValueError as error:
                unused("bad_transform", str(error))
    return transforms


class _BagDrive:
    """Processing of a bag's messages, as in the node: wait for odometry, decode, mount, deskew."""

    def __init__(
        self, config: RunConfig, crop: RecognizerConfig, transforms: static.StaticTransforms | None, unused: Unused
    ) -> None:
        # No timeout offline: a scan waits for odometry until the bag ends, but for at most a bounded number of
        # other scans.
        node = NodeConfig(
            queue_size=100,
            odom_timeout=10.0,
            deskew=config.deskew,
            odom_source="topic" if config.odometry else "none",
            base_frame=config.base_frame,
            mounting_xyz_rpy=config.mounting_xyz_rpy,
        )
        self._config, self._unused = config, unused
        self._released: deque[PendingScan] = deque()
        self._odometry = TopicOdometry(config.base_frame)
        self._inputs = Inputs(
            node,
            self._odometry if config.odometry else NoOdometry(),
            self._released.append,
            lambda why: unused(why, OF_STAMPS.get(why, why)),
        )
        frames = Frames(node, None if transforms is None else transforms.find, unused.warn)
        self._missing: list[str] = []  # what the reader has counted for the current scan
        self._reader = BodyPoints(node, crop, frames, self._hear, self._missing.append)
        self._newest, self._posed = 0, False  # the newest scan; whether any had a pose

    def play(self, path: Path, topics: dict[str, str]) -> Iterator[PlayedScan]:
        """Clouds in the order of the bag, each held until its odometry is there."""
        for topic, message in read_messages(path, topics, self._failed):
            self._take(topic, message)
            yield from self._ready()
        self._inputs.release_all()
        yield from self._ready()
        if self._config.odometry and self._newest and not self._posed:
            self._explain_missing_poses()
        for _ in range(self._inputs.clear()):  # held to the end: no odometry stamp matched
            self._unused("wrong_stamp", OF_STAMPS["wrong_stamp"])

    def _explain_missing_poses(self) -> None:
        """Odometry was requested, but none of it matches any scan."""
        newest, name = self._odometry.newest, self._config.odom_topic
        if newest is None:
            why = f"no message on {name} is a usable pose"
        else:
            apart = (newest - self._newest) / SECOND
            side = "after" if apart > 0 else "before"
            why = f"{name} ends {abs(apart):.1f} s {side} the scans; are both stamped by the same clock?"
        if "odometry_frame" not in self._unused.counters:
            self._unused.why["no_odometry"] = why
            self._unused.warn(f"no scan has a pose: {why}")

    def _hear(self, sentence: str) -> None:
        """The reader's one-time warning about what it has just counted."""
        self._unused.why.setdefault(self._missing[-1] if self._missing else "not_deskewed", sentence)
        self._unused.warn(sentence)

    def _failed(self, topic: str, why: str) -> None:
        reasons = {self._config.points_topic: "cloud_unreadable", self._config.odom_topic: "bad_odometry"}
        self._unused(reasons[topic] if topic else "bag_damaged", why)

    def _take(self, topic: str, message: Any) -> None:
        """Add a message for pairing with the others."""
        stamp = stamp_of(message)
        if topic == self._config.points_topic:
            if stamp <= 0:
                self._unused("zero_stamp", f"a cloud's stamp is {stamp} ns")
                return
            self._inputs.add_scan(PendingScan(message, stamp, 0.0))
            return
        try:
            if stamp <= 0:
                raise ValueError(f"its stamp is {stamp} ns")
            T, twist = decode_pose(message.pose.pose), decode_twist(message.twist.twist)
            self._inputs.add_odometry(stamp, T, message.child_frame_id, twist)
        except ValueError as error:
            self._unused("bad_odometry", f"a message on {topic} is no pose: {error}")

    def _ready(self) -> Iterator[PlayedScan]:
        """The scans that have finished waiting and can be used."""
        while self._released:
            scan = self._released.popleft()
            try:
                points = self._points(scan)
            except ValueError as error:
                self._unused.refuse(error)
                continue
            try:
                pose = self._reader.pose(scan)
            except ValueError as error:
                self._unused.refuse(error)
                pose = None
            self._newest, self._posed = scan.stamp, self._posed or pose is not None
            yield PlayedScan(scan.stamp, points, pose, cropped=True)

    def _points(self, scan: PendingScan) -> F32:
        """The cloud (N, 4) in the body frame; skipped motion compensation is counted (the reader has reported it)."""
        self._missing.clear()
        points = self._reader.points(scan)
        if self._config.deskew and self._config.odometry and not self._reader.deskewed:
            self._missing.append("not_deskewed")
            self._unused.why.setdefault("not_deskewed", f"deskewing {self._reader.state}")
        self._unused.counters.update(set(self._missing))
        return points
