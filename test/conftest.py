# SPDX-License-Identifier: Apache-2.0
"""What every test process sets up, which tests run, and which of them in one process."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
from campaign import is_proof
from ros_domain import enter_own_domain

# Torch reads these when it is imported, the nodes when they start. OpenMP's threads sleep while they wait: spinning,
# they are ten times slower beside other programs. Workers beside each other share the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))
enter_own_domain()

import torch  # noqa: E402

if importlib.util.find_spec("ament_index_python"):  # clouds of this process need the same room as on a robot
    from vlad_ros.ros.environment import use_shared_memory

    use_shared_memory()

if importlib.util.find_spec("hypothesis"):  # not on a robot
    from hypothesis import settings

    settings.register_profile("vlad_ros", deadline=None)  # a busy computer is no failure
    settings.load_profile("vlad_ros")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Proofs run in `make proof` alone, a robot's tests where a ROS distribution is sourced."""
    proofs = [item for item in items if item.get_closest_marker("proof") and not is_proof()]
    config.hook.pytest_deselected(items=proofs)
    items[:] = [item for item in items if item not in proofs]
    elsewhere = pytest.mark.skip(reason="needs a robot's ROS distribution, sourced: make robot-test")
    for item in items:
        if item.get_closest_marker("robot") and "ROS_DISTRO" not in os.environ:
            item.add_marker(elsewhere)
    if workers:
        share_out(items)


def share_out(items: list[pytest.Item]) -> None:
    """A file's tests share their fixtures, live nodes above all, so one worker runs them; the longest files go first,
    so that no worker ends long after the others."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        groups.setdefault(item.get_closest_marker("xdist_group").args[0], []).append(item)

    def length(group: list[pytest.Item]) -> int:
        return max(2 * bool(item.get_closest_marker("slow")) + bool(item.get_closest_marker("ros")) for item in group)

    items[:] = [item for group in sorted(groups.values(), key=length, reverse=True) for item in group]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For networks so small that a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
