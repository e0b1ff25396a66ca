# SPDX-License-Identifier: Apache-2.0
"""Drives to be played: a sequence file with the odometry one asks for, or a rosbag2 with its own."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlad_ros.cloud.decode import CloudError, decode_rows
from vlad_ros.cloud.deskew import deskew
from vlad_ros.config import EvaluationConfig, NodeConfig, RunConfig
from vlad_ros.drive.drift import drifting_odometry
from vlad_ros.drive.pairing import Inputs, Scan, TopicOdometry
from vlad_ros.files.bags import CLOUD, ODOMETRY, open_bag, read_messages, stamp_ns
from vlad_ros.files.sequence import load_sequence
from vlad_ros.poses import from_quaternion
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


def open_source(path: str | os.PathLike[str], config: RunConfig, judge: EvaluationConfig) -> Source:
    """A sequence (.npz) or a rosbag2. ValueError says what is wrong with it, or with what is asked of it."""
    path = Path(path)
    return open_sequence(path, config, judge) if path.suffix == ".npz" else open_bag_source(path, config)


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


def open_bag_source(path: Path, config: RunConfig) -> Source:
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
    scans = _bag_scans(path, config, topics, counters)
    return Source(path.name, words, known[config.points_topic][1], scans, counters)


def _bag_scans(path: Path, config: RunConfig, topics: list[str], counters: Counter[str]) -> Iterator[PlayedScan]:
    """Clouds in the order of the bag, each held until its odometry is there, and undistorted by it where they tell the
    times of their points; unreadable ones are counted."""
    released: deque[Scan] = deque()
    odometry = TopicOdometry()
    # Nothing is late offline: a scan waits for odometry as long as the bag goes on, but for a bounded number of others.
    inputs = Inputs(
        NodeConfig(queue_size=100, odom_timeout=10.0, deskew=config.deskew),
        odometry,
        released.append,
        lambda reason: None,
    )
    for topic, message in read_messages(path, tuple(topics)):
        if topic == config.points_topic:
            inputs.add_scan(Scan(message, stamp_ns(message), 0.0))
        else:
            p, q = message.pose.pose.position, message.pose.pose.orientation
            T = from_quaternion(np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
            inputs.add_odometry(stamp_ns(message), T, message.child_frame_id)
        if not config.odometry:
            inputs.release_all()
        yield from _decoded(released, counters)
    inputs.release_all()
    yield from _decoded(released, counters)


def _decoded(released: deque[Scan], counters: Counter[str]) -> Iterator[PlayedScan]:
    while released:
        scan = released.popleft()
        frame = scan.message.header.frame_id
        if scan.T_odom_child is not None and scan.child != frame:
            raise ValueError(
                f"the odometry's child_frame_id is {scan.child!r}, the clouds' frame {frame!r}: vlad run knows no TF, "
                "so play this bag to the node (vlad replay), or leave its odometry out with --no-odometry"
            )
        try:
            points, rows = decode_rows(scan.message)
        except CloudError as error:
            counters[error.reason] += 1
            continue
        if scan.offsets is not None and scan.motion is not None:
            points = deskew(points, scan.offsets[rows], scan.stamp, scan.motion)
        elif scan.offsets is not None and scan.T_odom_child is not None:
            counters["not_deskewed"] += 1
        yield PlayedScan(scan.stamp, points, scan.T_odom_child)
