# SPDX-License-Identifier: Apache-2.0
"""Stages add up to the whole, whatever calls whatever. The clock is moved by hand."""

from __future__ import annotations

import threading

import pytest

from vlad_ros import stopwatch
from vlad_ros.stopwatch import Ledger, stage


class Clock:
    """In place of `time`."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, milliseconds: float) -> None:
        self.now += milliseconds / 1e3


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", clock)
    return clock


def test_the_time_of_an_inner_stage_is_not_the_outer_one_s(clock: Clock) -> None:
    @stage("inner")
    def inner() -> None:
        clock.work(2)

    @stage("outer")
    def outer() -> str:
        clock.work(10)
        inner()
        clock.work(1)
        inner()
        return "done"

    with Ledger() as ledger:
        clock.work(5)
        assert outer() == "done"
        inner()
    assert ledger.milliseconds == pytest.approx({"outer": 11, "inner": 6})
    assert (ledger.whole, ledger.rest) == pytest.approx((22, 5))


def test_a_ledger_inside_another_takes_nothing_from_it(clock: Clock) -> None:
    outer, within = Ledger(), Ledger()

    @stage("part")
    def part(milliseconds: float) -> None:
        clock.work(milliseconds)

    @stage("all")
    def whole() -> None:
        part(1)
        with within:
            part(2)
            clock.work(4)

    with outer:
        whole()
    assert outer.milliseconds == pytest.approx({"part": 3, "all": 4}) and outer.rest == pytest.approx(0)
    assert within.milliseconds == pytest.approx({"part": 2}) and within.rest == pytest.approx(4)


def test_an_error_is_counted_and_goes_on(clock: Clock) -> None:
    @stage("failing")
    def failing() -> None:
        clock.work(3)
        raise ValueError("no")

    ledger = Ledger()
    with pytest.raises(ValueError, match="no"), ledger:
        failing()
    assert ledger.milliseconds == pytest.approx({"failing": 3}) and ledger.rest == pytest.approx(0)
    clock.work(1)
    assert ledger.whole == pytest.approx(3)


def test_other_threads_are_not_measured(clock: Clock) -> None:
    @stage("work")
    def work() -> None:
        clock.work(7)

    with Ledger() as ledger:
        other = threading.Thread(target=work)
        other.start()
        other.join()
    assert not ledger.milliseconds
