# SPDX-License-Identifier: Apache-2.0
"""Files and folders are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` at the end, or is removed where writing has failed.

    A symbolic link stays one (its target is replaced), and an existing file's mode stays. With `durable` the file
    outlives a power cut from here on. OSError as writing raises it.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(target, temporary)
        if durable:
            sync(temporary)
        os.replace(temporary, target)
        if durable:
            sync(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def withdrawing(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Where the block fails or is interrupted, `folder` and its parents are gone again, as far as they were not there
    before; a folder that was there stays as it is."""
    new = [path for path in (Path(folder), *Path(folder).parents) if not os.path.lexists(path)]
    try:
        yield
    except BaseException:
        if new:
            shutil.rmtree(new[0], ignore_errors=True)
        for parent in new[1:]:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
