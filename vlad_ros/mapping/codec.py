# SPDX-License-Identifier: Apache-2.0
"""Keyframes as bytes, without loss, for the map file's tables. Nothing read is trusted: sizes are checked first."""

from __future__ import annotations

import struct
import zlib

import numpy as np

from vlad_ros.types import F32, F64, Geometry, Ints

MOST = 65535  # keypoints, features' channels or points of a geometry
MOST_FEATURES = 3 << 20  # bytes
HEAD = struct.Struct("<HHHBB9I")  # keypoints, channels, points, steps of features and cloud, bytes of each part
ANY, LONE = zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY  # where nothing repeats itself, matches cost a fifth
STRATEGIES = LONE, ANY, LONE, LONE, ANY, LONE, LONE, LONE, ANY  # of features; cells' moves; places in them; keypoints
CELL = 16  # steps of the cloud
STEPS = (1 << 19) - 1  # of a descriptor's number from 0 to 1
POSE = 3 * 4 * 8  # bytes
LEVEL = 4 * 4 * 8  # bytes
RIGID = 0.01  # tolerated in a rotation's products: ten times what may be given, for poses are products of such


def round_descriptor(descriptor: F32) -> F32:
    """The numbers (D,), of at most 1, in 20 bits. Inner products change by about 1e-6, and of 512 numbers three
    descriptors fit into a page of the file, of float32 only one."""
    return _as_numbers(_in_steps(descriptor))


def pack_descriptor(descriptor: F32) -> bytes:
    """The numbers (D,) of `round_descriptor`: the upper 16 bits of all, then the lower 4, two in a byte; D is even."""
    steps = _in_steps(descriptor)
    low = (steps & 15).astype(np.uint8)
    return (steps >> 4).astype("<i2").tobytes() + (low[0::2] | low[1::2] << 4).tobytes()


def packed_size(dim: int) -> int:
    """Bytes of a packed descriptor."""
    return 2 * dim + dim // 2


def packed_dim(packed: bytes) -> int:
    """The inverse of `packed_size`."""
    return 2 * len(packed) // 5


def unpack_descriptors(packed: list[bytes], dim: int) -> F32:
    """(N, D) float32 from the bytes of `pack_descriptor`."""
    data = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), packed_size(dim))
    low = data[:, 2 * dim :]
    steps = data[:, : 2 * dim].view("<i2").astype(np.float32)
    steps *= 16.0
    steps[:, 0::2] += low & 15
    steps[:, 1::2] += low >> 4
    return _as_numbers(steps)


def _in_steps(descriptor: F32) -> Ints:
    return np.rint(np.clip(descriptor, -1.0, 1.0) * np.float32(STEPS)).astype(np.int64)


def _as_numbers(steps: Ints | F32) -> F32:
    return np.asarray(steps, np.float32) / np.float32(STEPS)


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
    """`geometry`, compressed: the features and the cloud divided by what all their integers have in common; a point as
    the move of its cell from that of the point before (neighbours should follow each other) and its place in it."""
    features, cloud = geometry.features, geometry.cloud
    sizes = len(features), features.shape[1], len(cloud)
    check_sizes(*sizes)
    steps = [_step(features), _step(cloud)]
    cells, places = np.divmod(cloud // np.int16(steps[1]), np.int16(CELL))
    moves = np.diff(cells, axis=0, prepend=np.int16(0) * cells[:1])
    zigzag = ((moves << 1) ^ (moves >> 15)).astype("<u2")
    parts = [
        features // np.int8(steps[0]),
        *(zigzag & 255).astype(np.uint8).T,
        (zigzag >> 8).astype(np.uint8).T,
        *places.astype(np.uint8).T,
        _planes(geometry.keypoints.astype("<f4").T),
    ]
    packed = [_deflate(part.tobytes(), strategy) for part, strategy in zip(parts, STRATEGIES, strict=True)]
    level = geometry.T_level_body.astype("<f8").tobytes()
    return HEAD.pack(*sizes, *steps, *map(len, packed)) + b"".join(packed) + level


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
        keypoints, channels, points, by, step, *lengths = HEAD.unpack_from(data)
        check_sizes(keypoints, channels, points)
        if not 1 <= by <= 127 or not 1 <= step <= 127 or len(data) != HEAD.size + sum(lengths) + LEVEL:
            raise ValueError("its steps or lengths are impossible")
        sizes = keypoints * channels, points, points, points, 3 * points, points, points, points, 8 * keypoints
        ends = HEAD.size + np.cumsum([0, *lengths])
        parts = [_inflate(data[ends[i] : ends[i + 1]], size) for i, size in enumerate(sizes)]
    except (struct.error, zlib.error, ValueError) as error:
        raise ValueError(f"a geometry is damaged: {error}") from error
    T = np.frombuffer(data[-LEVEL:], "<f8").reshape(4, 4)
    spots = _joined(parts[8], np.dtype("<f4")).reshape(2, keypoints).T
    zigzag = _bytes(parts[1:4], points) | _bytes(parts[4:5], points) << 8
    moves = (zigzag >> 1) ^ -(zigzag & 1)
    cloud = (np.cumsum(moves, axis=0) * CELL + _bytes(parts[5:8], points)) * step
    if not np.isfinite(T).all() or not np.isfinite(spots).all() or (np.abs(cloud) > MOST // 2 + (cloud < 0)).any():
        raise ValueError("a geometry is damaged: a number is not finite, or too large")
    return Geometry(
        np.ascontiguousarray(spots),
        np.frombuffer(parts[0], np.int8).reshape(keypoints, channels) * np.int8(by),
        cloud.astype(np.int16),
        T.astype(np.float64),
    )


def _bytes(parts: list[bytes], points: int) -> Ints:
    """(N, 3) of the bytes of x, y and z."""
    return np.frombuffer(b"".join(parts), np.uint8).reshape(3, points).T.astype(np.int64)


def _step(integers: np.ndarray) -> int:
    """The greatest divisor of all that fits into a byte with a sign."""
    common = int(np.gcd.reduce(np.unique(integers.astype(np.int32)), initial=0))
    return max(step for step in range(1, 128) if common % step == 0) if common else 1


def _planes(rows: np.ndarray) -> np.ndarray:
    """First the lowest bytes of all numbers, then the next ones: they compress better."""
    flat = np.ascontiguousarray(rows).reshape(-1)
    return flat.view(np.uint8).reshape(-1, flat.itemsize).T


def _joined(planes: bytes, dtype: np.dtype[np.generic]) -> np.ndarray:
    """The inverse of `_planes`, flat."""
    return np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, -1).T.copy().view(dtype).reshape(-1)


def _deflate(data: bytes, strategy: int) -> bytes:
    coder = zlib.compressobj(6, strategy=strategy)
    return coder.compress(data) + coder.flush()


def _inflate(data: bytes, size: int) -> bytes:
    """Exactly `size` bytes; ValueError where there are others."""
    coder = zlib.decompressobj()
    found = coder.decompress(data, size + 1)
    if len(found) != size or not coder.eof:
        raise ValueError("a part has the wrong size")
    return found
