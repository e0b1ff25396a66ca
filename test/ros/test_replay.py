# SPDX-License-Identifier: Apache-2.0
"""The replayer over real DDS: every byte arrives, in order, with a clock that leads the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
pytestmark = pytest.mark.ros

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, qos_profile_sensor_data  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402

from vlad_ros.config import ImportConfig, ReplayConfig  # noqa: E402
from vlad_ros.files import bags  # noqa: E402
from vlad_ros.files.sequence import Sequence  # noqa: E402
from vlad_ros.poses import from_xyz_rpy  # noqa: E402
from vlad_ros.ros.tools import replay  # noqa: E402
from vlad_ros.ros.tools.pace import stamp_of_cdr  # noqa: E402
from vlad_ros.stamps import SECOND, stamp_of  # noqa: E402


@pytest.fixture
def node() -> Iterator:
    rclpy.init()
    node = rclpy.create_node("listener")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(5)
    node.destroy_node()
    rclpy.try_shutdown()


def make_bag(path: Path, storage: str = "mcap", n: int = 20) -> Path:
    rng = np.random.default_rng(0)
    scans = [rng.normal(0, 10, (2000 + i, 4)).astype(np.float32) for i in range(n)]
    poses = np.stack([from_xyz_rpy((float(i), 0, 0, 0, 0, 0.1 * i)) for i in range(n)])
    sequence = Sequence("s", scans, poses, 1_700_000_000.0 + 0.1 * np.arange(n))
    bags.write_bag(path, bags.sequence_scans(sequence, 10.0), ImportConfig(storage=storage))
    return path


def recorded(path: Path, topic: str) -> list[bytes]:
    with bags.open_bag(path) as reader:
        chosen = [c for c in reader.connections if c.topic == topic]
        return [bytes(raw) for _, _, raw in reader.messages(connections=chosen)]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_every_byte_arrives_in_order(node, tmp_path: Path, storage: str) -> None:  # type: ignore[no-untyped-def]
    bag = make_bag(tmp_path / "bag", storage)
    clouds: list[bytes] = []
    odometry: list[bytes] = []
    node.create_subscription(PointCloud2, "/points", clouds.append, qos_profile_sensor_data, raw=True)
    node.create_subscription(Odometry, "/odom", odometry.append, QoSProfile(depth=100), raw=True)
    report = replay.play(node, bag, ReplayConfig(rate=4.0), progress=False)
    assert report.published == {"/points": 20, "/odom": 20}
    assert report.unheard == [] and report.skipped == {}
    assert len(report.lateness) == 40 and min(report.lateness) >= 0.0, "nothing is published before it is due"
    assert report.duration >= 1.9 / 4.0
    wait_until(lambda: len(clouds) == 20 and len(odometry) == 20)
    assert clouds == recorded(bag, "/points") and odometry == recorded(bag, "/odom")


def test_the_clock_leads_and_never_goes_back(node, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bag = make_bag(tmp_path / "bag", n=4)
    ticks: list[int] = []
    node.create_subscription(Clock, "/clock", lambda m: ticks.append(m.clock.sec * 10**9 + m.clock.nanosec), 1000)
    replay.play(node, bag, ReplayConfig(wait=0.0), progress=False)
    stamps = [stamp_of(message) for _, message in bags.read_messages(bag)]
    wait_until(lambda: bool(ticks) and ticks[-1] == stamps[-1])
    assert np.all(np.diff(ticks) >= 0)
    assert set(stamps) <= set(ticks), "each message's own stamp is a tick"
    assert len(set(ticks) - set(stamps)) >= 10, "and the clock runs between them"


def test_topics_are_chosen_and_unheard_ones_named(node, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bag = make_bag(tmp_path / "bag", n=3)
    lines: list[str] = []
    config = ReplayConfig(rate=100.0, wait=0.1)
    report = replay.play(node, bag, config, ("/odom",), lines.append, progress=False)
    assert report.published == {"/odom": 3}
    assert lines == ["nobody has subscribed to /odom"]
    with pytest.raises(ValueError, match=r"/nothing is not in the bag; it has /odom, /points"):
        replay.play(node, bag, config, ("/nothing",), progress=False)


ODD = {"a b": "a", "/po\x01nts": "", "/twice//": ".x/msg/Y", "/c": "nav_msgs/msg/_odometry", "/d": "nav_msgs/msg/Odo"}


def test_names_of_a_damaged_bag_are_left_out(node, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bag = make_bag(tmp_path / "bag", n=3)
    lines: list[str] = []
    with bags.open_bag(bag) as reader:
        (odom,) = (c for c in reader.connections if c.topic == "/odom")
        reader.connections += [odom._replace(topic=topic, msgtype=kind) for topic, kind in ODD.items()]
        reader.connections.append(odom._replace(topic="a b"))
        player = replay.Player(node, reader, ReplayConfig(rate=100.0, wait=0.1), (), lines.append)
        try:
            player.play(progress=False)
        finally:
            player.pace.close()
    assert player.report.published == {"/points": 3, "/odom": 3} and set(player.report.skipped) == set(ODD)


def test_a_type_that_is_not_installed_is_left_out(node, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("uint64 timebase\n", "livox_ros_driver2/msg/CustomMsg"))
    string = store.types["std_msgs/msg/String"]
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        custom = writer.add_connection("/livox/lidar", "livox_ros_driver2/msg/CustomMsg", typestore=store)
        known = writer.add_connection("/chatter", "std_msgs/msg/String", typestore=store)
        raw = store.serialize_cdr(store.types["livox_ros_driver2/msg/CustomMsg"](1), custom.msgtype)
        writer.write(custom, 10**9, raw)
        writer.write(known, 10**9, store.serialize_cdr(string("hello"), known.msgtype))
    lines: list[str] = []
    report = replay.play(node, tmp_path / "bag", ReplayConfig(wait=0.0), (), lines.append, progress=False)
    assert report.published == {"/chatter": 1}
    assert lines[0] == "/livox/lidar is left out: livox_ros_driver2/msg/CustomMsg is not installed"


class Forgetful:
    """A node that says what it takes, as the real one does; at its third cloud it stands still for a while, and what is
    on its way to it is lost."""

    def __init__(self, node) -> None:  # type: ignore[no-untyped-def]
        self.taken: list[bytes] = []
        self._still: float | None = None
        self._word = node.create_publisher(DiagnosticArray, "/listener/_taken", 1)
        node.create_subscription(PointCloud2, "/points", self._take, qos_profile_sensor_data, raw=True)
        node.create_timer(0.02, self._say)

    @property
    def stands_still(self) -> bool:
        """Neither takes nor speaks."""
        return self._still is not None and time.monotonic() - self._still < 1.0

    def _take(self, raw: bytes) -> None:
        if not self.stands_still:
            self.taken.append(raw)
            if len(self.taken) == 3:
                self._still = time.monotonic()

    def _say(self) -> None:
        if not self.stands_still:
            stamp = stamp_of_cdr(self.taken[-1]) if self.taken else 0
            numbers = {"taken": len(self.taken), "stamp": stamp, "room": 5}
            values = [KeyValue(key=key, value=str(number)) for key, number in numbers.items()]
            self._word.publish(DiagnosticArray(status=[DiagnosticStatus(name="/points", values=values)]))


@pytest.mark.parametrize("lossless", [False, True])
def test_what_was_lost_on_the_way_is_sent_again(node, tmp_path: Path, lossless: bool) -> None:  # type: ignore[no-untyped-def]
    bag = make_bag(tmp_path / "bag")
    taker = Forgetful(node)
    report = replay.play(node, bag, ReplayConfig(lossless=lossless), ("/points",), progress=False)
    assert report.published == {"/points": 20} and not report.lost.total()
    assert report.repeated > 0
    assert taker.taken == recorded(bag, "/points"), "each once, in order"


def test_lossless_with_nobody_to_pace_by(node, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    bag = make_bag(tmp_path / "bag")
    lines: list[str] = []
    clouds: list[bytes] = []
    node.create_subscription(PointCloud2, "/points", clouds.append, 10, raw=True)
    config = ReplayConfig(lossless=True, rate=10.0)
    report = replay.play(node, bag, config, ("/points",), lines.append, progress=False)
    assert len(lines) == 1 and "nobody to pace by" in lines[0]
    assert len(report.lateness) == 20, "at the recorded pace"
    wait_until(lambda: len(clouds) == 20)
    assert clouds == recorded(bag, "/points")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("times", [[0] * 5, [0, 1, 1_700_000_000 * SECOND, 1_700_000_001 * SECOND]])
def test_odd_bag_times_do_not_hang(node, tmp_path: Path, times: list[int], storage: str) -> None:  # type: ignore[no-untyped-def]
    scans = (bags.StampedScan(stamp, np.ones((200, 4), np.float32)) for stamp in times)
    bags.write_bag(tmp_path / "bag", scans, ImportConfig(storage=storage))
    lines: list[str] = []
    heard: list[int] = []
    node.create_subscription(PointCloud2, "/points", lambda message: heard.append(stamp_of(message)), 10)
    replay.play(node, tmp_path / "bag", ReplayConfig(), (), lines.append, progress=False)
    wait_until(lambda: len(heard) == len(times))
    assert heard == times
    assert len(lines) == 1 and "not waited for" in lines[0]


def wait_until(condition, seconds: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    assert condition(), "not in time"
