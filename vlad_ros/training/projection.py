# SPDX-License-Identifier: Apache-2.0
"""The projection to shorter descriptors, learnt from the trained network's descriptors of simulated views.

``python -m vlad_ros.training.projection WEIGHTS VIEWS.npz...`` adds one to weights that have none, or replaces it. The
calibration is kept, but was made for the old descriptors: run `vlad calibrate` afterwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vlad_ros.cloud.raster import Bev, rasterize
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.projection import principal_directions
from vlad_ros.poses import turn
from vlad_ros.training.batches import Places, joined, thin
from vlad_ros.training.recipe import ProjectionRecipe

BATCH = 16
JOINED = 3  # views of a place joined at most, as in training


def random_bevs(network: PlaceNetwork, views: Places, count: int, seed: int) -> Iterator[Bev]:
    """`count` rasters of random places, turned and thinned: first half of them single views, then joined ones."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(views.of_place)) for _ in range(1 + count // len(views.of_place))])
    for number, place in enumerate(order[:count]):
        members = rng.permutation(views.of_place[place])
        members = members[: 1 if number < count // 2 else rng.integers(2, JOINED + 1)]
        points = thin(joined(views, members, network.bev, rng), len(members), rng)
        yield rasterize(turn(points, rng.uniform(-np.pi, np.pi)), network.bev)


@torch.inference_mode()
def view_descriptors(network: PlaceNetwork, sets: Sequence[Places], count: int, seed: int) -> Tensor:
    """(count, D) unprojected descriptors on the CPU, equally many from each of the `sets` of views."""
    network.eval()
    share = count // len(sets)
    rows, batch = [], []
    with tqdm(total=share * len(sets), desc="projection", unit="view") as bar:
        for number, views in enumerate(sets):
            for position, bev in enumerate(random_bevs(network, views, share, seed + number), 1):
                batch.append(bev)
                if len(batch) == BATCH or position == share:
                    rows.append(network.describe(batch).descriptor.float().cpu())
                    bar.update(len(batch))
                    batch = []
    return torch.cat(rows)


def learn_projection(network: PlaceNetwork, sets: Sequence[Places], recipe: ProjectionRecipe, seed: int) -> None:
    """Give `network` a projection learnt on the `sets` of views. ValueError where the recipe has too many rows."""
    matrix = principal_directions(view_descriptors(network, sets, recipe.views, seed), recipe.size, recipe.power)
    network.learn_projection(matrix.to(network.cell_xy.device), recipe.default)


def main(arguments: list[str] | None = None) -> None:
    """Add a projection to a weights file."""
    from vlad_ros.model.weights import load_weights, save_weights
    from vlad_ros.options import add_options, from_options

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="the .safetensors file to read")
    parser.add_argument("files", type=Path, nargs="+", metavar="VIEWS", help="simulated views that it was trained on")
    parser.add_argument("-o", "--out", type=Path, help="the file to write (default: the weights themselves)")
    parser.add_argument("--seed", type=int, default=0)
    add_options(parser, ProjectionRecipe)
    args = parser.parse_args(arguments)
    recipe = from_options(ProjectionRecipe, args)
    network, metadata = load_weights(args.weights)
    learn_projection(network, [Places(path) for path in args.files], recipe, args.seed)
    out = args.out or args.weights
    save_weights(out, network, metadata.calibration, {**metadata.info, "projection": recipe.as_dict()})
    config = network.config
    print(f"{out}: {config.descriptor_dim} numbers, or up to {recipe.size} by projection; default {config.size(0)}")


if __name__ == "__main__":
    main()
