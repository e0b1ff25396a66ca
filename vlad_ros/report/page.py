# SPDX-License-Identifier: Apache-2.0
"""The page itself: one HTML file with everything in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import plotly.io
from plotly.offline import get_plotlyjs

from vlad_ros import __version__
from vlad_ros.atomic import replacing
from vlad_ros.report.panel import Panel

HERE = Path(__file__).parent


@dataclass(frozen=True, eq=False)
class Page:
    """`facts`: closures by row as [heading, verdict]; `pictures` of some of them by row, as data URIs; `command`, with
    ROW in it, draws the others."""

    title: str
    protocol: str
    about: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    configuration: dict[str, Any]
    panels: list[Panel]
    facts: dict[int, list[str]] = field(default_factory=dict)
    pictures: dict[int, str] = field(default_factory=dict)
    command: str = ""


def html(page: Page) -> str:
    """The whole file."""
    figures = {p.name: json.loads(plotly.io.to_json(p.figure)) for p in page.panels if p.figure is not None}
    data = {"figures": figures, "facts": page.facts, "pictures": page.pictures, "command": page.command}
    return "\n".join([
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(page.title)}</title>",
        f"<style>{(HERE / 'page.css').read_text()}</style></head><body>",
        f"<header><h1>{escape(page.title)}</h1></header>",
        f"<main>{_numbers(page)}{''.join(map(_section, page.panels))}{_explained(page)}{_configuration(page)}</main>",
        "<dialog id='closure'><form method='dialog'><button>Close</button></form>",
        "<h2></h2><p></p><img alt=''></dialog>",
        f"<footer>vlad {__version__}</footer>",
        f"<script>{get_plotlyjs()}</script>",
        f"<script type='application/json' id='data'>{_inert(data)}</script>",
        f"<script>{(HERE / 'page.js').read_text()}</script>",
        "</body></html>\n",
    ])  # fmt: skip


def _inert(data: dict[str, Any]) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(data).replace("<", "\\u003c")


def write(page: Page, path: Path) -> None:
    """Write the file atomically; makes its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(html(page), encoding="utf-8")


def _numbers(page: Page) -> str:
    rows = [
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{_value(each['value'])}</td>"
        f"<td>{escape(each['unit'])}</td></tr>"
        for name, each in page.metrics.items()
    ]
    head = "<tr><th>number</th><th>value</th><th>unit</th></tr>"
    return _table("Numbers", [head, *rows], "table", _protocol(page.protocol))


def _protocol(protocol: str) -> str:
    return f"<p class='protocol'>Protocol: {escape(protocol)}</p>"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return " .. ".join(map(_value, value))
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def _section(panel: Panel) -> str:
    body = f"<div class='figure' id='{panel.name}'></div>" if panel.figure is not None else ""
    note = f"<p class='note'>{escape(panel.note)}</p>" if panel.note else ""
    wide = " class='wide'" if panel.wide else ""
    return f"<section{wide}><h2>{escape(panel.title)}</h2>{body}{note}{_protocol(panel.protocol)}</section>"


def _explained(page: Page) -> str:
    if not page.pictures:
        return ""
    buttons = [
        f"<button data-row='{row}'>closure {row}: {escape(page.facts[row][1])}</button>" for row in page.pictures
    ]
    said = f"{len(page.pictures):,} closures have their picture in this file. To draw another: {page.command}"
    return (
        f"<section class='wide'><h2>Closures explained</h2><p class='note'>{escape(said)}</p>"
        f"<div class='buttons'>{''.join(buttons)}</div></section>"
    )


def _configuration(page: Page) -> str:
    settings = _flat(page.about) + _flat(page.configuration)
    rows = [f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in settings]
    return _table("Configuration", rows, "scroll")


def _table(title: str, rows: list[str], kind: str, below: str = "") -> str:
    table = f"<div class='{kind}'><table>{''.join(rows)}</table></div>"
    return f"<section class='wide'><h2>{title}</h2>{table}{below}</section>"


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as name.name, value."""
    flat: list[tuple[str, Any]] = []
    for name, value in values.items():
        inner = isinstance(value, dict)
        flat += _flat(value, f"{prefix}{name}.") if inner else [(f"{prefix}{name}", value)]
    return flat
