# SPDX-License-Identifier: Apache-2.0
"""Similarities between clouds: by the network's descriptor and its heads, or by the Scan Context baseline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from vlad_ros.evaluation import scan_context
from vlad_ros.types import F32

if TYPE_CHECKING:
    from vlad_ros.model.network import PlaceNetwork

BATCH = 16
HEADS = {"fusion": "descriptor", "bev": "vlad_bev", "points": "vlad_fusion"}


def network_descriptors(network: PlaceNetwork, clouds: Iterable[F32], size: int = 0) -> dict[str, F32]:
    """Unit descriptors (n, D) of clouds (N, >=3) in the body frame: "fusion" is the whole network's, of length `size`
    (0: the weights' default), "bev" and "points" its heads', unprojected."""
    from vlad_ros.cloud.raster import rasterize

    parts: dict[str, list[F32]] = {name: [] for name in HEADS}

    def describe(batch: list[F32]) -> None:
        description = network.describe([rasterize(cloud, network.bev) for cloud in batch])
        for name, attribute in HEADS.items():
            rows = getattr(description, attribute).float()
            parts[name].append((network.shorten(rows, size) if name == "fusion" else rows).cpu().numpy())

    batch: list[F32] = []
    for cloud in clouds:
        batch.append(cloud)
        if len(batch) == BATCH:
            describe(batch)
            batch = []
    if batch:
        describe(batch)
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def method_descriptors(network: PlaceNetwork, clouds: Iterable[F32]) -> dict[str, F32]:
    """As `network_descriptors` at the default length; where that is a projection, the unprojected ones as well."""
    found = network_descriptors(network, clouds, network.config.descriptor_dim)
    if network.config.size(0) == network.config.descriptor_dim:
        return found
    whole = found.pop("fusion")
    return {"fusion": shortened(network, whole), f"fusion, {whole.shape[1]} numbers": whole, **found}


def shortened(network: PlaceNetwork, descriptors: F32, size: int = 0) -> F32:
    """Unprojected `descriptors` (n, D) at the length `size` (0: the default)."""
    import torch

    rows = torch.from_numpy(descriptors).to(network.cell_xy.device)
    return network.shorten(rows, size).cpu().numpy()


def network_similarities(
    network: PlaceNetwork, queries: Iterable[F32], maps: Iterable[F32] | None, size: int = 0
) -> dict[str, F32]:
    """(Q, M) inner products by name of the head; `maps` None: the queries against themselves; `size` as in
    `network_descriptors`."""
    left = network_descriptors(network, queries, size)
    right = left if maps is None else network_descriptors(network, maps, size)
    return {name: left[name] @ right[name].T for name in HEADS}


def scan_context_similarity(queries: Iterable[F32], maps: Iterable[F32] | None) -> F32:
    """(Q, M) by Scan Context; `maps` None: the queries against themselves."""
    left = np.stack([scan_context.describe(cloud) for cloud in queries])
    right = left if maps is None else np.stack([scan_context.describe(cloud) for cloud in maps])
    return scan_context.similarity(left, right)
