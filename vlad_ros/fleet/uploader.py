# SPDX-License-Identifier: Apache-2.0
"""The thread that empties the queue into the fleet, whenever there is a network."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable

from vlad_ros.fleet.client import FleetClient
from vlad_ros.fleet.names import RefusedError
from vlad_ros.fleet.queue import UploadQueue

MOST = 32  # keyframes of one call, about a megabyte
MOST_POSES = 256
END = 2.0  # s; a call to a server that does not answer may take longer
PATIENCE = (1.0, 30.0)  # s until a failure is tried again, at first and at last


class Uploader(threading.Thread):
    """`trouble`: why nothing goes up at present, else empty; `on_trouble` is told when one begins, and `on_recovery`
    how it ends."""

    def __init__(
        self,
        queue: UploadQueue,
        client: FleetClient,
        on_trouble: Callable[[str], None],
        on_recovery: Callable[[], None],
    ) -> None:
        super().__init__(name="vlad_fleet_up", daemon=True)
        self.trouble = ""
        self._queue, self._client = queue, client
        self._on_trouble, self._on_recovery = on_trouble, on_recovery
        self._woken = threading.Condition()
        self._wait = PATIENCE[0]
        self._closed = False

    def run(self) -> None:
        """Until it is closed; where the fleet refuses this vehicle for good, it only waits for that."""
        while not self._closed:
            try:
                moved = upload(self._queue, self._client)
            except (ValueError, sqlite3.Error) as error:
                if not self.trouble:
                    self._on_trouble(str(error))
                self.trouble = str(error)
                self._pause(None if isinstance(error, RefusedError) else self._wait)
                self._wait = min(2 * self._wait, PATIENCE[1])
                continue
            if self.trouble:
                self._on_recovery()
            self.trouble, self._wait = "", PATIENCE[0]
            if not moved:
                self._pause(PATIENCE[0])
        self._client.close()
        self._queue.close()

    def close(self) -> None:
        """End, and close the queue, after the call in hand; that is waited for no longer than END."""
        self._closed = True
        with self._woken:
            self._woken.notify_all()
        self.join(END)

    def _pause(self, seconds: float | None) -> None:
        with self._woken:
            self._woken.wait_for(lambda: self._closed, seconds)


def upload(queue: UploadQueue, client: FleetClient) -> int:
    """Send the oldest of the queue, keyframes first; returns how many. FleetError, with nothing lost, when that is
    impossible now."""
    if keyframes := queue.keyframes(MOST):
        client.put(list(keyframes.values()))
        queue.done({"keyframes": list(keyframes)})
        return len(keyframes)
    if poses := queue.poses(MOST_POSES):
        client.correct(dict(poses.values()))
        queue.done({"poses": list(poses)})
    return len(poses)
