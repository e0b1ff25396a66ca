# SPDX-License-Identifier: Apache-2.0
"""The report: its numbers against explicit loops, what is drawn against the run, and the page in a real browser."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, open_page
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import laps, loop, record, unverified, write
from test_run import circuit
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.database import KeyframeDatabase
from vlad_ros.geometry import inverse
from vlad_ros.report import curves, loops, page, pictures
from vlad_ros.report.make import report
from vlad_ros.report.panel import thinned
from vlad_ros.run import Run, read_run
from vlad_ros.sequence import save_sequence
from vlad_ros.types import RejectReason

CONFIGURATION: dict[str, Any] = {
    "recognizer": {"min_probability": 0.9, "top_k": 3},
    "judge": {"radius": 5.0},
}


def mixed_run(folder: Path, keyframes: int = 80) -> Run:
    """Two laps: of the second lap's keyframes some have a right edge, some a wrong or refused one, some none."""
    poses, rng = laps(2, keyframes), np.random.default_rng(0)
    model, nothing = loop(0, 1, poses, rng), unverified(0, 1, poses, rng)
    closures = {}
    for j in range(keyframes, 2 * keyframes):
        i, other = j - keyframes, (j + keyframes // 2) % keyframes
        ends = {"query_id": j, "match_id": i, "T_match_query": inverse(poses[i]) @ poses[j], "similarity": 0.7}
        right = dataclasses.replace(model, **ends, probability=float(rng.uniform(0.9, 1.0)))
        wrong = dataclasses.replace(right, match_id=other, similarity=0.9, probability=float(rng.uniform(0.5, 1.0)))
        refused = {"accepted": False, "reject_reason": RejectReason.LOW_OVERLAP}
        kinds = [
            [right, dataclasses.replace(nothing, query_id=j, match_id=other)],
            [wrong, dataclasses.replace(right, **refused, probability=0.4)],
            [dataclasses.replace(right, **refused, probability=float(rng.uniform(0, 0.9)))],
            [],
        ]
        closures[j] = kinds[int(rng.integers(4))]
    return write(record(poses, poses, closures), folder, configuration=CONFIGURATION, calibration=None)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mixed_run(tmp_path_factory.mktemp("mixed") / "run")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was played, its map with points; the report of it lies beside."""
    folder, sequence = tmp_path_factory.mktemp("played"), circuit()
    save_sequence(folder / "circuit.npz", sequence)
    save_untrained(folder / "w.safetensors", sequence.scans[:6], 0.5)
    words = ["run", str(folder / "circuit.npz"), "-o", str(folder / "run"), "--weights", str(folder / "w.safetensors")]
    assert cli.main([*words, "--device", "cpu", "--top-k", "3"]) == 0
    assert cli.main(["report", str(folder / "run"), "-o", str(folder / "report.html"), "--pictures", "3"]) == 0
    return folder


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Any]:
    """A real browser; skips, with the reason, where there is none."""
    try:
        with chromium(tmp_path / "profile") as browser:
            yield browser
    except LookupError as error:
        pytest.skip(str(error))


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
    np.testing.assert_allclose(np.stack([traces["way"].x, traces["way"].y], axis=1), xy)
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


def test_the_matrix_holds_the_similarities(played: Path) -> None:
    run = read_run(played / "run")
    database = KeyframeDatabase.open(run.map_path)
    figure = loops.matrix(run, database).figure
    assert figure is not None
    rows = [database.whole(k).descriptor for k in range(len(run.keyframes))]
    expected = [[float(a @ b) for b in rows] for a in rows]
    np.testing.assert_allclose(figure.data[0].z, expected, atol=1e-3)


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


def test_a_real_browser_draws_everything_and_explains_a_click(played: Path, driver: Any) -> None:
    """Every figure, no word on the console, nothing fetched; a click on an edge shows its picture."""
    run = read_run(played / "run")
    made = report(played / "run", 3)
    figures = [panel.name for panel in made.panels if panel.figure is not None]
    assert len(figures) == 7 and len(made.pictures) == 3
    assert open_page(driver, played / "report.html") == len(figures)
    for name in figures:
        marks = "path.js-line, path.point, .barlayer path, image"
        count = f"return document.querySelectorAll('#{name} .cartesianlayer :is({marks})').length"
        assert driver.execute_script(count) > 0, name
    text = driver.find_element("tag name", "body").text
    assert text.count(run.about["protocol"]) > len(made.metrics) + 3  # beside each number, below each figure
    assert "recognizer.min_probability" in text
    click(driver, next(iter(made.pictures)))
    shown = driver.execute_script(
        "const i = document.querySelector('dialog[open] img'); return [i.hidden, i.naturalWidth]"
    )
    assert shown[0] is False and shown[1] > 500
    other = next(row for row in loops.drawn_rows(run).tolist() if row not in made.pictures)
    open_page(driver, played / "report.html", f"#closure-{other}")
    said = driver.execute_script("return document.querySelector('dialog[open]').innerText")
    assert f"closure {other}:" in said and re.search(rf"vlad plot closure \S+ {other}", said)
    assert driver.get_log("browser") == []
    fetched = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in fetched if not name.startswith(("data:", "blob:"))] == []


def click(driver: Any, row: int) -> None:
    """A click of the mouse on the marker of a closure."""
    from selenium.webdriver import ActionChains

    x, y = driver.execute_script(
        """const plot = document.getElementById("trajectory");
        plot.scrollIntoView({block: "center"});
        for (const points of plot.calcdata) {
          const rows = Array.from(points[0].trace.customdata ?? []), at = rows.indexOf(arguments[0]);
          if (at < 0) continue;
          const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
          const x = xaxis._offset + xaxis.c2p(points[at].x), y = yaxis._offset + yaxis.c2p(points[at].y);
          return [box.left + x, box.top + y];
        }""",
        row,
    )
    actions = ActionChains(driver)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    actions.pause(0.5).click().pause(0.5).perform()


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> page.Page:
    """The page about a run of 10,000 keyframes."""
    return report(mixed_run(tmp_path_factory.mktemp("long") / "run", 5000).path, 5)


def test_ten_thousand_keyframes_are_thinned(long: page.Page) -> None:
    """The page says what it leaves out."""
    notes = {panel.name: panel.note for panel in long.panels}
    assert "2,000 of 10,000 keyframes are drawn" in notes["trajectory"]
    assert re.search(r"500 of \d,\d{3} loops \(accepted, right\) are drawn", notes["trajectory"])
    assert re.search(r"500 of \d{1,2},\d{3} seconds are drawn", notes["health"])
    assert "not there or not readable" in notes["matrix"]
    for panel in long.panels:
        for trace in panel.figure.data if panel.figure is not None else ():
            assert len(trace.x) <= 2000, (panel.name, trace.name)


def test_ten_thousand_keyframes_are_opened(long: page.Page, driver: Any, tmp_path: Path) -> None:
    page.write(long, tmp_path / "report.html")
    assert open_page(driver, tmp_path / "report.html") == 6
    print(f"10,000 keyframes: open after {driver.execute_script('return performance.now()') / 1000:.1f} s")
    assert driver.get_log("browser") == []


@pytest.fixture(scope="module")
def measured(played: Path) -> Path:
    """An evaluation of the same drive, and its report."""
    words = ["evaluate", str(played / "circuit.npz"), "--weights", str(played / "w.safetensors"), "--gap", "10"]
    assert cli.main([*words, "--out", str(played / "evaluation")]) == 0
    assert cli.main(["report", str(played / "evaluation")]) == 0
    return played / "evaluation"


def test_an_evaluation_is_reported_too(measured: Path) -> None:
    made = report(measured, 0)
    metrics = {name: each["value"] for name, each in made.metrics.items()}
    figures = {panel.name: panel.figure for panel in made.panels}
    curve, best = figures["precision_recall"].data
    steps = np.diff(np.asarray(curve.x), prepend=0.0)
    assert float(steps @ np.asarray(curve.y)) == pytest.approx(metrics["AP"])
    assert 2 * best.x[0] * best.y[0] / (best.x[0] + best.y[0]) == pytest.approx(metrics["F1max"])
    assert figures["recall_at_n"].data[0].y[0] == pytest.approx(metrics["recall@1"])
    assert figures["recall_at_n"].data[0].y[9] == pytest.approx(metrics["recall@10"])
    with open(measured / "queries.csv") as file:
        asked = sum(row["match"] != "" for row in csv.DictReader(file))
    assert sum(sum(bar.y) for bar in figures["similarities"].data) == asked


def test_the_report_of_an_evaluation_is_drawn(measured: Path, driver: Any) -> None:
    assert open_page(driver, measured / "report.html") == 4
    assert driver.get_log("browser") == []


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
