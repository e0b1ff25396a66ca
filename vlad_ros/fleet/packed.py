# SPDX-License-Identifier: Apache-2.0
"""A keyframe as it waits in the queue and travels: bytes and plain values, checked on the way in and on the way out."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np

from vlad_ros.fleet.names import Key
from vlad_ros.mapping.codec import (
    pack_descriptor,
    pack_geometry,
    pack_pose,
    packed_size,
    unpack_descriptors,
    unpack_geometry,
    unpack_pose,
)
from vlad_ros.poses import check_rigid
from vlad_ros.types import F32, F64, Geometry, Keyframe

SIZES = struct.Struct("<II")  # bytes of the single scan's descriptor, of the geometry; 0: it has none
FARTHEST = 1e4  # m; of a keypoint
UNIT = 0.01  # tolerated in a descriptor's length


class Packed(NamedTuple):
    """`payload`: what is not searched by, the single scan's descriptor and the geometry. Poses and travel are None
    where unknown; `T_map_base` is the keyframe's corrected pose, in its robot's map."""

    key: Key
    is_local_map: bool
    partial: bool
    travel: float | None
    T_odom_base: bytes | None
    T_map_base: bytes | None
    descriptor: bytes
    payload: bytes


def pack(key: Key, keyframe: Keyframe, T_map_base: F64 | None) -> Packed:
    """A keyframe with its geometry."""
    scan = keyframe.scan_descriptor if keyframe.is_local_map else None  # a single scan's is its descriptor
    parts = (
        b"" if scan is None else pack_descriptor(scan),
        b"" if keyframe.geometry is None else pack_geometry(keyframe.geometry),
    )
    return Packed(
        key,
        keyframe.is_local_map,
        keyframe.partial,
        None if keyframe.travel is None else float(keyframe.travel),
        None if keyframe.T_odom_base is None else pack_pose(keyframe.T_odom_base),
        None if T_map_base is None else pack_pose(T_map_base),
        pack_descriptor(keyframe.descriptor),
        SIZES.pack(*map(len, parts)) + b"".join(parts),
    )


def unpack(packed: Packed, dim: int, session: int) -> Keyframe:
    """The keyframe, as of `session`. ValueError names what is impossible."""
    scan, geometry = _opened(packed, dim)
    travel, descriptor = packed.travel, _descriptor(packed.descriptor, dim)
    if travel is not None and not math.isfinite(travel):
        raise ValueError(f"its travel is {travel}")
    return Keyframe(
        session=session,
        stamp=packed.key.stamp,
        descriptor=descriptor,
        scan_descriptor=scan if packed.is_local_map else descriptor,
        is_local_map=packed.is_local_map,
        partial=packed.partial,
        T_odom_base=pose(packed.T_odom_base),
        travel=travel,
        geometry=geometry,
    )


def pose(data: bytes | None) -> F64 | None:
    """The pose (4, 4), None where there is none; ValueError unless it is rigid."""
    T = None if data is None else unpack_pose(data)
    if data is not None and T is None:
        raise ValueError("a pose of it is no rigid transform")
    return T


def _opened(packed: Packed, dim: int) -> tuple[F32 | None, Geometry | None]:
    payload = packed.payload
    sizes = SIZES.unpack_from(payload) if len(payload) >= SIZES.size else (0, 0)
    if len(payload) != SIZES.size + sum(sizes):
        raise ValueError(f"its payload has {len(payload)} bytes, another number than it says")
    middle = SIZES.size + sizes[0]
    scan = _descriptor(payload[SIZES.size : middle], dim) if sizes[0] else None
    geometry = unpack_geometry(payload[middle:]) if sizes[1] else None
    if geometry is not None:
        check_rigid(geometry.T_level_body, "T_level_body")
        if not np.all(np.abs(geometry.keypoints) < FARTHEST):
            raise ValueError(f"a keypoint of it is {FARTHEST:.0f} m away")
    return scan, geometry


def _descriptor(data: bytes, dim: int) -> F32:
    if len(data) != packed_size(dim):
        raise ValueError(f"a descriptor of it has {len(data)} bytes, not {packed_size(dim)}")
    descriptor = unpack_descriptors([data], dim)[0]
    if not abs(float(np.linalg.norm(descriptor)) - 1.0) < UNIT:
        raise ValueError("a descriptor of it is no unit vector")
    return descriptor
