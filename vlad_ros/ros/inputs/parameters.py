# SPDX-License-Identifier: Apache-2.0
"""The configurations' fields as ROS parameters: declared with description and range, checked, and read back."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.parameter_table import Field, limits, parameter_fields
from vlad_ros.settings import from_mapping

# Parameters that rclpy declares for every node.
RCLPY_NAMES = ("use_sim_time", "start_type_description_service")
RCLPY_PREFIXES = ("qos_overrides.",)
PATHS = ("weights", "map_path")


class ParameterError(ValueError):
    """Parameters that are misspelt, of a wrong type or out of range; the message names each of them."""


def descriptor(field: Field) -> ParameterDescriptor:
    """Description with unit, and the range or choices, of a parameter."""
    allowed = limits(field)
    answer = ParameterDescriptor(
        description=field.metadata["help"] + (f" [{allowed}]" if allowed else ""),
        additional_constraints=f"one of {allowed}" if field.metadata["choices"] else "",
    )
    low, high = field.metadata["low"], field.metadata["high"]
    if low is None and high is None:
        return answer
    if isinstance(field.default, float):
        limit = sys.float_info.max
        bounds = FloatingPointRange(
            from_value=float(-limit if low is None else low), to_value=float(limit if high is None else high)
        )
        answer.floating_point_range = [bounds]
    elif isinstance(field.default, int):
        greatest = 2**62
        answer.integer_range = [
            IntegerRange(
                from_value=int(-greatest if low is None else low), to_value=int(greatest if high is None else high)
            )
        ]
    return answer


def declare(node: Node) -> None:
    """Declare every parameter. ParameterError names all overrides misspelt, of a wrong type or out of range."""
    wrong = misspelt(overrides(node), [field.name for field in parameter_fields()])
    for field in parameter_fields():
        default = field.default
        if isinstance(default, tuple):
            # rclpy cannot infer the type of an empty list: only the type is declared and it stays unset.
            default = list(default) or Parameter.Type.DOUBLE_ARRAY
        try:
            node.declare_parameter(field.name, default, descriptor(field))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            hint = "; decimal numbers need their point (1.0, not 1)" if isinstance(default, float) else ""
            wrong.append(f"{field.name}: {error}{hint}")
    if not wrong:
        try:
            read(node)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ParameterError("; ".join(wrong))


def overrides(node: Node) -> list[str]:
    """Names given on the command line or in files, declared or not."""
    # rclpy has no public way to list undeclared overrides: they would be ignored silently.
    return list(node._parameter_overrides)


def misspelt(given: Iterable[str], known: list[str]) -> list[str]:
    """A sentence for each name that is not a parameter of the node."""
    sentences = []
    for name in given:
        if name in known or name in RCLPY_NAMES or name.startswith(RCLPY_PREFIXES):
            continue
        near = difflib.get_close_matches(name, known, 1)
        sentences.append(f"there is no parameter {name}" + (f"; did you mean {near[0]}?" if near else ""))
    return sentences


def read(node: Node) -> tuple[NodeConfig, RecognizerConfig]:
    """The parameters as the two dataclasses; ValueError names a value that they reject."""
    values = _values(node)
    return _configurations(values)


def check(node: Node, changes: list[Parameter], state: str) -> SetParametersResult:
    """Accept a parameter change only while unconfigured, and only if the dataclasses accept the values."""
    names = {field.name for field in parameter_fields()}
    ours = {change.name: change.value for change in changes if change.name in names}
    if not ours:
        return SetParametersResult(successful=True)
    if state != "unconfigured":
        reason = f"{', '.join(sorted(ours))}: fixed while the node is {state}; clean it up, set, and configure again"
        return SetParametersResult(successful=False, reason=reason)
    values = _values(node)
    values.update({name: _plain(value) for name, value in ours.items()})
    try:
        _configurations(values)
    except ValueError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _plain(value: Any) -> Any:
    """Arrays and unset lists as tuples."""
    if value is None:
        return ()
    return value if isinstance(value, (str, bool, int, float)) else tuple(value)


def _values(node: Node) -> dict[str, Any]:
    unset = Parameter("unset", Parameter.Type.NOT_SET)
    return {field.name: _plain(node.get_parameter_or(field.name, unset).value) for field in parameter_fields()}


def _configurations(values: dict[str, Any]) -> tuple[NodeConfig, RecognizerConfig]:
    values = values | {name: os.path.expanduser(values[name]) for name in PATHS}
    kinds = (NodeConfig, RecognizerConfig)
    parts = [{field.name: values[field.name] for field in dataclasses.fields(kind)} for kind in kinds]
    return from_mapping(NodeConfig, parts[0]), from_mapping(RecognizerConfig, parts[1])
