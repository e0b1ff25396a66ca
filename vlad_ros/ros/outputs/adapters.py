# SPDX-License-Identifier: Apache-2.0
"""Our edges in the message formats of other stacks. All off by default; only accepted, verified edges are sent."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Float64MultiArray, Header

from vlad_ros.config import NodeConfig
from vlad_ros.graph.node_edges import NodeEdges
from vlad_ros.loops.described import Described
from vlad_ros.ros.outputs import messages
from vlad_ros.ros.qos import RELIABLE
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, LoopClosure

LIO_SAM_TOPIC = "lio_loop/loop_closure_detection"
LIO_SAM_APART = 30 * SECOND  # LIO-SAM discards closer pairs (historyKeyframeSearchTimeDiff)
LIO_SAM_PERIOD = SECOND  # LIO-SAM processes one edge per second, and queues five

PoseOf = Callable[[int], F64 | None]
BodyFrame = Callable[[], str]


class StampPairs:
    """Chooses the newest best edge of each second as a pair of stamps (query, match) [ns], no pair twice."""

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._given: set[frozenset[int]] = set()
        self._last: int | None = None
        self._waiting: tuple[int, int] | None = None

    def offer(self, stamp: int, closures: Iterable[LoopClosure]) -> tuple[int, int] | None:
        """The closures of the keyframe at `stamp`; the pair to be sent now, if any. If stamps go back (a bag played
        again), a new session starts."""
        if self._last is not None and stamp < self._last:
            self._begin_anew()
        usable = [closure for closure in closures if self._is_usable(closure)]
        if usable:
            best = max(usable, key=lambda closure: closure.probability or 0.0)
            self._waiting = best.query_stamp, best.match_stamp
        if self._waiting is None or (self._last is not None and stamp - self._last < LIO_SAM_PERIOD):
            return None
        pair, self._waiting, self._last = self._waiting, None, stamp
        self._given.add(frozenset(pair))
        return pair

    def _is_usable(self, closure: LoopClosure) -> bool:
        """Stamps of another session are meaningless to the running system."""
        return (
            closure.accepted
            and closure.T_match_query is not None
            and closure.query_session == closure.match_session
            and abs(closure.query_stamp - closure.match_stamp) >= LIO_SAM_APART
            and frozenset((closure.query_stamp, closure.match_stamp)) not in self._given
        )


class LioSam:
    """`[t_query, t_match]` in seconds, as LIO-SAM and its relatives listen for; they align the two scans themselves."""

    def __init__(self, node: LifecycleNode) -> None:
        self._pairs = StampPairs()
        self.publisher = node.create_publisher(Float64MultiArray, LIO_SAM_TOPIC, RELIABLE)

    def publish(self, described: Described) -> None:
        """The edges of one keyframe."""
        pair = self._pairs.offer(described.keyframe.stamp, described.closures)
        if pair is not None:
            self.publisher.publish(Float64MultiArray(data=[stamp / SECOND for stamp in pair]))


class ForeignNodes:
    """Edges between the nodes that a back-end announces on `keyframes`, as rows of `messages.LAYOUT` whose stamps,
    transform and covariance are the nodes'; ids and sessions remain those of our keyframes."""

    def __init__(self, node: LifecycleNode, body: BodyFrame, pose_of: PoseOf, withhold: Callable[[str], None]) -> None:
        self.edges = NodeEdges(withhold)
        self._body, self._pose_of = body, pose_of
        self.publisher = node.create_publisher(PointCloud2, "~/node_edges", RELIABLE)

    def publish(self, described: Described) -> None:
        """The edges of one keyframe, and the pending ones that can be sent now."""
        for closure in described.closures:
            self.edges.add(closure, described.keyframe.T_odom_base, self._pose_of(closure.match_id))
        self.send()

    def send(self) -> None:
        """One message for each node that has edges."""
        found = sorted(self.edges.take(), key=lambda edge: edge.query_stamp)
        for stamp, edges in itertools.groupby(found, key=lambda edge: edge.query_stamp):
            header = Header(stamp=messages.to_time(stamp), frame_id=self._body())
            self.publisher.publish(messages.closures_message(header, list(edges), self._pose_of))


class Adapters:
    """The adapters enabled in the configuration; called only by the worker."""

    def __init__(
        self,
        node: LifecycleNode,
        config: NodeConfig,
        body: BodyFrame,
        pose_of: PoseOf,
        withhold: Callable[[str], None],
    ) -> None:
        self._node = node
        self._lio_sam = LioSam(node) if config.lio_sam else None
        self._nodes = ForeignNodes(node, body, pose_of, withhold) if config.node_edges else None

    def close(self) -> None:
        """Destroy the publishers."""
        for adapter in (self._lio_sam, self._nodes):
            if adapter is not None:
                self._node.destroy_publisher(adapter.publisher)

    def publish(self, described: Described) -> None:
        """A keyframe has been answered."""
        for adapter in (self._lio_sam, self._nodes):
            if adapter is not None:
                adapter.publish(described)

    def move(self, stamp: int, T_odom_base: F64 | None) -> None:
        """The body's pose at a scan."""
        if self._nodes is not None:
            self._nodes.edges.move(stamp, T_odom_base)
            self._nodes.send()

    def announce(self, stamps: Iterable[int]) -> None:
        """The back-end's nodes."""
        if self._nodes is not None:
            self._nodes.edges.announce(*stamps)
            self._nodes.send()
