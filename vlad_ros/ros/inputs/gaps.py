# SPDX-License-Identifier: Apache-2.0
"""Messages that never came: gaps in the publisher's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Gaps:
    """Of one topic: DDS loses messages on the way and, while the node stands still, drops them from its history.

    With several publishers, whose numbers cannot be told apart, or without numbers (Humble), nothing is noticed.
    """

    def __init__(self) -> None:
        self._last = 0
        self._publishers = 0

    def look(self, publishers: int) -> None:
        """How many publishers the topic has; call it once a second."""
        if publishers != self._publishers:
            self._publishers, self._last = publishers, 0

    def before(self, info: Mapping[str, Any]) -> int:
        """How many messages are missing between the last one and the one with this `info` of rclpy."""
        number, last = int(info.get("publication_sequence_number") or 0), self._last
        self._last = number
        return max(0, number - last - 1) if last and self._publishers == 1 else 0
