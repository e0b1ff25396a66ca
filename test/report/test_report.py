# SPDX-License-Identifier: Apache-2.0
"""The report: its numbers against explicit loops, what is drawn against the run, and what cannot be reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import CONFIGURATION, laps, loop, mixed_run, record, write

from vlad_ros import cli
from vlad_ros.report import curves, page, pictures
from vlad_ros.report import loop_figures as loops
from vlad_ros.report.make import report
from vlad_ros.report.panel import thinned
from vlad_ros.runs.tables import Run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mixed_run(tmp_path_factory.mktemp("mixed") / "run")


def test_the_sweep_counts_as_loops_would(mixed: Run) -> None:
    c, revisit = mixed.closures, set(np.flatnonzero(mixed.keyframes.is_revisit))
    curve = curves.sweep(mixed.keyframes, c)
    assert len(curve.threshold) == len(set(c.probability[np.isfinite(c.probability)]))
    assert len(revisit) > 50
    for threshold, precision, recall in zip(curve.threshold, curve.precision, curve.recall, strict=True):
        rows = [i for i in range(len(c)) if c.probability[i] >= threshold]
        right = [i for i in rows if c.is_right[i]]
        assert precision == pytest.approx(len(right) / len(rows))
        assert recall == pytest.approx(len({c.query[i] for i in right} & revisit) / len(revisit))


def test_recall_at_n_counts_as_loops_would(mixed: Run) -> None:
    c = mixed.closures
    for score, hit in ((c.similarity, curves.near(mixed)), (c.probability, c.is_right)):
        shares = curves.recall_at(mixed.keyframes, c, score, hit, 3)
        for n in (1, 2, 3):
            found = 0
            for query in np.flatnonzero(mixed.keyframes.is_revisit):
                rows = sorted(np.flatnonzero(c.query == query), key=lambda i: -np.nan_to_num(score[i], nan=-1.0))
                found += any(hit[i] for i in rows[:n])
            assert shares[n - 1] == pytest.approx(found / mixed.keyframes.is_revisit.sum())
    assert 0 < shares[0] < shares[-1] < 1


def test_reliability_counts_as_loops_would(mixed: Run) -> None:
    c, curve = mixed.closures, curves.reliability(mixed.closures)
    bins: dict[int, list[int]] = {}
    for i in range(len(c)):
        if np.isfinite(c.probability[i]) and np.isfinite(c.error_m[i]):
            bins.setdefault(min(int(c.probability[i] * 10), 9), []).append(i)
    assert curve.count.tolist() == [len(bins[b]) for b in sorted(bins)]
    said = [np.mean([c.probability[i] for i in bins[b]]) for b in sorted(bins)]
    true = [np.mean([c.is_right[i] for i in bins[b]]) for b in sorted(bins)]
    np.testing.assert_allclose(curve.said, said)
    np.testing.assert_allclose(curve.true, true)
    assert (curve.low <= curve.true).all() and (curve.true <= curve.high).all()
    weights = np.array([len(bins[b]) for b in sorted(bins)])
    assert curve.error == pytest.approx(np.average(np.abs(np.array(said) - true), weights=weights))


def test_every_loop_is_drawn_in_one_class(mixed: Run) -> None:
    c, found = mixed.closures, {each.name: set(each.rows.tolist()) for each in loops.classes(mixed)}
    assert found["accepted, right"] == set(np.flatnonzero(c.accepted & c.is_right))
    assert found["accepted, wrong"] == set(np.flatnonzero(c.accepted & ~c.is_right))
    lost = found["missed: refused at a revisit"]
    for row in lost | found["refused"]:
        mine = c.query == c.query[row]
        assert not c.accepted[mine].any()
        assert np.nan_to_num(c.probability[row], nan=-1) == np.nan_to_num(c.probability[mine], nan=-1).max()
    assert lost and all(mixed.keyframes.is_revisit[c.query[row]] for row in lost)
    assert sum(map(len, found.values())) == len(set().union(*found.values()))


def test_the_trajectory_is_that_of_the_run(mixed: Run) -> None:
    figure = loops.trajectory(mixed).figure
    assert figure is not None
    xy = mixed.keyframes.T_world_base[:, :2, 3]
    traces = {trace.name: trace for trace in figure.data if trace.name}
    np.testing.assert_allclose(np.stack([traces["trajectory"].x, traces["trajectory"].y], axis=1), xy)
    right = np.flatnonzero(mixed.closures.accepted & mixed.closures.is_right)
    drawn = traces[f"accepted, right ({len(right)})"]
    assert drawn.customdata.tolist() == right.tolist()
    middle = (xy[mixed.closures.query[right]] + xy[mixed.closures.match[right]]) / 2
    np.testing.assert_allclose(np.stack([drawn.x, drawn.y], axis=1), middle)
    never = [k for k in np.flatnonzero(mixed.keyframes.is_revisit) if k not in mixed.closures.query]
    assert f"missed: no candidate ({len(never)})" in traces and len(never) > 5


def test_the_working_point_lies_where_the_run_stood(mixed: Run) -> None:
    metrics = {name: each["value"] for name, each in report(mixed.path, 0).metrics.items()}
    (panel,) = [each for each in report(mixed.path, 0).panels if each.name == "precision_recall"]
    assert panel.figure is not None and panel.protocol == "synthetic"
    point = panel.figure.data[1]
    assert (point.x[0], point.y[0]) == (metrics["recall"], metrics["precision"])
    assert 0 < metrics["precision"] < 1 and 0 < metrics["recall"] < 1


def test_each_section_says_its_protocol_once(mixed: Run) -> None:
    made = report(mixed.path, 0)
    sections = page.html(made).split("<script>")[0].split("<section")[1:]
    shown = {part.split("<h2>")[1].split("</h2>")[0]: part for part in sections}
    assert all(f"<th>{name.replace('_', ' ')}</th>" in shown["Numbers"] for name in made.metrics)
    said = {"Numbers": made.protocol} | {panel.title: panel.protocol for panel in made.panels}
    for title, protocol in said.items():
        assert shown[title].count("Protocol: ") == 1 == shown[title].count(protocol), title


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 3000))
def test_thinning_keeps_order_and_ends(count: int, most: int) -> None:
    kept = thinned(count, most)
    assert len(kept) == min(count, most)
    assert (np.diff(kept) > 0).all()
    if count and most > 1:
        assert kept[0] == 0 and kept[-1] == count - 1


def test_pictures_go_to_what_is_worth_a_look_first(mixed: Run) -> None:
    rows = {each.name: set(each.rows.tolist()) for each in loops.classes(mixed)}
    chosen = pictures.choose(mixed, 8)
    assert len(chosen) == 8 == len(set(chosen.tolist()))
    assert all(set(chosen.tolist()) & kind for kind in rows.values() if kind)
    assert len(pictures.choose(mixed, 0)) == 0
    assert len(pictures.choose(mixed, 10_000)) <= sum(map(len, rows.values()))


def test_a_run_without_truth_or_odometry_says_so(tmp_path: Path) -> None:
    poses = laps(1)[:10]
    recorder = record(poses, None, {}, truth=False)
    run = write(recorder, tmp_path / "run", configuration=CONFIGURATION, calibration=None)
    made = report(run.path, 5)
    notes = {panel.name: panel.note for panel in made.panels if panel.figure is None}
    assert "neither true poses nor odometry" in notes["trajectory"]
    assert all("no true poses" in notes[name] for name in ("precision_recall", "recall_at_n", "reliability"))
    assert "no true poses" in page.html(made)


def test_text_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    poses = laps(2)
    run = write(
        record(poses, poses, {100: [loop(20, 100, poses, np.random.default_rng(0))]}),
        tmp_path / "run",
        source="</script><b>bag</b>",
        configuration=CONFIGURATION,
        calibration=None,
    )
    text = page.html(report(run.path, 0))
    assert "<b>bag" not in text and "&lt;b&gt;bag" in text


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda folder: None, "no such run"),
        (lambda folder: folder.mkdir(), "run.json is missing"),
        (lambda folder: old(folder), "a run of an older version"),
        (lambda folder: empty(folder), "without keyframes"),
        (lambda folder: half(folder), "an evaluation without metrics.json"),
    ],
)
def test_bad_input_is_one_sentence(spoil: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(tmp_path / "run")
    assert cli.main(["report", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error and "Traceback" not in error
    assert not (tmp_path / "run" / "report.html").exists()


def old(folder: Path) -> None:
    mixed_run(folder)
    about = folder / "run.json"
    about.write_text(about.read_text().replace('"version": 1', '"version": 0'))


def empty(folder: Path) -> None:
    mixed_run(folder)
    table = folder / "keyframes.csv"
    table.write_text(table.read_text().splitlines()[0] + "\n")


def half(folder: Path) -> None:
    folder.mkdir()
    (folder / "configuration.json").write_text("{}")


def test_fewer_than_no_pictures_are_refused(mixed: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(mixed.path), "--pictures", "-1"]) == 2
    assert "--pictures must be 0 or more, not -1" in capsys.readouterr().err
