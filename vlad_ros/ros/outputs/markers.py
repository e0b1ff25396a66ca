# SPDX-License-Identifier: Apache-2.0
"""Keyframes and loop edges for RViz and Foxglove, in the odometry's frame.

Namespaces, to be shown and hidden one by one: `keyframes`, `accepted`, `rejected` (each keyframe's best candidate where
none was accepted) and `diagnostics`, the node's state in words. Colours: Okabe and Ito's, for all eyes.
"""

from __future__ import annotations

import math
import textwrap

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from vlad_ros.types import F64, LoopClosure

KEYFRAME = ColorRGBA(r=0.8, g=0.8, b=0.8, a=1.0)
UNKNOWN = (0.6, 0.6, 0.6)  # of an edge without a probability
SCALE = ((0.84, 0.37, 0.0), (0.94, 0.89, 0.26), (0.34, 0.71, 0.91))  # probability 0 vermilion, 1/2 yellow, 1 sky blue
FAINT = 0.35  # opacity of rejected edges
FINE, TROUBLE = ColorRGBA(r=0.8, g=0.8, b=0.8, a=1.0), ColorRGBA(r=0.94, g=0.89, b=0.26, a=1.0)
TEXT_WIDTH = 60  # characters
CHUNK = 1000  # keyframes or edges in one marker: what is full is never built again


def colour_of(probability: float | None, accepted: bool) -> ColorRGBA:
    """An edge's colour on `SCALE`, faint where it is rejected."""
    r, g, b = UNKNOWN
    if probability is not None and math.isfinite(probability):
        upper = int(probability >= 0.5)
        share = min(max(2 * probability - upper, 0.0), 1.0)
        r, g, b = ((1 - share) * low + share * high for low, high in zip(SCALE[upper], SCALE[upper + 1], strict=True))
    return ColorRGBA(r=r, g=g, b=b, a=1.0 if accepted else FAINT)


class MarkerBoard:
    """Collects what a session has found; `message` gives it as one MarkerArray.

    Only keyframes with odometry have a place to be drawn at, and a new session, whose odometry begins elsewhere,
    wipes the board.
    """

    def __init__(self) -> None:
        self._poses: dict[int, Point] = {}
        self._session: int | None = None
        self._markers: dict[str, list[Marker]] = {}
        self._text, self._trouble = "", False
        self._here: Point | None = None
        self._changed = True

    def clear(self) -> None:
        """An empty board, said so in the next message."""
        self._poses.clear()
        self._markers.clear()
        self._here = None
        self._changed = True

    def say(self, text: str, trouble: bool) -> None:
        """The node's state in words, shown at the newest keyframe; told on the next occasion, at once when trouble
        comes or goes."""
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
            marker.scale.x = marker.scale.y = scale
            marker.pose.orientation.w = 1.0
            chunks.append(marker)
        chunks[-1].points.extend(points)
        if colour is not None:
            chunks[-1].colors.extend([colour] * len(points))

    def message(self, header: Header) -> MarkerArray | None:
        """Everything on the board, older drawings wiped first; None when nothing has changed since the last call."""
        if not self._changed:
            return None
        self._changed = False
        markers = [Marker(header=header, action=Marker.DELETEALL)]
        for chunks in self._markers.values():
            for marker in chunks:
                marker.header = header
                markers.append(marker)
        if self._here is not None and self._text:
            markers.append(self._words(header, self._here))
        return MarkerArray(markers=markers)

    def _words(self, header: Header, at: Point) -> Marker:
        text = "\n".join(textwrap.wrap(self._text, TEXT_WIDTH))
        marker = Marker(header=header, ns="diagnostics", type=Marker.TEXT_VIEW_FACING, action=Marker.ADD, text=text)
        marker.color = TROUBLE if self._trouble else FINE
        marker.scale.z = 1.0
        marker.pose.position = Point(x=at.x, y=at.y, z=at.z + 4.0)
        marker.pose.orientation.w = 1.0
        return marker
