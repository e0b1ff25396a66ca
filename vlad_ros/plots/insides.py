# SPDX-License-Identifier: Apache-2.0
"""The network's intermediate results for one scan, recorded by hooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.scan import crop
from vlad_ros.model.describer import Describer
from vlad_ros.model.netvlad import NetVLAD
from vlad_ros.model.network import Aggregation
from vlad_ros.types import F32


@dataclass(frozen=True, eq=False)
class Head:
    """What one head aggregates: `features` (N, C), range encoding included, their `weights` (N,) and soft `assignment`
    (K, N), whose columns sum to 1; the `centroids` (K, C); and the result `vlad` (D,)."""

    features: F32
    weights: F32
    assignment: F32
    centroids: F32
    vlad: F32


@dataclass(frozen=True, eq=False)
class Insides:
    """One scan: its raster (C, H, W); the valid keypoints `xy` (K, 2) [m] and `score` (K,), best first, and how many
    were `wanted`; both heads (without invalid keypoints and empty cells); `share`, the fusion head's weight sigmoid(w);
    the `descriptor` (D,), and what the search `compared`: the descriptor or its projection."""

    raster: F32
    xy: F32
    score: F32
    wanted: int
    fusion: Head
    bev: Head
    share: float
    descriptor: F32
    compared: F32


def look_inside(describer: Describer, points: np.ndarray) -> Insides:
    """Describe the scan `points` (N, >=3) [m]; ValueError for an unusable cloud, a scan in which the network finds no
    keypoint, and weights whose heads are not NetVLAD."""
    network = describer.network
    cleaned = crop(points, RecognizerConfig(), describer.bev)
    bev = describer.rasterize(cleaned)
    seen: dict[str, tuple[Any, ...]] = {}

    def watch(name: str, head: Aggregation) -> Any:
        return head.vlad.register_forward_pre_hook(lambda module, inputs: seen.__setitem__(name, inputs))

    handles = [watch("fusion", network.head_fusion), watch("bev", network.head_bev)]
    try:
        description = network.describe([bev])
    finally:
        for handle in handles:
            handle.remove()
    valid = description.keypoints.valid[0].cpu().numpy()
    if not valid.any():
        raise ValueError("the network finds no keypoint in this scan: no structure above the ground; use another scan")
    occupied = seen["bev"][1].flatten(1)[0].cpu().numpy() > 0
    return Insides(
        raster=np.asarray(torch.as_tensor(bev.raster).cpu().numpy(), np.float32),
        xy=_numpy(description.keypoints.xy[0])[valid],
        score=_numpy(description.keypoints.score[0])[valid],
        wanted=network.config.num_keypoints,
        fusion=_head(network.head_fusion, seen["fusion"], valid, description.vlad_fusion),
        bev=_head(network.head_bev, seen["bev"], occupied, description.vlad_bev),
        share=float(torch.sigmoid(network.fusion.w.detach())),
        descriptor=_numpy(description.descriptor[0]),
        compared=describer.descriptor(description),
    )


@torch.inference_mode()
def _head(head: Aggregation, inputs: tuple[Tensor, Tensor], counted: np.ndarray, vlad: Tensor) -> Head:
    x, weights = inputs
    if not isinstance(head.vlad, NetVLAD):
        raise ValueError("these weights have the loupe head, which has no descriptor per cluster; use netvlad weights")
    return Head(
        features=_numpy(x[0].flatten(1).T)[counted],
        weights=_numpy(weights[0].flatten())[counted],
        assignment=_numpy(head.vlad.assign(x)[0])[:, counted],
        centroids=_numpy(head.vlad.centroids),
        vlad=_numpy(vlad[0]),
    )


def _numpy(tensor: Tensor) -> F32:
    return tensor.detach().float().cpu().numpy()


def few_keypoints(inside: Insides, name: str) -> str | None:
    """A sentence where the scan called `name` has fewer keypoints than the network looks for, else None."""
    found = len(inside.score)
    if found == inside.wanted:
        return None
    return (
        f"{name} has {found} keypoints of the {inside.wanted} that the network looks for; only those are drawn; "
        "for more use a denser scan or several scans joined"
    )
