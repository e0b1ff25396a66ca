# SPDX-License-Identifier: Apache-2.0
"""How many input messages the node has taken: `~/_taken`, by which a replay paces itself.

`/diagnostics` reports it only once a second; DDS acknowledges even what its history may drop before it is read. The
topic is hidden (`ros2 bag record -a` leaves it out) and costs nothing without subscribers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

from vlad_ros.ros.qos import NEWEST

TOPIC = "_taken"  # in the node's own namespace
PERIOD = 0.02  # s between two messages


@dataclass
class Intake:
    """An input of the node: the topic's full name, how many messages the node has taken, the header's stamp [ns] of the
    newest, and how many more may be on their way to it."""

    topic: str
    taken: int = 0
    stamp: int = 0
    room: int = 0


class Taken:
    """The publisher; `intakes` returns the current state."""

    def __init__(self, node: Node, intakes: Callable[[], Iterable[Intake]]) -> None:
        self._node = node
        self._intakes = intakes
        self._publisher = node.create_publisher(DiagnosticArray, f"~/{TOPIC}", NEWEST)
        self._timer: Timer | None = None

    def look(self) -> None:
        """Start when there are subscribers, stop when there are none; call it once a second."""
        heard = self._publisher.get_subscription_count() > 0
        if heard and self._timer is None:
            self._timer = self._node.create_timer(PERIOD, self._tell, clock=Clock(clock_type=ClockType.STEADY_TIME))
        elif not heard:
            self._end()

    def close(self) -> None:
        """Destroy the publisher."""
        self._end()
        self._node.destroy_publisher(self._publisher)

    def _end(self) -> None:
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None

    def _tell(self) -> None:
        array = DiagnosticArray()
        for intake in self._intakes():
            numbers = {"taken": intake.taken, "stamp": intake.stamp, "room": intake.room}
            values = [KeyValue(key=key, value=str(number)) for key, number in numbers.items()]
            array.status.append(DiagnosticStatus(name=intake.topic, values=values))
        self._publisher.publish(array)


def intakes_of(message: DiagnosticArray) -> Iterator[Intake]:
    """Parse a message of `~/_taken`."""
    for status in message.status:
        yield Intake(status.name, **{value.key: int(value.value) for value in status.values})
