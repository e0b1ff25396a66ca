# SPDX-License-Identifier: Apache-2.0
"""The steps of an aggregation, named by what they mean, with the shapes that they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from vlad_ros.plots import style

# The steps of both aggregations, in order: the input or operation whose result it is, its name, and what it does
STEPS = (
    ("x", "features", "one per keypoint"),
    ("weights", "weights", "how much each feature counts"),
    ("softmax", "soft assignment", "each feature's shares sum to 1"),
    ("mul", "weighted assignment", "assignment times weight"),
    ("sub", "residuals to the centroids", "sum of assignment times (feature - centroid)"),
    ("normalize", "intra-normalisation", "each cluster's residual to unit length"),
    ("normalize", "normalisation", "all residuals as one vector of unit length"),
    ("hidden_norm", "learnt projection", "to fewer numbers, then batch norm"),
    ("sigmoid", "gates", "of each number, from all of them, 0 to 1"),
    ("mul", "context gating", "projection times gates"),
)
COLOURS = {
    "input": style.SKY,
    "step with learnt parameters (in italics)": style.YELLOW,
    "step without parameters": "#dddddd",
}


@dataclass(frozen=True, eq=False)
class Step:
    """A step that has run: its `name` and what it `does` as in `STEPS`, the names of the `parameters` that have come in
    since the step before, and its result."""

    name: str
    does: str
    parameters: tuple[str, ...]
    value: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result, the batch first."""
        return tuple(self.value.shape)


class _Recorder(fx.Interpreter):
    """Runs a module operation by operation and records the result of each of `STEPS`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(fx.symbolic_trace(module))
        self.steps: list[Step] = []
        self._parameters = {name: name.split(".")[0] for name, _ in module.named_parameters()}
        self._new: list[str] = []  # parameters since the last step

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        target = n.target if isinstance(n.target, str) else n.target.__name__
        if n.op in ("get_attr", "call_module"):
            self._new += [name for name, owner in self._parameters.items() if owner == target]
        operation, name, does = STEPS[min(len(self.steps), len(STEPS) - 1)]
        if target == operation:
            self.steps.append(Step(name, does, tuple(self._new), result))
            self._new = []
        return result


@torch.no_grad()
def steps(module: nn.Module, *inputs: Tensor) -> list[Step]:
    """The steps of an aggregation that runs on `inputs`, in order; the last one's result is the module's."""
    recorder = _Recorder(module)
    recorder.run(*inputs)
    return recorder.steps
