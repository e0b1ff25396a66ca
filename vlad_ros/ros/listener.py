# SPDX-License-Identifier: Apache-2.0
"""Interface for reports from the node's parts; implemented by the node, and by stand-ins in tests."""

from __future__ import annotations

from typing import Protocol


class Listener(Protocol):
    """Called from any thread."""

    def reject(self, reason: str, detail: str) -> None:
        """An input was not used: count it and warn. `reason` is one of `reasons.REASONS`."""

    def warn(self, sentence: str) -> None:
        """A message that is logged once."""

    def inform(self, sentence: str) -> None:
        """A routine message."""

    def failed(self, trace: str) -> None:
        """An error of the program itself."""
