# SPDX-License-Identifier: Apache-2.0
"""Every default of the project, once, with its unit, range and help.

ROS parameters, YAML checks, command-line flags and the README's parameter table are all derived from these frozen
dataclasses; nothing else in the tree holds a default.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


def option(
    default: Any,
    help: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field that knows its help text, unit and closed range ``[low, high]`` (or its choices)."""
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


class Checked:
    """Base of the configurations: values are checked against the fields' types and ranges when one is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            _check(field, getattr(self, field.name))


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    kind = type(field.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{field.name} must be of type {kind.__name__}, not {value!r}")
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{field.name} must be one of {', '.join(choices)}, not {value!r}")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{field.name} must be finite, not {value!r}")
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(
                f"{field.name} must lie in [{low}, {high}] {field.metadata['unit']}, not {value!r}".strip()
            )


def from_mapping(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make the configuration `kind` from a mapping; an unknown key is a ValueError that names the nearest known one."""
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    cleaned = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown setting {name!r}{hint}")
        default = known[name].default
        if isinstance(default, tuple) and isinstance(value, (list, tuple)):
            value = tuple(value)
        elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        cleaned[name] = value
    return kind(**cleaned)


@dataclass(frozen=True)
class BevConfig(Checked):
    """The bird's-eye-view raster; part of the weights' configuration, never set by a user."""

    extent: float = option(80.0, "side of the square raster, centred on the body", "m", 10.0, 400.0)
    resolution: float = option(0.5, "side of a cell", "m", 0.05, 5.0)
    height_max: float = option(12.0, "heights above ground are clamped to this in channel 0", "m", 1.0, 100.0)
    slices: tuple[float, ...] = option((0.35, 1.2, 2.6, 5.0), "lower edges of the height slices above ground", "m", 0.0)

    @property
    def size(self) -> int:
        """Rows and columns, H = W."""
        return round(self.extent / self.resolution)

    @property
    def channels(self) -> int:
        """Height, and one occupancy a slice."""
        return 1 + len(self.slices)


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network; part of the weights' configuration, never set by a user."""

    fea_size: int = option(128, "channels of the feature map", "", 8, 1024)
    num_clusters: int = option(16, "NetVLAD clusters", "", 2, 256)
    rotations: int = option(4, "exactly rotated copies that the backbone pools over", "", 1, 4)
    width: int = option(64, "channels of the residual blocks", "", 8, 512)
    num_keypoints: int = option(150, "keypoints kept after non-maximum suppression", "", 8, 2000)
    nms_radius: float = option(1.0, "two keypoints are farther apart than this", "m", 0.1, 20.0)
    point_radius: float = option(2.0, "points around a keypoint that the point branch sees", "m", 0.1, 20.0)
    points_per_keypoint: int = option(32, "points around a keypoint that the point branch sees", "", 4, 512)
    head: str = option("netvlad", "aggregation", "", choices=("netvlad", "loupe"))
    loupe_dim: int = option(256, "descriptor size of the loupe head", "", 16, 4096)
    projection: int = option(0, "rows of the projection to shorter descriptors; 0: none was learnt", "", 0, 4096)
    default_size: int = option(0, "length of the descriptor unless told otherwise; 0: unprojected", "", 0, 4096)

    @property
    def descriptor_dim(self) -> int:
        """D, the length of the descriptor."""
        return self.loupe_dim if self.head == "loupe" else self.fea_size * self.num_clusters

    def size(self, wanted: int) -> int:
        """The length of the descriptor where `wanted` is asked for (0: the default). ValueError where these weights
        do not make it."""
        size = wanted or self.default_size or self.descriptor_dim
        if size != self.descriptor_dim and size > self.projection:
            others = f" or, by their projection, up to {self.projection}" if self.projection else ""
            raise ValueError(f"descriptor_size {size}: these weights make {self.descriptor_dim} numbers{others}")
        return size


@dataclass(frozen=True)
class RecognizerConfig(Checked):
    """What the pipeline does with the scans: crop, keyframes, local map, exclusion, candidates."""

    min_range: float = option(1.0, "points nearer than this to the sensor are dropped", "m", 0.0, 50.0)
    max_range: float = option(100.0, "points farther than this are dropped", "m", 5.0, 1000.0)
    keyframe_distance: float = option(1.0, "a keyframe after this much travel", "m", 0.05, 100.0)
    keyframe_yaw: float = option(20.0, "or after this much turning", "deg", 1.0, 180.0)
    keyframe_rate: float = option(4.0, "at most this many keyframes a second", "1/s", 0.1, 100.0)
    keyframe_period: float = option(1.0, "without odometry, one keyframe in this time", "s", 0.05, 60.0)
    keyframe_similarity: float = option(
        0.95, "without odometry, a scan at least this similar to the last keyframe is none (a parked car)", "", 0.0, 1.0
    )
    accumulation_m: float = option(
        10.0, "length of travel, centred on the keyframe, of a local map; 0: single scans", "m", 0.0, 100.0
    )
    accumulation_timeout: float = option(30.0, "a keyframe waits at most this long for its local map", "s", 0.1, 600.0)
    accumulation_spacing: float = option(0.5, "scans less travel apart than this are not joined", "m", 0.05, 10.0)
    accumulation_voxel: float = option(0.25, "voxel side of the joined cloud", "m", 0.05, 2.0)
    exclude_time: float = option(
        30.0, "keyframes of this session younger than this are no candidates", "s", 0.0, 3600.0
    )
    exclude_distance: float = option(20.0, "nor those fewer metres of travel ago", "m", 0.0, 10000.0)
    descriptor_size: int = option(
        0, "length of the descriptor: 2048 (unprojected), 512 or 256; 0: what these weights do best with", "", 0, 4096
    )
    top_k: int = option(10, "candidates a keyframe", "", 1, 1000)
    min_probability: float = option(0.9, "accept loops that are right with at least this probability", "", 0.0, 1.0)
    verification_budget: float = option(
        0.5,
        "wall time for the verification of one keyframe's candidates; the best one is always verified",
        "s",
        0.0,
        60.0,
    )


@dataclass(frozen=True)
class NodeConfig(Checked):
    """What only the ROS node knows: frames, topics' manners, files, device."""

    weights: str = option("", "weights file (.safetensors); empty: the ones that ship with the package")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    autostart: bool = option(False, "configure and activate by itself after start (the launch file sets true)")
    base_frame: str = option("", "body frame; empty: the cloud's own frame")
    mounting_xyz_rpy: tuple[float, ...] = option(
        (), "T_base_sensor as x y z [m] roll pitch yaw [rad]; overrides TF; empty: TF, or the identity"
    )
    odom_source: str = option("topic", "where T_odom_base comes from", "", choices=("topic", "tf", "none"))
    odom_frame: str = option("odom", "odometry frame looked up with odom_source tf")
    odom_timeout: float = option(0.3, "a scan waits this long (stamp time) for odometry", "s", 0.0, 10.0)
    deskew: bool = option(
        True, "undo the motion during a sweep, where the points have times (t, time, timestamp, offset_time)"
    )
    keyframe_source: str = option("own", "which scans become keyframes", "", choices=("own", "all", "topic"))
    keyframe_tolerance: float = option(
        0.01, "keyframe_source topic: an announced stamp names a scan this near", "s", 0.0, 1.0
    )
    keyframe_timeout: float = option(
        0.5, "keyframe_source topic: a scan waits this long (stamp time) to be announced", "s", 0.0, 10.0
    )
    use_bev: bool = option(False, "take the raster from the bev topic (set by the launch file when bev is given)")
    bev_tolerance: float = option(0.05, "stamps of cloud and BEV at most this far apart", "s", 0.0, 5.0)
    bev_timeout: float = option(0.3, "a scan waits this long (stamp time) for its BEV", "s", 0.0, 10.0)
    bev_missing: str = option("process", "a scan whose BEV never comes", "", choices=("process", "drop"))
    points_reliable: bool = option(False, "subscribe to points reliably instead of best effort")
    queue_size: int = option(10, "scans that may wait; the oldest is dropped", "", 1, 1000)
    expected_rate: float = option(
        0.0, "scans a second that diagnostics expects; 0: measured from the stamps", "1/s", 0.0, 1000.0
    )
    map_path: str = option("", "map file that the services use; loaded at configure when it exists")
    save_on_exit: bool = option(False, "save the map at deactivation and exit")
    autosave_period: float = option(0.0, "save the map every so often; 0: off", "s", 0.0, 86400.0)
    map_frame: str = option("map", "frame of ~/pose: the one in which the map's first session began")
    lio_sam: bool = option(False, "publish accepted edges as [t_query, t_match] on lio_loop/loop_closure_detection")
    node_edges: bool = option(False, "publish accepted edges between the nodes announced on keyframes, on ~/node_edges")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mounting_xyz_rpy) not in (0, 6):
            raise ValueError(f"mounting_xyz_rpy must hold six numbers or none, not {self.mounting_xyz_rpy!r}")


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """What `vlad evaluate` measures; the protocol is printed beside every number."""

    protocol: str = option(
        "causal", "causal: revisits in one drive; sparse: one pass, interleaved", "", choices=("causal", "sparse")
    )
    radius: float = option(5.0, "a match this near is right", "m", 0.01, 1000.0)
    gap: int = option(50, "causal: this many newest frames are no candidates", "frames", 0)
    stride: int = option(2, "sparse: every stride-th frame is in the map", "frames", 2)
    descriptor: str = option(
        "fusion",
        "what is compared: the network's descriptor, one of its heads, or the baseline",
        choices=("fusion", "bev", "points", "scan-context"),
    )
    local_maps: bool = option(False, "describe local maps joined by drifting odometry instead of single scans")
    drift_scale: float = option(0.01, "local maps: error of the odometry's distances, as a share of them", "", 0.0, 0.5)
    drift_yaw: float = option(0.5, "local maps: random walk of its heading in 10 m of travel", "deg", 0.0, 90.0)
    descriptor_size: int = option(0, "length of the fused descriptor; 0: the weights' default", "", 0, 4096)
    seed: int = option(0, "seed of the drift, the queries' turns and the bootstrap", "", 0)


@dataclass(frozen=True)
class ImportConfig(Checked):
    """What `vlad import` writes."""

    rate: float = option(10.0, "scans a second where the source has no stamps", "1/s", 0.01, 1000.0)
    storage: str = option("mcap", "storage of the bag", "", choices=("mcap", "sqlite3"))
    points_topic: str = option("/points", "topic of the clouds")
    odom_topic: str = option("/odom", "topic of the odometry")
    frame: str = option("lidar", "frame of the clouds, and child frame of the odometry")
    odom_frame: str = option("odom", "frame of the odometry")
    drift: bool = option(False, "let the odometry drift as in the evaluation instead of the true poses")


@dataclass(frozen=True)
class ReplayConfig(Checked):
    """How `vlad replay` plays a bag."""

    rate: float = option(1.0, "times the recorded speed", "", 0.01, 1000.0)
    lossless: bool = option(False, "as fast as the node takes the messages, not at the recorded pace")
    wait: float = option(10.0, "wait at most this long for subscribers", "s", 0.0, 600.0)
    clock_rate: float = option(100.0, "messages on /clock a second of wall time", "1/s", 1.0, 1000.0)
    depth: int = option(100, "messages that a publisher keeps for slow subscribers", "", 1, 10000)


@dataclass(frozen=True)
class WatchConfig(Checked):
    """What `vlad watch` shows."""

    node: str = option("/vlad", "full name of the node")
    loops: int = option(10, "keyframes in the list", "", 1, 200)
    refresh: float = option(2.0, "pictures a second", "1/s", 0.1, 30.0)
    once: bool = option(False, "print one picture and end, as where the output is no terminal")
    patience: float = option(10.0, "once: wait at most this long for the node's first word", "s", 0.0, 600.0)


@dataclass(frozen=True)
class RunConfig(Checked):
    """What `vlad run` plays."""

    odometry: bool = option(True, "use the bag's odometry, or the sequence's true poses as such")
    drift: bool = option(False, "sequence: let the odometry drift")
    every_scan: bool = option(False, "every scan is a keyframe (of sequences that were thinned before)")
    rate: float = option(10.0, "sequence: scans a second where it has no stamps", "1/s", 0.01, 1000.0)
    points_topic: str = option("/points", "bag: topic of the clouds")
    odom_topic: str = option("/odom", "bag: topic of the odometry")
    deskew: bool = option(True, "bag: undistort clouds by the odometry across their sweep, as the node does")


@dataclass(frozen=True)
class FinetuneConfig(Checked):
    """How `vlad train --bag` fits weights to one drive; its odometry is the only label."""

    steps: int = option(150, "optimiser steps", "", 1, 100_000)
    learning_rate: float = option(1e-4, "peak learning rate", "", 0.0, 1.0)
    held_out: float = option(0.3, "share of the drive, its end, that is not trained on but measured on", "", 0.1, 0.9)
    spacing: float = option(1.0, "travel between the scans that are used", "m", 0.1, 20.0)


@dataclass(frozen=True)
class ExportConfig(Checked):
    """What `vlad export` writes."""

    format: str = option("g2o", "g2o's own, or one for gtsam.readG2o(file, True)", choices=("g2o", "gtsam"))
    drift_translation: float = option(0.02, "odometry edges: sigma, as a share of their length", "", 0.0, 1.0)
    drift_rotation: float = option(0.5, "odometry edges: random walk of attitude in 10 m of travel", "deg", 0.0, 90.0)
