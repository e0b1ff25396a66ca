# SPDX-License-Identifier: Apache-2.0
"""Untrained weights that tell scans apart all the same: enough to test everything around the network."""

from __future__ import annotations

from pathlib import Path

import torch

from vlad_ros.calibration import FEATURES, Calibration, Logistic
from vlad_ros.cloud.raster import rasterize
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import save_weights
from vlad_ros.types import F32


def similarity_alone(half: float, slope: float = 1000.0) -> Calibration:
    """A probability that depends on nothing but the similarity: 0.5 at `half`, steep around it."""
    zeros, ones = (0.0,) * len(FEATURES), (1.0,) * len(FEATURES)
    coefficients = tuple(slope * (name == "similarity") for name in FEATURES)
    model = Logistic(-slope * half, coefficients, centre=zeros, scale=ones, typical=ones)
    return Calibration(model, model)


def save_untrained(path: Path, scans: list[F32], half: float) -> Path:
    """A small random network whose batch norms have seen `scans` (N, >=3) and whose centroids are zero; verified loops
    are as probable as 0.5 at a similarity of `half`."""
    torch.manual_seed(0)
    config = ModelConfig(fea_size=32, num_clusters=4, width=16, num_keypoints=30, rotations=1)
    network = PlaceNetwork(config, BevConfig(extent=64.0, resolution=1.0))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches seen
    bevs = [rasterize(scan, network.bev) for scan in scans]
    with torch.no_grad():
        for _ in range(3):
            network(torch.stack([torch.from_numpy(bev.raster) for bev in bevs]), [bev.points for bev in bevs])
        for head in (network.head_bev, network.head_fusion):
            torch.nn.init.zeros_(head.vlad.centroids)
    save_weights(path, network.eval(), similarity_alone(half), {"test": True})
    return path
