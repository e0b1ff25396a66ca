# SPDX-License-Identifier: Apache-2.0
"""What the adapters send, over DDS, to subscribers that read it as the other stacks do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import ros_harness  # noqa: E402
from loops import accepted_loop  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from std_msgs.msg import Float64MultiArray  # noqa: E402

from vlad_ros.config import NodeConfig  # noqa: E402
from vlad_ros.covariance_conventions import from_upper_triangle  # noqa: E402
from vlad_ros.pipeline import Described  # noqa: E402
from vlad_ros.poses import from_quaternion, from_xyz_rpy, inverse  # noqa: E402
from vlad_ros.ros.outputs.adapters import LIO_SAM_TOPIC, Adapters, StampPairs  # noqa: E402
from vlad_ros.ros.outputs.messages import ROW  # noqa: E402
from vlad_ros.stamps import from_time  # noqa: E402
from vlad_ros.types import Keyframe, LoopClosure, RejectReason  # noqa: E402

SECOND = ros_harness.SECOND
START = 1_700_000_000 * SECOND  # as a robot's clock has it
BODY = "base_link"


def odometry(stamp: int) -> np.ndarray:
    return from_xyz_rpy((1e-9 * (stamp - START), 0.0, 0.0, 0.0, 0.0, 5e-12 * (stamp - START)))


def loop(query: int, match: int, **changes: Any) -> LoopClosure:
    """An accepted edge between keyframes so many seconds after START."""
    query, match = START + query * SECOND, START + match * SECOND
    covariance = np.diag([1e-2, 2e-2, 3e-2, 1e-4, 2e-4, 3e-4])
    T = inverse(odometry(match)) @ odometry(query)
    return accepted_loop(query, match, T, covariance, **{"query_id": 7, "match_id": 3} | changes)


def keyframe(*closures: LoopClosure) -> Described:
    stamp = closures[0].query_stamp
    nothing = np.zeros(4, np.float32)
    return Described(7, Keyframe(0, stamp, nothing, nothing, T_odom_base=odometry(stamp)), list(closures), None, {})  # type: ignore[arg-type]


REFUSED = [
    {"accepted": False, "reject_reason": RejectReason.AMBIGUOUS},
    {"T_match_query": None, "covariance": None},
    {"match_session": 1},
]


def offered(pairs: StampPairs, *closures: LoopClosure) -> tuple[float, ...] | None:
    """Seconds after START of the pair that is sent."""
    pair = pairs.offer(closures[0].query_stamp, closures)
    return None if pair is None else tuple((stamp - START) / SECOND for stamp in pair)


def test_the_most_probable_edge_goes_out() -> None:
    assert offered(StampPairs(), loop(100, 10, probability=0.95), loop(100, 40)) == (100, 40)


@pytest.mark.parametrize("changes", REFUSED)
def test_what_is_not_certain_or_of_another_session_stays(changes: dict[str, Any]) -> None:
    assert offered(StampPairs(), loop(100, 10, **changes)) is None
    assert offered(StampPairs(), loop(100, 10, **changes, probability=1.0), loop(100, 20)) == (100, 20)


def test_never_less_than_thirty_seconds_apart() -> None:
    assert offered(StampPairs(), loop(100, 71)) is None
    assert offered(StampPairs(), loop(100, 70)) == (100, 70)


def test_the_newest_of_each_second() -> None:
    pairs = StampPairs()
    assert offered(pairs, loop(100, 10)) == (100, 10)
    for milliseconds, match in ((400, 11), (800, 12)):
        stamp = START + 100 * SECOND + milliseconds * ros_harness.MS
        assert pairs.offer(stamp, [loop(100, match, query_stamp=stamp)]) is None
    assert pairs.offer(START + 101 * SECOND, []) == (START + 100_800 * ros_harness.MS, START + 12 * SECOND)
    assert pairs.offer(START + 103 * SECOND, []) is None


def test_no_pair_twice_in_either_order_until_the_clock_begins_anew() -> None:
    pairs = StampPairs()
    assert offered(pairs, loop(100, 10)) == (100, 10)
    assert pairs.offer(START + 102 * SECOND, [loop(100, 10)]) is None
    assert pairs.offer(START + 104 * SECOND, [loop(10, 100)]) is None
    assert pairs.offer(START + 60 * SECOND, []) is None
    assert offered(pairs, loop(100, 10)) == (100, 10)


class World:
    """A node with adapters, and a listener, in one process."""

    def __init__(self, config: NodeConfig) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("vlad", context=self.context)
        self.withheld: Counter[str] = Counter()
        match = START + 10 * SECOND
        self.adapters = Adapters(
            self.node, config, lambda: BODY, lambda id: odometry(match), lambda reason: self.withheld.update([reason])
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.pairs: list[Float64MultiArray] = []
        self.edges: list[PointCloud2] = []
        lio_sam = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(Float64MultiArray, LIO_SAM_TOPIC, self.pairs.append, lio_sam)
        self.node.create_subscription(PointCloud2, "~/node_edges", self.edges.append, QoSProfile(depth=10))

    def wait(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end, "nothing has come"
            self.executor.spin_once(timeout_sec=0.05)

    def topics(self) -> set[str]:
        return {name for name, _ in self.node.get_publisher_names_and_types_by_node("vlad", "/")}

    def close(self) -> None:
        self.adapters.close()
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


@pytest.mark.parametrize("world", [NodeConfig()], indirect=True)
def test_off_by_default(world: World) -> None:
    world.adapters.move(START, odometry(START))
    world.adapters.announce([START])
    world.adapters.publish(keyframe(loop(100, 10)))
    assert not {f"/{LIO_SAM_TOPIC}", "/vlad/node_edges"} & world.topics() and not world.withheld


@pytest.mark.parametrize("world", [NodeConfig(lio_sam=True)], indirect=True)
def test_lio_sam_finds_its_keyframes(world: World) -> None:
    world.wait(lambda: world.node.count_subscribers(LIO_SAM_TOPIC) and world.node.count_publishers(LIO_SAM_TOPIC))
    world.adapters.publish(keyframe(loop(100, 10)))
    world.wait(lambda: world.pairs)
    (message,) = world.pairs
    assert list(message.data) == [1_700_000_100.0, 1_700_000_010.0]  # seconds, the query first
    assert lio_sam_keys(message, [1_700_000_000.0 + 0.5 * i for i in range(220)]) == (200, 20)


def lio_sam_keys(message: Float64MultiArray, times: list[float]) -> tuple[int, int]:
    """How LIO-SAM looks the pair up among the times of its keyframes: the first not before the one, the last not
    after the other, and only where they are 30 s apart."""
    assert len(message.data) == 2
    current, previous = message.data
    assert abs(current - previous) >= 30.0
    return min(i for i, t in enumerate(times) if t >= current), max(i for i, t in enumerate(times) if t <= previous)


@pytest.mark.parametrize("world", [NodeConfig(node_edges=True)], indirect=True)
def test_an_edge_between_a_back_ends_nodes(world: World) -> None:
    world.wait(lambda: world.node.count_subscribers("/vlad/node_edges"))
    nodes = [START + 10_200 * ros_harness.MS, START + 99_700 * ros_harness.MS]
    for tenth in range(1010):
        stamp = START + tenth * SECOND // 10
        world.adapters.move(stamp, odometry(stamp))
        if stamp in (nodes[0] + SECOND, nodes[1] + SECOND):
            world.adapters.announce([stamp - SECOND])
    world.adapters.publish(keyframe(loop(100, 10), loop(100, 10, accepted=False), loop(100, 10, match_session=4)))
    world.adapters.announce([START + 100_900 * ros_harness.MS])
    world.wait(lambda: world.edges)
    (message,) = world.edges
    (row,) = np.frombuffer(message.data, ROW)
    assert message.header.frame_id == BODY and from_time(message.header.stamp) == nodes[1]
    for side, stamp in (("match", nodes[0]), ("query", nodes[1])):
        assert int(row[f"{side}_sec"]) * SECOND + int(row[f"{side}_nanosec"]) == stamp
    T = from_quaternion(np.array(row[["tx", "ty", "tz"]].item()), np.array(row[["qx", "qy", "qz", "qw"]].item()))
    np.testing.assert_allclose(T, inverse(odometry(nodes[0])) @ odometry(nodes[1]), atol=1e-4)
    names = [f"cov_{r}{c}" for r in range(6) for c in range(r, 6)]
    covariance = from_upper_triangle(np.array(row[names].item()))
    assert np.linalg.eigvalsh(covariance).min() > 1e-4  # the edge's own and that of both ways
    assert np.linalg.eigvalsh(covariance - np.diag([9e-3, 9e-3, 9e-3, 9e-5, 9e-5, 9e-5])).min() > 0
    assert row["accepted"] == 1 and row["reject_reason"] == 0 and row["probability"] == pytest.approx(0.99)
    assert world.withheld == {"node_other_session": 1}
