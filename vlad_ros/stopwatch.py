# SPDX-License-Identifier: Apache-2.0
"""Wall time of the stages."""

from __future__ import annotations

import time


class Stopwatch:
    """Wall time of named laps [ms]."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str, before: float = 0.0) -> None:
        """Record the time since the last lap plus `before` [ms], which the stage had already taken."""
        now = time.perf_counter()
        self.milliseconds[name], self._last = before + 1e3 * (now - self._last), now
