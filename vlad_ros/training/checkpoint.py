# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that resume exactly: network, optimiser moments and position, as safetensors.

No random state is saved: every step seeds its generators from the recipe's seed, the stage and the step.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from vlad_ros.atomic import replacing


def save_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, stage: int, step: int) -> None:
    """Write atomically, with `step` steps of stage number `stage` done."""
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value).contiguous() for name, value in state.items()}
    position = json.dumps({"stage": stage, "step": step})
    with replacing(path, durable=True) as temporary:
        temporary.write_bytes(save(tensors, {"position": position}))


def read_position(path: Path) -> tuple[int, int]:
    """(stage, step) of a checkpoint; ValueError where it is not one."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        position = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["position"])
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: not a training checkpoint ({error})") from error
    return position["stage"], position["step"]


def load_checkpoint(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> None:
    """Restore the network and, where given, the optimiser of the same stage."""
    tensors = load(path.read_bytes())
    network.load_state_dict({k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")})
    if optimiser is None:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def mix_in(path: Path, network: nn.Module, share: float) -> None:
    """Replace every number of `network` by `share` of the checkpoint's and the rest of its own.

    The mean of the weights before and after fine-tuning is often better than either (Wortsman et al., Robust
    fine-tuning of zero-shot models, CVPR 2022).
    """
    tensors = load(path.read_bytes())
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.lerp_(tensors[f"network.{name}"].to(tensor), share)
