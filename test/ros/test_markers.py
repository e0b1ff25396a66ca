# SPDX-License-Identifier: Apache-2.0
"""What a viewer sees that keeps markers by namespace and id, as RViz does; and what is built where nobody looks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from builtin_interfaces.msg import Time  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from vlad_ros.poses import from_xyz_rpy  # noqa: E402
from vlad_ros.ros.outputs import markers  # noqa: E402
from vlad_ros.ros.outputs.markers import BATCH, MarkerBoard, MarkerTopic  # noqa: E402
from vlad_ros.types import LoopClosure  # noqa: E402

HEADER = Header(frame_id="odom")


class Viewer:
    """Draws what it is told, for good."""

    def __init__(self) -> None:
        self.drawn: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
        self.most = 0

    def see(self, message: MarkerArray) -> None:
        self.most = max(self.most, sum(len(marker.points) for marker in message.markers))
        for marker in message.markers:
            if marker.action == Marker.DELETEALL:
                self.drawn.clear()
            else:
                assert len(marker.colors) in (0, len(marker.points))
                self.drawn[marker.ns, marker.id] = [(p.x, p.y, p.z) for p in marker.points]

    def points(self, namespace: str) -> list[tuple[float, float, float]]:
        keys = sorted(key for key in self.drawn if key[0] == namespace)
        return [point for key in keys for point in self.drawn[key]]


def at(i: int) -> np.ndarray:
    return from_xyz_rpy((float(i), 0.5 * i, 0.0, 0.0, 0.0, 0.0))


def where(i: int) -> tuple[float, float, float]:
    return (float(i), 0.5 * i, 0.0)


def drive(board: MarkerBoard, begin: int, end: int, session: int = 0) -> None:
    """A keyframe a metre, every third one with an edge to the one before."""
    for i in range(begin, end):
        edge = LoopClosure(i, i - 1, session, session, i, i - 1, 0.9, probability=0.95, accepted=i % 2 == 0)
        board.add(session, i, at(i), [edge] if i % 3 == 0 and i > begin else [])


def edges(begin: int, end: int, accepted: bool) -> list[tuple[float, float, float]]:
    ends = [i for i in range(begin + 1, end) if i % 3 == 0 and (i % 2 == 0) == accepted]
    return [where(k) for i in ends for k in (i, i - 1)]


def tell(board: MarkerBoard, *viewers: Viewer, most: int = 1000) -> int:
    """Until there is nothing more to tell; how many messages that took."""
    for number in range(most):
        message = board.message(HEADER)
        if message is None:
            return number
        for viewer in viewers:
            viewer.see(message)
    raise AssertionError("it never ends")


def test_places_and_edges_are_shown_and_wiped_by_a_session() -> None:
    board = MarkerBoard()
    board.message(HEADER)
    assert board.message(HEADER) is None  # nothing new
    for i in range(3):
        board.add(0, i, from_xyz_rpy((float(i), 0, 0, 0, 0, 0)), [])
    accepted = LoopClosure(3, 0, 0, 0, 1, 2, 0.9, accepted=True)
    rejected = [LoopClosure(3, 1, 0, 0, 1, 2, 0.5), LoopClosure(3, 2, 0, 0, 1, 2, 0.4)]
    board.add(0, 3, from_xyz_rpy((9.0, 0, 0, 0, 0, 0)), [accepted, *rejected])
    wipe, *drawn = board.message(HEADER).markers
    assert wipe.action == wipe.DELETEALL
    assert {marker.ns: len(marker.points) for marker in drawn} == {"keyframes": 4, "accepted": 2}
    assert [point.x for point in drawn[1].points] == [9.0, 0.0]
    board.add(1, 4, from_xyz_rpy((5.0, 0, 0, 0, 0, 0)), [])
    _, *drawn = board.message(HEADER).markers
    assert [len(marker.points) for marker in drawn] == [1]


def test_a_long_drive_is_told_in_pieces_that_add_up() -> None:
    board, first, late = MarkerBoard(), Viewer(), Viewer()
    for begin in range(0, 6000, 10):
        drive(board, begin, begin + 10)
        assert tell(board, first) == 1  # a second's news are one message
    board.repeat()
    message = board.message(HEADER)
    first.see(message)
    late.see(message)
    assert {where(i) for i in range(5950, 6000)} <= set(late.points("keyframes"))  # the newest first
    assert 2 < tell(board, first, late) <= 10_000 // BATCH + 3  # three markers are not full
    for viewer in (first, late):
        assert viewer.most <= BATCH
        assert viewer.points("keyframes") == [where(i) for i in range(6000)]
    assert first.drawn == late.drawn


def test_only_what_has_changed_is_told_again() -> None:
    board, viewer = MarkerBoard(), Viewer()
    drive(board, 0, 5000)
    tell(board, viewer)
    assert viewer.points("accepted") == edges(0, 5000, True) and viewer.points("rejected") == edges(0, 5000, False)
    board.add(0, 5000, at(5000), [])
    (news,) = board.message(HEADER).markers
    assert news.ns == "keyframes" and len(news.points) <= markers.CHUNK
    assert board.message(HEADER) is None


def test_a_session_that_began_while_nobody_looked_wipes_the_last_one() -> None:
    board, viewer = MarkerBoard(), Viewer()
    drive(board, 0, 5000)
    tell(board, viewer)
    drive(board, 6000, 11_000, session=1)  # nobody listens
    board.repeat()
    tell(board, viewer)
    assert viewer.points("keyframes") == [where(i) for i in range(6000, 11_000)]
    assert viewer.points("accepted") == edges(6000, 11_000, True)


class Publisher:
    """A topic with as many subscribers as a test says."""

    def __init__(self) -> None:
        self.listeners = 0
        self.told: list[MarkerArray] = []

    def get_subscription_count(self) -> int:
        return self.listeners

    def publish(self, message: MarkerArray) -> None:
        self.told.append(message)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> tuple[MarkerTopic, Publisher]:
    publisher = Publisher()
    clock = SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time))
    node: Any = SimpleNamespace(create_publisher=lambda *_: publisher, get_clock=lambda: clock)
    monkeypatch.setattr(markers, "PERIOD", 0.0)
    return MarkerTopic(node), publisher


def test_nothing_is_built_where_nobody_listens(topic: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing, publisher = topic
    drive(drawing.board, 0, 5000)
    with monkeypatch.context() as patch:
        patch.setattr(MarkerBoard, "message", lambda *_: pytest.fail("built for nobody"))
        drawing.draw("odom")
        drawing.draw("odom", now=True)
    assert publisher.told == []


def test_whoever_comes_is_told_everything_even_after_others(topic: Any) -> None:
    drawing, publisher = topic
    first, late = Viewer(), Viewer()
    drive(drawing.board, 0, 5000)
    for second in range(40):
        publisher.listeners = 1 if second < 20 else 2
        drawing.draw("odom")
        for message in publisher.told:
            assert message.markers[-1].header.frame_id == "odom"
            first.see(message)
            if second >= 20:
                late.see(message)
        publisher.told.clear()
    assert late.points("keyframes") == [where(i) for i in range(5000)]
    assert first.drawn == late.drawn
    drawing.draw("odom")
    assert publisher.told == []  # and then there is silence
