# SPDX-License-Identifier: Apache-2.0
"""Shared fixtures."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

if importlib.util.find_spec("ament_index_python"):  # clouds of this process need the same room as on a robot
    from vlad_ros.ros.environment import use_shared_memory

    use_shared_memory()


# A busy computer is no failure.
settings.register_profile("vlad_ros", deadline=None)
settings.load_profile("vlad_ros")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For networks so small that a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
