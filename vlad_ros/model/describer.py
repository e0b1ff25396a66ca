# SPDX-License-Identifier: Apache-2.0
"""From a cloud to its descriptor: the raster's configuration, the network and the device it runs on, in one object."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import torch

from vlad_ros.cloud.decode import CloudError, clean
from vlad_ros.cloud.raster import Bev, rasterize
from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.keyframes import Scan, Seen
from vlad_ros.model.kept_geometry import T_level_body, compact_cloud
from vlad_ros.model.keypoints import sample, select
from vlad_ros.model.network import Description, PlaceNetwork
from vlad_ros.model.weights import Metadata, load_weights
from vlad_ros.types import F32, F64, Geometry

KEYPOINTS = 250  # kept at most for verification
KEYPOINT_SPACING = 1.0  # m


def resolve_device(name: str) -> torch.device:
    """The device that auto, cpu, cuda or cuda:N names; ValueError for any other name or a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if name != "cpu" and (kind != "cuda" or (":" in name and not number.isdecimal())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices")
    return torch.device(name)


class Describer:
    """Rasters and describes clouds in the body frame with one network. `model_hash` names its weights, `bev` is its
    raster's configuration, `dim` the length D of its descriptors: `size`, or for 0 the weights' default."""

    def __init__(
        self, network: PlaceNetwork, model_hash: str, device: torch.device | str = "cpu", size: int = 0
    ) -> None:
        self.network = network.eval().to(device)
        self.model_hash, self.device = model_hash, torch.device(device)
        self.bev, self.dim = network.bev, network.config.size(size)

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str] | None = None, device: str = "auto", size: int = 0
    ) -> tuple[Describer, Metadata]:
        """The weights at `path` (None: those that ship) on `device`, and what they say of themselves.

        WeightsError names file and reason, ValueError the device that is not there or a `size` they do not make.
        """
        where = resolve_device(device)
        network, metadata = load_weights(path, where)
        return cls(network, metadata.sha256, where, size), metadata

    def rasterize(self, points: F32, raster: F32 | None = None) -> Bev:
        """The raster of `points` (N, 4), or the given `raster` (C, H, W) with those points around its keypoints."""
        own = rasterize(points, self.bev, self.device)
        return own if raster is None else dataclasses.replace(own, raster=raster)

    def describe(self, bev: Bev) -> F32:
        """Descriptor (D,) float32, unit norm."""
        return self.descriptor(self.describe_all(bev))

    def describe_all(self, bev: Bev) -> Description:
        """All that the network says of one raster, in one pass: for `descriptor` and `geometry`."""
        return self.network.describe([bev])

    def descriptor(self, description: Description) -> F32:
        """Descriptor (D,) float32, unit norm, of a description of one raster."""
        return self.network.shorten(description.descriptor[:1].float(), self.dim)[0].cpu().numpy()

    def geometry(self, bev: Bev, description: Description, points: F32) -> Geometry:
        """What a keyframe keeps for verification: of its raster, of `describe_all(bev)` and of `points` (N, >=3) [m]
        in the body frame."""
        T = T_level_body(bev)
        keypoints = select(description.score_logits, description.occupancy, KEYPOINTS, KEYPOINT_SPACING, self.bev)
        features = sample(description.feature_map, keypoints.xy, self.bev)[0][keypoints.valid[0]]
        return Geometry(
            keypoints=keypoints.xy[0][keypoints.valid[0]].float().cpu().numpy(),
            features=torch.round(127.0 * features).to(torch.int8).cpu().numpy(),
            cloud=compact_cloud(points, T),
            T_level_body=T,
        )

    def see(self, points: F32, raster: F32 | None = None) -> Seen:
        """Raster, descriptor and geometry of `points` (N, 4) in the body frame, by one pass of the network."""
        bev = self.rasterize(points, raster)
        description = self.describe_all(bev)
        return Seen(bev, self.descriptor(description), lambda: self.geometry(bev, description, points))

    def look(self, scan: Scan) -> Seen:
        """What the network sees in a single scan, made at most once."""
        if scan.look is None:
            scan.look = self.see(scan.points, scan.raster)
        return scan.look

    def read(
        self, points: np.ndarray, stamp: int, raster: F32 | None, T_odom_base: F64 | None, config: RecognizerConfig
    ) -> Scan:
        """A scan of checked input, its points cropped to the ranges of `config`.

        CloudError (a ValueError) for a cloud that nothing can be made of, ValueError for a stamp that is no integer, a
        transform that is not rigid, or a raster that is not finite or not of the weights' size and channels.
        """
        points = clean(points, config.min_range, config.max_range)
        half = self.bev.extent / 2
        if not np.any((np.abs(points[:, 0]) < half) & (np.abs(points[:, 1]) < half)):
            raise CloudError("out_of_range", f"none of the points lies in the raster, {half:g} m to each side")
        if raster is not None:
            raster = np.asarray(raster, np.float32)
            shape = (self.bev.channels, self.bev.size, self.bev.size)
            if raster.shape != shape or not np.all(np.isfinite(raster)):
                raise ValueError(f"BEV must be finite numbers of shape {shape}, not of shape {raster.shape}")
        return Scan(points, stamp, raster, T_odom_base)
