# SPDX-License-Identifier: Apache-2.0
"""A small CNN on exactly rotated copies of the raster, pooled over the orientations.

``f(x) = max_k R^-k g(R^k x)`` with R a turn by 90 degrees commutes with R for any g (group-equivariant pooling as in
BEVPlace++, Luo et al., 2024). g's strided convolutions have even kernels: odd ones would shift each rotated copy by
part of a cell, so that the pooled copies would not line up.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlad_ros.config import BevConfig, ModelConfig

STRIDE = 4


def conv_block(channels_in: int, channels_out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; centred on the input for odd kernels, and for even ones with stride 2."""
    padding = (kernel // 2) * dilation if kernel % 2 else (kernel - stride) // 2
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def quarter_turns(maps: Tensor, k: int) -> Tensor:
    """`maps` (..., H, W) turned by `k` quarter turns as `torch.rot90` turns them, by operations that ONNX has."""
    turned = maps.transpose(-2, -1) if k % 2 else maps
    flipped = {0: (), 1: (-2,), 2: (-2, -1), 3: (-1,)}[k % 4]
    return turned.flip(flipped) if flipped else turned


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first dilated, around a skip."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first = conv_block(channels, channels, 3, dilation=dilation)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class Backbone(nn.Module):
    """Raster -> unit feature map at a quarter of the resolution, and a keypoint score at the full one."""

    def __init__(self, config: ModelConfig, bev: BevConfig) -> None:
        super().__init__()
        width, half = config.width, config.width // 2
        if bev.size % (2 * STRIDE):
            raise ValueError(
                f"a raster of {bev.size} cells does not divide by {2 * STRIDE}; change extent or resolution"
            )
        self.rotations, self.height_max = config.rotations, bev.height_max
        self.fine = conv_block(bev.channels, half, 6, 2)
        self.coarse = nn.Sequential(
            conv_block(half, width, 4, 2),
            ResidualBlock(width, 1),
            ResidualBlock(width, 2),
            ResidualBlock(width, 4),
            conv_block(width, 2 * width, 3),
            nn.Conv2d(2 * width, config.fea_size, 1),
        )
        self.score_context = nn.Conv2d(2 * width, half, 1)
        self.score = nn.Sequential(conv_block(half, 16, 3), nn.Conv2d(16, 4, 1), nn.PixelShuffle(2))
        self.out = nn.Conv2d(config.fea_size, config.fea_size, 1)

    def one_copy(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """g: features (B, C, H/4, W/4) and score logits (B, 1, H, W) of one orientation."""
        fine = self.fine(x)
        context = self.coarse[:-1](fine)
        upsampled = F.interpolate(self.score_context(context), scale_factor=2.0, mode="nearest")
        return self.coarse[-1](context), self.score(fine + upsampled)

    def forward(self, raster: Tensor) -> tuple[Tensor, Tensor]:
        """``raster`` (B, C, H, W) -> unit features (B, fea_size, H/4, W/4) float32, score logits (B, H, W) float32."""
        scaled = torch.cat([raster[:, :1] / self.height_max, raster[:, 1:]], dim=1)
        copies = torch.cat([quarter_turns(scaled, k) for k in range(self.rotations)])
        features, scores = self.one_copy(copies.contiguous(memory_format=torch.channels_last))
        return F.normalize(self.out(self._pool(features)).float(), dim=1), self._pool(scores)[:, 0].float()

    def _pool(self, maps: Tensor) -> Tensor:
        """Turn the copies back and keep the maximum over the orientations."""
        turned = [quarter_turns(copy, -k) for k, copy in enumerate(maps.chunk(self.rotations))]
        return torch.stack(turned).amax(dim=0)
