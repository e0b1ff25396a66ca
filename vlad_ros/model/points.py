# SPDX-License-Identifier: Apache-2.0
"""The point branch: encodes the LiDAR points around each keypoint, independent of the heading."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vlad_ros.cloud.thin import voxel_thin
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.jit import kernel
from vlad_ros.model.keypoints import Keypoints
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32

VOXEL = 0.25  # m


@kernel
def _gather(
    points: F32,
    keypoints: F32,
    valid: np.ndarray,
    radius: np.float32,
    limit: int,
    half: np.float32,
    cell: np.float32,
    out: F32,
    mask: np.ndarray,
) -> None:
    """Fill ``out`` (K, limit, 3) with dx, dy, height of up to `limit` points within `radius` of each keypoint."""
    side = int(np.ceil(2 * half / cell))
    start = np.zeros(side * side + 1, np.int64)
    index = np.full(len(points), -1, np.int64)
    for n in range(len(points)):
        i, j = int((points[n, 0] + half) / cell), int((points[n, 1] + half) / cell)
        if 0 <= i < side and 0 <= j < side and points[n, 0] > -half and points[n, 1] > -half:
            index[n] = i * side + j
            start[index[n] + 1] += 1
    for c in range(side * side):
        start[c + 1] += start[c]
    order, fill = np.empty(start[-1], np.int64), start[:-1].copy()
    for n in range(len(points)):
        if index[n] >= 0:
            order[fill[index[n]]] = n
            fill[index[n]] += 1
    near = np.empty(len(points), np.int64)
    for k in range(len(keypoints)):
        if not valid[k]:
            continue
        x, y, found = keypoints[k, 0], keypoints[k, 1], 0
        low_i, high_i = max(0, int((x - radius + half) / cell)), min(side - 1, int((x + radius + half) / cell))
        low_j, high_j = max(0, int((y - radius + half) / cell)), min(side - 1, int((y + radius + half) / cell))
        for i in range(low_i, high_i + 1):
            for o in range(start[i * side + low_j], start[i * side + high_j + 1]):
                n = order[o]
                if (points[n, 0] - x) ** 2 + (points[n, 1] - y) ** 2 < radius * radius:
                    near[found] = n
                    found += 1
        kept = min(found, limit)
        for p in range(kept):
            n = near[p * found // kept]
            out[k, p, 0], out[k, p, 1], out[k, p, 2] = points[n, 0] - x, points[n, 1] - y, points[n, 2]
            mask[k, p] = True


@stage("neighbourhoods")
def neighbourhoods(
    clouds: list[F32], keypoints: Keypoints, config: ModelConfig, bev: BevConfig
) -> tuple[Tensor, Tensor]:
    """Points around keypoints: offsets (B, K, P, 3) dx dy height [m] and a mask (B, K, P).

    ``clouds``: levelled points (N, >=3) with z = height above ground. Ground is left out and the rest thinned to
    voxels, so that the result depends little on the sensor's density.
    """
    xy, valid = keypoints.xy.cpu().numpy(), keypoints.valid.cpu().numpy()
    shape = (*valid.shape, config.points_per_keypoint)
    offsets, mask = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.bool_)
    half = np.float32(bev.extent / 2 + config.point_radius)
    for b, cloud in enumerate(clouds):
        inside = (cloud[:, 2] >= bev.slices[0]) & (np.abs(cloud[:, :2]).max(axis=1, initial=0.0) < half)
        thinned = voxel_thin(np.ascontiguousarray(cloud[inside]), VOXEL)
        radius, cell = np.float32(config.point_radius), np.float32(config.point_radius)
        _gather(thinned, xy[b], valid[b], radius, shape[2], half, cell, offsets[b], mask[b])
    device = keypoints.xy.device
    return torch.from_numpy(offsets).to(device), torch.from_numpy(mask).to(device)


class PointBranch(nn.Module):
    """A small PointNet (Qi et al., CVPR 2017) on offsets written along and across the ray to the keypoint.

    That frame turns with the scene, so the encoding does not change with the heading.
    """

    def __init__(self, config: ModelConfig, bev: BevConfig) -> None:
        super().__init__()
        self.radius, self.height_max = config.point_radius, bev.height_max
        self.mlp = nn.Sequential(
            nn.Linear(4, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 128), nn.LayerNorm(128), nn.ReLU()
        )
        self.out = nn.Linear(128, config.fea_size)

    def forward(self, offsets: Tensor, mask: Tensor, xy: Tensor) -> Tensor:
        """``offsets`` (B, K, P, 3), ``mask`` (B, K, P), keypoints ``xy`` (B, K, 2) -> (B, K, fea_size)."""
        ray = xy / xy.norm(dim=2, keepdim=True).clamp_min(1e-3)
        along = (offsets[..., :2] * ray[:, :, None]).sum(dim=3)
        across = offsets[..., 1] * ray[:, :, None, 0] - offsets[..., 0] * ray[:, :, None, 1]
        distance = offsets[..., :2].norm(dim=3)
        height = (offsets[..., 2] / self.height_max).clamp(max=2.0)
        inputs = torch.stack([along / self.radius, across / self.radius, distance / self.radius, height], dim=3)
        encoded = self.mlp(inputs).masked_fill(~mask[..., None], 0.0)  # zero is the least after a ReLU
        return self.out(encoded.amax(dim=2))
