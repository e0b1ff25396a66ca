# SPDX-License-Identifier: Apache-2.0
"""The training recipe: one YAML file, checked, from which the shipped weights are made by simulation alone."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vlad_ros.config import BevConfig, Checked, ModelConfig, from_mapping, option


@dataclass(frozen=True)
class ViewsRecipe(Checked):
    """One set of simulated views: places seen several times by different sensors."""

    spread: str = option("near", "views within 3.5 m of a place, or along 18 m of street", "", choices=("near", "far"))
    worlds: int = option(80, "worlds", "", 1, 100_000)
    places: int = option(40, "places per world", "", 1, 10_000)
    views: int = option(4, "views per place", "", 2, 100)
    seed: int = option(20, "seed of the worlds", "", 0)


@dataclass(frozen=True)
class StageRecipe(Checked):
    """One stage of training. A batch: `places` places, two groups of views each, `anchors` rasters per group."""

    name: str = option("dense", "name in the log and of the checkpoint")
    views: str = option("near", "which set of views")
    steps: int = option(1000, "optimiser steps", "", 1)
    places: int = option(8, "places per batch", "", 1, 1000)
    worlds: int = option(0, "half of the places come from this many worlds, so that negatives are hard", "", 0, 100)
    anchors: int = option(1, "rasters per group", "", 1, 100)
    merge: int = option(1, "up to this many views are joined before the raster", "", 1, 100)
    rate: float = option(2e-3, "peak learning rate of the backbone", "", 0.0, 1.0)
    head_rate: float = option(2e-3, "peak learning rate of everything else", "", 0.0, 1.0)
    dense_weight: float = option(1.0, "weight of the dense and the score loss", "", 0.0, 100.0)
    global_weight: float = option(0.0, "weight of the descriptor losses", "", 0.0, 100.0)
    head_weight: float = option(0.5, "each head's own descriptor loss beside the fused one's", "", 0.0, 100.0)
    sigma: float = option(2.0, "the descriptor's target falls off with distance as a Gaussian", "m", 0.1, 100.0)
    reach: float = option(0.0, "half of the views ignore others nearer than a random part of this", "m", 0.0, 100.0)
    single: float = option(0.0, "share of the batches that join no views", "", 0.0, 1.0)
    keep: float = option(0.0, "share of the weights before the stage in the weights after it", "", 0.0, 0.99)
    turn_weight: float = option(
        0.0, "a group's anchors are one cloud, turned; weight of how their descriptors differ; 0: off", "", 0.0, 100.0
    )


@dataclass(frozen=True)
class ProjectionRecipe(Checked):
    """The projection to shorter descriptors, learnt after the last stage from the descriptors of simulated views."""

    size: int = option(512, "numbers that it makes; 0: no projection is learnt", "", 0, 4096)
    default: int = option(512, "length of the descriptor unless told otherwise; 0: unprojected", "", 0, 4096)
    power: float = option(0.25, "each is divided by its variance to this power; 0.5: whitening, 0: PCA", "", 0.0, 1.0)
    views: int = option(4000, "descriptors that it is learnt from", "", 1, 1_000_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.default > self.size:
            raise ValueError(f"default must be at most size, {self.size}, not {self.default}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the weights' metadata."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Recipe:
    """The whole: model, raster, simulated views and stages, one seed."""

    seed: int
    model: ModelConfig
    bev: BevConfig
    views: dict[str, ViewsRecipe]
    held_out: ViewsRecipe
    stages: list[StageRecipe]
    projection: ProjectionRecipe = ProjectionRecipe(size=0, default=0)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the weights' metadata."""
        return dataclasses.asdict(self)


def load_recipe(path: str | os.PathLike[str] | None = None) -> Recipe:
    """Read a recipe; None: the one that made the shipped weights. ValueError names the file and the setting."""
    source = Path(path) if path else Path(__file__).parent / "recipe.yaml"
    try:
        values = yaml.safe_load(source.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{source}: not a readable recipe ({error})") from error
    try:
        unknown = set(values) - {field.name for field in dataclasses.fields(Recipe)}
        if unknown:
            raise ValueError(f"unknown setting {', '.join(sorted(unknown))}")
        recipe = Recipe(
            seed=int(values["seed"]),
            model=from_mapping(ModelConfig, values.get("model") or {}),
            bev=from_mapping(BevConfig, values.get("bev") or {}),
            views={name: from_mapping(ViewsRecipe, each) for name, each in values["views"].items()},
            held_out=from_mapping(ViewsRecipe, values["held_out"]),
            stages=[from_mapping(StageRecipe, each) for each in values["stages"]],
            projection=from_mapping(ProjectionRecipe, values.get("projection") or {"size": 0, "default": 0}),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from error
    for stage in recipe.stages:
        if stage.views not in recipe.views:
            raise ValueError(f"{source}: stage {stage.name} asks for the views {stage.views!r}, which the recipe lacks")
    return recipe
