# SPDX-License-Identifier: Apache-2.0
"""Building blocks of the configurations: fields with help, unit and range, and their checks."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def option(
    default: Any,
    help: str,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field that knows its help text, unit and closed range ``[low, high]`` (or its choices)."""
    metadata = {"help": help, "unit": unit, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


class Checked:
    """Base of the configurations: values are checked against the fields' types and ranges when one is made."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            _check(field, getattr(self, field.name))


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    kind = type(field.default)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{field.name} must be of type {kind.__name__}, not {value!r}")
    choices = field.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{field.name} must be one of {', '.join(choices)}, not {value!r}")
    low, high = field.metadata.get("low"), field.metadata.get("high")
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError(f"{field.name} must be finite, not {value!r}")
        if (low is not None and number < low) or (high is not None and number > high):
            raise ValueError(
                f"{field.name} must lie in [{low}, {high}] {field.metadata['unit']}, not {value!r}".strip()
            )


def from_mapping(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make the configuration `kind` from a mapping; an unknown key is a ValueError that names the nearest known one."""
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    cleaned = {}
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"unknown setting {name!r}{hint}")
        default = known[name].default
        if isinstance(default, tuple) and isinstance(value, (list, tuple)):
            value = tuple(value)
        elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        cleaned[name] = value
    return kind(**cleaned)
