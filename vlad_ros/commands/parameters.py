# SPDX-License-Identifier: Apache-2.0
"""`vlad parameters`: the table of a node's parameters, made from the configurations."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Table or file."""
    parser.add_argument("--graph", action="store_true", help="those of vlad_graph instead of vlad")
    parser.add_argument("--yaml", action="store_true", help="print a parameter file with every default instead")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    from vlad_ros.parameter_table import GRAPH, PLACE, markdown, yaml_text

    kinds = GRAPH if args.graph else PLACE
    print(yaml_text(kinds) if args.yaml else markdown(kinds), end="")
    return 0
