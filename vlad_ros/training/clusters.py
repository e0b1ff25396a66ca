# SPDX-License-Identifier: Apache-2.0
"""NetVLAD's centroids from clusters of the local features: spherical k-means."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vlad_ros.model.backbone import STRIDE
from vlad_ros.model.keypoints import occupied_cells
from vlad_ros.model.netvlad import NetVLAD
from vlad_ros.model.network import Description, PlaceNetwork


def spherical_kmeans(features: Tensor, clusters: int, seed: int, iterations: int = 25) -> Tensor:
    """(clusters, C) unit centres of unit ``features`` (N, C); an empty cluster keeps its centre."""
    generator = torch.Generator().manual_seed(seed)
    centres = features[torch.randperm(len(features), generator=generator)[:clusters]].clone()
    for _ in range(iterations):
        nearest = (features @ centres.T).argmax(dim=1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, features)
        filled = torch.bincount(nearest, minlength=clusters) > 0
        centres = torch.where(filled[:, None], F.normalize(sums, dim=1), centres)
    return centres


def seed_heads(network: PlaceNetwork, descriptions: list[Description], seed: int, per_view: int = 60) -> None:
    """Start both heads' centroids from clusters of the features that they aggregate."""
    generator = torch.Generator().manual_seed(seed)
    cells, points = [], []
    for out in descriptions:
        mask = occupied_cells(out.occupancy, STRIDE)
        for b in range(len(mask)):
            here = out.feature_map[b][:, mask[b]].T
            cells.append(here[torch.randperm(len(here), generator=generator)[:per_view]])
            points.append(out.features[b][out.keypoints.valid[b]][:per_view])
    for head, features in ((network.head_bev, cells), (network.head_fusion, points)):
        if isinstance(head.vlad, NetVLAD):
            head.vlad.seed_centroids(spherical_kmeans(torch.cat(features), network.config.num_clusters, seed))
