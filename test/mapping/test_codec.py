# SPDX-License-Identifier: Apache-2.0
"""Whatever a keyframe holds comes back to the last bit; whatever else is read is a ValueError."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_rows import equal, geometry

from vlad_ros.mapping import codec
from vlad_ros.mapping.geometry_check import check_geometry
from vlad_ros.mapping.tables import LONGEST
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.types import Geometry

Bits = st.integers(0, 2**32 - 1)


@st.composite
def hostile(draw: st.DrawFn) -> Geometry:
    """Empty parts, one point, extremes, equal numbers, common divisors, subnormal and negative zero."""
    rng = np.random.default_rng(draw(Bits))
    keypoints, channels, points = draw(st.integers(0, 40)), draw(st.integers(1, 20)), draw(st.integers(0, 300))
    low, high = draw(st.sampled_from([(-128, 127), (0, 0), (-128, -128), (127, 127), (-1, 1), (-7, 7)]))
    features = rng.integers(low, high + 1, (keypoints, channels)) * draw(st.sampled_from([1, 1, 16]))
    low, high = draw(st.sampled_from([(-32768, 32767), (-32768, -32768), (32767, 32767), (0, 0), (-9, 9)]))
    cloud = rng.integers(low, high + 1, (points, 3)) * draw(st.sampled_from([1, 1, 50, 127, 128, 3000]))
    spots = rng.choice([0.0, -0.0, 1e-45, 3.4e38, -3.4e38, 1.5, np.pi], (keypoints, 2)).astype(np.float32)
    T = rng.choice([0.0, -0.0, 5e-324, 1e308, -1.0, np.e], (4, 4))
    wrapped = (features.astype(np.int64).astype(np.int8), cloud.astype(np.int64).astype(np.int16))
    return Geometry(spots, *wrapped, T)


@given(hostile())
@settings(max_examples=150)
def test_geometries_come_back(one: Geometry) -> None:
    packed = codec.pack_geometry(one)
    assert equal(codec.unpack_geometry(packed), one)
    check_geometry(codec.unpack_geometry(packed), one.features.shape[1])


@given(hostile(), st.data())
@settings(max_examples=300)
def test_damaged_geometries_are_refused_or_plausible(one: Geometry, data: st.DataObject) -> None:
    packed = bytearray(codec.pack_geometry(one))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 64, 129]))
    try:
        found = codec.unpack_geometry(bytes(packed[: len(packed) - cut]))
    except ValueError:
        return
    check_geometry(found, None)


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(ValueError, match="geometry is"):
        codec.unpack_geometry(noise)


@pytest.mark.parametrize("sizes", [(65535, 65535, 1), (65535, 49, 1), (1, 1, 65535)])
def test_a_part_that_unpacks_to_far_more_is_not_unpacked(sizes: tuple[int, int, int]) -> None:
    """64 MB of zeros in 64 kB."""
    bomb = zlib.compress(bytes(1 << 26))
    parts = len(codec.STRATEGIES)
    head = codec.HEAD.pack(*sizes, 1, 1, *parts * [len(bomb)])
    with pytest.raises(ValueError, match=r"wrong size|too large"):
        codec.unpack_geometry(head + parts * bomb + bytes(codec.LEVEL))


@pytest.mark.parametrize("sizes", [(65536, 1, 0), (5, 1, 65536), (65535, 60, 0)])
def test_what_could_not_be_read_again_is_not_taken(sizes: tuple[int, int, int]) -> None:
    keypoints, channels, points = sizes
    spots, features = np.zeros((keypoints, 2), np.float32), np.zeros((keypoints, channels), np.int8)
    large = Geometry(spots, features, np.zeros((points, 3), np.int16), np.eye(4))
    for way in (codec.pack_geometry, lambda one: check_geometry(one, None)):
        with pytest.raises(ValueError, match="too large"):
            way(large)


def test_the_largest_that_is_taken_can_be_read_from_a_file() -> None:
    rng = np.random.default_rng(0)
    noise = geometry(rng, 65535, 65535)
    features = rng.integers(-128, 128, (65535, codec.MOST_FEATURES // 65535)).astype(np.int8)
    cloud = rng.integers(-32768, 32768, (65535, 3)).astype(np.int16)
    large = Geometry(noise.keypoints, features, cloud, noise.T_level_body)
    packed = codec.pack_geometry(large)
    assert len(packed) <= LONGEST and equal(codec.unpack_geometry(packed), large)


@given(st.lists(st.lists(st.floats(-1.0, 1.0, width=32), min_size=6, max_size=6), max_size=4))
def test_descriptors_come_back_rounded_once(numbers: list[list[float]]) -> None:
    rows = np.array(numbers, np.float32).reshape(-1, 6)
    kept = np.array([codec.round_descriptor(row) for row in rows], np.float32).reshape(-1, 6)
    assert np.abs(kept - rows).max(initial=0.0) <= 0.6 * 2.0**-19
    packed = [codec.pack_descriptor(row) for row in rows]
    assert all(len(one) == codec.packed_size(6) == 15 for one in packed)
    assert equal(codec.unpack_descriptors(packed, 6), kept)
    assert packed == [codec.pack_descriptor(row) for row in kept]


@given(st.lists(st.floats(-1e7, 1e7), min_size=6, max_size=6))
def test_poses_come_back_and_others_do_not(numbers: list[float]) -> None:
    T = from_xyz_rpy(tuple(numbers))
    assert equal(codec.unpack_pose(codec.pack_pose(T)), T)
    mirrored = T.copy()
    mirrored[:3, 0] *= -1
    bad = [mirrored, 1.1 * T, np.full((4, 4), np.nan), np.full((4, 4), 1e300), np.zeros((4, 4))]
    assert all(codec.unpack_pose(codec.pack_pose(one)) is None for one in bad)
    packed = codec.pack_pose(T)
    assert all(codec.unpack_pose(one) is None for one in (packed[:-1], packed + b"x", b"", None, 7, "x" * 96))
