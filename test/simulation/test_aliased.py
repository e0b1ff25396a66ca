# SPDX-License-Identifier: Apache-2.0
"""Aliased worlds look alike where they are not the same, and drives through them return only when asked to."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vlad_ros.evaluation import drives
from vlad_ros.simulation.aliased_drives import AGO, APART, aliased_drive, comes_back
from vlad_ros.simulation.aliased_worlds import ALIASED, make_aliased_world
from vlad_ros.simulation.sensors import spinning

SPARSE = spinning(16, 180)


def travel(xy: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(xy, axis=0), axis=1))])


def nearest_return(xy: np.ndarray) -> float:
    """The least distance [m] to a place more than AGO metres of travel ago, pair by pair; inf when there is none."""
    s = travel(xy)
    pairs = itertools.combinations(range(len(xy)), 2)
    return min((float(np.hypot(*(xy[i] - xy[j]))) for i, j in pairs if s[j] - s[i] > AGO), default=np.inf)


@pytest.mark.parametrize("kind", ALIASED)
def test_a_drive_without_loops_never_returns(kind: str) -> None:
    for seed in range(2):
        drive = aliased_drive(kind, seed, sensor=SPARSE, loops=False, spacing=6.0, length=120.0)
        assert drive.poses is not None
        xy = drive.poses[:, :2, 3]
        assert 100.0 < travel(xy)[-1] < 140.0
        assert nearest_return(xy) >= APART
        assert min(len(scan) for scan in drive.scans) > 300


@pytest.mark.parametrize("kind", ALIASED)
def test_a_drive_with_loops_returns_from_both_directions(kind: str) -> None:
    drive = aliased_drive(kind, 1, sensor=SPARSE, loops=True, spacing=4.0, length=80.0)
    assert drive.poses is not None
    xy, forward = drive.poses[:, :2, 3], drive.poses[:, :2, 0]
    s = travel(xy)
    heading = [
        float(forward[i] @ forward[j])
        for i, j in itertools.combinations(range(len(xy)), 2)
        if s[j] - s[i] > AGO and np.hypot(*(xy[i] - xy[j])) < 3.0
    ]
    assert min(heading) < -0.9 and max(heading) > 0.9


@pytest.mark.parametrize("kind", ("blocks", "tunnel", "rows"))
def test_the_same_seed_makes_the_same_drive(kind: str) -> None:
    a, b = (aliased_drive(kind, 3, sensor=SPARSE, loops=False, spacing=10.0, length=200.0) for _ in "ab")
    assert all(np.array_equal(x, y) for x, y in zip(a.scans, b.scans, strict=True))
    assert a.poses is not None and b.poses is not None
    np.testing.assert_array_equal(a.poses, b.poses)
    other = aliased_drive(kind, 4, sensor=SPARSE, loops=False, spacing=10.0, length=200.0)
    assert not np.array_equal(a.scans[0], other.scans[0])


def test_blocks_are_copies_of_one_another() -> None:
    """Moved by one block, nearly every wall falls on another wall."""
    walls = make_aliased_world("blocks", 5).walls.astype(np.float64)
    middle = (walls[:, :2] + walls[:, 2:4]) / 2
    near = np.abs(middle - 150.0).max(axis=1) < 40.0
    wall = walls[near][np.argmax(np.linalg.norm(walls[near, 2:4] - walls[near, :2], axis=1))]
    same = np.abs((walls[:, 2:4] - walls[:, :2]) - (wall[2:4] - wall[:2])).max(axis=1) < 1e-3
    shifts = (walls[same, :2] - wall[:2])[np.argsort(np.linalg.norm(walls[same, :2] - wall[:2], axis=1))]
    assert np.linalg.norm(shifts[1]) > 30.0  # the next block; copies nearer than that would be another pattern
    moved = middle[near] + shifts[1]
    gap = np.linalg.norm(moved[:, None] - middle[None], axis=2).min(axis=1)
    assert (gap < 1e-2).mean() > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_the_mirrored_street_shows_itself_again(seed: int) -> None:
    """Of mirroring across, half a turn, and both: at least one maps nearly every wall onto a wall."""
    world = make_aliased_world("mirrored", seed)
    walls = world.walls[world.walls[:, 5] > 1.5].astype(np.float64)  # without the bins that differ
    middle = (walls[:, :2] + walls[:, 2:4]) / 2 - world.size / 2
    along = world.roads[0][-1] - world.roads[0][0]
    along /= np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    x, y = middle @ along, middle @ across
    images = [np.stack(image, axis=1) for image in ((-x, y), (-x, -y), (x, -y))]
    here = np.stack([x, y], axis=1)
    share = [(np.linalg.norm(m[:, None] - here[None], axis=2).min(axis=1) < 1e-2).mean() for m in images]
    assert max(share) > 0.95


def test_no_road_is_built_over() -> None:
    for kind in ALIASED:
        world = make_aliased_world(kind, 7)
        road = world.roads[len(world.roads) // 2]
        inside = road[((road > 0) & (road < world.size)).all(axis=1)]
        assert world.is_free(inside, 1.0).all(), kind


def test_unknown_kinds_and_tiny_worlds_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks, pillars, tunnel, rows, mirrored, not 'maze'"):
        make_aliased_world("maze", 0)
    with pytest.raises(ValueError, match="at least 100 m, not 50"):
        make_aliased_world("tunnel", 0, size=50.0)


def test_coming_back_is_noticed() -> None:
    out = np.stack([np.arange(0.0, 60.0, 2.0), np.zeros(30)], axis=1)
    assert not comes_back(out)
    assert comes_back(np.concatenate([out, out[::-1] + np.array([0.0, 3.0])]))


def test_calibration_and_judging_share_no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """All worlds that any two seeds of each ask for, and the kinds, sensors and loops among the drives."""
    asked: dict[str, list[tuple[str, int, bool]]] = {"calibration": [], "judging": []}
    now = "calibration"

    def plain(kind: str, world: int, **options: object) -> str:
        asked[now].append((kind, world, bool(options["revisits"])))
        return kind

    def aliased(kind: str, seed: int, **options: object) -> str:
        asked[now].append((kind, seed, bool(options["loops"])))
        return kind

    monkeypatch.setattr(drives, "make_drive", plain)
    monkeypatch.setattr(drives, "aliased_drive", aliased)
    for seed in (0, 1):
        assert len(list(drives.calibration_drives(seed))) == 16
    now = "judging"
    for seed in (0, 1):
        assert len(list(drives.judging_drives(seed))) == 16
        assert len(list(drives.aliased_drives(seed, loops=False))) == len(ALIASED)
    worlds = {name: {(kind, world) for kind, world, _ in rows} for name, rows in asked.items()}
    assert not worlds["calibration"] & worlds["judging"]
    both = {(kind, loops) for kind, _, loops in asked["calibration"]}
    assert {(kind, loops) for kind in ALIASED for loops in (True, False)} <= both  # over two seeds
    assert {kind for kind, _ in both} >= {"street", "campus", "park", "plaza", "riverside", "indoor", "carpark"}


def test_a_world_without_the_route_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: str, world: int, **options: object) -> str:
        if world % 32 < 2:
            raise ValueError("no such route")
        return f"{kind}_{world}"

    monkeypatch.setattr(drives, "make_drive", refuse)
    assert next(drives.calibration_drives(0)) == "street_2"
