# SPDX-License-Identifier: Apache-2.0
"""Files in the order that their names count in: 0, 1, 2, 10, padded with zeros or not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path


def numbered(paths: Iterable[Path]) -> list[Path]:
    """`paths` sorted with the numbers in their names as numbers; hidden files (a copy's leftovers) are left out."""
    return sorted((path for path in paths if not path.name.startswith(".")), key=_parts)


def _parts(path: Path) -> list[tuple[int, str]]:
    """Text and numbers in turn; the text of a number tells 01 from 1."""
    pieces = re.split(r"([0-9]+)", path.name)
    return [(int(piece) if k % 2 else 0, piece) for k, piece in enumerate(pieces)]
