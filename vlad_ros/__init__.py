# SPDX-License-Identifier: Apache-2.0
"""LiDAR place recognition: a scan comes in, a place comes out, a revisit is announced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlad_ros.pipeline import PlaceRecognizer

__all__ = ["PlaceRecognizer"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import torch and FAISS only when the recogniser is requested, so that `vlad --help` is fast."""
    if name == "PlaceRecognizer":
        from vlad_ros.pipeline import PlaceRecognizer

        return PlaceRecognizer
    raise AttributeError(f"module 'vlad_ros' has no attribute {name!r}")
