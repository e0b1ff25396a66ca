# SPDX-License-Identifier: Apache-2.0
"""Pictures that explain single closures, the most informative ones first, as data URIs for the page."""

from __future__ import annotations

import base64
import io

import numpy as np

from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.plots.closure import draw, explain
from vlad_ros.report.loop_figures import classes
from vlad_ros.report.panel import thinned
from vlad_ros.runs.tables import Run
from vlad_ros.types import Bar, Ints

DPI, QUALITY = 70, 80
WORTH = ("accepted, wrong", "missed: refused at a revisit", "refused", "accepted, right", "accepted")


def choose(run: Run, most: int) -> Ints:
    """Rows of at most `most` closures, spread over the drive: an equal share per class of `WORTH`, in that order; the
    last class gets what the others leave."""
    rows = {each.name: each.rows for each in classes(run)}
    kinds = [rows[name] for name in WORTH if name in rows and len(rows[name])]
    share = -(-most // max(1, len(kinds)))
    chosen: list[int] = []
    for number, kind in enumerate(kinds):
        room = (most - len(chosen)) if number == len(kinds) - 1 else min(share, most - len(chosen))
        chosen += kind[thinned(len(kind), room)].tolist() if room else []
    return np.unique(np.array(chosen, np.int64))


def render(run: Run, database: KeyframeDatabase, rows: Ints, bar: Bar) -> dict[int, str]:
    """The picture of each row as a data URI; rows whose keyframes have stored no points are left out."""
    pictures = {}
    for row in bar(rows.tolist()):
        try:
            explained = explain(run, row, database)
        except ValueError:
            continue
        buffer = io.BytesIO()
        draw(explained).savefig(buffer, format="webp", dpi=DPI, pil_kwargs={"quality": QUALITY})
        pictures[row] = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return pictures
