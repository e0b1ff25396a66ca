# SPDX-License-Identifier: Apache-2.0
"""vlad plot: closures explained by what a run has kept, the files' names, and bad input in one sentence."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.patches import ConnectionPatch
from plotted import assert_readable, panel, plot, save_drive

from vlad_ros import cli
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots import closure, style
from vlad_ros.runs.tables import Run, read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_drive(tmp_path_factory.mktemp("plots"))


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    words = ["run", str(folder / "drive.npz"), "-o", str(folder / "run"), "--weights", str(folder / "w.safetensors")]
    assert cli.main([*words, "--device", "cpu", "--no-odometry", "--every-scan", "--exclude-time", "5"]) == 0
    return read_run(folder / "run")


def test_a_closure_is_explained_by_what_the_run_has_kept(run: Run) -> None:
    database = KeyframeDatabase.open(run.map_path)
    verified = np.flatnonzero(np.isfinite(run.closures.T_match_query[:, 0, 0]))
    assert len(verified), "no loop of the drive could be verified"
    id = int(verified[0])
    data = closure.explain(run, id, database)
    assert 1 / (1 + math.exp(-sum(data.terms.values()))) == pytest.approx(run.closures.probability[id], rel=1e-6)
    query, match = (database.geometry(int(ids[id])) for ids in (run.closures.query, run.closures.match))
    assert query is not None and match is not None
    T = match.T_level_body @ run.closures.T_match_query[id]
    by_hand = [(T @ np.append(point.astype(np.float64), 1.0))[:2] for point in query.points[:50]]
    np.testing.assert_allclose(data.query[:50], by_hand, atol=1e-6)
    assert data.found.inliers == run.closures.evidence["inliers"][id]
    assert data.rasters[0].shape == (5, 64, 64) and data.rasters[0].any()
    figure = closure.draw(data)
    assert_readable(figure)
    lines = figure.findobj(ConnectionPatch)
    colours = [matplotlib.colors.to_hex(line.get_edgecolor()).upper() for line in lines]
    assert len(lines) == data.found.matches and colours.count(style.TRUE) == data.found.inliers
    pair = data.found.pairs[data.found.is_inlier][-1]
    np.testing.assert_allclose(lines[-1].xy1, query.keypoints[pair[0]][::-1], atol=1e-6)
    np.testing.assert_allclose(lines[-1].xy2, match.keypoints[pair[1]][::-1], atol=1e-6)
    bars = [bar.get_width() for bar in panel(figure, "evidence").patches]
    np.testing.assert_allclose(bars, list(data.terms.values()))


def test_the_reason_and_the_truth_in_words(run: Run) -> None:
    """Each row's own reason, whatever it is, and nothing on what is not known."""
    database = KeyframeDatabase.open(run.map_path)
    refused = dataclasses.replace(
        run.closures,
        accepted=np.zeros(len(run.closures), bool),
        reason=np.full(len(run.closures), 3),
        probability=np.zeros(len(run.closures)),
        T_match_query=np.full_like(run.closures.T_match_query, np.nan),
        evidence={name: np.full(len(run.closures), np.nan) for name in run.closures.evidence},
    )
    data = closure.explain(dataclasses.replace(run, closures=refused), 0, database)
    assert "no transform brings more keypoints together than chance" in data.verdict
    assert data.evidence is None and data.terms == {}
    assert_readable(closure.draw(data))
    assert closure.lines(data) == [data.heading, data.verdict]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["assignment", "{}/none.npz:3"], "no such file"),
        (["assignment", "{}/drive.npz"], "say which scan"),
        (["assignment", "{}/drive.npz:99"], "there is no scan 99"),
        (["vlad", "{}/drive.npz:0", "{}/w.safetensors"], "not a known kind of scan"),
        (["closure", "{}/none", "0"], "there is no such run"),
        (["closure", "{}/run", "100000"], "there is no closure 100000"),
        (["closure", "{}/run", "-1"], "there is no closure -1"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: Path, run: Run, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot(folder, *(word.format(folder) for word in words)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and said[0].startswith("vlad plot: ") and sentence in said[0]


def test_an_older_and_an_empty_run(folder: Path, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text((run.path / "run.json").read_text().replace('"version": 1', '"version": 0'))
    assert plot(folder, "closure", str(tmp_path), "0") == 2
    assert "a run of an older version" in capsys.readouterr().err
    none = dataclasses.replace(run.closures, query=run.closures.query[:0])
    with pytest.raises(ValueError, match="it has none"):
        closure.explain(dataclasses.replace(run, closures=none), 0, KeyframeDatabase.open(run.map_path))


def test_default_names_and_printed_numbers(
    folder: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    scans = [f"{folder}/drive.npz:0", f"{folder}/drive.npz:4"]
    assert plot(folder, "assignment", scans[0]) == plot(folder, "vlad", *scans) == plot(folder, "heads", *scans) == 0
    assert plot(folder, "closure", str(run.path), "0") == 0
    names = ["closure_0.png", "netvlad_soft_assignment.png", "netvlad_variants.png", "netvlad_vlad_structure.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    printed = capsys.readouterr().out
    assert "gap" in printed and "NetVLADLoupe (untrained)" in printed and "median" in printed


def test_clusters_and_verdicts_never_look_alike() -> None:
    assert len({style.cluster_style(cluster) for cluster in range(64)}) == 64
    grey = [np.dot(matplotlib.colors.to_rgb(colour), (0.30, 0.59, 0.11)) for colour in (style.QUERY, style.MATCH)]
    assert abs(grey[0] - grey[1]) > 0.2, "told apart without any colour"
