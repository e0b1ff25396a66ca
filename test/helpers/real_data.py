# SPDX-License-Identifier: Apache-2.0
"""Where the real sequences lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def data_file(name: str) -> Path:
    """The path of a real sequence; skips the test, with the reason, where it is not at hand."""
    folder = os.environ.get("VLAD_DATA")
    if not folder:
        pytest.skip("VLAD_DATA is not set: no real LiDAR sequences at hand")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{name} is not in VLAD_DATA ({folder})")
    return path
