# SPDX-License-Identifier: Apache-2.0
"""docs/integration.md: its subscriber, as it stands there, fed over DDS; what it builds is optimised by gtsam."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")
gtsam = pytest.importorskip("gtsam", reason="no wheel of gtsam for this Python")
pytestmark = pytest.mark.ros

import ros_harness  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from sensor_msgs.msg import PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from vlad_ros.config import NodeConfig  # noqa: E402
from vlad_ros.poses import from_xyz_rpy, inverse  # noqa: E402
from vlad_ros.ros.outputs.messages import closures_message, to_time  # noqa: E402
from vlad_ros.ros.reasons import REASONS  # noqa: E402
from vlad_ros.types import LoopClosure, RejectReason  # noqa: E402

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "integration.md").read_text()
(PROGRAM,) = (block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "LoopEdges" in block)
SECOND = ros_harness.SECOND
NODES = 40  # once around a circle and on, one a second
C = np.diag([4e-4, 1e-4, 9e-4, 1e-6, 4e-6, 2.5e-5])


def truth(i: int) -> np.ndarray:
    angle = 2 * np.pi * i / 32
    return from_xyz_rpy((20 * np.sin(angle), 20 - 20 * np.cos(angle), 0.1 * i, 0.0, 0.0, angle))


def edge(query: int, match: int, **changes: Any) -> LoopClosure:
    values: dict[str, Any] = {
        "query_id": query,
        "match_id": match,
        "query_session": 0,
        "match_session": 0,
        "query_stamp": query * SECOND,
        "match_stamp": match * SECOND,
        "similarity": 0.9,
        "probability": 0.99,
        "T_match_query": inverse(truth(match)) @ truth(query),
        "covariance": C,
        "accepted": True,
    }
    return LoopClosure(**{**values, **changes})


@pytest.fixture
def graph_from() -> Iterator[Callable[[list[LoopClosure]], Any]]:
    """Runs the document's node and sends it closures; the graph that it has filled."""
    context = rclpy.Context()
    rclpy.init(context=context)
    graph, scope = gtsam.NonlinearFactorGraph(), {}
    exec(PROGRAM, scope)
    node = scope["LoopEdges"](graph, lambda stamp: None if stamp % SECOND else stamp // SECOND, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    publisher = node.create_publisher(PointCloud2, "/vlad/loop_closures", QoSProfile(depth=100))

    def send(closures: list[LoopClosure]) -> Any:
        accepted = sum(closure.accepted and closure.query_stamp % SECOND == 0 for closure in closures)
        end = time.monotonic() + 120
        while not publisher.get_subscription_count():
            assert time.monotonic() < end, "nobody listens"
            executor.spin_once(timeout_sec=0.05)
        header = Header(stamp=to_time(closures[0].query_stamp), frame_id="base_link")
        publisher.publish(closures_message(header, closures, lambda id: None))
        while graph.size() < accepted:
            assert time.monotonic() < end, "nothing has come"
            executor.spin_once(timeout_sec=0.05)
        return graph

    yield send
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_it_is_thirty_lines_at_most() -> None:
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 30


def test_accepted_rows_become_factors(graph_from: Callable[[list[LoopClosure]], Any]) -> None:
    rejected = edge(33, 2, accepted=False, reject_reason=RejectReason.AMBIGUOUS)
    unverified = edge(33, 3, accepted=False, T_match_query=None, covariance=None, probability=None)
    foreign = edge(33, 4, query_stamp=33 * SECOND + 5)
    graph = graph_from([rejected, unverified, foreign, edge(33, 1)])
    assert graph.size() == 1
    factor = graph.at(0)
    assert list(factor.keys()) == [1, 33]
    np.testing.assert_allclose(factor.measured().matrix(), inverse(truth(1)) @ truth(33), atol=1e-12)


def test_a_drifted_loop_closes(graph_from: Callable[[list[LoopClosure]], Any]) -> None:
    """Odometry that turns too much by 0.3 degrees a node is put right; an edge in the wrong direction would not do."""
    graph = graph_from([edge(i, i - 32) for i in range(32, NODES)])
    loops = [graph.at(i) for i in range(graph.size())]
    right = optimised(loops)
    wrong = optimised(
        [gtsam.BetweenFactorPose3(f.keys()[0], f.keys()[1], f.measured().inverse(), f.noiseModel()) for f in loops]
    )
    none = optimised([])
    print(f"RMSE {none:.2f} m by odometry alone, {right:.3f} m with the edges, {wrong:.2f} m with their inverses")
    assert right < 0.3 < none and wrong > none


def optimised(loops: list[Any]) -> float:
    """RMSE [m] of the positions of a drifted circle with these loop factors."""
    graph, values, drift = gtsam.NonlinearFactorGraph(), gtsam.Values(), from_xyz_rpy((0, 0, 0, 0, 0, np.radians(0.3)))
    tight = gtsam.noiseModel.Diagonal.Sigmas(np.full(6, 1e-6))
    loose = gtsam.noiseModel.Diagonal.Sigmas(np.array([0.002, 0.002, 0.01, 0.05, 0.05, 0.05]))
    graph.add(gtsam.PriorFactorPose3(0, gtsam.Pose3(truth(0)), tight))
    T = truth(0)
    values.insert(0, gtsam.Pose3(T))
    for i in range(1, NODES):
        step = inverse(truth(i - 1)) @ truth(i) @ drift
        T = T @ step
        graph.add(gtsam.BetweenFactorPose3(i - 1, i, gtsam.Pose3(step), loose))
        values.insert(i, gtsam.Pose3(T))
    for factor in loops:
        graph.add(factor)
    found = gtsam.LevenbergMarquardtOptimizer(graph, values).optimize()
    errors = [found.atPose3(i).translation() - truth(i)[:3, 3] for i in range(NODES)]
    return float(np.sqrt(np.mean(np.square(errors).sum(axis=1))))


def test_its_words_are_the_programs() -> None:
    """Parameters, counters and functions that the text names exist."""
    for parameter in ("min_probability", "keyframe_source", "node_edges", "lio_sam", "base_frame"):
        assert parameter in TEXT
        assert hasattr(NodeConfig, parameter) or parameter == "min_probability"
    for reason in re.findall(r"\(`(node_\w+)`\)", TEXT):
        assert reason in REASONS
    import vlad_ros.covariance_conventions as conventions

    for name in ("gtsam_covariance", "g2o_information", "right_covariance"):
        assert name in TEXT and hasattr(conventions, name)
