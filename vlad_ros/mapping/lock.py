# SPDX-License-Identifier: Apache-2.0
"""Who may add to a map: one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType


class MapError(ValueError):
    """A map cannot be used; the message is a sentence for the user."""


class MapLock:
    """Holds a map for one process with ``flock`` on ``<path>.lock``, until `release` or the end of the process.

    MapError names the path when another process (or another lock of this one) holds it. The holder is the only one
    who writes, so it also removes what a killed one has left.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.realpath(path))  # the same lock for every path to one map
        lock_path = self.path.with_name(self.path.name + ".lock")
        try:
            self._file = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise MapError(f"the map {self.path} cannot be locked: {error.strerror} ({lock_path})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise MapError(f"the map {self.path} is in use by another node") from error
        for left_over in self.path.parent.glob(f"{self.path.name}.*.tmp*"):
            with contextlib.suppress(OSError):
                left_over.unlink()

    def release(self) -> None:
        """Release the map. The lock file stays: removing it would race with the next holder."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> MapLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
