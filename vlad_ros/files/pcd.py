# SPDX-License-Identifier: Apache-2.0
"""PCD files: a text header, and the points' columns as text or binary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

TYPES = {"I": "i", "U": "u", "F": "f"}
LONGEST = 65536  # bytes of a header


def read_header(path: Path) -> tuple[dict[str, list[str]], int]:
    """The header's lines by keyword, and where the data begin. ValueError where there is none."""
    with open(path, "rb") as file:
        content, begin = file.read(LONGEST), 0
    header: dict[str, list[str]] = {}
    while "DATA" not in header:
        end = content.find(b"\n", begin)
        if end < 0:
            raise ValueError(f"{path}: not a PCD file, its header has no line DATA")
        words = content[begin:end].decode("ascii", "replace").split()
        if words and words[0] != "#":
            header[words[0]] = words[1:]
        begin = end + 1
    return header, begin


def check_not_compressed(header: dict[str, list[str]]) -> None:
    """ValueError for the one kind of data that is not read."""
    if header["DATA"][0] not in ("ascii", "binary"):
        raise ValueError("compressed; convert it with pcl_convert_pcd_ascii_binary, or save it as binary")


def xyz_chunks(path: Path, size: int) -> Iterator[np.ndarray]:
    """x y z (N, 3) float64 of a file's points, `size` at a time. ValueError where it cannot be read."""
    header, begin = read_header(path)
    try:
        check_not_compressed(header)
        names, points = header["FIELDS"], int(header["POINTS"][0])
        counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
        at = [names.index(axis) for axis in "xyz"]
        if header["DATA"][0] == "ascii":
            columns = [sum(counts[:column]) for column in at]
            yield from _text(path, begin, points, columns, size)
            return
        kinds = [TYPES[kind] + width for kind, width in zip(header["TYPE"], header["SIZE"], strict=True)]
        row = np.dtype(
            [(f"{n}", f"<{kind}", (count,)) for n, (kind, count) in enumerate(zip(kinds, counts, strict=True))]
        )
        table = np.memmap(path, row, "r", begin, points)
    except (KeyError, ValueError, IndexError, TypeError, OSError) as error:
        raise ValueError(f"{path}: not a readable PCD file ({error})") from error
    for first in range(0, points, size):
        some = table[first : first + size]
        yield np.column_stack([some[str(column)][:, 0].astype(np.float64) for column in at])


def _text(path: Path, begin: int, points: int, columns: list[int], size: int) -> Iterator[np.ndarray]:
    with open(path, "rb") as file:
        file.seek(begin)
        for first in range(0, points, size):
            count = min(size, points - first)
            rows = np.loadtxt(file, np.float64, usecols=columns, max_rows=count, ndmin=2)
            if len(rows) < count:
                raise ValueError(f"{points} points are told, {first + len(rows)} are there")
            yield rows
