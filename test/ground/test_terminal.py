# SPDX-License-Identifier: Apache-2.0
"""The text screen of `vlad watch`: what it shows of what a node has said."""

from __future__ import annotations

import os
from typing import Any

import pytest
from rich.console import Console

from vlad_ros.stamps import SECOND
from vlad_ros.terminal import RATES, LoopRow, WatchView, clock, screen
from vlad_ros.types import RejectReason

START = 1_700_000_000 * SECOND


def view(loops: list[LoopRow], **changes: Any) -> WatchView:
    """A node that has said something."""
    values = {
        "state": "active",
        RATES: "9.9 / 10.0",
        "clouds received": "1840",
        "keyframes in the map": "417",
        "candidates rejected, ambiguous": "12",
        "count no_odometry": "2",
        "latency verify p50 / p99 [ms]": "31.5 / 48.0",
        "deskew": "on, points 0 .. 99 ms from the stamp",
    }
    known = dict(node="/vlad", values=values, message="active, [417] keyframes", warns=False, loops=loops, silent=0.1)
    return WatchView(**(known | changes))


def drawn(shown: WatchView, width: int = 100, height: int = 1000) -> str:
    """The picture as text."""
    console = Console(width=width, color_system=None, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(screen(shown, 10, height))
    return console.export_text()


ACCEPTED = LoopRow(START, START - 60 * SECOND, 3, 1.25, 0.912, 0.987, True)
REFUSED = LoopRow(START - SECOND, START - 90 * SECOND, 0, 7.5, 0.71, 0.204, False, RejectReason.AMBIGUOUS)


def test_the_screen_shows_rate_latency_map_and_loops() -> None:
    text = drawn(view([ACCEPTED, REFUSED, LoopRow(START - 2 * SECOND)]))
    for words in ("/vlad  active", "9.9 of 10.0", "417", "31.5 / 48.0", "no odometry", "0 .. 99 ms", "[417] keyframes"):
        assert words in text
    accepted = next(line for line in text.splitlines() if "+ accepted" in line)
    assert [word in accepted for word in (clock(START), "1.2 m", "0.912", "0.987")] == [True] * 4
    assert "- ambiguous" in text and "no candidate" in text
    (why,) = (line for line in text.splitlines() if "last refused" in line)
    assert RejectReason.AMBIGUOUS.words in why and clock(REFUSED.query_stamp) in why


def test_trouble_silence_and_strangers_are_said() -> None:
    assert "is it running" in drawn(view([], values={}))
    assert "! lost clouds" in drawn(view([], message="lost clouds", warns=True))
    assert "no word from the node for 12 s" in drawn(view([], silent=12.0))
    assert "no loop has been refused" in drawn(view([ACCEPTED]))
    assert "reason 200" in drawn(view([LoopRow(START, START, 0, reason=200)]))  # of a newer node
    assert clock(12_340_000_000) == "12.3 s"


@pytest.mark.parametrize("reason", list(RejectReason))
def test_every_reason_has_words(reason: RejectReason) -> None:
    assert len(reason.words) > 5 and "\n" not in reason.words


def test_a_small_screen_keeps_what_matters() -> None:
    lines = drawn(view([REFUSED] * 50), width=80, height=24).splitlines()
    assert all(len(line) <= 80 for line in lines)
    first = "\n".join(lines[:20])
    assert "last refused" in first and "clouds a second" in first
