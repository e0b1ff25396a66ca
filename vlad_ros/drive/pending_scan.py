# SPDX-License-Identifier: Apache-2.0
"""A cloud message on its way through the node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlad_ros.cloud.deskew import Motion, Stamps, reach
from vlad_ros.types import F64


@dataclass(eq=False)
class PendingScan:
    """A cloud message on its way, with what was found for it.

    `stamp` [ns] is the message's; `arrival` [s] on the steady clock. `T_odom_child` (4, 4) is the odometry's own
    transform, of the frame `child`. `is_keyframe` None: the pipeline decides. To be deskewed: `offsets` [ns] from the
    stamp of each row of the message, None where it tells no times (or none that can be understood: `times_fault`), and
    `motion` of `child` across them, where known.
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
        """First and last stamp [ns] that odometry is wanted at."""
        return (self.stamp, self.stamp) if self.offsets is None else reach(self.offsets, self.stamp)
