# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: where the real sequences lie, and a small untrained network where only the machinery matters."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("ament_index_python"):  # clouds of this process need the same room as on a robot
    from vlad_ros.ros.share import use_shared_memory

    use_shared_memory()


def data_file(name: str) -> Path:
    """The path of a real sequence; skips the test, with the reason, where it is not at hand."""
    folder = os.environ.get("VLAD_DATA")
    if not folder:
        pytest.skip("VLAD_DATA is not set: no real LiDAR sequences at hand")
    path = Path(folder) / name
    if not path.exists():
        pytest.skip(f"{name} is not in VLAD_DATA ({folder})")
    return path


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For networks so small that a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
