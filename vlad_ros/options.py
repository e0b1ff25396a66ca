# SPDX-License-Identifier: Apache-2.0
"""Command-line flags derived from the configurations' fields: names, defaults, help, units and ranges."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any, TypeVar

from vlad_ros.settings import from_mapping

T = TypeVar("T")


def add_options(parser: argparse._ActionsContainer, kind: type, only: tuple[str, ...] | None = None) -> None:
    """One flag for each field of the dataclass `kind` (or those named); `from_options` reads them back."""
    for field in dataclasses.fields(kind):
        if only is None or field.name in only:
            parser.add_argument(f"--{field.name.replace('_', '-')}", **_argument(field))


def _argument(field: dataclasses.Field[Any]) -> dict[str, Any]:
    unit, help = field.metadata["unit"], field.metadata["help"]
    told = isinstance(field.default, bool) or field.default in ("", ())
    text = help if told else f"{help} (default: {field.default}{' ' + unit if unit else ''})"
    argument: dict[str, Any] = {"default": field.default, "help": text.replace("%", "%%")}
    if isinstance(field.default, bool):
        return argument | {"action": argparse.BooleanOptionalAction}
    if isinstance(field.default, tuple):
        return argument | {"type": float, "nargs": "+", "metavar": "NUMBER"}
    argument["type"] = type(field.default)
    if choices := field.metadata["choices"]:
        argument["choices"] = choices
    else:
        argument["metavar"] = unit.upper() or field.name.rsplit("_", 1)[-1].upper()
    return argument


def from_options(kind: type[T], args: argparse.Namespace) -> T:
    """The dataclass of the given options; ValueError names a value that is out of range."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    return from_mapping(kind, {name: getattr(args, name) for name in names if hasattr(args, name)})
