# SPDX-License-Identifier: Apache-2.0
"""Where the parameters of this node came from, and in which order: rcl merges all that was given and keeps no record.

Its merging has two surprises, which `repeated` lets the node undo: of an integer and a decimal number given for one
name it keeps the integer, whichever came last; and a value of `-p` loses against a file that has both a section for all
nodes (`/**`) and one of this node's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml


class _Given(NamedTuple):
    """A parameter's section ("" for this process), name and value: a text or a list of texts."""

    section: str
    name: str
    value: Any


def for_many(arguments: Sequence[str], node: str) -> set[str]:
    """Names given only to groups of nodes: in sections of parameter files whose last part is `*` or `**` (`/**`,
    `/robot/**`), neither in one of the `node`'s own name nor with `-p`. `arguments` are the whole command line, `node`
    is the full name with its namespace."""
    given = list(_meant_for(arguments, node))
    return {each.name for each in given if each.section.endswith("*")} - {
        each.name for each in given if not each.section.endswith("*")
    }


def repeated(arguments: Sequence[str], node: str) -> dict[str, Any]:
    """The last value of each parameter given to the `node` more than once; arguments as in `for_many`."""
    last, often = {}, set()
    for _, name, value in _meant_for(arguments, node):
        if name in last:
            often.add(name)
        last[name] = value
    return {name: last[name] for name in often}


def _meant_for(arguments: Sequence[str], node: str) -> Iterator[_Given]:
    return (given for given in _given(arguments) if not given.section or re.fullmatch(_pattern(given.section), node))


def _pattern(section: str) -> str:
    """In a section's name `*` is one part, `**` any number of parts."""
    parts = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    return "".join(parts.get(part, f"/{re.escape(part)}") for part in section.strip("/").split("/"))


def _given(arguments: Sequence[str]) -> Iterator[_Given]:
    words, ours = iter(arguments), False
    for word in words:
        if word in ("--ros-args", "--"):
            ours = word == "--ros-args"
        elif ours and word in ("-p", "--param"):
            target, _, value = next(words, "").partition(":=")
            section, _, name = target.rpartition(":")
            yield from (_Given(section, full, each) for full, each in _flat({name: _parse(value)}))
        elif ours and word == "--params-file":
            yield from _sections(_read(next(words, "")))


def _read(path: str) -> Any:
    """A parameter file; None if it cannot be read again. rcl has already read it: this finds no new errors."""
    try:
        return _parse(Path(path).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _parse(text: str) -> Any:
    """YAML with all values as text: tags and dates are no concern of this node. None if it is not valid."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError:
        return None


def _sections(tree: Any, path: str = "") -> Iterator[_Given]:
    """Namespaces may be nested: `robot: {vlad: {ros__parameters: ...}}` is the section `/robot/vlad`."""
    for key, below in tree.items() if isinstance(tree, dict) else ():
        if isinstance(below, dict) and key == "ros__parameters":
            yield from (_Given(path, name, value) for name, value in _flat(below))
        else:
            yield from _sections(below, f"{path}/{str(key).strip('/')}")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
