# SPDX-License-Identifier: Apache-2.0
"""Gaps in a publisher's numbers: what never came is counted, a new or a second publisher is none."""

from __future__ import annotations

from vlad_ros.ros.inputs.gaps import Gaps


def missing(gaps: Gaps, *numbers: int | None) -> list[int]:
    return [gaps.before({"publication_sequence_number": number}) for number in numbers]


def test_gaps() -> None:
    gaps = Gaps()
    assert missing(gaps, 7, 9) == [0, 0], "nobody knows yet who publishes"
    gaps.look(1)
    assert missing(gaps, 20, 21, 25, 26) == [0, 0, 3, 0], "what came before is not missed"
    gaps.look(1)
    assert missing(gaps, 30, 1, 2, 2, 5) == [3, 0, 0, 0, 2], "the publisher was started again"
    gaps.look(2)
    assert missing(gaps, 100, 6, 120, 7) == [0] * 4, "two cannot be told apart"
    gaps.look(1)
    assert missing(gaps, 130, 132) == [0, 1]


def test_a_middleware_that_numbers_nothing() -> None:
    gaps = Gaps()
    gaps.look(1)
    assert missing(gaps, None, None, 5, None) == [0] * 4 and gaps.before({}) == 0
