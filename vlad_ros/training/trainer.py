# SPDX-License-Identifier: Apache-2.0
"""Training: dense losses first, then NetVLAD's centroids from the features, then the descriptors end to end."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from vlad_ros.cloud.raster import Bev, rasterize
from vlad_ros.model.network import Description, PlaceNetwork
from vlad_ros.poses import turn
from vlad_ros.training.batches import Batch, Places, draw, thin
from vlad_ros.training.checkpoint import load_checkpoint, mix_in, read_position, save_checkpoint
from vlad_ros.training.clusters import seed_heads
from vlad_ros.training.objective import Objective
from vlad_ros.training.ranks import rank, together, wait
from vlad_ros.training.recipe import Recipe, StageRecipe

SAVE_EVERY, VALIDATE_EVERY = 50, 200


def learning_rate(step: int, steps: int) -> float:
    """Factor of the peak rate: linear warm-up over a tenth of the steps, then half a cosine down to 0.001."""
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))) + 1e-3


def held_out_bevs(views: Places, recipe: Recipe) -> list[Bev]:
    """One raster of every held-out view, thinned and turned at random, but always the same."""
    rng = np.random.default_rng(recipe.seed)
    return [
        rasterize(turn(thin(views.points(i), 1, rng), rng.uniform(-np.pi, np.pi)), recipe.bev)
        for i in range(len(views.place))
    ]


@torch.inference_mode()
def describe_all(network: PlaceNetwork, bevs: list[Bev], batch: int = 32) -> list[Description]:
    """Descriptions of many rasters, in eval mode."""
    network.eval()
    return [network.describe(bevs[i : i + batch]) for i in range(0, len(bevs), batch)]


def validate(network: PlaceNetwork, bevs: list[Bev], place: np.ndarray) -> dict[str, float]:
    """recall@1 among the held-out views, of the fused descriptor and of each head."""
    outs = describe_all(network, bevs)
    same = torch.from_numpy(place)
    figures = {}
    for name in ("descriptor", "vlad_bev", "vlad_fusion"):
        descriptors = torch.cat([getattr(out, name).cpu() for out in outs])
        similarity = (descriptors @ descriptors.T).fill_diagonal_(-9.0)
        figures[name] = float((same[similarity.argmax(dim=1)] == same).float().mean())
    return figures


class Trainer:
    """Runs a recipe in a folder, which gets `checkpoint.safetensors` and logs per stage; run again, it resumes.

    Under `torchrun` each process draws its own batches of the recipe's size, and the gradients are averaged; the first
    process saves, validates and logs.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        views: Mapping[str, Places],
        held_out: Places,
        device: torch.device | str = "cpu",
        network: PlaceNetwork | None = None,
    ) -> None:
        """`views` by the names that the stages use; `network`: to start from, instead of random weights."""
        self.recipe, self.folder, self.views, self.held_out = recipe, folder, views, held_out
        self.bevs = held_out_bevs(self.held_out, recipe)
        torch.manual_seed(recipe.seed)
        self.network = (network or PlaceNetwork(recipe.model, recipe.bev)).to(device)
        self.network.precision = torch.bfloat16
        self.validation: dict[str, float] = {}
        self._own = (rank(),) if rank() else ()  # part of the seeds: other processes draw other batches
        self.checkpoint = folder / "checkpoint.safetensors"

    def run(self) -> PlaceNetwork:
        """All stages; resumes from the checkpoint where there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        stage, step = (0, 0)
        if self.checkpoint.exists():
            stage, step = read_position(self.checkpoint)
        for number in range(stage, len(self.recipe.stages)):
            self._stage(number, step if number == stage else 0)
        if stage == len(self.recipe.stages):
            load_checkpoint(self.checkpoint, self.network)
        if rank() == 0:
            self.validation = validate(self.network, self.bevs, self.held_out.place)
        return self.network

    def _optimiser(self, stage: StageRecipe) -> torch.optim.AdamW:
        backbone = list(self.network.backbone.parameters())
        rest = [p for name, p in self.network.named_parameters() if not name.startswith("backbone.")]
        groups = [{"params": backbone, "peak": stage.rate}, {"params": rest, "peak": stage.head_rate}]
        return torch.optim.AdamW(groups, lr=stage.rate, weight_decay=1e-4)

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        """Batches of a stage, drawn one ahead in a thread (the numba kernels release the GIL)."""
        stage = self.recipe.stages[number]

        def make(step: int) -> Batch:
            rng = np.random.default_rng([self.recipe.seed, number, step, *self._own])
            return draw(self.views[stage.views], stage, self.recipe.bev, rng)

        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(make, start)
            for step in range(start, stage.steps):
                batch = ahead.result()
                if step + 1 < stage.steps:
                    ahead = pool.submit(make, step + 1)
                yield batch

    def _stage(self, number: int, start: int) -> None:
        stage = self.recipe.stages[number]
        optimiser = self._optimiser(stage)
        if self.checkpoint.exists():
            load_checkpoint(self.checkpoint, self.network, optimiser if start else None)
        if start == 0 and number and stage.global_weight and not self.recipe.stages[number - 1].global_weight:
            seed_heads(self.network, describe_all(self.network, self.bevs), self.recipe.seed)
        if stage.keep and start == 0 and rank() == 0:
            save_checkpoint(self._beginning(stage), self.network, optimiser, number, 0)
        objective: Module = Objective(self.network, stage)
        if together():  # starts from the first process's network
            objective = DistributedDataParallel(objective, find_unused_parameters=True)
        bar = tqdm(total=stage.steps, initial=start, desc=stage.name, unit="step", disable=rank() > 0)
        began = time.monotonic()
        for step, batch in enumerate(self._batches(number, start), start):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * learning_rate(step, stage.steps)
            torch.manual_seed(hash((self.recipe.seed, number, step, *self._own)))
            figures = self._step(objective, batch, optimiser)
            if rank() == 0:
                self._keep(number, step, optimiser)
                seconds = round(time.monotonic() - began, 2)
                self._log("log.csv", {"stage": stage.name, "step": step + 1, "seconds": seconds, **figures})
            shown = {name: f"{figures[name]:.3f}" for name in ("loss", "matched", "within_5m") if name in figures}
            bar.set_postfix(shown | {"recall@1": f"{self.validation.get('descriptor', math.nan):.3f}"}, refresh=False)
            bar.update()
        bar.close()
        wait()  # for the checkpoint that the next stage begins with

    def _beginning(self, stage: StageRecipe) -> Path:
        """The file of the weights before a stage."""
        return self.folder / f"before_{stage.name}.safetensors"

    def _keep(self, number: int, step: int, optimiser: torch.optim.Optimizer) -> None:
        """Validate and save after every so many steps and after a stage's last one."""
        stage = self.recipe.stages[number]
        last = step + 1 == stage.steps
        if last and stage.keep:
            mix_in(self._beginning(stage), self.network, stage.keep)
        if (step + 1) % VALIDATE_EVERY == 0 or last:
            self.validation = validate(self.network, self.bevs, self.held_out.place)
            self._log("validation.csv", {"stage": stage.name, "step": step + 1, **self.validation})
        if (step + 1) % SAVE_EVERY == 0 or last:
            position = (number + 1, 0) if last else (number, step + 1)
            save_checkpoint(self.checkpoint, self.network, optimiser, *position)

    def _step(self, objective: Module, batch: Batch, optimiser: torch.optim.Optimizer) -> dict[str, float]:
        """One step of the optimiser; returns its figures."""
        objective.train()
        loss, figures = objective(batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # DistributedDataParallel averages the gradients of the processes here
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        optimiser.step()
        return dict(figures)

    def _log(self, name: str, row: dict[str, object]) -> None:
        """Append a row; the columns of a stage are the keys of its first row."""
        path = self.folder / f"{row['stage']}_{name}"
        new = not path.exists() or os.path.getsize(path) == 0
        with open(path, "a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)

    def provenance(self, commit: str) -> dict[str, object]:
        """For the weights' metadata: how they were made."""
        return {
            "data": "simulated LiDAR views only (vlad_ros.simulation); no real scan was used",
            "recipe": self.recipe.as_dict(),
            "commit": commit,
            "held_out_recall@1": self.validation,
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "torch": torch.__version__,
        }
