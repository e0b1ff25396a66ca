# SPDX-License-Identifier: Apache-2.0
"""A back-end's path on its way into the map: taken whole, or refused with a sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

from map_rows import make  # noqa: E402

from vlad_ros.poses import from_xyz_rpy, to_quaternion  # noqa: E402
from vlad_ros.ros.outputs.localisation import Localisation  # noqa: E402
from vlad_ros.stamps import SECOND  # noqa: E402
from vlad_ros.types import Keyframe  # noqa: E402

POSES = np.stack([from_xyz_rpy((float(i), 0.0, 0.0, 0.1 * i, 0.0, 0.5 * i)) for i in range(4)])
STAMPS = np.arange(1, 5) * SECOND


class World:
    """A localisation in a map of four keyframes, and what it refuses."""

    def __init__(self) -> None:
        row = np.eye(8, dtype=np.float32)[0]
        self.database = make([Keyframe(0, int(stamp), row, row, T_odom_base=np.eye(4)) for stamp in STAMPS])
        self.refused: list[tuple[str, str]] = []
        node: Any = SimpleNamespace(create_publisher=lambda *_: None)
        listener: Any = SimpleNamespace(reject=lambda *told: self.refused.append(told))
        self.recognizer: Any = SimpleNamespace(database=self.database, session=0)
        self.localisation = Localisation(node, self.recognizer, listener, "map")

    def correct(self, stamps: np.ndarray, numbers: np.ndarray) -> None:
        self.localisation.correct(stamps, numbers)

    @property
    def placed(self) -> str:
        return self.localisation.values()["keyframes that the back-end has placed"]


def numbers() -> np.ndarray:
    return np.array([(*T[:3, 3], *to_quaternion(T)) for T in POSES])


def test_a_path_is_taken_whole() -> None:
    world = World()
    world.correct(STAMPS, numbers())
    for id, T in enumerate(POSES):
        np.testing.assert_allclose(world.database.T_map_base(id), T, atol=1e-12)
    assert world.placed == "4" and not world.refused


@pytest.mark.parametrize(
    ("words", "changes"),
    [("stamp of its own", (0, 3, 1.0)), ("finite", (4, np.nan, 1.0)), ("unit", (4, 3, 0.5))],
)
def test_or_refused(words: str, changes: tuple[int, float, float]) -> None:
    world, wrong = World(), numbers()
    stamp, x, norm = changes
    wrong[3, 0] = x
    wrong[3, 3:] *= norm
    world.correct(np.array([*STAMPS[:3], stamp * SECOND]), wrong)
    ((reason, detail),) = world.refused
    assert reason == "bad_path" and words in detail
    assert all(world.database.corrected(id) is None for id in range(4)) and world.placed == "0"


def test_stretch_after_stretch_is_counted_together() -> None:
    world = World()
    world.correct(STAMPS[:2], numbers()[:2])
    world.correct(STAMPS[2:], numbers()[2:])
    world.correct(STAMPS[2:3], numbers()[2:3])
    assert world.placed == "4"


def test_another_session_has_a_path_of_its_own() -> None:
    world = World()
    world.recognizer.session = 1
    world.correct(STAMPS, numbers())
    assert world.placed == "0" and not world.refused
