# SPDX-License-Identifier: Apache-2.0
"""The bird's-eye-view raster: height above ground and occupancy of height slices, the same at every point density.

Row 0 is the farthest +x, column 0 the farthest +y, so "ahead" is up: i = floor((extent/2 - x) / resolution),
j = floor((extent/2 - y) / resolution) of the *levelled* x, y. A point at +extent/2 is included, at -extent/2 it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vlad_ros.cloud.decode import four_columns
from vlad_ros.cloud.ground import fit_ground, levelling
from vlad_ros.config import BevConfig
from vlad_ros.jit import kernel
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Bev:
    """A raster and the data it was made from.

    `raster` (C, H, W) float32: channel 0 the greatest height above ground [m] of non-ground points, 0..height_max; then
    the occupancy, 0 or 1, of each height slice. `points` (N, 4) float32: all points, levelled, z = height above ground,
    and intensity. Both are numpy arrays, or tensors on the device when the raster was made on one.
    `plane` (3,) z = a x + b y + c in the body frame; `R_level_body` (3, 3); `ground` the plane's offset along its
    normal [m]: (x, y, z) of `points` is R_level_body @ p - (0, 0, ground).
    """

    raster: Any
    plane: F64
    R_level_body: F64
    ground: float
    points: Any


@kernel
def _rasterize(
    points: F32, R: F32, ground: np.float32, half: np.float32, per_metre: np.float32, edges: F32, out: F32
) -> F32:
    """One pass over the points: level them, fill `out` (C, H, W); returns the levelled points (N, 4)."""
    size = out.shape[1]
    top = len(edges) - 1
    levelled = np.empty((len(points), 4), np.float32)
    for k in range(len(points)):
        px, py, pz = points[k, 0], points[k, 1], points[k, 2]
        x = R[0, 0] * px + R[0, 1] * py + R[0, 2] * pz
        y = R[1, 0] * px + R[1, 1] * py + R[1, 2] * pz
        h = R[2, 0] * px + R[2, 1] * py + R[2, 2] * pz - ground
        levelled[k, 0], levelled[k, 1], levelled[k, 2], levelled[k, 3] = x, y, h, points[k, 3]
        if not h >= edges[0]:
            continue
        u, v = (half - x) * per_metre, (half - y) * per_metre
        if not (u >= 0 and u < size and v >= 0 and v < size):
            continue
        i, j = int(u), int(v)
        if h > out[0, i, j]:
            out[0, i, j] = h
        s = top
        while h < edges[s]:
            s -= 1
        out[1 + s, i, j] = 1.0
    return levelled


def rasterize_torch(
    points: torch.Tensor, R: torch.Tensor, ground: float, config: BevConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same raster with torch, on the device of `points` (N, 4) float32 and `R` (3, 3) float32.

    The same float32 operations in the same order as the numba kernel; no matrix product, which may use TF32 or other
    orders of summation. Returns raster (C, H, W) and levelled points (N, 4).
    """
    import torch

    px, py, pz = points[:, 0], points[:, 1], points[:, 2]
    x, y, z = (R[i, 0] * px + R[i, 1] * py + R[i, 2] * pz for i in range(3))
    h = z - ground
    size, per_metre = config.size, float(np.float32(1.0 / config.resolution))
    u, v = (config.extent / 2 - x) * per_metre, (config.extent / 2 - y) * per_metre
    edges = torch.tensor(config.slices, dtype=torch.float32, device=points.device)
    keep = (h >= edges[0]) & (u >= 0) & (u < size) & (v >= 0) & (v < size)
    cell = u[keep].long() * size + v[keep].long()
    heights = h[keep]
    level = torch.bucketize(heights, edges, right=True)
    raster = torch.zeros((config.channels, size * size), dtype=torch.float32, device=points.device)
    raster[0].scatter_reduce_(0, cell, heights, "amax")
    raster[level, cell] = 1.0
    raster[0].clamp_(max=config.height_max)
    return raster.view(config.channels, size, size), torch.stack([x, y, h, points[:, 3]], dim=1)


@stage("raster")
def rasterize(
    points: np.ndarray, config: BevConfig, device: torch.device | str = "cpu", plane: F64 | None = None
) -> Bev:
    """Raster of `points` (N, >=3) [m] in the body frame; a missing fourth column is intensity 0.

    The ground is fitted on the CPU unless `plane` gives it. On "cpu" the result holds numpy arrays, on any other
    device tensors there. ValueError as in `fit_ground`.
    """
    points = four_columns(points)
    if plane is None:
        plane = fit_ground(points)
    R, ground = levelling(plane)
    if str(device) != "cpu":
        import torch

        tensor, turn = torch.from_numpy(points).to(device), torch.from_numpy(R.astype(np.float32)).to(device)
        raster, levelled = rasterize_torch(tensor, turn, float(np.float32(ground)), config)
        return Bev(raster, plane, R, ground, levelled)
    out = np.zeros((config.channels, config.size, config.size), np.float32)
    half, per_metre = np.float32(config.extent / 2), np.float32(1.0 / config.resolution)
    edges = np.array(config.slices, np.float32)
    moved = _rasterize(points, R.astype(np.float32), np.float32(ground), half, per_metre, edges, out)
    np.minimum(out[0], np.float32(config.height_max), out=out[0])
    return Bev(out, plane, R, ground, moved)
