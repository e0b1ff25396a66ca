# SPDX-License-Identifier: Apache-2.0
"""Fixed transforms of /tf_static against each frame's place in one world, computed without them."""

from __future__ import annotations

import numpy as np
import pytest
from bag_builder import NAN, static
from hypothesis import given, settings
from hypothesis import strategies as st

from vlad_ros.poses import from_xyz_rpy
from vlad_ros.runs.static_transforms import StaticTransforms

NAMES = ["map", "/odom", "base_link", "gelenk_ä", "雷达", "lidar/front", "imu", "mast"]


def joint(parent: str, child: str, xyz_rpy: tuple[float, ...] = (1.0, 2.0, 3.0, 0.1, 0.2, 0.3)):
    (stamped,) = static((parent, child, xyz_rpy))[2].transforms
    return stamped


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_any_two_frames_of_a_tree(seed: int) -> None:
    """T_target_source of two frames is ``inv(T_world_target) @ T_world_source``, along whatever chain."""
    rng, transforms, world = np.random.default_rng(seed), StaticTransforms(), {NAMES[0]: np.eye(4)}
    joints = []
    for k, name in enumerate(NAMES[1:], 1):
        parent, values = NAMES[int(rng.integers(k))], tuple(rng.uniform(-3, 3, 6))
        joints.append(joint(parent, name, values))
        world[name] = world[parent] @ from_xyz_rpy(values)
    for k in rng.permutation(len(joints)):
        transforms.add(joints[k])
    for target in NAMES:
        for source in NAMES:
            expected = np.linalg.inv(world[target]) @ world[source]
            np.testing.assert_allclose(transforms.find(target, source), expected, atol=1e-9)


def test_what_was_said_last_counts_and_slashes_do_not() -> None:
    transforms = StaticTransforms()
    transforms.add(joint("base_link", "lidar", (5.0, 0, 0, 0, 0, 0)))
    transforms.add(joint("/base_link", "/lidar", (1.0, 0, 0, 0, 0, 0)))
    found = transforms.find("//base_link", "lidar")
    assert found is not None and found[0, 3] == 1.0


def test_frames_that_nothing_joins() -> None:
    transforms = StaticTransforms()
    transforms.add(joint("base_link", "lidar"))
    transforms.add(joint("other", "camera"))
    assert transforms.find("base_link", "camera") is None and transforms.find("nowhere", "lidar") is None
    assert transforms.find("camera", "base_link") is None


@pytest.mark.parametrize("circle", [("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d")])
def test_a_circle_does_not_hang(circle: tuple[str, ...]) -> None:
    transforms = StaticTransforms()
    for parent, child in zip(circle, [*circle[1:], circle[0]], strict=True):
        transforms.add(joint(parent, child))
    assert transforms.find("nowhere", "a") is None and transforms.find("a", "nowhere") is None
    assert transforms.find("a", "b") is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: setattr(s.transform.rotation, "w", NAN), "from 'lidar' to 'base_link': the pose is not finite"),
        (lambda s: setattr(s.transform.translation, "x", NAN), "the pose is not finite"),
        (lambda s: [setattr(s.transform.rotation, name, 0.0) for name in "xyzw"], "not of unit length"),
        (lambda s: setattr(s, "child_frame_id", ""), "joins no two frames"),
        (lambda s: setattr(s, "child_frame_id", "/base_link"), "joins no two frames"),
        (lambda s: setattr(s.header, "frame_id", "/"), "joins no two frames"),
    ],
)
def test_transforms_that_are_none(change, words: str) -> None:
    transforms, stamped = StaticTransforms(), joint("base_link", "lidar")
    change(stamped)
    with pytest.raises(ValueError, match=words):
        transforms.add(stamped)
    assert transforms.find("base_link", "lidar") is None
