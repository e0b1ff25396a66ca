# SPDX-License-Identifier: Apache-2.0
"""Keypoints of the raster: the best cells after non-maximum suppression, and the features sampled at them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vlad_ros.config import BevConfig


class Keypoints(NamedTuple):
    """``xy`` (B, K, 2) [m, levelled body frame], ``score`` (B, K) in 0..1, ``valid`` (B, K) bool.

    Where a raster has fewer than K, the rest is invalid, with position 0 and score 0; none is repeated.
    """

    xy: Tensor
    score: Tensor
    valid: Tensor


def cell_centres(size: int, resolution: float, device: torch.device | None = None) -> Tensor:
    """(size, size, 2) x y [m] of the cells' centres: row 0 is the farthest +x, column 0 the farthest +y."""
    along = (size / 2 - 0.5 - torch.arange(size, device=device, dtype=torch.float32)) * resolution
    return torch.stack(torch.meshgrid(along, along, indexing="ij"), dim=2)


def occupied(raster: Tensor) -> Tensor:
    """(B, H, W) bool: any height slice holds a point."""
    return (raster[:, 1:] > 0).any(dim=1)


def occupied_cells(occupancy: Tensor, stride: int) -> Tensor:
    """(B, H / stride, W / stride) bool: any cell of ``occupancy`` (B, H, W) below a cell of the feature map."""
    return F.max_pool2d(occupancy[:, None].float(), stride)[:, 0] > 0


def select(logits: Tensor, occupancy: Tensor, count: int, nms_radius: float, bev: BevConfig) -> Keypoints:
    """The `count` best occupied cells whose score is the largest within `nms_radius` [m] (a square window)."""
    reach = max(1, round(nms_radius / bev.resolution))
    score = torch.sigmoid(logits.detach()).masked_fill(~occupancy, 0.0)
    peak = F.max_pool2d(score[:, None], 2 * reach + 1, 1, reach)[:, 0]
    score = score.masked_fill(score < peak, 0.0).flatten(1)
    best, index = score.topk(min(count, score.shape[1]), dim=1)
    valid = best > 0
    centres = cell_centres(bev.size, bev.resolution, logits.device).flatten(0, 1)
    return Keypoints(centres[index] * valid[..., None], best * valid, valid)


def sample(feature_map: Tensor, xy: Tensor, bev: BevConfig) -> Tensor:
    """Unit features (B, K, C) of ``feature_map`` (B, C, h, w) at ``xy`` (B, K, 2) [m], bilinear between cells."""
    grid = -2.0 * xy.flip(2)[:, None] / bev.extent
    at = F.grid_sample(feature_map, grid.to(feature_map.dtype), align_corners=False)[:, :, 0]
    return F.normalize(at.transpose(1, 2), dim=2)
