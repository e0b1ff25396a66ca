# SPDX-License-Identifier: Apache-2.0
"""Keypoint features fused with their points and surroundings, and the learnt mixture of the two descriptors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlad_ros.config import ModelConfig

RANGE_PERIODS = (160.0, 80.0, 40.0, 20.0, 10.0)


class RangeEncoding(nn.Module):
    """Distance to the sensor as sines through a linear layer that starts at zero.

    NetVLAD drops the features' positions; the range is the one coordinate that does not change with the heading.
    """

    def __init__(self, fea_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * len(RANGE_PERIODS), fea_size, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, xy: Tensor) -> Tensor:
        """``xy`` (..., 2) [m] -> (..., fea_size)."""
        periods = torch.tensor(RANGE_PERIODS, device=xy.device)
        phase = 2 * torch.pi * xy.norm(dim=-1, keepdim=True) / periods
        return self.linear(torch.cat([phase.sin(), phase.cos()], dim=-1))


class CrossAttention(nn.Module):
    """Keypoint and point features attend to the BEV features of the occupied cells (Vaswani et al., 2017).

    What is added to the keypoint features starts at zero, so that training starts from the BEV features themselves.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(config.fea_size)
        self.attention = nn.MultiheadAttention(config.fea_size, 4, batch_first=True)
        last = nn.Linear(config.fea_size, config.fea_size)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mix = nn.Sequential(nn.Linear(3 * config.fea_size, config.fea_size), nn.ReLU(), last)

    def forward(self, features: Tensor, points: Tensor, cells: Tensor, cell_mask: Tensor) -> Tensor:
        """``features``, ``points`` (B, K, C), ``cells`` (B, N, C), ``cell_mask`` (B, N) bool -> unit (B, K, C)."""
        empty = ~cell_mask.any(dim=1, keepdim=True)
        query = self.query_norm(features + points)
        answer, _ = self.attention(query, cells, cells, key_padding_mask=~(cell_mask | empty), need_weights=False)
        return F.normalize(features + self.mix(torch.cat([features, points, answer], dim=2)), dim=2)


class LearnableFusion(nn.Module):
    """``sigmoid(w) * vlad_fusion + (1 - sigmoid(w)) * vlad_bev``, L2-normalised; w starts at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, vlad_fusion: Tensor, vlad_bev: Tensor) -> Tensor:
        """Two (B, D) -> (B, D), unit norm."""
        share = torch.sigmoid(self.w)
        return F.normalize(share * vlad_fusion + (1 - share) * vlad_bev, dim=1)
