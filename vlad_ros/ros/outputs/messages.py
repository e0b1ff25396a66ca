# SPDX-License-Identifier: Apache-2.0
"""The node's outputs as standard ROS messages, and the decoding of its input images.

A message of `~/loop_closures` is a PointCloud2 with one row per candidate and the fields of `LAYOUT`, packed without
gaps (278 bytes a row). `x y z` is the position of the match in the query's body frame [m]; `query_*` and `match_*` name
the keyframes; `tx .. qw` is T_match_query (translation [m], quaternion); `cov_rc` the upper triangle, row by row, of
its 6x6 covariance (x y z roll pitch yaw, a perturbation on the match's side). Unknown numbers are NaN.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, PoseWithCovarianceStamped, Quaternion
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from vlad_ros.cloud.raster_image import from_image, preview, to_image
from vlad_ros.config import BevConfig
from vlad_ros.loops.relocalisation import MapPose
from vlad_ros.poses import from_quaternion, inverse, to_quaternion
from vlad_ros.ros.outputs.cloud_stand_in import create_cloud
from vlad_ros.stamps import SECOND
from vlad_ros.types import F32, F64, LoopClosure

UINT8, INT32, UINT32, FLOAT32, FLOAT64 = 2, 5, 6, 7, 8  # PointField's constants
NUMPY = {UINT8: "u1", INT32: "<i4", UINT32: "<u4", FLOAT32: "<f4", FLOAT64: "<f8"}

# name, offset in bytes, PointField datatype
LAYOUT = (
    ("x", 0, FLOAT32),
    ("y", 4, FLOAT32),
    ("z", 8, FLOAT32),
    ("query_sec", 12, INT32),
    ("query_nanosec", 16, UINT32),
    ("match_sec", 20, INT32),
    ("match_nanosec", 24, UINT32),
    ("query_id", 28, UINT32),
    ("match_id", 32, UINT32),
    ("query_session", 36, UINT32),
    ("match_session", 40, UINT32),
    ("similarity", 44, FLOAT32),
    ("probability", 48, FLOAT32),
    ("tx", 52, FLOAT64),
    ("ty", 60, FLOAT64),
    ("tz", 68, FLOAT64),
    ("qx", 76, FLOAT64),
    ("qy", 84, FLOAT64),
    ("qz", 92, FLOAT64),
    ("qw", 100, FLOAT64),
    ("cov_00", 108, FLOAT64),
    ("cov_01", 116, FLOAT64),
    ("cov_02", 124, FLOAT64),
    ("cov_03", 132, FLOAT64),
    ("cov_04", 140, FLOAT64),
    ("cov_05", 148, FLOAT64),
    ("cov_11", 156, FLOAT64),
    ("cov_12", 164, FLOAT64),
    ("cov_13", 172, FLOAT64),
    ("cov_14", 180, FLOAT64),
    ("cov_15", 188, FLOAT64),
    ("cov_22", 196, FLOAT64),
    ("cov_23", 204, FLOAT64),
    ("cov_24", 212, FLOAT64),
    ("cov_25", 220, FLOAT64),
    ("cov_33", 228, FLOAT64),
    ("cov_34", 236, FLOAT64),
    ("cov_35", 244, FLOAT64),
    ("cov_44", 252, FLOAT64),
    ("cov_45", 260, FLOAT64),
    ("cov_55", 268, FLOAT64),
    ("accepted", 276, UINT8),
    ("reject_reason", 277, UINT8),
)
ROW = np.dtype(
    {
        "names": [name for name, _, _ in LAYOUT],
        "formats": [NUMPY[kind] for _, _, kind in LAYOUT],
        "offsets": [offset for _, offset, _ in LAYOUT],
    }
)
POSE_AND_COVARIANCE = [name for name, _, _ in LAYOUT[13:41]]
COVARIANCE = POSE_AND_COVARIANCE[7:]  # the upper triangle, row by row

# T_odom_base of a keyframe by its id, None where it is not known.
PoseOf = Callable[[int], F64 | None]


def to_time(stamp: int) -> Time:
    """A message's time of integer nanoseconds."""
    sec, nanosec = divmod(stamp, SECOND)
    return Time(sec=sec, nanosec=nanosec)


def descriptor_message(header: Header, descriptor: F32) -> PointCloud2:
    """`descriptor` (D,) as a cloud of height 1 and width D with the one field `descriptor`."""
    fields = [PointField(name="descriptor", offset=0, datatype=FLOAT32, count=1)]
    return create_cloud(header, fields, np.ascontiguousarray(descriptor, "<f4").view([("descriptor", "<f4")]))


def closures_message(header: Header, closures: Sequence[LoopClosure], pose_of: PoseOf) -> PointCloud2:
    """`closures` of one query as the rows of `LAYOUT`; none: width 0."""
    rows = np.zeros(len(closures), ROW)
    for row, closure in zip(rows, closures, strict=True):
        _fill(row, closure, pose_of)
    fields = [PointField(name=name, offset=offset, datatype=kind, count=1) for name, offset, kind in LAYOUT]
    return create_cloud(header, fields, rows)


def _fill(row: np.void, closure: LoopClosure, pose_of: PoseOf) -> None:
    row["x"], row["y"], row["z"] = match_position(closure, pose_of)
    for side in ("query", "match"):
        row[f"{side}_sec"], row[f"{side}_nanosec"] = divmod(getattr(closure, f"{side}_stamp"), SECOND)
        row[f"{side}_id"] = getattr(closure, f"{side}_id")
        row[f"{side}_session"] = getattr(closure, f"{side}_session")
    row["similarity"] = closure.similarity
    row["probability"] = np.nan if closure.probability is None else closure.probability
    T = closure.T_match_query
    pose = np.full(7, np.nan) if T is None else np.concatenate([T[:3, 3], to_quaternion(T)])
    triangle = np.full(21, np.nan) if closure.covariance is None else closure.covariance[np.triu_indices(6)]
    for name, number in zip(POSE_AND_COVARIANCE, (*pose, *triangle), strict=True):
        row[name] = number
    row["accepted"], row["reject_reason"] = closure.accepted, closure.reject_reason


def stamps_of(row: np.void) -> tuple[int, int]:
    """Stamps [ns] of a row's query and match."""
    query, match = (SECOND * int(row[f"{s}_sec"]) + int(row[f"{s}_nanosec"]) for s in ("query", "match"))
    return query, match


def transform_of(row: np.void) -> F64:
    """T_match_query (4, 4) of a row that has one."""
    numbers = np.array([row[name] for name in POSE_AND_COVARIANCE[:7]])
    return from_quaternion(numbers[:3], numbers[3:])


def match_position(closure: LoopClosure, pose_of: PoseOf) -> F64:
    """Where the match lies in the query's body frame [m], (3,): verified, else by one session's odometry, else NaN."""
    if closure.T_match_query is not None:
        return inverse(closure.T_match_query)[:3, 3]
    if closure.query_session == closure.match_session:
        query, match = pose_of(closure.query_id), pose_of(closure.match_id)
        if query is not None and match is not None:
            return (inverse(query) @ match)[:3, 3]
    return np.full(3, np.nan)


def to_pose(T: F64) -> Pose:
    """A message's pose of T (4, 4)."""
    (x, y, z), (a, b, c, d) = T[:3, 3].tolist(), to_quaternion(T).tolist()
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=a, y=b, z=c, w=d))


def pose_message(pose: MapPose, map_frame: str) -> PoseWithCovarianceStamped:
    """T_map_base of a keyframe with its covariance."""
    message = PoseWithCovarianceStamped(header=Header(stamp=to_time(pose.stamp), frame_id=map_frame))
    message.pose.pose = to_pose(pose.T_map_base)
    message.pose.covariance = pose.covariance.reshape(-1).tolist()
    return message


def bev_message(header: Header, raster: F32, config: BevConfig) -> Image:
    """`raster` (C, H, W) as 32FC, suitable as input on `bev`."""
    return _image(header, to_image(raster, f"32FC{config.channels}", config), f"32FC{config.channels}", config, 4)


def preview_message(header: Header, raster: F32, config: BevConfig) -> Image:
    """`raster` (C, H, W) as an rgb8 picture for viewing."""
    picture = preview(raster, config)
    image = _image(header, picture.tobytes(), "rgb8", config, 1)
    image.step = 3 * config.size
    return image


def _image(header: Header, data: bytes, encoding: str, config: BevConfig, sample: int) -> Image:
    size = config.size
    image = Image(header=header, height=size, width=size, encoding=encoding, step=size * config.channels * sample)
    image.is_bigendian = 0
    image.data = array.array("B", data)
    return image


def raster_of(image: Image, config: BevConfig) -> F32:
    """The raster (C, H, W) that an Image holds, respecting row padding and byte order.

    ValueError when encoding, size, step or data do not fit `config`.
    """
    encodings = {f"32FC{config.channels}": 4, f"8UC{config.channels}": 1}
    if image.encoding not in encodings:
        raise ValueError(f"BEV encoding must be {' or '.join(encodings)}, not {image.encoding!r}")
    if (image.height, image.width) != (config.size, config.size):
        raise ValueError(f"BEV must have {config.size} x {config.size} cells, not {image.height} x {image.width}")
    sample = encodings[image.encoding]
    row = config.size * config.channels * sample
    if image.step < row or len(image.data) < image.height * image.step:
        raise ValueError(
            f"BEV of {len(image.data)} bytes with step {image.step} is too short for {image.height} rows of {row} bytes"
        )
    data = np.frombuffer(image.data, np.uint8)[: image.height * image.step].reshape(image.height, image.step)[:, :row]
    data = np.ascontiguousarray(data).reshape(-1)
    if sample == 4 and bool(image.is_bigendian):
        data = data.view(">f4").astype("<f4").view(np.uint8)
    return from_image(data, image.encoding, config)
