# SPDX-License-Identifier: Apache-2.0
"""A listener with bounded memory, for `vlad watch`: keeps only a node's newest messages."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import PointCloud2

from vlad_ros.ros.outputs.messages import ROW, stamps_of
from vlad_ros.ros.tools.node_client import NodeClient
from vlad_ros.stamps import stamp_of
from vlad_ros.terminal import LoopRow, WatchView

KEPT = 200  # keyframes; the last refusal is looked for among them


class Watch(NodeClient):
    """Discards what is not displayed."""

    def __init__(self, name: str) -> None:
        self._loops: deque[LoopRow] = deque(maxlen=KEPT)
        self._status = DiagnosticStatus()
        self._told = 0.0
        super().__init__(name)

    def __enter__(self) -> Watch:
        return self

    def _descriptor(self, message: PointCloud2) -> None:
        """Not shown."""

    def _closure(self, message: PointCloud2) -> None:
        rows = np.frombuffer(message.data, ROW)
        self._loops.appendleft(_loop(stamp_of(message), rows))

    def _diagnostic(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if self.is_ours(status):
                self._status, self._told = status, time.monotonic()

    def wait(self, patience: float) -> bool:
        """Wait for the node's first status; whether it came within `patience` seconds."""
        end = time.monotonic() + patience
        while not self._told and time.monotonic() < end:
            time.sleep(0.05)
        return bool(self._told)

    def view(self) -> WatchView:
        """The current state."""
        status = self._status
        return WatchView(
            node=self.name,
            values={value.key: value.value for value in status.values},
            message=status.message,
            warns=status.level != DiagnosticStatus.OK,
            loops=tuple(self._loops),
            silent=time.monotonic() - self._told,
        )


def _loop(query_stamp: int, rows: np.ndarray) -> LoopRow:
    """The first candidate, which is the best."""
    if not len(rows):
        return LoopRow(query_stamp)
    row = rows[0]
    return LoopRow(
        query_stamp=query_stamp,
        match_stamp=stamps_of(row)[1],
        match_session=int(row["match_session"]),
        away=float(np.linalg.norm([row["x"], row["y"], row["z"]])),
        similarity=float(row["similarity"]),
        probability=float(row["probability"]),
        accepted=bool(row["accepted"]),
        reason=int(row["reject_reason"]),
    )
