# SPDX-License-Identifier: Apache-2.0
"""A cloud message being processed by the node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlad_ros.cloud.deskew import Motion, Stamps, reach
from vlad_ros.types import F64


@dataclass(eq=False)
class PendingScan:
    """A cloud message being processed, with the data paired with it.

    `stamp` [ns] is the message's; `arrival` [s] on the steady clock. `T_odom_child` (4, 4) is the odometry's own
    transform, of the frame `child`. `is_keyframe` None: the pipeline decides. For deskewing: `offsets` [ns] from the
    stamp of each row of the message, None if it has no times (or none that can be interpreted: `times_fault`), and
    `motion` of `child` across them, if known.
    """

    message: Any
    stamp: int
    arrival: float
    T_odom_child: F64 | None = None
    child: str = ""
    bev: Any = None
    is_keyframe: bool | None = None
    offsets: Stamps | None = None
    motion: Motion | None = None
    times_fault: str = ""

    @property
    def frame(self) -> str:
        """The cloud's frame, without a leading slash."""
        return str(self.message.header.frame_id).lstrip("/")

    @property
    def reach(self) -> tuple[int, int]:
        """First and last stamp [ns] at which odometry is needed."""
        return (self.stamp, self.stamp) if self.offsets is None else reach(self.offsets, self.stamp)
