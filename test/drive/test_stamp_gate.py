# SPDX-License-Identifier: Apache-2.0
"""One wrong stamp costs one scan; pauses and clocks set back are told from it by the scan that comes next."""

from __future__ import annotations

import numpy as np
import pytest

from vlad_ros.drive.stamp_gate import StampGate
from vlad_ros.stamps import SECOND, nanoseconds


def judged(seconds: list[float]) -> list[tuple[float, str]]:
    """(stamp [s], verdict) in the order in which they are known."""
    gate: StampGate[float] = StampGate()
    return [(item, verdict) for s in seconds for item, verdict, _ in gate.judge(nanoseconds(s), s)]


def test_stamps_that_grow_and_those_that_do_not() -> None:
    verdicts = [verdict for _, verdict in judged([10, 11, 11, 10, 10.5, 11.5, 10.5])]
    assert verdicts == ["ok", "ok", "repeated_stamp", "late_stamp", "late_stamp", "ok", "late_stamp"]


def test_a_stamp_of_zero_may_come_first() -> None:
    assert [verdict for _, verdict in judged([0, 0, 1e-9])] == ["ok", "repeated_stamp", "ok"]


@pytest.mark.parametrize("off", [3600.0, 30.0, 5.0, 2.0, -2.0, -5.0, -30.0, -3600.0])
@pytest.mark.parametrize("rate", [5, 10, 20])
@pytest.mark.parametrize("lost", [0.0, 0.3])
def test_one_wrong_stamp_costs_one_scan(off: float, rate: int, lost: float) -> None:
    rng = np.random.default_rng(0)
    true = [s for s in 1e4 + np.arange(200) / rate if rng.random() >= lost]
    told = list(true)
    told[50] += off
    found = judged(told)
    assert found[50] == (told[50], "wrong_stamp")
    assert [item for item, verdict in found if verdict == "ok"] == true[:50] + true[51:]


@pytest.mark.parametrize("pause", [1.5, 5.0, 120.0, 7200.0])
def test_a_sensor_that_was_off_is_a_pause(pause: float) -> None:
    seconds = [*np.arange(0, 5, 0.1), *(5 + pause + np.arange(0, 5, 0.1))]
    verdicts = [verdict for _, verdict in judged(seconds)]
    assert verdicts == ["ok"] * 50 + ["pause"] + ["ok"] * 49


def test_how_long_a_pause_was_and_how_far_back_a_clock() -> None:
    gate: StampGate[None] = StampGate()
    gaps = {}
    for s in [*np.arange(100, 105, 0.1), 165.0, 165.1, 165.2, 20.0, 20.1]:
        gaps |= {verdict: gap for _, verdict, gap in gate.judge(nanoseconds(s), None) if gap}
    assert gaps["pause"] == pytest.approx(60 * SECOND, abs=SECOND // 100)
    assert gaps["session_opened"] == pytest.approx(-145.3 * SECOND, abs=SECOND // 100)


def test_a_clock_set_back_opens_a_session_and_loses_nothing() -> None:
    seconds = [*np.arange(1000, 1005, 0.1), *np.arange(3, 8, 0.1)]
    assert [verdict for _, verdict in judged(seconds)] == ["ok"] * 50 + ["session_opened"] + ["ok"] * 49


def test_a_clock_set_back_for_a_slower_sensor_costs_one_scan() -> None:
    verdicts = [verdict for _, verdict in judged([*np.arange(100, 105, 0.1), 10.0, 12.0, 14.0, 16.0])]
    assert verdicts == ["ok"] * 50 + ["wrong_stamp", "session_opened", "ok", "ok"]


@pytest.mark.parametrize("period", [0.02, 0.1, 1.0, 2.0, 10.0])
def test_a_slow_sensor_is_none_that_pauses(period: float) -> None:
    """The second scan of a sensor slower than 1 Hz waits for the third; no scan is dropped."""
    verdicts = [verdict for _, verdict in judged(list(5 + period * np.arange(50)))]
    assert verdicts.count("ok") >= 49 and len(verdicts) == 50


def test_a_rate_that_changes_loses_nothing() -> None:
    seconds = [*np.arange(0, 10, 0.1), *np.arange(12, 60, 2.0), *np.arange(60, 65, 0.05)]
    assert {verdict for _, verdict in judged(seconds)} <= {"ok", "pause"}
    assert len(judged(seconds)) == len(seconds)


def test_jitter_and_bursts_are_no_news() -> None:
    rng = np.random.default_rng(1)
    seconds = np.sort(np.arange(0, 60, 0.1) + rng.uniform(-0.04, 0.04, 600))
    assert {verdict for _, verdict in judged(seconds.tolist())} == {"ok"}


@pytest.mark.parametrize(("stamp", "verdict"), [(100 * SECOND, "pause"), (3 * SECOND, "session_opened")])
def test_what_nobody_contradicts_is_believed(stamp: int, verdict: str) -> None:
    gate: StampGate[str] = StampGate()
    gate.judge(10 * SECOND, "a"), gate.judge(11 * SECOND, "b")
    assert gate.judge(stamp, "c") == []
    assert [one[:2] for one in gate.believe()] == [("c", verdict)] and gate.believe() == []
    assert [one[:2] for one in gate.judge(stamp + SECOND, "d")] == [("d", "ok")]
