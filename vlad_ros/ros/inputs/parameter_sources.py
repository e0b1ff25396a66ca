# SPDX-License-Identifier: Apache-2.0
"""Which parameters were meant for this node: rcl merges all that was given and keeps no record of its source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


def for_many(arguments: Sequence[str], node: str) -> set[str]:
    """Names given only to groups of nodes: in sections of parameter files whose last part is `*` or `**` (`/**`,
    `/robot/**`), neither in one of the `node`'s own name nor with `-p`. `arguments` are the whole command line."""
    given = list(_given(arguments))
    own = {name for target, name in given if target.rsplit("/", 1)[-1] in ("", node)}
    return {name for target, name in given if target.endswith("*")} - own


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Target ("" for this process) and name of each parameter."""
    words, ours = iter(arguments), False
    for word in words:
        if word in ("--ros-args", "--"):
            ours = word == "--ros-args"
        elif ours and word in ("-p", "--param"):
            target, _, name = next(words, "").partition(":=")[0].rpartition(":")
            yield target, name
        elif ours and word == "--params-file":
            yield from _sections(_read(next(words, "")))


def _read(path: str) -> dict[str, Any]:
    """A parameter file; empty if it cannot be read again. rcl has already read it: this finds no new errors."""
    try:
        # All values as text: tags and dates are no concern of this node.
        tree = yaml.load(Path(path).read_text("utf-8"), Loader=yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _sections(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Namespaces may be nested: `robot: {vlad: {ros__parameters: ...}}` is the section `/robot/vlad`."""
    for key, below in tree.items():
        if isinstance(below, dict) and key == "ros__parameters":
            yield from ((path, name) for name in _names(below))
        elif isinstance(below, dict):
            yield from _sections(below, f"{path}/{str(key).strip('/')}")


def _names(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
