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

from vlad_ros.stamps import SECOND
from vlad_ros.types import RejectReason

GOOD, BAD, DIM = "bright_blue", "dark_orange", "dim"  # always shown with words, for colour-blind users
SILENCE = 3.0  # s without a message from the node
CALENDAR = 10**18  # ns; stamps from here on (2001) are wall time, smaller ones have their own epoch
FRAME, LEAST = 18, 4  # lines left to all the rest; loops shown on the smallest screen
RATES = "clouds a second of stamp time, received / expected"


@dataclass(frozen=True)
class LoopRow:
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
class WatchView:
    """What is known of a node: its newest diagnostics and loops, newest first; `silent` [s] since its last message."""

    node: str
    values: Mapping[str, str]
    message: str
    warns: bool
    loops: Sequence[LoopRow]
    silent: float


def screen(view: WatchView, loops: int = 10, height: int = 1000) -> RenderableType:
    """The whole screen with up to `loops` loops, fewer if `height` lines are not enough."""
    if not view.values:
        return Panel(Text(f"no word from {view.node} yet: is it running? (ros2 node list)"), title=view.node, style=BAD)
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_row(_state(view.values), _latencies(view.values))
    loops = max(LEAST, min(loops, height - FRAME))
    # What a small screen cuts off comes last.
    parts: list[RenderableType] = [_headline(view), "", _loops(view.loops[:loops]), _refusal(view.loops), "", grid]
    title = Text(f"{view.node}  {view.values.get('state', '?')}", style="bold")
    return Panel(Group(*parts), title=title, border_style=DIM)


def _headline(view: WatchView) -> Text:
    if view.silent > SILENCE:
        return Text(f"! no word from the node for {view.silent:.0f} s: has it ended?", style=BAD)
    return Text(f"! {view.message}" if view.warns else view.message, style=BAD if view.warns else GOOD)


def _state(values: Mapping[str, str]) -> Table:
    """Rate and database, results of the candidates, and what was dropped and why."""
    table = _pairs()
    received, _, expected = values.get(RATES, "- / -").partition(" / ")
    _add(table, "clouds a second", f"{received} of {expected}")
    for key in ("clouds received", "scans waiting", "keyframes in the map", "session"):
        _add(table, key, values.get(key, "-"))
    for kind, heading in (("candidates ", "candidates"), ("count ", "counted")):
        found = [(key.removeprefix(kind), value) for key, value in values.items() if key.startswith(kind)]
        if found:
            table.add_row(Text(heading, style="bold"), "")
        for key, value in found:
            _add(table, key.replace("_", " "), value)
    return table


def _latencies(values: Mapping[str, str]) -> Table:
    """The stages, and the motion compensation."""
    table = _pairs()
    table.add_row(Text("latency", style="bold"), Text("p50 / p99 [ms]", style=DIM))
    for key, value in values.items():
        if key.startswith("latency "):
            _add(table, key.removeprefix("latency ").removesuffix(" p50 / p99 [ms]"), value)
    if values.get("deskew"):
        table.add_row(Text("deskewing", style="bold"), "")
        table.add_row(Text(values["deskew"], style=DIM), "")
    return table


def _pairs() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    return table


def _add(table: Table, key: str, value: str) -> None:
    # As text: brackets in a string would be read as markup.
    table.add_row(Text(key, style=DIM), Text(value))


def _loops(loops: Sequence[LoopRow]) -> Table:
    table = Table(expand=True, box=None, padding=(0, 1), header_style=DIM)
    for heading in ("keyframe", "looks like", "session", "away", "similar", "prob."):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", ratio=1, no_wrap=True, overflow="ellipsis")
    for loop in loops:
        if loop.match_stamp is None:
            table.add_row(clock(loop.query_stamp), "-", "", "", "", "", Text("no candidate", style=DIM))
            continue
        verdict = Text("+ accepted", style=GOOD) if loop.accepted else Text(f"- {_name(loop.reason)}", style=BAD)
        numbers = [_number(loop.away, 1, " m"), _number(loop.similarity, 3), _number(loop.probability, 3)]
        table.add_row(clock(loop.query_stamp), clock(loop.match_stamp), str(loop.match_session), *numbers, verdict)
    return table


def _refusal(loops: Sequence[LoopRow]) -> Text:
    """Why the newest refused candidate was refused."""
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


def _number(value: float, digits: int, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}{unit}"


def clock(stamp: int) -> str:
    """A stamp as time of day, or as seconds where it is not wall time (simulation)."""
    if stamp < CALENDAR:
        return f"{stamp / SECOND:.1f} s"
    return datetime.fromtimestamp(stamp / SECOND).strftime("%H:%M:%S.%f")[:-5]
