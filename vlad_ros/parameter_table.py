# SPDX-License-Identifier: Apache-2.0
"""The node's parameters as the table in docs/parameters.md and as `config/vlad.yaml`, made from the dataclasses.

`python -m vlad_ros.parameter_table` prints the table in Markdown, with `--yaml` the file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.graph_config import GraphNodeConfig, PoseGraphConfig

Field = dataclasses.Field[Any]
Kinds = tuple[type, ...]
PLACE: Kinds = (NodeConfig, RecognizerConfig)  # of the node `vlad`
GRAPH: Kinds = (GraphNodeConfig, PoseGraphConfig)  # of the node `vlad_graph`


def parameter_fields(kinds: Kinds = PLACE) -> list[Field]:
    """Every ROS parameter of a node, in the order of the documentation."""
    return [field for kind in kinds for field in dataclasses.fields(kind)]


def limits(field: Field) -> str:
    """The allowed values, human-readable: "0.0 .. 50.0 m" or "own, all, topic"."""
    metadata = field.metadata
    if metadata["choices"]:
        return ", ".join(metadata["choices"])
    low, high = metadata["low"], metadata["high"]
    if low is None and high is None:
        return str(metadata["unit"])
    low, high = ("" if bound is None else f"{bound:g}" for bound in (low, high))
    return f"{low} .. {high} {metadata['unit']}".strip()


def value_text(value: Any) -> str:
    """A default in YAML form; a tuple as a list."""
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def markdown(kinds: Kinds = PLACE) -> str:
    """The table in docs/parameters.md, or docs/slam.md."""
    lines = ["| parameter | default | range or unit | what it does |", "|---|---|---|---|"]
    for field in parameter_fields(kinds):
        lines.append(f"| `{field.name}` | `{value_text(field.default)}` | {limits(field)} | {field.metadata['help']} |")
    return "\n".join(lines) + "\n"


def yaml_text(kinds: Kinds = PLACE) -> str:
    """`config/vlad.yaml`, or `config/vlad_graph.yaml`: every parameter with its default."""
    lines = [
        "# SPDX-License-Identifier: Apache-2.0",
        "# Every parameter with its default; copy the lines you want to change into a file of your own.",
        f"# Made by `python -m vlad_ros.parameter_table --yaml{' --graph' * (kinds == GRAPH)}`. "
        "In a list all numbers need their point, or none.",
        "/**:",
        "  ros__parameters:",
    ]
    for field in parameter_fields(kinds):
        allowed = limits(field)
        lines.append(f"    # {field.metadata['help']}" + (f" [{allowed}]" if allowed else ""))
        lines.append(f"    {field.name}: {value_text(field.default)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the table or the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yaml", action="store_true", help="print config/vlad.yaml instead of the Markdown table")
    parser.add_argument("--graph", action="store_true", help="those of vlad_graph instead of vlad")
    args = parser.parse_args()
    kinds = GRAPH if args.graph else PLACE
    print(yaml_text(kinds) if args.yaml else markdown(kinds), end="")


if __name__ == "__main__":
    main()
