# SPDX-License-Identifier: Apache-2.0
"""The folder of a run: what goes in comes out, edges are judged by hand-made poses, and a fault is one sentence."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import SECOND, drifted_laps, drifting, laps, loop, record, unverified, write

from vlad_ros.config import EvaluationConfig, RecognizerConfig
from vlad_ros.evaluation.edges import edge_error, is_right, revisits
from vlad_ros.poses import from_xyz_rpy, inverse
from vlad_ros.runs.tables import CLOSURE_COLUMNS, read_run
from vlad_ros.types import RejectReason

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    poses, rng = laps(), np.random.default_rng(1)
    odometry = drifting(poses, 0)
    first = loop(3, 83, poses, rng)
    closures = {83: [first, unverified(9, 83, poses, rng)], 170: [loop(5, 170, poses, rng, accepted=False)]}
    run = write(record(poses, odometry, closures), tmp_path / "run", source="laps", seed=7)
    assert run.has_truth and run.about["source"] == "laps" and run.about["seed"] == 7
    np.testing.assert_allclose(run.keyframes.T_odom_base, odometry, atol=1e-12)
    np.testing.assert_allclose(run.keyframes.T_world_base, poses, atol=1e-12)
    assert run.keyframes.stamp.tolist() == [(k + 1) * SECOND for k in range(240)]
    table = run.closures
    assert list(zip(table.query, table.match, strict=True)) == [(83, 3), (83, 9), (170, 5)]
    np.testing.assert_allclose(table.T_match_query[0], first.T_match_query, atol=1e-12)
    np.testing.assert_allclose(table.covariance[0], first.covariance, rtol=1e-12)
    assert np.isnan(table.T_match_query[1]).all() and np.isnan(table.covariance[1]).all()
    assert table.accepted.tolist() == [True, False, False]
    assert [RejectReason(r).name for r in table.reason] == ["NONE", "NO_ALIGNMENT", "NONE"]
    assert table.probability[0] == 0.97 and np.isnan(table.probability[1])
    assert table.evidence["inliers"][0] == 50 and np.isnan(table.evidence["odometry"][0])
    assert np.isnan(table.evidence["overlap"][1])
    np.testing.assert_allclose(run.timing["describe"], 20.0 + np.arange(240))
    assert run.health["accepted"][-1] == 1 and run.health["rejected_NO_ALIGNMENT"][-1] == 1
    assert run.health["counted_late_stamp"].tolist()[:12] == [1] * 10 + [2] * 2
    assert run.health["scans"][-1] == 240


def test_stamps_are_not_rounded(tmp_path: Path) -> None:
    """A float64 has 53 bits; stamps of today need 61."""
    poses = laps(1)[:2]
    recorder = record(poses, poses, {})
    stamp = 1_741_319_208_064_388_097
    recorder._keyframes[1] = recorder._keyframes[1].__class__(
        0, stamp, *(recorder._keyframes[1].descriptor,) * 2, T_odom_base=poses[1], travel=1.0
    )
    assert write(recorder, tmp_path / "run").keyframes.stamp[1] == stamp


@pytest.mark.parametrize(
    ("metres", "degrees", "right"), [(0.9, 0.0, True), (1.1, 0.0, False), (0.0, 4.9, True), (0.0, 5.1, False)]
)
def test_an_edge_is_right_within_one_metre_and_five_degrees(metres: float, degrees: float, right: bool) -> None:
    T_world_match = from_xyz_rpy((3.0, -4.0, 1.0, 0.1, 0.2, 2.0))
    T_world_query = from_xyz_rpy((5.0, -3.0, 1.2, 0.0, 0.1, -1.0))
    off = from_xyz_rpy((metres, 0.0, 0.0, 0.0, 0.0, math.radians(degrees)))
    error = edge_error(inverse(T_world_match) @ T_world_query @ off, T_world_match, T_world_query)
    assert error == pytest.approx((metres, degrees), abs=1e-6)
    assert is_right(*error) is right
    assert not is_right(math.nan, math.nan)


def test_revisits_by_hand() -> None:
    """Out 100 m and back, a keyframe each 10 m and 10 s: exclusion is by both time and travel."""
    x = [*range(0, 101, 10), *range(90, -1, -10)]
    poses = np.stack([from_xyz_rpy((float(v), 0.0, 0.0, 0.0, 0.0, 0.0)) for v in x])
    stamps, session = np.arange(len(x)) * 10 * SECOND, np.zeros(len(x), np.int64)

    def found(time: float, distance: float, sessions: np.ndarray = session) -> list[int]:
        return np.flatnonzero(
            revisits(poses, stamps, sessions, radius=5.0, exclude_time=time, exclude_distance=distance)
        ).tolist()

    assert found(20.0, 20.0) == list(range(11, 21))
    assert found(30.0, 20.0) == list(range(12, 21)), "the first on the way back comes 20 s after"
    assert found(0.0, 90.0) == list(range(15, 21)), "and the fifth 100 m after"
    assert found(1e9, 1e9, (np.arange(len(x)) > 10).astype(np.int64)) == list(range(11, 21)), "another session"


def test_metrics_by_hand(tmp_path: Path) -> None:
    """Three accepted edges, one of them 2 m off; two of 162 revisits closed rightly: all of the second
    and the third lap, and the last two keyframes of the first, which lie within 5 m of its start."""
    poses, rng = laps(), np.random.default_rng(1)
    right, other = loop(3, 83, poses, rng), loop(4, 84, poses, rng)
    assert right.T_match_query is not None
    wrong = loop(5, 83, poses, rng, T_match_query=from_xyz_rpy((2.0, 0, 0, 0, 0, 0)) @ right.T_match_query)
    recorder = record(poses, poses, {83: [right, wrong], 84: [other, unverified(50, 84, poses, rng)]})
    run = write(recorder, tmp_path / "run")
    values = {name: number["value"] for name, number in run.about["metrics"].items()}
    assert run.closures.is_right.tolist() == [True, False, True, False]
    assert values["precision"] == pytest.approx(2 / 3) and values["false_edges"] == 1
    assert values["revisits"] == run.keyframes.is_revisit.sum() == 162
    assert values["recall"] == pytest.approx(2 / 162)
    assert all(number["unit"] for number in run.about["metrics"].values())


def test_without_true_poses_nothing_is_judged(tmp_path: Path) -> None:
    poses, rng = laps(), np.random.default_rng(1)
    run = write(record(poses, poses, {83: [loop(3, 83, poses, rng)]}, truth=False), tmp_path / "run")
    assert not run.has_truth and "precision" not in run.about["metrics"]
    assert np.isnan(run.closures.error_m).all() and not run.keyframes.is_revisit.any()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drifted_laps(tmp_path_factory.mktemp("whole"))[0].path


def missing(folder: Path) -> None:
    (folder / "closures.csv").unlink()


def unfinished(folder: Path) -> None:
    (folder / "run.json").unlink()


def older(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"format": "vlad_ros run", "version": 0}))


def foreign(folder: Path) -> None:
    (folder / "run.json").write_text("[1, 2]")


def nobody(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"format": "vlad_ros run", "version": "latest"}))


def bottomless(folder: Path) -> None:
    (folder / "run.json").write_text("[" * 100_000)


def binary(folder: Path) -> None:
    (folder / "run.json").write_bytes(b"\xff\xfe\0")


def scrambled(folder: Path) -> None:
    (folder / "health.csv").write_bytes(b"stamp_ns,\xff\n")


def empty(folder: Path) -> None:
    path = folder / "keyframes.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")


def cut(folder: Path) -> None:
    path = folder / "closures.csv"
    path.write_bytes(path.read_bytes()[:-40])


def renamed(folder: Path) -> None:
    path = folder / "closures.csv"
    path.write_text(path.read_text().replace("similarity", "likeness", 1))


def scribbled(folder: Path) -> None:
    path = folder / "keyframes.csv"
    path.write_text(path.read_text().replace("\n3,0,", "\n3,zero,", 1))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (missing, "closures.csv is missing"),
        (unfinished, "run.json is missing"),
        (older, "an older version"),
        (foreign, "not the record of a run"),
        (nobody, "another version"),
        (bottomless, "run.json: not readable"),
        (binary, "run.json: not readable"),
        (scrambled, "health.csv: damaged"),
        (empty, "without keyframes"),
        (cut, "cut short"),
        (renamed, "no column 'similarity'"),
        (scribbled, "damaged"),
    ],
)
def test_a_damaged_run_is_one_sentence(harm: Callable[[Path], None], words: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    harm(tmp_path / "run")
    with pytest.raises(ValueError, match=words) as error:
        read_run(tmp_path / "run")
    assert str(tmp_path / "run") in str(error.value) and "\n" not in str(error.value)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such run; make one with vlad run"):
        read_run(tmp_path / "nowhere")


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_earlier_run(error: BaseException, tmp_path: Path) -> None:
    """The map, the last of the files, cannot be saved: the finished run stays as it was, with what lies beside it."""
    whole = write(record(laps(1), None, {}), tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def fail(path: Path) -> None:
        raise error

    recorder = record(laps(1)[:20], None, {})
    with pytest.raises(type(error)):
        recorder.write(tmp_path / "run", {}, RecognizerConfig(), EvaluationConfig(), fail)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert len(read_run(tmp_path / "run").keyframes) == len(whole.keyframes) == 80


def test_a_failed_write_leaves_nothing_else(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        record(laps(1), None, {}).write(tmp_path / "a" / "run", {}, RecognizerConfig(), EvaluationConfig(), fail)
    assert list(tmp_path.iterdir()) == []


def test_a_run_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    """Each file of it; what lies beside them stays, and what a killed writer has left goes."""
    write(record(laps(1), None, {}), tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / ".unfinished").mkdir()
    (tmp_path / "run" / ".unfinished" / "keyframes.csv").write_text("half")
    run = write(record(laps(1)[:20], None, {}), tmp_path / "run", source="other")
    assert len(run.keyframes) == 20 and run.path == tmp_path / "run" and run.map_path.exists()
    again = read_run(tmp_path / "run")
    assert len(again.keyframes) == 20 and again.about["source"] == "other" and again.about["metrics"]
    names = {"run.json", "keyframes.csv", "closures.csv", "timing.csv", "health.csv", "map.sqlite3", "notes.txt"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names


def test_units_stand_in_the_names() -> None:
    for name in CLOSURE_COLUMNS:
        if name.startswith(("edge_x", "edge_y", "edge_z", "error")):
            assert name.endswith(("_m", "_deg"))
        if name.startswith("cov_"):
            assert name.endswith(("_m2", "_m_rad", "_rad2"))
    assert "evidence_residual_m" in CLOSURE_COLUMNS and "query_stamp_ns" in CLOSURE_COLUMNS
