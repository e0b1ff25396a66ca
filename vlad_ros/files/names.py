# SPDX-License-Identifier: Apache-2.0
"""Files in the numeric order of their names: 0, 1, 2, 10, zero-padded or not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def numbered(paths: Iterable[Path]) -> list[Path]:
    """`paths` sorted with the numbers in their names as numbers; hidden files (left over from copying) are left out."""
    return sorted((path for path in paths if not path.name.startswith(".")), key=_parts)


def _parts(path: Path) -> list[tuple[int, str]]:
    """Sort key of alternating text and numbers; a number's text distinguishes 01 from 1."""
    pieces = re.split(r"([0-9]+)", path.name)
    return [(int(piece) if k % 2 else 0, piece) for k, piece in enumerate(pieces)]
