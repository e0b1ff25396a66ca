# SPDX-License-Identifier: Apache-2.0
"""Mutated Odometry, BEV, PoseStamped and Path through the node's own callbacks and worker: counted, and it goes on."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
pytestmark = [pytest.mark.ros, pytest.mark.campaign]

from campaign import rounds, seed  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from mutations import mutated  # noqa: E402
from nav_msgs.msg import Odometry, Path  # noqa: E402
from rclpy.qos import ReliabilityPolicy  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from ros_harness import Image, PointCloud2, cloud, odometry, time_of  # noqa: E402
from stand_in import BEV, recogniser  # noqa: E402

from vlad_ros.cloud.raster_image import to_image  # noqa: E402
from vlad_ros.config import NodeConfig  # noqa: E402
from vlad_ros.drive.frames import Frames  # noqa: E402
from vlad_ros.drive.pairing import Inputs  # noqa: E402
from vlad_ros.drive.pending_scan import PendingScan  # noqa: E402
from vlad_ros.drive.pose_source import TopicOdometry  # noqa: E402
from vlad_ros.ros.inputs.subscriptions import Subscriptions  # noqa: E402
from vlad_ros.ros.outputs.publishers import Publishers  # noqa: E402
from vlad_ros.ros.reasons import REASONS  # noqa: E402
from vlad_ros.ros.statistics import Statistics  # noqa: E402
from vlad_ros.ros.worker import Worker  # noqa: E402
from vlad_ros.stamps import SECOND  # noqa: E402

STEP = SECOND // 5
POINTS = np.random.default_rng(0).uniform([3, -15, -2, 0], [15, 15, 3, 1], (40, 4)).astype(np.float32)
AFTER = 9  # sound scans behind each few mutations
DRIVE = 80  # times that; then another drive begins


class Wire:
    """What the node sees of rclpy: subscriptions that are called by the test, publishers that nobody hears."""

    def __init__(self, keyframes: str) -> None:
        self.callbacks: dict[str, Callable[[Any, Any], None]] = {}
        self._keyframes = keyframes

    def resolve_topic_name(self, name: str) -> str:
        return f"/{name}"

    def get_publishers_info_by_topic(self, topic: str) -> list[Any]:
        qos = SimpleNamespace(reliability=ReliabilityPolicy.RELIABLE)
        info = SimpleNamespace(topic_type=self._keyframes, qos_profile=qos, node_name="slam")
        return [info] if topic == "/keyframes" and self._keyframes else []

    def create_subscription(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: Any, raw: bool, **_: Any
    ) -> Any:
        self.callbacks[topic] = callback
        empty = contextlib.nullcontext()
        empty.take_message = lambda *_: None  # type: ignore[attr-defined]
        return SimpleNamespace(handle=empty, msg_type=kind, raw=raw, callback=callback, topic_name=f"/{topic}")

    def create_publisher(self, kind: type, topic: str, qos: Any) -> Any:
        return SimpleNamespace(publish=lambda message: None, get_subscription_count=lambda: 0)

    def destroy_publisher(self, publisher: Any) -> None:
        pass


class Heard:
    """The node's reports."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def reject(self, reason: str, detail: str) -> None:
        assert reason in REASONS and "\n" not in detail, (reason, detail)
        self.counts[reason] += 1

    def warn(self, sentence: str) -> None:
        assert "\n" not in sentence

    inform = warn

    def failed(self, trace: str) -> None:
        raise AssertionError(trace)


class House:
    """Subscriptions, pairing, worker and publishers of one node, around a stand-in for the network."""

    def __init__(self, keyframes: str = "", **parameters: Any) -> None:
        config = NodeConfig(**parameters)
        self.wire, self.heard, statistics = Wire(keyframes), Heard(), Statistics()
        place = recogniser(use_bev=config.use_bev, accumulation_m=0.0, exclude_time=3600.0)
        frames = Frames(config, None, self.heard.warn)
        outputs = Publishers(self.wire, place, lambda: frames.body, config, self.heard, statistics)
        self.seen: list[tuple[int, bool]] = []  # stamp of each scan that was used, and whether it has a pose
        outputs.move = lambda stamp, T: self.seen.append((stamp, T is not None))  # type: ignore[method-assign]
        inputs = Inputs(config, TopicOdometry(), self.work, lambda reason: self.heard.reject(reason, ""))
        self.worker = Worker(place, config, frames, outputs, self.heard, statistics, inputs.may_wait)
        subscriptions = Subscriptions(
            self.wire, config, inputs, outputs, self.heard, statistics, lambda action: action()
        )
        subscriptions.open = True
        self.place, self.stamp = place, 1000 * SECOND

    def work(self, scan: PendingScan) -> None:
        """What the worker's thread would do with it."""
        self.worker._process(scan)

    def send(self, topic: str, data: bytes, kind: type) -> bool:
        """Hand over a serialised message as the executor does; False where the middleware refuses it."""
        callback = self.wire.callbacks[topic]
        if kind is Path:
            callback(data, {})
            return True
        try:
            message = deserialize_message(data, kind)
        except Exception:
            return False
        callback(message, {})
        return True


def x(stamp: int) -> float:
    """Metres driven, 5 m/s."""
    return 5e-9 * (stamp % (10_000 * SECOND))


def make_odometry(stamp: int) -> Odometry:
    return odometry(stamp, x(stamp))


def make_image(stamp: int) -> Image:
    raster = np.zeros((BEV.channels, BEV.size, BEV.size), np.float32)
    raster[:, 3:9, 5] = 1.0
    image = Image(height=BEV.size, width=BEV.size, encoding="8UC5", step=BEV.size * 5)
    image.header.stamp, image.data = time_of(stamp), to_image(raster, "8UC5", BEV)
    return image


def make_pose(stamp: int) -> PoseStamped:
    message = PoseStamped()
    message.header.stamp, message.pose.position.x = time_of(stamp), x(stamp)
    return message


def make_path(stamp: int) -> Path:
    path = Path(poses=[make_pose(stamp - k * STEP) for k in (3, 2, 1, 0)])
    path.header.stamp = time_of(stamp)
    return path


KINDS: dict[str, tuple[str, type, Callable[[int], Any], int, dict[str, Any]]] = {
    "odometry": ("odom", Odometry, make_odometry, 100, {"keyframe_source": "all"}),
    "bev": ("bev", Image, make_image, 64, {"keyframe_source": "all", "use_bev": True, "bev_missing": "drop"}),
    "pose": ("keyframes", PoseStamped, make_pose, 100, {"keyframe_source": "topic", "node_edges": True}),
    "path": ("keyframes", Path, make_path, 400, {"keyframe_source": "topic", "node_edges": True}),
}


def drive(house: House, kind: str, scans: int) -> None:
    """So many sound scans, each with its odometry and a message of the kind."""
    topic, message, make, _, _ = KINDS[kind]
    for _ in range(scans):
        house.stamp += STEP
        if topic != "odom":
            house.send(topic, serialize_message(make(house.stamp)), message)
        house.send("odom", serialize_message(make_odometry(house.stamp)), Odometry)
        house.send("points", serialize_message(cloud(house.stamp, POINTS)), PointCloud2)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_messages(kind: str) -> None:
    """25,000 of each: nothing but a counted reason comes of one, and the sound scans behind it are used again, with
    their poses, BEVs and announcements."""
    rng, number = random.Random(seed()), rounds(25_000)
    topic, message, make, within, parameters = KINDS[kind]
    names = {"pose": "geometry_msgs/msg/PoseStamped", "path": "nav_msgs/msg/Path"}
    taken, sent, counts = 0, 0, Counter[str]()
    while sent < number:
        house = House(names.get(kind, ""), odom_timeout=0.1, bev_timeout=0.1, keyframe_timeout=0.1, **parameters)
        drive(house, kind, AFTER)
        for _ in range(DRIVE):
            for _ in range(rng.randint(1, 6)):
                at = house.stamp + rng.choice([0, 1, -1, STEP // 2, STEP, 5 * STEP])
                taken += house.send(topic, mutated(lambda at=at: make(at), serialize_message, rng, within), message)
                sent += 1
            drive(house, kind, AFTER)
            assert house.seen[-2:] == [(house.stamp - STEP, True), (house.stamp, True)], house.heard.counts
        counts.update(house.heard.counts)
    print(kind, f"{sent} mutated, {taken} passed the middleware", dict(counts))
    assert taken > number / 2 and counts
