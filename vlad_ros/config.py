# SPDX-License-Identifier: Apache-2.0
"""All defaults of the project, each defined once, with its unit, range and help.

ROS parameters, YAML checks, command-line flags and the table in docs/parameters.md are all derived from these frozen
dataclasses; nothing else in the tree holds a default.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlad_ros.settings import Checked, option


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
        """Height, and one occupancy per slice."""
        return 1 + len(self.slices)


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network; part of the weights' configuration, never set by a user."""

    fea_size: int = option(128, "channels of the feature map", "", 8, 1024)
    num_clusters: int = option(16, "NetVLAD clusters", "", 2, 256)
    rotations: int = option(4, "exactly rotated copies that the backbone pools over", "", 1, 4)
    width: int = option(64, "channels of the residual blocks", "", 8, 512)
    num_keypoints: int = option(150, "keypoints kept after non-maximum suppression", "", 8, 2000)
    nms_radius: float = option(1.0, "least distance between two keypoints", "m", 0.1, 20.0)
    point_radius: float = option(2.0, "radius around a keypoint in which the point branch sees points", "m", 0.1, 20.0)
    points_per_keypoint: int = option(32, "points per keypoint that the point branch sees", "", 4, 512)
    head: str = option("netvlad", "aggregation", "", choices=("netvlad", "loupe"))
    loupe_dim: int = option(256, "descriptor size of the loupe head", "", 16, 4096)
    projection: int = option(0, "rows of the projection to shorter descriptors; 0: none was learnt", "", 0, 4096)
    default_size: int = option(0, "default length of the descriptor; 0: unprojected", "", 0, 4096)

    @property
    def descriptor_dim(self) -> int:
        """D, the length of the descriptor."""
        return self.loupe_dim if self.head == "loupe" else self.fea_size * self.num_clusters

    def size(self, wanted: int) -> int:
        """The length of the descriptor if `wanted` is requested (0: the default). ValueError if these weights do not
        support it."""
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
    body_box: tuple[float, ...] = option(
        (), "points of the vehicle itself are dropped: x0 y0 z0 x1 y1 z1 [m] in the body frame; empty: none"
    )
    keyframe_distance: float = option(1.0, "new keyframe after this much travel", "m", 0.05, 100.0)
    keyframe_yaw: float = option(20.0, "new keyframe after turning by this much", "deg", 1.0, 180.0)
    keyframe_rate: float = option(4.0, "at most this many keyframes per second", "1/s", 0.1, 100.0)
    keyframe_period: float = option(1.0, "without odometry: time between keyframes", "s", 0.05, 60.0)
    keyframe_similarity: float = option(
        0.95, "without odometry: no keyframe if at least this similar to the last one (a parked car)", "", 0.0, 1.0
    )
    accumulation_m: float = option(
        10.0, "length of travel in a local map, centred on its keyframe; 0: single scans", "m", 0.0, 100.0
    )
    accumulation_timeout: float = option(30.0, "longest wait of a keyframe for its local map", "s", 0.1, 600.0)
    accumulation_spacing: float = option(0.5, "least travel between the scans of a local map", "m", 0.05, 10.0)
    accumulation_voxel: float = option(0.25, "voxel size of a local map", "m", 0.05, 2.0)
    scan_descriptor_distance: float = option(
        5.0,
        "with odometry: travel between the keyframes whose single scans are described, too; 0: all",
        "m",
        0.0,
        1000.0,
    )
    exclude_time: float = option(30.0, "this session: exclude keyframes younger than this", "s", 0.0, 3600.0)
    exclude_distance: float = option(20.0, "this session: exclude keyframes less travel ago", "m", 0.0, 10000.0)
    max_keyframes_per_place: int = option(
        0, "more keyframes found at one place, day after day: the oldest is removed from the map; 0: all stay", "", 0
    )
    descriptor_size: int = option(
        0, "length of the descriptor: 2048 (unprojected), 512 or 256; 0: the default of the weights", "", 0, 4096
    )
    top_k: int = option(10, "candidates per keyframe", "", 1, 1000)
    max_edges: int = option(
        1, "loops accepted per keyframe, their matches 10 m apart; 0: verify all candidates, accept all that fit", "", 0
    )
    min_probability: float = option(0.9, "accept loops of at least this calibrated probability", "", 0.0, 1.0)
    verification_budget: float = option(
        0.5, "wall time to verify the candidates of one keyframe; the best one is always verified", "s", 0.0, 60.0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        box = self.body_box
        if len(box) not in (0, 6) or any(low >= high for low, high in zip(box[:3], box[3:], strict=False)):
            raise ValueError(f"body_box must hold x0 y0 z0 x1 y1 z1 with x0 < x1 and so on, or nothing, not {box!r}")


@dataclass(frozen=True)
class NodeConfig(Checked):
    """What only the ROS node needs: frames, topics, files, device."""

    weights: str = option("", "weights file (.safetensors); empty: the weights in the package")
    device: str = option("auto", "auto, cpu, cuda or cuda:N")
    inference: str = option(
        "auto", "what runs the backbone; openvino and onnx are extras", choices=("auto", "torch", "openvino", "onnx")
    )
    autostart: bool = option(False, "configure and activate after start (the launch file sets true)")
    base_frame: str = option("", "body frame; empty: the frame of the cloud")
    mounting_xyz_rpy: tuple[float, ...] = option(
        (), "T_base_sensor as x y z [m] roll pitch yaw [rad]; overrides TF; empty: TF, or the identity"
    )
    odom_source: str = option("topic", "source of T_odom_base", "", choices=("topic", "tf", "none"))
    odom_frame: str = option("odom", "odom_source tf: odometry frame")
    odom_timeout: float = option(0.3, "longest wait of a scan for odometry (stamp time)", "s", 0.0, 10.0)
    deskew: bool = option(
        True, "undo the motion during a sweep if the points have times (t, time, timestamp, offset_time)"
    )
    keyframe_source: str = option(
        "own", "keyframes: selected here, all scans, or those announced on keyframes", choices=("own", "all", "topic")
    )
    keyframe_tolerance: float = option(
        0.01, "keyframe_source topic: largest difference between announced stamp and scan", "s", 0.0, 1.0
    )
    keyframe_timeout: float = option(
        0.5, "keyframe_source topic: longest wait of a scan for its announcement (stamp time)", "s", 0.0, 10.0
    )
    use_bev: bool = option(False, "use rasters from the topic bev (set by the launch file if bev is given)")
    bev_tolerance: float = option(0.05, "largest difference between the stamps of cloud and BEV", "s", 0.0, 5.0)
    bev_timeout: float = option(0.3, "longest wait of a scan for its BEV (stamp time)", "s", 0.0, 10.0)
    bev_missing: str = option(
        "process", "scan without a BEV: raster made here, or dropped", choices=("process", "drop")
    )
    points_reliable: bool = option(False, "subscribe to points with reliable QoS instead of best effort")
    queue_size: int = option(10, "length of the scan queue; when it is full the oldest scan is dropped", "", 1, 1000)
    expected_rate: float = option(
        0.0, "scans per second that diagnostics expects; 0: measured from the stamps", "1/s", 0.0, 1000.0
    )
    map_path: str = option("", "map file; read at configure; empty: the map ends with the node")
    map_mode: str = option(
        "extend",
        "the map file: extend it (each keyframe is on disk within a second) or only localise in it (never written)",
        choices=("extend", "localise"),
    )
    fleet_uri: str = option(
        "",
        "the fleet's Milvus: http(s)://HOST:PORT, or a file ending in .db; token and TLS: docs/fleet.md; empty: none",
    )
    robot: str = option("", "this vehicle's name in the fleet, its own alone")
    save_on_exit: bool = option(False, "does nothing: keyframes are on disk within a second")
    autosave_period: float = option(0.0, "does nothing: keyframes are on disk within a second", "s", 0.0, 86400.0)
    cloud_path: str = option("cloud.ply", "file that ~/save_cloud writes (PLY): what keyframes keep of their clouds")
    map_frame: str = option("map", "frame of ~/pose: the odometry frame of the first session in the map")
    initial_pose_topic: str = option(
        "", "tell a localiser each pose found in a loaded map, once, on this topic (/initialpose); empty: off"
    )
    relocalize_topic: str = option(
        "", "a std_msgs/Bool, true, on this topic asks for the pose again (/reinitialization_requested); empty: off"
    )
    hint_radius: float = option(
        20.0, "a pose on ~/hint restricts the search to this around it, at least to 3 of its sigmas", "m", 0.1, 10000.0
    )
    lio_sam: bool = option(False, "publish accepted edges as [t_query, t_match] on lio_loop/loop_closure_detection")
    node_edges: bool = option(False, "publish accepted edges between the nodes announced on keyframes, on ~/node_edges")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mounting_xyz_rpy) not in (0, 6):
            raise ValueError(f"mounting_xyz_rpy must hold six numbers or none, not {self.mounting_xyz_rpy!r}")
        if self.map_mode == "localise" and not self.map_path:
            raise ValueError("map_mode localise needs map_path, the map to localise in")
        if self.fleet_uri and not self.robot:
            raise ValueError("fleet_uri needs robot, this vehicle's name in the fleet")


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """What `vlad evaluate` measures; the protocol is printed beside every number."""

    protocol: str = option(
        "causal", "causal: revisits in one drive; sparse: one pass, interleaved", "", choices=("causal", "sparse")
    )
    radius: float = option(5.0, "a match at most this far away is right", "m", 0.01, 1000.0)
    gap: int = option(50, "causal: this many newest frames are not candidates", "frames", 0)
    stride: int = option(2, "sparse: every stride-th frame is in the map", "frames", 2)
    descriptor: str = option(
        "fusion",
        "what is compared: the network's descriptor, one of its heads, or the baseline",
        choices=("fusion", "bev", "points", "scan-context"),
    )
    local_maps: bool = option(False, "describe local maps joined by drifting odometry instead of single scans")
    drift_scale: float = option(0.01, "local maps: error of odometry, as a share of the distance", "", 0.0, 0.5)
    drift_yaw: float = option(0.5, "local maps: random walk of the heading per 10 m of travel", "deg", 0.0, 90.0)
    descriptor_size: int = option(0, "length of the fused descriptor; 0: the default of the weights", "", 0, 4096)
    seed: int = option(0, "seed of the drift, the turns of the queries and the bootstrap", "", 0)


def _two_topics(points: str, odometry: str) -> None:
    if points == odometry:
        raise ValueError(f"points_topic and odom_topic must differ, both are {points!r}")


@dataclass(frozen=True)
class ImportConfig(Checked):
    """What `vlad import` writes."""

    rate: float = option(10.0, "scans per second if the source has no stamps", "1/s", 0.01, 1000.0)
    storage: str = option("mcap", "storage of the bag", "", choices=("mcap", "sqlite3"))
    points_topic: str = option("/points", "topic of the clouds")
    odom_topic: str = option("/odom", "topic of the odometry")
    frame: str = option("lidar", "frame of the clouds, and child frame of the odometry")
    odom_frame: str = option("odom", "frame of the odometry")
    drift: bool = option(False, "write odometry that drifts as in the evaluation, not the true poses")

    def __post_init__(self) -> None:
        super().__post_init__()
        _two_topics(self.points_topic, self.odom_topic)


@dataclass(frozen=True)
class ReplayConfig(Checked):
    """How `vlad replay` plays a bag."""

    rate: float = option(1.0, "speed, as a multiple of the recorded one", "", 0.01, 1000.0)
    lossless: bool = option(False, "as fast as the node takes the messages, not at the recorded pace")
    wait: float = option(10.0, "longest wait for subscribers", "s", 0.0, 600.0)
    clock_rate: float = option(100.0, "messages on /clock per second of wall time", "1/s", 1.0, 1000.0)
    depth: int = option(100, "queue depth of each publisher, for slow subscribers", "", 1, 10000)


@dataclass(frozen=True)
class WatchConfig(Checked):
    """What `vlad watch` shows."""

    node: str = option("/vlad", "full name of the node")
    loops: int = option(10, "keyframes listed", "", 1, 200)
    refresh: float = option(2.0, "screen updates per second", "1/s", 0.1, 30.0)
    once: bool = option(False, "print once and exit (the default if the output is not a terminal)")
    patience: float = option(10.0, "once: longest wait for the first message of the node", "s", 0.0, 600.0)


@dataclass(frozen=True)
class RunConfig(Checked):
    """What `vlad run` plays."""

    odometry: bool = option(True, "use odometry: that of the bag, or the true poses of the sequence")
    drift: bool = option(False, "sequence: add drift to the odometry")
    every_scan: bool = option(False, "make every scan a keyframe (for sequences thinned beforehand)")
    rate: float = option(10.0, "sequence: scans per second if it has no stamps", "1/s", 0.01, 1000.0)
    points_topic: str = option("/points", "bag: topic of the clouds")
    odom_topic: str = option("/odom", "bag: topic of the odometry")
    deskew: bool = option(True, "bag: deskew the clouds, as the node does")
    base_frame: str = option("", "bag: body frame, found in its /tf_static; empty: the frame of the clouds")
    mounting_xyz_rpy: tuple[float, ...] = option(
        (), "bag: T_base_sensor as x y z [m] roll pitch yaw [rad]; overrides /tf_static"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _two_topics(self.points_topic, self.odom_topic)


@dataclass(frozen=True)
class FinetuneConfig(Checked):
    """How `vlad train --bag` fits weights to one drive; its odometry is the only label."""

    steps: int = option(150, "optimiser steps", "", 1, 100_000)
    learning_rate: float = option(1e-4, "peak learning rate", "", 0.0, 1.0)
    held_out: float = option(0.3, "share of the drive, at its end, that is kept for measuring", "", 0.1, 0.9)
    spacing: float = option(1.0, "travel between the scans used", "m", 0.1, 20.0)


@dataclass(frozen=True)
class ExportConfig(Checked):
    """What `vlad export` writes."""

    format: str = option("g2o", "g2o's own, or one for gtsam.readG2o(file, True)", choices=("g2o", "gtsam"))
    drift_translation: float = option(0.02, "odometry edges: sigma, as a share of their length", "", 0.0, 1.0)
    drift_rotation: float = option(0.5, "odometry edges: random walk of attitude in 10 m of travel", "deg", 0.0, 90.0)
