# SPDX-License-Identifier: Apache-2.0
"""Drives to be played: a sequence file with the odometry one asks for, or a rosbag2 with its own."""

from __future__ import annotations

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlad_ros.cloud.decode import CloudError
from vlad_ros.config import EvaluationConfig, NodeConfig, RunConfig
from vlad_ros.drive.body_points import BodyPoints
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.frames import FrameError, Frames
from vlad_ros.drive.pairing import Inputs, NoOdometry, PendingScan, TopicOdometry
from vlad_ros.files.bags import CLOUD, ODOMETRY, open_bag, read_messages
from vlad_ros.files.sequence import load_sequence
from vlad_ros.poses import decode_pose
from vlad_ros.stamps import stamp_of
from vlad_ros.types import F32, F64


@dataclass(frozen=True, eq=False)
class PlayedScan:
    """`points` (N, 4) x y z intensity in the body frame, `stamp` [ns]; poses (4, 4), None where unknown."""

    stamp: int
    points: F32
    T_odom_base: F64 | None = None
    T_world_base: F64 | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A drive to be played once: `scans`, about `count` of them; `odometry` says in words what stands in for a robot's;
    `counters` counts what could not be read."""

    name: str
    odometry: str
    count: int
    scans: Iterator[PlayedScan]
    counters: Counter[str]


def to_stderr(sentence: str) -> None:
    """For people who watch a run."""
    print(sentence, file=sys.stderr)


def open_source(
    path: str | os.PathLike[str], config: RunConfig, judge: EvaluationConfig, warn: Callable[[str], None] = to_stderr
) -> Source:
    """A sequence (.npz) or a rosbag2; `warn` hears, once, what cannot be made of its clouds. ValueError says what is
    wrong with it, or with what is asked of it."""
    path = Path(path)
    return open_sequence(path, config, judge) if path.suffix == ".npz" else open_bag_source(path, config, warn)


def open_sequence(path: Path, config: RunConfig, judge: EvaluationConfig) -> Source:
    """A sequence, its true poses serving as odometry unless they shall drift, or there shall be none."""
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


def open_bag_source(path: Path, config: RunConfig, warn: Callable[[str], None] = to_stderr) -> Source:
    """A bag's clouds with the odometry interpolated to their stamps, as the node does. ValueError names the topics that
    the bag has where it lacks the one that is asked for; there is nothing to judge by."""
    if config.drift:
        raise ValueError("--drift is for sequence files; a bag is played with its own odometry")
    with open_bag(path) as reader:
        known = {c.topic: (c.msgtype, c.msgcount) for c in reader.connections}
    topics = [config.points_topic] + ([config.odom_topic] if config.odometry else [])
    for topic, kind in zip(topics, (CLOUD, ODOMETRY), strict=False):
        if known.get(topic, ("", 0))[0] != kind:
            there = ", ".join(name for name, (type, _) in known.items() if type == kind) or "none"
            remedy = "" if kind == CLOUD else ", or leave it out with --no-odometry"
            raise ValueError(f"{path}: no topic {topic} of type {kind} in this bag; there are: {there}{remedy}")
    counters: Counter[str] = Counter()
    words = f"the bag's {config.odom_topic}" if config.odometry else "none"
    scans = _bag_scans(path, config, topics, counters, warn)
    return Source(path.name, words, known[config.points_topic][1], scans, counters)


def _bag_scans(
    path: Path, config: RunConfig, topics: list[str], counters: Counter[str], warn: Callable[[str], None]
) -> Iterator[PlayedScan]:
    """Clouds in the order of the bag, each held until its odometry is there; unreadable ones are counted."""
    # Nothing is late offline: a scan waits for odometry as long as the bag goes on, but for a bounded number of others.
    source = "topic" if config.odometry else "none"
    node = NodeConfig(queue_size=100, odom_timeout=10.0, deskew=config.deskew, odom_source=source)
    released: deque[PendingScan] = deque()
    odometry = TopicOdometry() if config.odometry else NoOdometry()
    inputs = Inputs(node, odometry, released.append, lambda reason: None)
    reader = BodyPoints(node, Frames(node, None, warn), warn, lambda reason: counters.update([reason]))
    for topic, message in read_messages(path, tuple(topics)):
        if topic == config.points_topic:
            inputs.add_scan(PendingScan(message, stamp_of(message), 0.0))
        else:
            inputs.add_odometry(stamp_of(message), decode_pose(message.pose.pose), message.child_frame_id)
        yield from _read(released, reader, counters)
    inputs.release_all()
    yield from _read(released, reader, counters)


def _read(released: deque[PendingScan], reader: BodyPoints, counters: Counter[str]) -> Iterator[PlayedScan]:
    while released:
        scan = released.popleft()
        try:
            points = reader.points(scan)
            yield PlayedScan(scan.stamp, points, reader.pose(scan))
        except CloudError as error:
            counters[error.reason] += 1
        except FrameError as error:
            raise ValueError(
                f"the odometry's child_frame_id is {scan.child!r}, the clouds' frame {scan.message.header.frame_id!r}: "
                "vlad run knows no TF, so play this bag to the node (vlad replay), or leave its odometry out with "
                "--no-odometry"
            ) from error
