# SPDX-License-Identifier: Apache-2.0
"""`vlad map`: what it says is in the map, what it keeps of it, and that it never harms what it was given."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from map_rows import DIM, MAKE, geometry, keyframe, make

from vlad_ros import cli
from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.mapping.database import KeyframeDatabase, MapError
from vlad_ros.mapping.lock import MapLock
from vlad_ros.maps.prune import choose
from vlad_ros.maps.rebuild import rebuild
from vlad_ros.model.describer import Describer
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.stamps import SECOND
from vlad_ros.types import POINT_SCALE, Geometry, Keyframe


def drive(seed: int = 0, places: np.ndarray | None = None, session: int = 0) -> list[Keyframe]:
    """Keyframes at `places` (N, 3); by default a walk of 30 steps."""
    rng = np.random.default_rng(seed)
    if places is None:
        places = np.cumsum(rng.normal(0.5, 1.0, (30, 3)), axis=0)
    rows = []
    for i, place in enumerate(places):
        T = np.eye(4)
        T[:3, 3] = place
        row = keyframe(rng, session, i * SECOND, i % 2 == 0, float(i))
        rows.append(dataclasses.replace(row, T_odom_base=T, geometry=geometry(rng)))
    return rows


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two sessions, one of them placed and corrected in part, and one without odometry."""
    rng = np.random.default_rng(1)
    database = make([*drive(2), *drive(3, session=1), *(keyframe(rng, 2, i) for i in range(4))])
    database.place(3, from_xyz_rpy((100.0, 0.0, 5.0, 0.0, 0.0, 0.0)))
    database.save(tmp_path / "town.map")
    return tmp_path / "town.map"


def vlad(capsys, *words: object) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_info_says_what_the_map_holds(saved, capsys):
    status, said, _ = vlad(capsys, "map", "info", saved)
    assert status == 0
    assert "keyframes     64: 30 local maps (0 partial), 34 single scans" in said
    assert f"weights       {MAKE['model_hash']}" in said and "made from     points" in said
    assert re.search(r"bounding box  x .* \.\. 100\.0 m, y .*, z .*", said)
    assert "session 0     30 keyframes, 29 s, 29 m, T_map_odom known, 1 keyframes corrected by a back-end" in said
    assert re.search(r"session 1     30 keyframes, 29 s, 29 m, T_map_odom unknown, [0-9a-f-]{36}\n", said)
    assert "session 2     4 keyframes, 0 s, no odometry, T_map_odom unknown" in said
    each = saved.stat().st_size / 64 / 1e3
    assert f"per keyframe  {each:.1f} kB" in said


def test_info_of_an_empty_map(tmp_path, capsys):
    make([]).save(tmp_path / "empty.map")
    status, said, _ = vlad(capsys, "map", "info", tmp_path / "empty.map")
    assert status == 0 and "keyframes     0:" in said and "bounding box" not in said


# -- prune ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 20.0))
@settings(max_examples=50, deadline=None)
def test_a_spacing_is_kept_and_leaves_no_hole(seed, spacing):
    database = make([*drive(seed), *drive(seed + 1, session=4)])
    kept = choose(database, spacing=spacing)
    for session in (0, 4):
        ids = list(database.ids(session))
        places = {id: database.keyframe(id).T_odom_base[:3, 3] for id in ids}
        chosen = [id for id in ids if id in kept]
        assert chosen
        for id in ids:
            distances = [np.linalg.norm(places[id] - places[other]) for other in chosen if other != id]
            nearest = min(distances, default=math.inf)
            assert nearest >= spacing if id in chosen else nearest < spacing


@given(st.integers(0, 2**32 - 1), st.integers(2, 70))
@settings(max_examples=50, deadline=None)
def test_a_size_is_met_and_well_spread(seed, size):
    database = make([*drive(seed), *drive(seed + 1, session=4)])
    kept = choose(database, size=size)
    assert len(kept) == len(set(kept)) == min(size, 60) and kept == sorted(kept)
    sessions = [[id for id in kept if id in database.ids(session)] for session in (0, 4)]
    assert all(sessions)
    for ids, session in zip(sessions, (0, 4), strict=True):
        places = np.array([database.keyframe(id).T_odom_base[:3, 3] for id in database.ids(session)])
        chosen = np.array([database.keyframe(id).T_odom_base[:3, 3] for id in ids])
        between = np.linalg.norm(chosen[:, None] - chosen[None], axis=2) + np.diag([math.inf] * len(ids))
        left = np.linalg.norm(places[:, None] - chosen[None], axis=2).min(1)
        assert left.max() <= between.min() + 1e-9  # no place is farther from the chosen than they are from each other


def test_what_has_no_pose_is_kept_by_a_spacing_and_shared_out_by_a_size():
    rng = np.random.default_rng(5)
    mixed = [row if i % 3 else dataclasses.replace(row, T_odom_base=None, travel=None) for i, row in enumerate(drive())]
    database = make([*mixed, *(keyframe(rng, 1, i) for i in range(40))])
    kept = choose(database, spacing=5.0)
    assert {id for id in range(70) if database.keyframe(id).T_odom_base is None} < set(kept)
    kept = choose(database, size=9)
    assert len(kept) == 9 and any(id < 30 for id in kept) and sum(id >= 30 for id in kept) >= 2
    ids = [id - 30 for id in choose(make([keyframe(rng, 0, i) for i in range(41)]), size=5)]
    assert ids == [-30, -20, -10, 0, 10]  # evenly by their order


def test_corrected_poses_decide_where_keyframes_lie():
    database = make(drive(places=np.array([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0]])))
    assert choose(database, spacing=1.0) == [0]
    database.place(2, from_xyz_rpy((50.0, 0, 0, 0, 0, 0)))
    assert choose(database, spacing=1.0) == [0, 2]


def test_a_thinner_map_answers_as_the_old_one_where_it_kept_the_place(saved, tmp_path, capsys):
    before = saved.read_bytes()
    status, said, _ = vlad(capsys, "map", "prune", saved, "-o", tmp_path / "thin.map", "--size", 20)
    assert status == 0 and "20 of 64 keyframes" in said
    old, new = KeyframeDatabase.open(saved), KeyframeDatabase.load(tmp_path / "thin.map", dim=DIM, **MAKE)
    assert saved.read_bytes() == before
    names = {(old.keyframe(id).session, old.keyframe(id).stamp): id for id in range(64)}
    assert list(new.sessions) == [0, 1, 2] and new.sessions[1] is None and new.next_session() == 3
    for id in range(20):
        row = new.keyframe(id)
        was = names[row.session, row.stamp]
        if was < 60:
            assert np.array_equal(new.geometry(id).cloud, old.geometry(was).cloud)
        here, there = old.T_map_base(was), new.T_map_base(id)
        assert here is there is None or np.array_equal(here, there)
        best = new.search(dataclasses.replace(old.whole(was), session=9), 1, 0.0, 0.0)[0]
        assert best.id == id and best.similarity == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--spacing", "0"], "above 0"),
        (["--spacing", "nan"], "above 0"),
        (["--size", "2"], "3 sessions"),
    ],
)
def test_what_cannot_be_pruned_is_said(saved, tmp_path, capsys, words, said):
    status, _, error = vlad(capsys, "map", "prune", saved, "-o", tmp_path / "x.map", *words)
    assert status == 2 and said in error and "Traceback" not in error
    assert not (tmp_path / "x.map").exists()


# -- nothing is harmed ------------------------------------------------------------------------------------------------


def test_no_map_is_overwritten(saved, tmp_path, capsys):
    before = saved.read_bytes()
    (tmp_path / "link.map").symlink_to(saved)
    (tmp_path / "hard.map").hardlink_to(saved)
    (tmp_path / "dangling.map").symlink_to(tmp_path / "nowhere.map")
    for out in (saved, tmp_path / "link.map", tmp_path / "hard.map", tmp_path / "dangling.map", tmp_path):
        for action in (["prune", saved, "--spacing", 2], ["rebuild", saved]):
            status, _, error = vlad(capsys, "map", *action, "-o", out)
            assert status == 2 and "exists already" in error
    assert saved.read_bytes() == before


def test_a_map_that_a_node_holds_is_not_written(saved, tmp_path, capsys):
    with MapLock(tmp_path / "live.map"):
        status, _, error = vlad(capsys, "map", "prune", saved, "-o", tmp_path / "live.map", "--spacing", 2)
    assert status == 2 and "in use by another node" in error and not (tmp_path / "live.map").exists()
    with MapLock(saved):  # it may be read: a save replaces it as a whole
        assert vlad(capsys, "map", "prune", saved, "-o", tmp_path / "out.map", "--spacing", 2)[0] == 0


def test_a_damaged_map_is_named(saved, tmp_path, capsys):
    saved.write_bytes(saved.read_bytes()[:4096])
    for action in (["info", saved], ["prune", saved, "--size", 9, "-o", tmp_path / "x.map"]):
        status, _, error = vlad(capsys, "map", *action)
        assert status == 2 and "damaged" in error and str(saved) in error
    assert not (tmp_path / "x.map").exists()


# -- rebuild ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def describer() -> Describer:
    torch.manual_seed(0)
    config = ModelConfig(fea_size=32, num_clusters=4, width=16, num_keypoints=30, rotations=1)
    return Describer(PlaceNetwork(config, BevConfig(extent=64.0, resolution=1.0)), "1" * 64)


def yard(seed: int) -> np.ndarray:
    """A floor 1.5 m below the body, and boxes on it."""
    rng = np.random.default_rng(seed)
    floor = np.column_stack([rng.uniform(-25, 25, (2000, 2)), np.full(2000, -1.5), np.zeros(2000)])
    boxes = [
        c + rng.uniform(0, 1, (80, 3)) * [1, 4, 3] for c in rng.uniform(-25, 25, (25, 3)) * [1, 1, 0] - [0, 0, 1.5]
    ]
    return np.concatenate([floor, np.pad(np.concatenate(boxes), ((0, 0), (0, 1)))]).astype(np.float32)


def test_rebuilt_keyframes_are_those_of_their_stored_clouds(describer, tmp_path):
    rows = drive()[:4]
    rows = [
        dataclasses.replace(
            row, geometry=dataclasses.replace(row.geometry, cloud=describer.see(yard(i)).geometry().cloud)
        )
        for i, row in enumerate(rows)
    ]
    database = make(rows)
    database.place(1, from_xyz_rpy((9.0, 0, 0, 0, 0, 0)))
    rebuild(database, describer).save(tmp_path / "x.map")
    built = KeyframeDatabase.load(tmp_path / "x.map", dim=128, model_hash="1" * 64, bev=describer.bev)
    for id, row in enumerate(rows):
        whole = built.whole(id)
        points = np.zeros((len(row.geometry.cloud), 4), np.float32)
        points[:, :3] = row.geometry.cloud * np.float32(POINT_SCALE)
        expected = describer.describe(describer.rasterize(points))
        assert float(whole.descriptor @ expected) == pytest.approx(1.0, abs=1e-5)
        assert float(whole.scan_descriptor @ expected) == pytest.approx(1.0, abs=1e-5)
        assert np.array_equal(whole.geometry.cloud, row.geometry.cloud)  # however often it is rebuilt
        assert whole.geometry.features.shape[1] == 32 and len(whole.geometry.keypoints)
        assert whole.geometry.T_level_body[2, 3] == pytest.approx(1.5, abs=0.1)
        assert (whole.session, whole.stamp, whole.travel) == (row.session, row.stamp, row.travel)
    assert np.array_equal(built.corrected(1), database.corrected(1))


def test_what_cannot_be_rebuilt_is_said(describer):
    rng = np.random.default_rng(7)
    with pytest.raises(ValueError, match="1 of the map's 4 keyframes have no points"):
        rebuild(make([*drive()[:3], keyframe(rng, 1)]), describer)
    empty = Geometry(np.zeros((0, 2), np.float32), np.zeros((0, 6), np.int8), np.zeros((0, 3), np.int16), np.eye(4))
    with pytest.raises(ValueError, match="1 of the map's 1 keyframes"):
        rebuild(make([dataclasses.replace(keyframe(rng), geometry=empty)]), describer)
    with pytest.raises(ValueError, match="rasters given from outside"):
        rebuild(KeyframeDatabase(DIM, **MAKE, kind="bev"), describer)


def test_rebuild_from_the_command_line(tmp_path, describer, capsys):
    rows = [dataclasses.replace(r, geometry=describer.see(yard(i)).geometry()) for i, r in enumerate(drive()[:3])]
    make(rows).save(tmp_path / "old.map")
    before = (tmp_path / "old.map").read_bytes()
    words = "map", "rebuild", tmp_path / "old.map", "-o", tmp_path / "new.map", "--device", "cpu"
    status, said, _ = vlad(capsys, *words)
    assert status == 0 and "3 keyframes of" in said and "thinned" in said
    assert (tmp_path / "old.map").read_bytes() == before
    shipped, _ = Describer.from_pretrained(None, "cpu")
    made = {"dim": shipped.dim, "model_hash": shipped.model_hash, "bev": shipped.bev}
    assert len(KeyframeDatabase.load(tmp_path / "new.map", **made)) == 3
    with pytest.raises(MapError, match="other weights"):
        KeyframeDatabase.load(tmp_path / "old.map", **(made | {"dim": DIM, "bev": MAKE["bev"]}))
    status, _, error = vlad(capsys, *words[:4], tmp_path / "y.map", "--weights", tmp_path / "none.safetensors")
    assert status == 2 and "none.safetensors" in error
