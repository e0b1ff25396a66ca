# SPDX-License-Identifier: Apache-2.0
"""The place network: raster and points in, descriptor and keypoints out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlad_ros.cloud.raster import Bev
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.model.backbone import STRIDE, Backbone
from vlad_ros.model.fusion import CrossAttention, LearnableFusion, RangeEncoding
from vlad_ros.model.keypoints import Keypoints, cell_centres, occupied, occupied_cells, sample, select
from vlad_ros.model.netvlad import NetVLAD, NetVLADLoupe
from vlad_ros.model.points import PointBranch, neighbourhoods
from vlad_ros.model.projection import Projection
from vlad_ros.model.runtime import Run
from vlad_ros.types import F32


@dataclass(frozen=True)
class Description:
    """The network's outputs for B rasters: ``descriptor`` (B, D) unit norm and its two parts, ``vlad_fusion`` and
    ``vlad_bev`` (B, D); ``keypoints``; their unit ``features`` (B, K, C); ``feature_map`` (B, C, H/4, W/4) unit,
    ``occupancy`` (B, H, W) and ``score_logits`` (B, H, W)."""

    descriptor: Tensor
    vlad_fusion: Tensor
    vlad_bev: Tensor
    keypoints: Keypoints
    features: Tensor
    feature_map: Tensor
    occupancy: Tensor
    score_logits: Tensor


class Aggregation(nn.Module):
    """One head: a learnt weight for each feature, the range encoding, and NetVLAD or its loupe variant."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Linear(config.fea_size, 1)
        nn.init.zeros_(self.weight.weight)
        nn.init.constant_(self.weight.bias, 1.0)
        self.range_encoding = RangeEncoding(config.fea_size)
        self.vlad: NetVLAD | NetVLADLoupe
        if config.head == "loupe":
            self.vlad = NetVLADLoupe(config.fea_size, config.num_clusters, config.loupe_dim)
        else:
            self.vlad = NetVLAD(config.fea_size, config.num_clusters)

    def forward(self, features: Tensor, xy: Tensor, valid: Tensor) -> Tensor:
        """``features`` (B, N, C) at ``xy`` (B, N, 2) [m], counted where ``valid`` (B, N) -> (B, D) unit norm."""
        weights = torch.sigmoid(self.weight(features))[..., 0] * valid
        placed = features + self.range_encoding(xy)
        if isinstance(self.vlad, NetVLADLoupe):
            return F.normalize(self.vlad(placed, weights), dim=1)
        return self.vlad(placed.transpose(1, 2)[..., None], weights[..., None])


class PlaceNetwork(nn.Module):
    """Backbone, keypoints, point branch, two NetVLAD heads, learnable fusion."""

    def __init__(self, config: ModelConfig, bev: BevConfig) -> None:
        super().__init__()
        self.config, self.bev = config, bev
        self.precision: torch.dtype = torch.float32  # of the backbone; the heads are always float32
        self.runtime: Run | None = None  # runs the backbone in its place; for inference only
        self.backbone = Backbone(config, bev)
        self.points = PointBranch(config, bev)
        self.attention = CrossAttention(config)
        self.head_bev = Aggregation(config)
        self.head_fusion = Aggregation(config)
        self.fusion = LearnableFusion()
        self.projection = Projection(config.projection, config.descriptor_dim) if config.projection else None
        centres = cell_centres(bev.size // STRIDE, bev.resolution * STRIDE).flatten(0, 1)
        self.cell_xy: Tensor
        self.register_buffer("cell_xy", centres, persistent=False)

    def forward(self, raster: Tensor, clouds: list[F32]) -> Description:
        """``raster`` (B, C, H, W) as `rasterize` makes it, ``clouds``: B levelled clouds (N, >=3), z above ground."""
        with torch.autocast(raster.device.type, self.precision, enabled=self.precision != torch.float32):
            feature_map, logits = self.backbone(raster) if self.runtime is None else self.runtime(raster)
        occupancy = occupied(raster)
        cell_mask = occupied_cells(occupancy, STRIDE).flatten(1)
        cells, cell_xy = feature_map.flatten(2).transpose(1, 2), self.cell_xy.expand(len(raster), -1, -1)
        if len(raster) == 1 and cell_mask.any():  # the others have no weight in what follows, and are most of them
            cells, cell_xy, cell_mask = (each[:, cell_mask[0]] for each in (cells, cell_xy, cell_mask))
        vlad_bev = self.head_bev(cells, cell_xy, cell_mask)

        keypoints = select(logits, occupancy, self.config.num_keypoints, self.config.nms_radius, self.bev)
        features = sample(feature_map, keypoints.xy, self.bev)
        offsets, mask = neighbourhoods(clouds, keypoints, self.config, self.bev)
        fused = self.attention(features, self.points(offsets, mask, keypoints.xy), cells, cell_mask)
        vlad_fusion = self.head_fusion(fused, keypoints.xy, keypoints.valid)

        descriptor = self.fusion(vlad_fusion, vlad_bev)
        return Description(descriptor, vlad_fusion, vlad_bev, keypoints, features, feature_map, occupancy, logits)

    def inputs(self, bevs: list[Bev]) -> tuple[Tensor, list[F32]]:
        """The rasters and clouds of `forward`, the rasters on the device that the network is on."""
        raster = torch.stack([torch.as_tensor(bev.raster, dtype=torch.float32) for bev in bevs])
        return raster.to(self.cell_xy.device), [torch.as_tensor(bev.points).cpu().numpy() for bev in bevs]

    @torch.inference_mode()
    def describe(self, bevs: list[Bev]) -> Description:
        """Describe rasters in eval mode and without gradients."""
        if self.training:
            raise ValueError("describe needs the network in eval mode; call eval() first")
        return self(*self.inputs(bevs))

    def shorten(self, descriptor: Tensor, size: int = 0) -> Tensor:
        """``descriptor`` (B, D) at the length `size` (0: the default), unit norm. ValueError as `ModelConfig.size`."""
        size = self.config.size(size)
        if size == self.config.descriptor_dim or self.projection is None:
            return descriptor
        return self.projection(descriptor, size)

    def learn_projection(self, matrix: Tensor, default_size: int) -> None:
        """Take over the `matrix` (size, D) of `principal_directions`."""
        self.config = dataclasses.replace(self.config, projection=len(matrix), default_size=default_size)
        self.projection = Projection(*matrix.shape).to(matrix.device)
        self.projection.matrix.copy_(matrix)
