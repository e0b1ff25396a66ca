# SPDX-License-Identifier: Apache-2.0
"""Who hears what the node's parts have to tell; the node itself, and in tests somebody else."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Called from any thread."""

    def reject(self, reason: str, detail: str) -> None:
        """Something was not used: count it and warn. `reason` is one of `reasons.REASONS`."""

    def warn(self, sentence: str) -> None:
        """Something that is said once."""

    def inform(self, sentence: str) -> None:
        """Routine news."""

    def failed(self, trace: str) -> None:
        """An error of the program itself."""
