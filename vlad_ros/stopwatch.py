# SPDX-License-Identifier: Apache-2.0
"""Wall time of named stages.

A stage is a function under `@stage(name)`. The time of the stages that it calls is theirs, not its own, so that what a
`Ledger` collects adds up: the stages and `rest`, the time in none of them, are the whole. Without a ledger nothing is
measured.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Ledger:
    """While entered: the time [ms] of the stages that its thread goes through, `milliseconds` by stage. `whole` [ms]:
    from entering to leaving. Ledgers may be nested; the outer one collects all."""

    def __init__(self) -> None:
        self.milliseconds: defaultdict[str, float] = defaultdict(float)
        self.whole = 0.0
        self._began = 0.0

    def __enter__(self) -> Ledger:
        _here.ledgers.append(self)
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.whole += 1e3 * (time.perf_counter() - self._began)
        _here.ledgers.remove(self)

    @property
    def rest(self) -> float:
        """The time [ms] in no stage."""
        return self.whole - sum(self.milliseconds.values())


class _Thread(threading.local):
    """The ledgers that this thread has entered, and for each stage that it is in the time [ms] of those inside."""

    def __init__(self) -> None:
        self.ledgers: list[Ledger] = []
        self.inside: list[float] = []


_here = _Thread()


def stage(name: str) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Count the function's own time to the stage `name`."""

    def counted(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def timed(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            if not _here.ledgers:
                return function(*args, **kwargs)
            began = time.perf_counter()
            _here.inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                spent = 1e3 * (time.perf_counter() - began)
                own = spent - _here.inside.pop()
                if _here.inside:
                    _here.inside[-1] += spent
                for ledger in _here.ledgers:
                    ledger.milliseconds[name] += own

        return timed

    return counted
