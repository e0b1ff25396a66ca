# SPDX-License-Identifier: Apache-2.0
"""From the folder of a run or an evaluation to its page."""

from __future__ import annotations

from pathlib import Path

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots.closure import heading, verdict
from vlad_ros.report import evaluation_figures as evaluation
from vlad_ros.report import pictures, run_figures
from vlad_ros.report.loop_figures import drawn_rows
from vlad_ros.report.page import Page
from vlad_ros.runs.tables import Run, read_run
from vlad_ros.types import Bar


def report(folder: Path, most: int, bar: Bar = iter) -> Page:
    """The page about a run, with the pictures of at most `most` closures, or about an evaluation.

    ValueError, one sentence, where the folder is neither, or is empty, damaged or of another version.
    """
    if (folder / "configuration.json").exists():
        return of_evaluation(evaluation.read_evaluation(folder))
    return of_run(read_run(folder), most, bar)


def of_evaluation(measured: evaluation.Evaluation) -> Page:
    """The page about an evaluation."""
    about = {name: value for name, value in measured.about.items() if name not in ("configuration", "protocol")}
    title = f"Evaluation: {measured.about['sequence']}, {measured.about['descriptor']}"
    configuration, panels = measured.about["configuration"], evaluation.panels(measured)
    return Page(title, measured.about["protocol"], about, measured.metrics, configuration, panels)


def of_run(run: Run, most: int, bar: Bar = iter) -> Page:
    """The page about a run."""
    database = _open(run)
    rows = pictures.choose(run, most)
    about = run.about
    facts = ("source", "commit", "seed", "weights_sha256", "version")
    return Page(
        title=f"Run: {about['source']}",
        protocol=about["protocol"],
        about={name: about.get(name) for name in facts},
        metrics=about["metrics"],
        configuration=about["configuration"],
        panels=run_figures.panels(run, database),
        facts={int(row): [heading(run, int(row)), verdict(run, int(row))] for row in drawn_rows(run)},
        pictures={} if database is None else pictures.render(run, database, rows, bar),
        command=f"vlad plot closure {run.path} ROW",
    )


def _open(run: Run) -> KeyframeDatabase | None:
    """The run's own map; None where it is gone or not readable, which the page then says."""
    try:
        return KeyframeDatabase.open(run.map_path)
    except (ValueError, OSError):
        return None
