# SPDX-License-Identifier: Apache-2.0
"""Keyframes and loop edges for RViz and Foxglove, in the odometry's frame.

Namespaces, to be shown and hidden one by one: `keyframes`, `accepted`, `rejected` (each keyframe's best candidate where
none was accepted) and `diagnostics`, the node's state in words. Colours: Okabe and Ito's colour-blind-safe palette.
"""

from __future__ import annotations

import math
import textwrap
import time

from geometry_msgs.msg import Point
from rclpy.lifecycle import LifecycleNode
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from vlad_ros.ros.qos import LATCHED
from vlad_ros.types import F64, LoopClosure

KEYFRAME = ColorRGBA(r=0.8, g=0.8, b=0.8, a=1.0)
UNKNOWN = (0.6, 0.6, 0.6)  # of an edge without a probability
SCALE = ((0.84, 0.37, 0.0), (0.94, 0.89, 0.26), (0.34, 0.71, 0.91))  # probability 0 vermilion, 1/2 yellow, 1 sky blue
FAINT = 0.35  # opacity of rejected edges
FINE, TROUBLE = ColorRGBA(r=0.8, g=0.8, b=0.8, a=1.0), ColorRGBA(r=0.94, g=0.89, b=0.26, a=1.0)
TEXT_WIDTH = 60  # characters
CHUNK = 200  # points in one marker: a full marker is published once
BATCH = 800  # points in one message, whose serialisation takes 1 us each, and as much for its colour
PERIOD = 1.0  # s on the steady clock


def colour_of(probability: float | None, accepted: bool) -> ColorRGBA:
    """An edge's colour on `SCALE`, faint where it is rejected."""
    r, g, b = UNKNOWN
    if probability is not None and math.isfinite(probability):
        upper = int(probability >= 0.5)
        share = min(max(2 * probability - upper, 0.0), 1.0)
        r, g, b = ((1 - share) * low + share * high for low, high in zip(SCALE[upper], SCALE[upper + 1], strict=True))
    return ColorRGBA(r=r, g=g, b=b, a=1.0 if accepted else FAINT)


class MarkerBoard:
    """Collects the results of a session; `message` gives those to be published, as one MarkerArray.

    Only keyframes with odometry can be drawn, and a new session, whose odometry begins elsewhere,
    clears all markers.
    """

    def __init__(self) -> None:
        self._poses: dict[int, Point] = {}
        self._session: int | None = None
        self._markers: dict[str, list[Marker]] = {}
        self._untold: dict[tuple[str, int], None] = {}  # namespace and id, in order
        self._text, self._trouble = "", False
        self._here: Point | None = None
        self._changed, self._wiped = True, True

    def clear(self) -> None:
        """Clear all markers; the next message says so."""
        self._poses.clear()
        self._markers.clear()
        self._untold.clear()
        self._here = None
        self._changed, self._wiped = True, True

    @property
    def is_behind(self) -> bool:
        """Whether there is more to publish in the next message."""
        return self._changed

    def repeat(self) -> None:
        """Publish everything again, for a new subscriber."""
        self._untold = {(name, marker.id): None for name, chunks in self._markers.items() for marker in chunks}
        self._changed = True

    def say(self, text: str, trouble: bool) -> None:
        """The node's state as text, shown at the newest keyframe; published next time, at once when a problem
        appears or clears."""
        self._changed |= trouble != self._trouble
        self._text, self._trouble = text, trouble

    def add(self, session: int, keyframe_id: int, T_odom_base: F64 | None, closures: list[LoopClosure]) -> None:
        """A keyframe and its best candidate; an edge is drawn where both ends have a place."""
        if session != self._session:
            self.clear()
            self._session = session
        if T_odom_base is None:
            return
        x, y, z = (float(number) for number in T_odom_base[:3, 3])
        here = self._here = self._poses[keyframe_id] = Point(x=x, y=y, z=z)
        self._append("keyframes", Marker.POINTS, 0.4, [here])
        for closure in closures:
            there = self._poses.get(closure.match_id)
            if there is None or not (closure.accepted or closure is closures[0]):
                continue
            kind, width = ("accepted", 0.15) if closure.accepted else ("rejected", 0.05)
            colour = colour_of(closure.probability, closure.accepted)
            self._append(kind, Marker.LINE_LIST, width, [here, there], colour)
        self._changed = True

    def _append(self, name: str, kind: int, scale: float, points: list[Point], colour: ColorRGBA | None = None) -> None:
        chunks = self._markers.setdefault(name, [])
        if not chunks or len(chunks[-1].points) >= CHUNK:
            marker = Marker(ns=name, id=len(chunks), type=kind, action=Marker.ADD, color=KEYFRAME)
            marker.frame_locked = True  # an old marker moves with its frame when the frame is corrected
            marker.scale.x = marker.scale.y = scale
            marker.pose.orientation.w = 1.0
            chunks.append(marker)
        self._untold[name, chunks[-1].id] = None
        chunks[-1].points.extend(points)
        if colour is not None:
            chunks[-1].colors.extend([colour] * len(points))

    def message(self, header: Header) -> MarkerArray | None:
        """Changes since the last call, or everything if that is little, with older markers deleted first; at most
        `BATCH` points, the rest in the next call; None when nothing has changed."""
        if not self._changed:
            return None
        if sum(len(chunks) for chunks in self._markers.values()) <= BATCH // CHUNK:
            self.repeat()
            self._wiped = True
        markers = [Marker(header=header, action=Marker.DELETEALL)] if self._wiped else []
        for name, id in sorted(self._untold, key=self._age)[: BATCH // CHUNK]:
            del self._untold[name, id]
            marker = self._markers[name][id]
            marker.header = header
            markers.append(marker)
        if self._here is not None and self._text:
            markers.append(self._words(header, self._here))
        self._changed, self._wiped = bool(self._untold), False
        return MarkerArray(markers=markers)

    def _age(self, key: tuple[str, int]) -> int:
        """The number of newer markers in its namespace."""
        name, id = key
        return len(self._markers[name]) - id

    def _words(self, header: Header, at: Point) -> Marker:
        text = "\n".join(textwrap.wrap(self._text, TEXT_WIDTH))
        marker = Marker(header=header, ns="diagnostics", type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, text=text)
        marker.color = TROUBLE if self._trouble else FINE
        marker.scale.z = 1.0
        marker.pose.position = Point(x=at.x, y=at.y, z=at.z + 4.0)
        marker.pose.orientation.w = 1.0
        return marker


class MarkerTopic:
    """`~/markers`: published at most once per `PERIOD`, and only if there are subscribers."""

    def __init__(self, node: LifecycleNode) -> None:
        self.board = MarkerBoard()
        self._node, self._drawn, self._listeners = node, -math.inf, 0
        self._publisher = node.create_publisher(MarkerArray, "~/markers", LATCHED)

    def close(self) -> None:
        """Destroy the publisher."""
        self._node.destroy_publisher(self._publisher)

    def draw(self, frame: str, now: bool = False) -> None:
        """Publish pending markers in the frame `frame`; `now`: regardless of `PERIOD`. Subscribers that have joined
        since the last time get everything again."""
        if not now and time.monotonic() - self._drawn < PERIOD:
            return
        before, self._listeners = self._listeners, self._publisher.get_subscription_count()
        if self._listeners > before:
            self.board.repeat()
        if not self._listeners:
            return
        drawing = self.board.message(Header(stamp=self._node.get_clock().now().to_msg(), frame_id=frame))
        if drawing is not None:
            self._drawn = time.monotonic()
            self._publisher.publish(drawing)
