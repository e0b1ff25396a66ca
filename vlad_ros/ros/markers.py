# SPDX-License-Identifier: Apache-2.0
"""Keyframes and loop edges for RViz, in the odometry's frame; colours of Okabe and Ito, safe for colour-blind eyes."""

from __future__ import annotations

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from vlad_ros.types import F64, LoopClosure

KEYFRAME = ColorRGBA(r=0.34, g=0.71, b=0.91, a=1.0)  # sky blue
ACCEPTED = ColorRGBA(r=0.0, g=0.62, b=0.45, a=1.0)  # bluish green
REJECTED = ColorRGBA(r=0.84, g=0.37, b=0.0, a=0.35)  # vermilion, faint
CHUNK = 1000  # keyframes or edges in one marker: what is full is never built again


class MarkerBoard:
    """Collects what a session has found; `message` gives it as one MarkerArray.

    Only keyframes with odometry have a place to be drawn at, and a new session, whose odometry begins elsewhere,
    wipes the board.
    """

    def __init__(self) -> None:
        self._poses: dict[int, Point] = {}
        self._session: int | None = None
        self._markers: dict[str, list[Marker]] = {}
        self._changed = True

    def clear(self) -> None:
        """An empty board, said so in the next message."""
        self._poses.clear()
        self._markers.clear()
        self._changed = True

    def add(self, session: int, keyframe_id: int, T_odom_base: F64 | None, closures: list[LoopClosure]) -> None:
        """A keyframe and its best candidate; an edge is drawn where both ends have a place."""
        if session != self._session:
            self.clear()
            self._session = session
        if T_odom_base is None:
            return
        x, y, z = (float(number) for number in T_odom_base[:3, 3])
        here = self._poses[keyframe_id] = Point(x=x, y=y, z=z)
        self._append("keyframes", Marker.POINTS, 0.4, KEYFRAME, [here])
        for closure in closures:
            there = self._poses.get(closure.match_id)
            if there is None or not (closure.accepted or closure is closures[0]):
                continue
            kind, colour = ("accepted", ACCEPTED) if closure.accepted else ("rejected", REJECTED)
            self._append(kind, Marker.LINE_LIST, 0.15 if closure.accepted else 0.05, colour, [here, there])
        self._changed = True

    def _append(self, name: str, kind: int, scale: float, colour: ColorRGBA, points: list[Point]) -> None:
        chunks = self._markers.setdefault(name, [])
        if not chunks or len(chunks[-1].points) >= CHUNK:
            marker = Marker(ns=name, id=len(chunks), type=kind, action=Marker.ADD, color=colour)
            marker.scale.x = marker.scale.y = scale
            marker.pose.orientation.w = 1.0
            chunks.append(marker)
        chunks[-1].points.extend(points)

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
        return MarkerArray(markers=markers)
