# SPDX-License-Identifier: Apache-2.0
"""The replay's bookkeeping by hand: what a node has room for, what it has missed, and when a message is due."""

from __future__ import annotations

import struct

import pytest

pytest.importorskip("rclpy", reason="needs the ROS 2 wheels or a ROS installation")
pytestmark = pytest.mark.ros

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402

from vlad_ros.ros.tools import pace, schedule  # noqa: E402
from vlad_ros.ros.tools.pace import AHEAD, UNTAKEN, Sent, Taker, stamp_of_cdr  # noqa: E402
from vlad_ros.ros.tools.schedule import Schedule  # noqa: E402
from vlad_ros.stamps import SECOND  # noqa: E402

YEAR = 365 * 86400 * SECOND


class Steady:
    """In place of `time`: a steady clock that is moved by hand, or by who sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Steady:
    clock = Steady()
    for module in (pace, schedule):
        monkeypatch.setattr(module, "time", clock)
    return clock


def word(taken: int, stamp: int = 0, room: int = 5, topic: str = "/points") -> DiagnosticArray:
    """What a node says of one of its inputs."""
    values = [
        KeyValue(key=key, value=str(value)) for key, value in (("taken", taken), ("stamp", stamp), ("room", room))
    ]
    return DiagnosticArray(status=[DiagnosticStatus(name=topic, values=values)])


def sent(*serials: int, size: int = 10) -> list[Sent]:
    """Clouds on their way whose stamp is their number."""
    return [Sent(serial, "/points", 0, serial, bytes(size)) for serial in serials]


def taker(steady: Steady, *messages: Sent, taken: int = 0, room: int = 5) -> Taker:
    """A node that has taken `taken` clouds before, with these on their way to it."""
    node = Taker("/vlad")
    node.hear(word(taken, room=room))
    for message in messages:
        node.send(message)
    return node


def way(node: Taker) -> list[int]:
    """The serials that it is still to take: what would be sent again after enough words."""
    node.words = UNTAKEN
    return [message.serial for message in node.missed]


def test_no_more_is_on_its_way_than_there_is_room_for(steady: Steady) -> None:
    node = taker(steady, *sent(1, 2), taken=40, room=3)
    assert node.has_room("/points", 10, 0)
    node.send(*sent(3))
    assert not node.has_room("/points", 10, 0)
    assert node.has_room("/image", 10, 0), "a topic that it does not hear is none of its business"
    node.hear(word(41, stamp=1, room=3))
    assert node.has_room("/points", 10, 0)
    node.hear(word(42, stamp=2, room=1))
    assert not node.has_room("/points", 10, 0), "one is on its way and the queue is nearly full"
    node.hear(word(43, stamp=3, room=1))
    assert node.has_room("/points", 10, 0) and way(node) == []


def test_large_clouds_do_not_fill_the_shared_memory(steady: Steady) -> None:
    node = taker(steady, *sent(1, size=AHEAD // 2))
    assert node.has_room("/points", AHEAD // 2, 0) and not node.has_room("/points", AHEAD // 2 + 1, 0)
    assert taker(steady).has_room("/points", 10 * AHEAD, 0), "one must go, however large it is"


def test_nothing_goes_far_ahead_of_what_is_on_its_way(steady: Steady) -> None:
    """Or the odometry of the cloud is forgotten before it arrives; where the bag's time jumps, too."""
    node = taker(steady, Sent(1, "/points", 100 * SECOND, 1, b""))
    assert node.has_room("/odom", 10, 101 * SECOND)
    assert not node.has_room("/odom", 10, 110 * SECOND) and not node.has_room("/points", 10, 0)
    node.hear(word(1, stamp=1))
    assert node.has_room("/odom", 10, 110 * SECOND) and node.has_room("/points", 10, 0)


def test_what_is_lost_before_the_newest_is_known_by_its_stamp(steady: Steady) -> None:
    node = taker(steady, *sent(1, 2, 3, 4))
    node.hear(word(2, stamp=3))  # two of the first three
    assert way(node) == [4] and node.lost["/points"] == 1
    node.hear(word(3, stamp=4))
    assert way(node) == [] and node.lost["/points"] == 1


def test_stamps_that_are_all_the_same_are_counted(steady: Steady) -> None:
    node = taker(steady, *[Sent(serial, "/points", 0, 0, b"") for serial in (1, 2, 3)])
    node.hear(word(2))
    assert way(node) == [3] and not node.lost["/points"]


def test_what_a_running_node_does_not_take_was_lost(steady: Steady) -> None:
    node = taker(steady, *sent(1, 2, 3))
    node.hear(word(1, stamp=1))
    for _ in range(UNTAKEN - 1):
        node.hear(word(1, stamp=1))
    assert node.missed == []
    node.hear(word(1, stamp=1))
    assert [message.serial for message in node.missed] == [2, 3]
    assert node.lacks(*sent(2)) and not node.lacks(*sent(1)), "another node that has taken it would get it twice"
    node.forgo(node.missed[0])
    assert node.lost["/points"] == 1 and way(node) == [3]


def test_a_node_that_starts_again_lacks_what_was_on_its_way(steady: Steady) -> None:
    node = taker(steady, *sent(1, 2), taken=500)
    node.hear(word(0))
    assert way(node) == [1, 2]
    node.hear(word(2, stamp=2))
    assert way(node) == [] and not node.lost["/points"]


def test_a_node_that_stood_still_first_takes_what_was_on_its_way(steady: Steady) -> None:
    node = taker(steady, *sent(1))
    steady.now += 6.0
    assert not node.has_room("/points", 10, 0) and not node.has_room("/image", 10, 0)
    node.hear(word(0))
    assert not node.has_room("/points", 10, 0), "it runs again, and has the old one before it"
    node.hear(word(1, stamp=1))
    assert node.has_room("/points", 10, 0)


def test_the_stamp_of_a_serialised_message() -> None:
    little = b"\x00\x01\x00\x00" + struct.pack("<iI", 1_700_000_000, 5) + b"rest"
    big = b"\x00\x00\x00\x00" + struct.pack(">iI", 1_700_000_000, 5)
    assert stamp_of_cdr(little) == stamp_of_cdr(big) == 1_700_000_000 * SECOND + 5
    assert stamp_of_cdr(b"\x00\x01\x00\x00\x01") == 0, "too short to begin with a header"


class Ticks(list):
    """A publisher that keeps what `/clock` says [ns]."""

    def publish(self, message) -> None:  # type: ignore[no-untyped-def]
        self.append(message.clock.sec * SECOND + message.clock.nanosec)


def played(steady: Steady, stamps: list[int], stops: dict[int, float] | None = None) -> tuple[list[float], Ticks, list]:
    """When each message of these bag times is sent [s], with the player standing still before some; the clock; what is
    said."""
    ticks, said, times = Ticks(), [], []
    plan, begin = Schedule(1.0, 10.0, ticks, said.append), steady.now
    for i, stamp in enumerate(stamps):
        due = plan.follow(stamp)
        plan.wait(due)
        steady.now += (stops or {}).get(i, 0.0)
        plan.arrive(due)
        times.append(round(steady.now - begin, 3))
    return times, ticks, said


def test_the_recorded_pace(steady: Steady) -> None:
    times, ticks, said = played(steady, [5 * SECOND + k * SECOND // 2 for k in range(4)])
    assert times == [0.0, 0.5, 1.0, 1.5] and said == []
    assert ticks == sorted(ticks) and ticks[-1] == 6.5 * SECOND and len(set(ticks)) >= 12


def test_no_standstill_is_made_up_for(steady: Steady) -> None:
    """What comes after it keeps its distance from what came before; only small delays are caught up with."""
    times, ticks, _ = played(steady, [k * SECOND // 10 for k in range(1, 8)], {2: 6.0, 5: 0.04})
    assert times == pytest.approx([0.0, 0.1, 6.2, 6.3, 6.4, 6.54, 6.6])
    assert ticks == sorted(ticks), "and the clock stood still with the player"


@pytest.mark.parametrize("jump", [YEAR, 3600 * SECOND, -YEAR, -5 * SECOND])
def test_jumps_of_the_bag_time_are_not_waited_for(steady: Steady, jump: int) -> None:
    first = [1_700_000_000 * SECOND + k * SECOND for k in range(3)]
    then = [stamp + jump for stamp in first]
    times, ticks, said = played(steady, [*first, *then, *(stamp + jump for stamp in then)])
    assert times == [0.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0]
    assert len(said) == 1 and "jumps by" in said[0]
    assert {*first, *then} <= set(ticks), "the clock jumps with the messages"


def test_bag_times_that_no_clock_can_show(steady: Steady) -> None:
    for stamps in ([0, 0, 0], [-5 * SECOND, -4 * SECOND], [2**62, 2**62 + SECOND]):
        times, ticks, _ = played(steady, stamps)
        assert times[0] == 0.0 and times[-1] <= 1.0
        assert ticks == ([0, 0, 0] if stamps[0] == 0 else []), "builtin_interfaces/Time holds 32 bits of seconds"


def test_small_disorder_is_played_at_once(steady: Steady) -> None:
    """As where the files of a bag overlap: nothing waits, and the clock does not go back."""
    times, ticks, said = played(steady, [SECOND, 2 * SECOND, 2 * SECOND - 100, 3 * SECOND])
    assert times == [0.0, 1.0, 1.0, 2.0] and said == [] and ticks == sorted(ticks)
