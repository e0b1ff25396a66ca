# SPDX-License-Identifier: Apache-2.0
"""The running node on a text screen, for people over ssh: what `vlad watch` draws. No ROS here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlad_ros.types import RejectReason

GOOD, BAD, DIM = "bright_blue", "dark_orange", "dim"  # with words beside them, for eyes that do not tell them apart
SILENCE = 3.0  # s without a word from the node
CALENDAR = 10**18  # ns; stamps from here on (2001) are wall time, the others somebody's own seconds
STAGES = 8  # shown at most
RATES = "clouds a second of stamp time, received / expected"


@dataclass(frozen=True)
class Loop:
    """A keyframe's best candidate; `match_stamp` None where it has none. Stamps in ns, `away` [m] from the body."""

    query_stamp: int
    match_stamp: int | None = None
    match_session: int = 0
    away: float = math.nan
    similarity: float = math.nan
    probability: float = math.nan
    accepted: bool = False
    reason: int = 0


@dataclass(frozen=True)
class View:
    """What is known of a node: its newest diagnostics and loops, newest first; `silent` [s] since it said anything."""

    node: str
    values: Mapping[str, str]
    message: str
    warns: bool
    loops: Sequence[Loop]
    silent: float


def screen(view: View, loops: int = 10) -> RenderableType:
    """The whole picture, with so many `loops`."""
    if not view.values:
        return Panel(f"no word from {view.node} yet: is it running? (ros2 node list)", title=view.node, style=BAD)
    values = view.values
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(_rates(values), _counts(values))
    parts: list[RenderableType] = [_headline(view), grid, _loops(view.loops[:loops]), _refusal(view.loops)]
    return Panel(Group(*parts), title=f"{view.node}  [b]{values.get('state', '?')}[/b]", border_style=DIM)


def _headline(view: View) -> Text:
    if view.silent > SILENCE:
        return Text(f"! no word from the node for {view.silent:.0f} s: has it ended?", style=BAD)
    return Text(f"! {view.message}" if view.warns else view.message, style=BAD if view.warns else GOOD)


def _rates(values: Mapping[str, str]) -> Table:
    """Rate, database and latencies."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM)
    table.add_column(justify="right")
    received, _, expected = values.get(RATES, "- / -").partition(" / ")
    table.add_row("clouds", f"{received} of {expected} a second")
    table.add_row("clouds received", values.get("clouds received", "0"))
    table.add_row("scans waiting", values.get("scans waiting", "0"))
    table.add_row("keyframes in the map", values.get("keyframes in the map", "0"))
    table.add_row("session", values.get("session", "-"))
    latencies = [(key, value) for key, value in values.items() if key.startswith("latency ")]
    if latencies:
        table.add_row("", Text("p50 / p99 [ms]", style=DIM))
    for key, value in latencies[-STAGES:]:
        table.add_row(key.removeprefix("latency ").removesuffix(" p50 / p99 [ms]"), value)
    return table


def _counts(values: Mapping[str, str]) -> Table:
    """What became of candidates, and what was dropped and why."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM)
    table.add_column(justify="right")
    found = {kind: [(key, value) for key, value in values.items() if key.startswith(kind)] for kind in KINDS}
    for kind, heading in KINDS.items():
        if found[kind]:
            table.add_row(Text(heading, style="bold"), "")
        for key, value in found[kind]:
            table.add_row(key.removeprefix(kind).replace("_", " "), value)
    if values.get("deskew"):
        table.add_row(Text("deskew", style="bold"), "")
        table.add_row(values["deskew"], "")
    return table


KINDS = {"candidates ": "candidates", "count ": "not used, or worth knowing"}


def _loops(loops: Sequence[Loop]) -> Table:
    table = Table(expand=True, box=None, padding=(0, 1), header_style=DIM)
    for heading in ("keyframe", "looks like", "session", "away [m]", "similarity", "probability"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", ratio=1, no_wrap=True, overflow="ellipsis")
    for loop in loops:
        if loop.match_stamp is None:
            table.add_row(clock(loop.query_stamp), "-", "", "", "", "", Text("no candidate", style=DIM))
            continue
        verdict = Text("+ accepted", style=GOOD) if loop.accepted else Text(f"- {_name(loop.reason)}", style=BAD)
        numbers = [_number(loop.away, 1), _number(loop.similarity, 3), _number(loop.probability, 3)]
        table.add_row(clock(loop.query_stamp), clock(loop.match_stamp), str(loop.match_session), *numbers, verdict)
    return table


def _refusal(loops: Sequence[Loop]) -> Text:
    """Why the newest candidate that was refused was."""
    refused = next((loop for loop in loops if loop.match_stamp is not None and not loop.accepted), None)
    if refused is None or refused.match_stamp is None:
        return Text("no loop has been refused", style=DIM)
    pair = f"{clock(refused.query_stamp)} with {clock(refused.match_stamp)}"
    return Text.assemble(("last refused: ", "bold"), f"{pair}: {_words(refused.reason)}")


def _name(reason: int) -> str:
    """A reason's short name; numbers of a newer node stay numbers."""
    return RejectReason(reason).name.lower().replace("_", " ") if reason in set(RejectReason) else f"reason {reason}"


def _words(reason: int) -> str:
    return (
        RejectReason(reason).words
        if reason in set(RejectReason)
        else f"reason {reason}, which this vlad is too old for"
    )


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def clock(stamp: int) -> str:
    """A stamp as time of day, or as seconds where no calendar is behind it (simulation)."""
    if stamp < CALENDAR:
        return f"{stamp / 1e9:.1f} s"
    return datetime.fromtimestamp(stamp / 1e9).strftime("%H:%M:%S.%f")[:-5]
