# SPDX-License-Identifier: Apache-2.0
"""The configurations' fields as ROS parameters: declared with description and range, checked, and read back."""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.parameter_table import PLACE, Field, Kinds, limits, parameter_fields
from vlad_ros.ros.inputs.parameter_sources import for_many, repeated
from vlad_ros.settings import from_mapping

# Parameters that rclpy declares for every node.
RCLPY_NAMES = ("use_sim_time", "start_type_description_service")
RCLPY_PREFIXES = ("qos_overrides.",)
PATHS = ("weights", "map_path", "graph_path", "trajectory_path", "edits_path")
BOOLEANS = dict.fromkeys(("y", "yes", "true", "on"), True) | dict.fromkeys(("n", "no", "false", "off"), False)
NEAR, ALIKE = 0.6, 0.8  # similarity of two names, 0 .. 1


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


def declare(node: Node, arguments: Sequence[str], kinds: Kinds = PLACE) -> None:
    """Declare every parameter of `kinds`. ParameterError names all overrides misspelt, of a wrong type or out of range.

    `arguments` are the command line of the process. Unknown names that a parameter file gives to many nodes at once
    (under `/**`) are those of other nodes; if one looks like a misspelt name of ours, a warning says so.
    """
    # rclpy has no public way to list undeclared overrides (they would be ignored silently), nor to change one.
    given, full_name = node._parameter_overrides, node.get_fully_qualified_name()
    last = repeated(arguments, full_name)
    for field in parameter_fields(kinds):
        if last.get(field.name) == []:  # rclpy cannot infer the type of an empty list: unset
            given.pop(field.name, None)
        elif field.name in last:
            given[field.name] = _as_given(field, last[field.name])
    given.update({parameter.name: parameter for parameter in as_declared(given.values(), kinds)})
    wrong = _unknown(node, set(given), for_many(arguments, full_name), kinds)
    for field in parameter_fields(kinds):
        default = field.default
        if isinstance(default, tuple):
            # rclpy cannot infer the type of an empty list: only the type is declared and it stays unset.
            default = list(default) or Parameter.Type.DOUBLE_ARRAY
        try:
            node.declare_parameter(field.name, default, descriptor(field))
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            wrong.append(f"{field.name}: {error}")
    if not wrong:
        try:
            read_as(node, kinds)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ParameterError("; ".join(wrong))


def as_declared(parameters: Iterable[Parameter], kinds: Kinds = PLACE) -> list[Parameter]:
    """The parameters, integers given to decimal ones (`max_range:=50`) as decimal numbers: rclpy would refuse them."""
    decimal = {field.name for field in parameter_fields(kinds) if isinstance(field.default, (float, tuple))}
    whole = (Parameter.Type.INTEGER, Parameter.Type.INTEGER_ARRAY)
    return [_as_decimal(each) if each.name in decimal and each.type_ in whole else each for each in parameters]


def _as_decimal(given: Parameter) -> Parameter:
    if given.type_ == Parameter.Type.INTEGER:
        return Parameter(given.name, value=float(given.value))
    return Parameter(given.name, value=[float(number) for number in given.value])


def _as_given(field: Field, value: Any) -> Parameter:
    """The parameter of a value written as text (or a list of texts). Where it is no value of the field's type it stays
    text, which is refused when the parameter is declared."""
    try:
        if isinstance(field.default, tuple) and isinstance(value, list):
            return Parameter(field.name, value=[float(number) for number in value])
        if isinstance(field.default, bool):
            return Parameter(field.name, value=BOOLEANS[value.lower()])
        if isinstance(field.default, (int, float)):
            return Parameter(field.name, value=type(field.default)(value))
    except (AttributeError, KeyError, TypeError, ValueError):
        pass
    return Parameter(field.name, value=str(value))


def _unknown(node: Node, given: Iterable[str], others: set[str], kinds: Kinds) -> list[str]:
    """A sentence for each given name that is no parameter of the node, unless it is in `others`."""
    known = [field.name for field in parameter_fields(kinds)]
    sentences, alike = [], []
    for name in sorted(given):
        if name in known or name in RCLPY_NAMES or name.startswith(RCLPY_PREFIXES):
            continue
        # Among the names of other nodes many resemble ours by chance.
        near = difflib.get_close_matches(name, known, 1, ALIKE if name in others else NEAR)
        if name not in others:
            sentences.append(f"there is no parameter {name}" + (f"; did you mean {near[0]}?" if near else ""))
        elif near:
            alike.append(f"{name} ({near[0]})")
    if alike:
        node.get_logger().warning(
            f"names for many nodes (/**) that resemble this node's: {', '.join(alike)}; misspelt?"
        )
    return sentences


def explain(error: RuntimeError) -> str:
    """Why rcl could not read the command line or a parameter file, with a remedy where it says little."""
    mixed = "Sequence should be of same type" in str(error)
    return str(error) + ("; in a list all numbers need their point, or none: [1.0, 0.5], not [1, 0.5]" if mixed else "")


def read(node: Node) -> tuple[NodeConfig, RecognizerConfig]:
    """The parameters as the two dataclasses; ValueError names a value that they reject."""
    place, recognizer = read_as(node, PLACE)
    return place, recognizer


def read_as(node: Node, kinds: Kinds) -> list[Any]:
    """The parameters as dataclasses, one of each kind; ValueError names a value that they reject."""
    return _configurations(_values(node, kinds), kinds)


def check(node: Node, changes: list[Parameter], state: str, kinds: Kinds = PLACE) -> SetParametersResult:
    """Accept a parameter change only while unconfigured, and only if the dataclasses accept the values."""
    names = {field.name for field in parameter_fields(kinds)}
    ours = {change.name: change.value for change in changes if change.name in names}
    if not ours:
        return SetParametersResult(successful=True)
    if state != "unconfigured":
        reason = f"{', '.join(sorted(ours))}: fixed while the node is {state}; clean it up, set, and configure again"
        return SetParametersResult(successful=False, reason=reason)
    values = _values(node, kinds)
    values.update({name: _plain(value) for name, value in ours.items()})
    try:
        _configurations(values, kinds)
    except ValueError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _plain(value: Any) -> Any:
    """Arrays and unset lists as tuples."""
    if value is None:
        return ()
    return value if isinstance(value, (str, bool, int, float)) else tuple(value)


def _values(node: Node, kinds: Kinds) -> dict[str, Any]:
    unset = Parameter("unset", Parameter.Type.NOT_SET)
    return {field.name: _plain(node.get_parameter_or(field.name, unset).value) for field in parameter_fields(kinds)}


def _configurations(values: dict[str, Any], kinds: Kinds) -> list[Any]:
    values = values | {name: os.path.expanduser(values[name]) for name in PATHS if name in values}
    parts = [{field.name: values[field.name] for field in dataclasses.fields(kind)} for kind in kinds]
    return [from_mapping(kind, part) for kind, part in zip(kinds, parts, strict=True)]
