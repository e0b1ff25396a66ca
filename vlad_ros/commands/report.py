# SPDX-License-Identifier: Apache-2.0
"""`vlad report RUN`: a run, or an evaluation, as one HTML file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, the file, and how many closures are explained in it."""
    parser.add_argument("run_folder", metavar="RUN", help="folder that vlad run or vlad evaluate --out has written")
    parser.add_argument("-o", "--output", metavar="FILE.html", help="the page (default: RUN/report.html)")
    parser.add_argument(
        "--pictures", type=int, default=24, metavar="N", help="closures to explain by a picture (default: 24)"
    )


def run(args: argparse.Namespace) -> int:
    """Read, draw and write."""
    from vlad_ros.report import page
    from vlad_ros.report.make import report

    if args.pictures < 0:
        raise ValueError(f"--pictures must be 0 or more, not {args.pictures}")
    folder = Path(args.run_folder)
    path = Path(args.output) if args.output else folder / "report.html"
    made = report(folder, args.pictures, _bar)
    page.write(made, path)
    figures = sum(panel.figure is not None for panel in made.panels)
    print(f"{path}: {figures} figures, {len(made.pictures)} closures explained, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _bar(rows: Iterable[int]) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(rows, desc="pictures", unit="picture", file=sys.stderr, disable=None)
