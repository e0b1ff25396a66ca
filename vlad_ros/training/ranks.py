# SPDX-License-Identifier: Apache-2.0
"""The training processes that `torchrun` starts; a process on its own is rank 0 of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed

TIMEOUT = timedelta(hours=4)  # the others wait while rank 0 simulates the views


def rank() -> int:
    """The number of this process; 0 for the first or only one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def together() -> bool:
    """Whether there are other processes."""
    return distributed.is_initialized() and distributed.get_world_size() > 1


def wait() -> None:
    """Wait until every process has called this."""
    if together():
        distributed.barrier()


def own_device(device: torch.device) -> torch.device:
    """`device`; for "cuda" under `torchrun` the GPU of this process."""
    if device == torch.device("cuda") and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


@contextmanager
def joined_processes(device: torch.device) -> Iterator[None]:
    """Join the process group where `torchrun` has started this process: by NCCL on GPUs, by Gloo on CPUs."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        distributed.destroy_process_group()
