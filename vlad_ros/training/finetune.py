# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning on the user's own drive, with its odometry as the only label: near in odometry is the same place.

Odometry drifts, so that is trusted only for places passed soon after each other. Places that are near in odometry but
far apart in travel may or may not be the same: they never meet in a batch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import cdist

from vlad_ros.config import EvaluationConfig, FinetuneConfig
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation.describe import network_similarities
from vlad_ros.evaluation.metrics import summarise
from vlad_ros.evaluation.task import make_task
from vlad_ros.files.sequence import Sequence
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import Metadata, load_weights
from vlad_ros.simulation.views import SCALE, Views
from vlad_ros.training.batches import Places
from vlad_ros.training.ranks import rank
from vlad_ros.training.recipe import Recipe, StageRecipe, ViewsRecipe
from vlad_ros.training.trainer import Trainer
from vlad_ros.types import Array

VIEWS = 8  # consecutive scans that make up a place
BORDER = 20.0  # m of travel between the part to train on and the part to measure on
DRIFT = 0.02  # error of the distance between two places, as a share of the travel between them
TRUSTED = 2.0  # m: largest error of a label
APART = 30.0  # m: places this far apart in odometry are different, whatever the drift
FEWEST = 4  # places to train on
MEASURE = EvaluationConfig(protocol="sparse", stride=4, radius=5.0)
STAGE = StageRecipe(
    name="finetune",
    views="drive",
    places=4,
    anchors=2,
    merge=3,
    single=0.5,
    dense_weight=0.3,
    global_weight=1.0,
    head_weight=0.1,
    reach=5.0,
)


def split(drive: Sequence, held_out: float) -> tuple[Sequence, Sequence]:
    """The beginning to train on and the end to measure on, `BORDER` of travel between them. ValueError: too short."""
    poses = drive.poses_to("label places")
    distance = path_length(poses)
    end = (1.0 - held_out) * distance[-1]
    parts = [np.flatnonzero(distance < end - BORDER), np.flatnonzero(distance >= end)]
    if len(parts[0]) < FEWEST * VIEWS or len(parts[1]) < FEWEST * VIEWS:
        raise ValueError(
            f"{drive.name}: {len(drive)} scans over {distance[-1]:.0f} m are too few: training and measuring need"
            f" {FEWEST * VIEWS} each; drive farther or give a smaller --spacing"
        )
    first, second = (Sequence(drive.name, [drive.scans[i] for i in part], poses[part], None) for part in parts)
    return first, second


class DrivePlaces(Places):
    """The places along a drive, each of `VIEWS` consecutive scans."""

    def __init__(self, drive: Sequence) -> None:
        count = len(drive) // VIEWS * VIEWS
        scans, poses = drive.scans[:count], drive.poses_to("label places")[:count]
        yaw = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
        views = Views(
            xyz=np.round(np.concatenate(scans)[:, :3] / SCALE).astype(np.int16),
            offsets=np.cumsum([0] + [len(scan) for scan in scans]),
            pose=np.c_[poses[:, :2, 3] - poses[0, :2, 3], yaw].astype(np.float32),
            place=np.arange(count, dtype=np.int32) // VIEWS,
            world=np.zeros(count, np.int32),
        )
        super().__init__(views)
        middle = poses[VIEWS // 2 :: VIEWS]
        along = path_length(poses)[VIEWS // 2 :: VIEWS, None]
        self.doubtful = doubtful(middle[:, :2, 3], along)

    def draw_places(self, stage: StageRecipe, count: int, rng: np.random.Generator) -> np.ndarray:
        """Up to `count` places whose distances odometry can be trusted with."""
        chosen: list[int] = []
        for place in rng.permutation(len(self.of_place)):
            if len(chosen) < count and not self.doubtful[place, chosen].any():
                chosen.append(int(place))
        return np.array(chosen)


def doubtful(positions: Array, along: Array) -> np.ndarray:
    """(P, P) bool: places at `positions` (P, 2) [m] that are near in odometry, but so far apart in travel `along`
    (P, 1) [m] that this may be drift."""
    return (cdist(positions, positions) < APART) & (DRIFT * cdist(along, along) > TRUSTED)


@dataclass(frozen=True)
class Measured:
    """recall@1 of the held-out queries, turned and thinned, with its 95 % interval."""

    queries: int
    recall: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"recall@1 {self.recall:.3f} (95 %: {self.low:.3f}..{self.high:.3f}) of {self.queries} queries"


def measure(network: PlaceNetwork, held_out: Sequence) -> Measured:
    """Every fourth scan of the held-out part is the map, those half way between are the queries."""
    task = make_task(MEASURE, held_out)
    precision, network.precision = network.precision, torch.float32
    similarity = network_similarities(network.eval(), task.queries, task.maps)["fusion"]
    network.precision = precision
    numbers: dict[str, Any] = summarise(task.judge(similarity))
    return Measured(numbers["queries"], numbers["recall@1"], *numbers["recall@1_95"])


@dataclass(frozen=True, eq=False)
class Finetuned:
    """The fine-tuned network, the metadata of the weights it started from, and both measured on the held-out part."""

    network: PlaceNetwork
    base: Metadata
    before: Measured
    after: Measured
    info: dict[str, Any]


def finetune(
    drive: Sequence,
    weights: str | os.PathLike[str] | None,
    folder: Path,
    config: FinetuneConfig,
    device: torch.device | str = "cpu",
) -> Finetuned:
    """Fit `weights` (None: the shipped ones) to the beginning of `drive`; checkpoint and logs go into `folder`, where
    an interrupted training with the same settings resumes. ValueError where the drive is too short."""
    network, base = load_weights(weights, device)
    train, held_out = split(drive, config.held_out)
    before = measure(network, held_out)
    settings = {"drive": drive.name, "scans": len(drive), "weights": base.sha256, **dataclasses.asdict(config)}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    stage = dataclasses.replace(
        STAGE, steps=config.steps, rate=config.learning_rate, head_rate=2 * config.learning_rate
    )
    recipe = Recipe(0, base.model, base.bev, {"drive": ViewsRecipe()}, ViewsRecipe(), [stage])
    places = {"drive": DrivePlaces(train)}
    trainer = Trainer(recipe, folder / f"finetune_{key}", places, DrivePlaces(held_out), device, network)
    trainer.run()
    after = measure(network, held_out) if rank() == 0 else before
    made = {**settings, "before": dataclasses.asdict(before), "after": dataclasses.asdict(after)}
    data = f"{base.info.get('data', 'unknown')}; then fine-tuned on the drive {drive.name}"
    return Finetuned(network, base, before, after, {**base.info, "data": data, "finetune": made})
