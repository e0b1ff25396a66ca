# SPDX-License-Identifier: Apache-2.0
"""`vlad parameters`: the table of the node's parameters, made from the configurations."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Table or file."""
    parser.add_argument("--yaml", action="store_true", help="print a parameter file with every default instead")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from vlad_ros.parameter_table import markdown, yaml_text

    print(yaml_text() if args.yaml else markdown(), end="")
    return 0
