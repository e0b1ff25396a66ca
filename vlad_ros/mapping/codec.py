# SPDX-License-Identifier: Apache-2.0
"""Keyframes as bytes, without loss, for the map file's tables. Nothing read is trusted: sizes are checked first."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from vlad_ros.types import F32, F64, Geometry

MOST = 65535  # keypoints, features' channels or points of a geometry
MOST_FEATURES = 3 << 20  # bytes
HEAD = struct.Struct("<HHHBB")  # keypoints, channels, points, steps of the features and of the cloud
POSE = 3 * 4 * 8  # bytes
LEVEL = 4 * 4 * 8  # bytes
RIGID = 0.01  # tolerated in a rotation's products: ten times what may be given, for poses are products of such


def pack_descriptor(descriptor: F32) -> bytes:
    """The numbers (D,) as they are."""
    return np.ascontiguousarray(descriptor, "<f4").tobytes()


def unpack_descriptors(packed: list[bytes], dim: int) -> F32:
    """(N, D) float32 from the bytes of `pack_descriptor`, 4 D each."""
    return np.frombuffer(b"".join(packed), "<f4").reshape(-1, dim).astype(np.float32)


def pack_pose(T: F64) -> bytes:
    """The upper three rows of a transform (4, 4)."""
    return np.ascontiguousarray(T[:3], "<f8").tobytes()


def unpack_pose(data: object) -> F64 | None:
    """(4, 4) float64; None unless `data` are the bytes of a rigid transform."""
    if not isinstance(data, bytes) or len(data) != POSE:
        return None
    T = np.eye(4)
    T[:3] = np.frombuffer(data, "<f8").reshape(3, 4)
    return T if are_rigid(T[None, :3])[0] else None


def are_rigid(T: F64) -> np.ndarray:
    """(N,) whether the upper rows (N, 3, 4) of transforms are finite, and their rotations orthogonal."""
    R = T[:, :, :3]
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
        turned = np.linalg.det(np.where(np.isfinite(R), R, 0.0)) > 0.0
    return np.isfinite(T).all(axis=(1, 2)) & (off < RIGID) & turned


def pack_geometry(geometry: Geometry) -> bytes:
    """`geometry`, compressed: the features' and the cloud's integers are divided by what they have in common, the
    cloud's then by their steps from point to point (points near each other should follow each other)."""
    features, cloud = geometry.features, geometry.cloud
    sizes = len(features), features.shape[1], len(cloud)
    check_sizes(*sizes)
    steps = [_step(features), _step(cloud)]
    moves = np.diff(cloud // np.int16(steps[1]), axis=0, prepend=np.int16(0) * cloud[:1])
    zigzag = ((moves << 1) ^ (moves >> 15)).astype("<u2")
    body = [
        _huffman((features // np.int8(steps[0])).tobytes()),
        zlib.compress(_planes(zigzag.T), 6),
        zlib.compress(_planes(geometry.keypoints.astype("<f4").T), 6),
        geometry.T_level_body.astype("<f8").tobytes(),
    ]
    return HEAD.pack(*sizes, *steps) + struct.pack("<II", len(body[0]), len(body[1])) + b"".join(body)


def check_sizes(keypoints: int, channels: int, points: int) -> None:
    """ValueError unless a geometry may be so large."""
    if max(keypoints, channels, points) > MOST or keypoints * channels > MOST_FEATURES:
        raise ValueError(
            f"a geometry of {keypoints} keypoints, {channels} channels and {points} points is too large: each may be "
            f"{MOST}, and the features {MOST_FEATURES} bytes"
        )


def unpack_geometry(data: bytes) -> Geometry:
    """The inverse of `pack_geometry`; ValueError where it is damaged."""
    try:
        keypoints, channels, points, by, step = HEAD.unpack_from(data)
        check_sizes(keypoints, channels, points)
        ends = np.cumsum([HEAD.size + 8, *struct.unpack_from("<II", data, HEAD.size)])
        features = np.frombuffer(_inflate(data[ends[0] : ends[1]], keypoints * channels), np.int8)
        packed = _inflate(data[ends[1] : ends[2]], 6 * points)
        T = np.frombuffer(data[-LEVEL:], "<f8").reshape(4, 4)
        places = _joined(_inflate(data[ends[2] : -LEVEL], 8 * keypoints), np.dtype("<f4"))
        if not 1 <= by <= 127 or not 1 <= step <= 127 or len(data) < ends[2] + LEVEL:
            raise ValueError("its steps or lengths are impossible")
    except (struct.error, zlib.error, ValueError) as error:
        raise ValueError(f"a geometry is damaged: {error}") from error
    if not np.isfinite(T).all() or not np.isfinite(places).all():
        raise ValueError("a geometry is damaged: a number is not finite")
    zigzag = _joined(packed, np.dtype("<u2")).reshape(3, points).T
    moves = (zigzag >> 1).astype(np.int16) ^ -(zigzag & 1).astype(np.int16)
    return Geometry(
        np.ascontiguousarray(places.reshape(2, keypoints).T),
        features.reshape(keypoints, channels) * np.int8(by),
        np.cumsum(moves, axis=0, dtype=np.int16) * np.int16(step),
        T.astype(np.float64),
    )


def _step(integers: np.ndarray) -> int:
    """The greatest divisor of all that fits into a byte with a sign."""
    common = int(np.gcd.reduce(np.unique(integers.astype(np.int32)), initial=0))
    return max(step for step in range(1, 128) if common % step == 0) if common else 1


def _planes(rows: np.ndarray) -> bytes:
    """First the lowest bytes of all numbers, then the next ones: they compress better."""
    flat = np.ascontiguousarray(rows).reshape(-1)
    return flat.view(np.uint8).reshape(-1, flat.itemsize).T.tobytes()


def _joined(planes: bytes, dtype: np.dtype[np.generic]) -> np.ndarray:
    """The inverse of `_planes`, flat."""
    return np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, -1).T.copy().view(dtype).reshape(-1)


def _huffman(data: bytes) -> bytes:
    """Without matches: features repeat nothing, and zlib's choice of matches costs a fifth."""
    coder = zlib.compressobj(9, strategy=zlib.Z_HUFFMAN_ONLY)
    return coder.compress(data) + coder.flush()


def _inflate(data: bytes, size: int) -> bytes:
    """Exactly `size` bytes; ValueError where there are others."""
    coder = zlib.decompressobj()
    found = coder.decompress(data, size + 1)
    if len(found) != size or not coder.eof:
        raise ValueError("a part has the wrong size")
    return found
