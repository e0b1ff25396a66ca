# SPDX-License-Identifier: Apache-2.0
"""The page of a run, of a long one and of an evaluation, in a real browser."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, open_page
from circuit import circuit
from synthetic_run import mixed_run
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.files.sequence import save_sequence
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.report import loop_figures as loops
from vlad_ros.report import page
from vlad_ros.report.make import report
from vlad_ros.runs.tables import read_run

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_the_matrix_holds_the_similarities(played: Path) -> None:
    run = read_run(played / "run")
    database = KeyframeDatabase.open(run.map_path)
    figure = loops.matrix(run, database).figure
    assert figure is not None
    rows = [database.whole(k).descriptor for k in range(len(run.keyframes))]
    expected = [[float(a @ b) for b in rows] for a in rows]
    np.testing.assert_allclose(figure.data[0].z, expected, atol=1e-3)


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
    protocols = [panel.protocol for panel in made.panels]
    assert text.count(run.about["protocol"]) == 1 + protocols.count(run.about["protocol"])  # once per section
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
