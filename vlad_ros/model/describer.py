# SPDX-License-Identifier: Apache-2.0
"""From a cloud to its descriptor: the raster's configuration, the network and the device it runs on, in one object."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from vlad_ros.cloud.raster import Bev, rasterize
from vlad_ros.drive.local_map import JoinedMap
from vlad_ros.drive.scan import Place
from vlad_ros.model.kept_geometry import T_level_body, compact_cloud, compact_features
from vlad_ros.model.keypoints import sample, select
from vlad_ros.model.network import Description, PlaceNetwork
from vlad_ros.model.runtime import make_runtime, resolve_inference
from vlad_ros.model.weights import Metadata, load_weights
from vlad_ros.stopwatch import Ledger, stage
from vlad_ros.types import F32, Geometry, Keyframe

KEYPOINTS = 250  # stored at most for verification
KEYPOINT_SPACING = 1.0  # m


def resolve_device(name: str) -> torch.device:
    """The device that auto, cpu, cuda or cuda:N names; ValueError for any other name or a GPU that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if name != "cpu" and (kind != "cuda" or (":" in name and not number.isdecimal())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {name}: torch sees {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    return torch.device(name)


class Seen(NamedTuple):
    """The raster and descriptor (D,) of a cloud. `geometry()` makes what a keyframe stores for verification, on demand:
    of a keyframe with a local map only the map's is needed. `milliseconds`: time of the stages, without `geometry`."""

    bev: Bev
    descriptor: F32
    geometry: Callable[[], Geometry]
    milliseconds: Mapping[str, float]

    def keyframe(self, session: int, at: Place, scan_descriptor: F32 | None, joined: JoinedMap | None) -> Keyframe:
        """The keyframe at `at`, described by the local map `joined`, or (None) by its single scan; without geometry."""
        return Keyframe(
            session=session,
            stamp=at.stamp,
            descriptor=self.descriptor,
            scan_descriptor=scan_descriptor,
            is_local_map=joined is not None,
            partial=joined is not None and joined.partial,
            T_odom_base=at.T_odom_base,
            travel=at.travel,
        )


class Describer:
    """Rasters and describes clouds in the body frame with one network. `model_hash` names its weights, `bev` is its
    raster's configuration, `dim` the length D of its descriptors: `size`, or for 0 the weights' default; `inference`
    says what runs the backbone (`runtime`)."""

    def __init__(
        self,
        network: PlaceNetwork,
        model_hash: str,
        device: torch.device | str = "cpu",
        size: int = 0,
        inference: str = "auto",
    ) -> None:
        self.network = network.eval().to(device)
        self.model_hash, self.device = model_hash, torch.device(device)
        self.inference = resolve_inference(inference, self.device)
        network.runtime = make_runtime(self.inference, network.backbone, network.bev, self.device)
        self.bev, self.dim = network.bev, network.config.size(size)

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str] | None = None, device: str = "auto", size: int = 0, inference: str = "auto"
    ) -> tuple[Describer, Metadata]:
        """The weights at `path` (None: the shipped ones) on `device`, run by `inference`, and their metadata.

        WeightsError names file and reason; ValueError for a device or runtime that is missing or a `size` that the
        weights do not make.
        """
        where = resolve_device(device)
        network, metadata = load_weights(path, where)
        return cls(network, metadata.sha256, where, size, inference), metadata

    def rasterize(self, points: F32, raster: F32 | None = None) -> Bev:
        """The raster of `points` (N, 4), or the given `raster` (C, H, W) with those points around its keypoints."""
        own = rasterize(points, self.bev, self.device)
        return own if raster is None else dataclasses.replace(own, raster=raster)

    def describe(self, bev: Bev) -> F32:
        """Descriptor (D,) float32, unit norm."""
        return self.descriptor(self.describe_all(bev))

    @stage("network")
    def describe_all(self, bev: Bev) -> Description:
        """All outputs of the network for one raster, in one pass: for `descriptor` and `geometry`."""
        return self.network.describe([bev])

    @stage("network")
    def descriptor(self, description: Description) -> F32:
        """Descriptor (D,) float32, unit norm, of a description of one raster."""
        return self.network.shorten(description.descriptor[:1].float(), self.dim)[0].cpu().numpy()

    @stage("geometry")
    def geometry(self, bev: Bev, description: Description, points: F32) -> Geometry:
        """What a keyframe stores for verification, from its raster, `describe_all(bev)` and `points` (N, >=3) [m] in
        the body frame."""
        T = T_level_body(bev)
        keypoints = select(description.score_logits, description.occupancy, KEYPOINTS, KEYPOINT_SPACING, self.bev)
        features = sample(description.feature_map, keypoints.xy, self.bev)[0][keypoints.valid[0]]
        return Geometry(
            keypoints=keypoints.xy[0][keypoints.valid[0]].float().cpu().numpy(),
            features=compact_features(features.float().cpu().numpy()),
            cloud=compact_cloud(points, T),
            T_level_body=T,
        )

    def see(self, points: F32, raster: F32 | None = None) -> Seen:
        """Raster, descriptor and geometry of `points` (N, 4) in the body frame, by one pass of the network."""
        with Ledger() as ledger:
            bev = self.rasterize(points, raster)
            description = self.describe_all(bev)
            descriptor = self.descriptor(description)
        return Seen(bev, descriptor, lambda: self.geometry(bev, description, points), ledger.milliseconds)

    def make(self, use_bev: bool) -> dict[str, Any]:
        """What a map must have been made with to be compared with these descriptors: `KeyframeDatabase`'s arguments.
        `use_bev`: of rasters given from outside."""
        kind = "bev" if use_bev else "points"
        return {"dim": self.dim, "model_hash": self.model_hash, "bev": self.bev, "kind": kind}
