# SPDX-License-Identifier: Apache-2.0
"""Write files and folders atomically: completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` at the end, or is removed if writing fails.

    A symbolic link stays one (its target is replaced), and an existing file's mode stays. With `durable` the file
    then survives a power cut. OSError if writing raises it.
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
    """If the block fails or is interrupted, remove `folder` and those of its parents that did not exist before; an
    existing folder stays as it is."""
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
    """Make a file's content, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
