# SPDX-License-Identifier: Apache-2.0
"""A benchmark's table, one dict per row: print it, write it as CSV or Markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` with the columns of the first one; ValueError if another row has further columns."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, float]]:
    """The rows of an earlier run, of numbers alone."""
    with open(path, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def print_table(rows: Iterable[Mapping[str, float]], width: int, path: Path | None = None) -> None:
    """Print `rows` while they come, with four significant digits, in columns of `width` characters; at the end write
    them to the CSV file `path`, if there is one."""
    table: list[Mapping[str, float]] = []
    for row in rows:
        if not table:
            print(" ".join(f"{name:>{width}}" for name in row))
        print(" ".join(f"{value:{width}.4g}" for value in row.values()), flush=True)
        table.append(row)
    if path is not None:
        write_csv(path, table)


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """`rows` with the columns of the first one, as Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def stream(header: Sequence[str], rows: Iterable[Sequence[str]], path: Path | None) -> None:
    """Print `rows` as Markdown while they come; at the end write them to the CSV file `path`, if there is one."""
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    table = []
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
        table.append(row)
    if path is not None:
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([header, *table])
