# SPDX-License-Identifier: Apache-2.0
"""Executes a launch file where ROS' `launch` is not installed (no registry has it): what process would it start?

It knows what `vlad.launch.py` and `slam.launch.py` use and nothing else: whatever a launch file does beyond that is an
error.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import runpy
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class LaunchError(ValueError):
    """A launch file that does what the recorder does not know, or that ROS would refuse."""


@dataclass
class Context:
    """State of one execution: the arguments' values, the parameters in force, and the processes so far."""

    share: Path
    values: dict[str, str]
    declared: set[str] = field(default_factory=set)
    parameters: list[str] = field(default_factory=list)
    started: list[tuple[list[str], dict[str, str]]] = field(default_factory=list)


def text(value: Any, context: Context) -> str:
    """A string, a substitution, or a list of them, performed and joined."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "".join(text(part, context) for part in value)
    if hasattr(value, "perform"):
        return str(value.perform(context))
    raise LaunchError(f"{value!r} is no substitution that the recorder knows")


class LaunchConfiguration:
    """The value of a launch argument."""

    def __init__(self, variable_name: str) -> None:
        self._name = variable_name

    def perform(self, context: Context) -> str:
        """LaunchError where the argument was not declared."""
        if self._name not in context.declared:
            raise LaunchError(f"launch argument {self._name} is used but not declared")
        return context.values[self._name]


class PathJoinSubstitution:
    """Parts of a path."""

    def __init__(self, substitutions: list[Any]) -> None:
        self._parts = substitutions

    def perform(self, context: Context) -> str:
        """The path."""
        return os.path.join(*(text(part, context) for part in self._parts))


class PythonExpression:
    """A Python expression, pieced together from strings and substitutions."""

    def __init__(self, expression: list[Any]) -> None:
        self._expression = expression

    def perform(self, context: Context) -> str:
        """Its value as text, as launch has it. A launch file is a program; this is no new door."""
        return str(eval(text(self._expression, context), {}))


class FindPackageShare:
    """The share folder of the package whose launch file is executed; of no other."""

    def __init__(self, package: str) -> None:
        self._package = package

    def perform(self, context: Context) -> str:
        """Where the launch file itself was installed, or the source tree."""
        if self._package != "vlad_ros":
            raise LaunchError(f"the recorder does not know where {self._package} is")
        return str(context.share)


class IfCondition:
    """Whether an action is executed."""

    def __init__(self, predicate_expression: Any) -> None:
        self._predicate = predicate_expression

    def evaluate(self, context: Context) -> bool:
        """LaunchError unless the text is true, false, 1 or 0."""
        value = text(self._predicate, context).strip().lower()
        if value not in ("true", "false", "1", "0"):
            raise LaunchError(f"condition {value!r} is neither true nor false")
        return value in ("true", "1")


class Action:
    """An action, executed when its condition holds."""

    def __init__(self, condition: IfCondition | None = None) -> None:
        self._condition = condition

    def visit(self, context: Context) -> None:
        """Execute or skip."""
        if self._condition is None or self._condition.evaluate(context):
            self.execute(context)

    def execute(self, context: Context) -> None:
        """What the action does."""
        raise NotImplementedError


class DeclareLaunchArgument(Action):
    """An argument, required where it has no default."""

    def __init__(self, name: str, *, default_value: Any = None, description: str) -> None:
        super().__init__()
        self.name = name
        self.default_value = default_value
        self.description = description

    def execute(self, context: Context) -> None:
        """Take the default where nothing was given."""
        if self.name not in context.values:
            if self.default_value is None:
                raise LaunchError(f"launch argument {self.name} is required")
            context.values[self.name] = text(self.default_value, context)
        context.declared.add(self.name)


class SetParametersFromFile(Action):
    """A parameter file for the nodes that follow in the group."""

    def __init__(self, filename: Any) -> None:
        super().__init__()
        self._filename = filename

    def execute(self, context: Context) -> None:
        """LaunchError where there is no such file."""
        path = os.path.abspath(text(self._filename, context))
        if not os.path.isfile(path):
            raise LaunchError(f"there is no parameter file {path}")
        context.parameters += ["--params-file", path]


class SetParameter(Action):
    """A parameter of the nodes that follow in the group."""

    def __init__(self, name: Any, value: Any, *, condition: IfCondition | None = None) -> None:
        super().__init__(condition)
        self._name = name
        self._value = value

    def execute(self, context: Context) -> None:
        """On the command line; launch_ros reads the text of substitutions as YAML, and so does rcl after it."""
        value = self._value
        if not isinstance(value, (bool, int, float, str)):
            value = yaml.safe_load(text(value, context))
        if not isinstance(value, (bool, int, float, str)):
            raise LaunchError(f"launch_ros takes no {type(value).__name__} as {text(self._name, context)}")
        context.parameters += ["-p", f"{text(self._name, context)}:={value}"]


class GroupAction(Action):
    """Actions whose parameters stay among themselves."""

    def __init__(self, actions: list[Action]) -> None:
        super().__init__()
        self._actions = actions

    def execute(self, context: Context) -> None:
        """In order; the parameters are taken back afterwards."""
        before = list(context.parameters)
        for action in self._actions:
            action.visit(context)
        context.parameters[:] = before


class Node(Action):
    """A node's process."""

    def __init__(
        self,
        *,
        package: str,
        executable: str,
        name: Any,
        namespace: Any,
        remappings: list[tuple[Any, Any]],
        additional_env: dict[str, Any],
        output: str,
        emulate_tty: bool,
    ) -> None:
        super().__init__()
        if output != "screen" or not emulate_tty:
            raise LaunchError("the recorder only knows output screen with emulate_tty")
        self._package, self._executable = package, executable
        self._name, self._namespace = name, namespace
        self._remappings, self._env = remappings, additional_env

    def execute(self, context: Context) -> None:
        """Record executable, arguments and environment."""
        argv = [*_command(context, self._package, self._executable), "--ros-args", "-r"]
        argv.append(f"__node:={text(self._name, context)}")
        namespace = text(self._namespace, context)
        if namespace:
            argv += ["-r", f"__ns:=/{namespace.lstrip('/')}"]
        argv += context.parameters
        for source, target in self._remappings:
            argv += ["-r", f"{text(source, context)}:={text(target, context)}"]
        context.started.append((argv, {name: text(value, context) for name, value in self._env.items()}))


def _command(context: Context, package: str, executable: str) -> list[str]:
    """The installed executable, or the source tree's module where the package is not installed."""
    installed = context.share.parent.parent / "lib" / package / executable
    if installed.is_file():
        return [str(installed)]
    module = {"vlad_node": "vlad_ros.ros.node", "vlad_graph": "vlad_ros.ros.graph_node"}.get(executable)
    if package != "vlad_ros" or module is None:
        raise LaunchError(f"there is no executable {executable} of {package} at {installed}")
    return [sys.executable, "-m", module]


class PythonLaunchDescriptionSource:
    """Where another launch file is."""

    def __init__(self, path: Any) -> None:
        self.path = path


class IncludeLaunchDescription(Action):
    """Another launch file, with arguments of its own."""

    def __init__(self, source: PythonLaunchDescriptionSource, *, launch_arguments: list[tuple[str, Any]]) -> None:
        super().__init__()
        self._source, self._arguments = source, launch_arguments

    def execute(self, context: Context) -> None:
        """Start what it starts."""
        given = {name: text(value, context) for name, value in self._arguments}
        context.started += resolve(text(self._source.path, context), **given)


class LaunchDescription:
    """What a launch file returns."""

    def __init__(self, entities: list[Action]) -> None:
        self.entities = entities


MODULES: dict[str, dict[str, Any]] = {
    "launch": {"LaunchDescription": LaunchDescription},
    "launch.actions": {
        "DeclareLaunchArgument": DeclareLaunchArgument,
        "GroupAction": GroupAction,
        "IncludeLaunchDescription": IncludeLaunchDescription,
    },
    "launch.launch_description_sources": {"PythonLaunchDescriptionSource": PythonLaunchDescriptionSource},
    "launch.conditions": {"IfCondition": IfCondition},
    "launch.substitutions": {
        "LaunchConfiguration": LaunchConfiguration,
        "PathJoinSubstitution": PathJoinSubstitution,
        "PythonExpression": PythonExpression,
    },
    "launch_ros": {},
    "launch_ros.actions": {
        "Node": Node,
        "SetParameter": SetParameter,
        "SetParametersFromFile": SetParametersFromFile,
    },
    "launch_ros.substitutions": {"FindPackageShare": FindPackageShare},
}


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """`launch` and `launch_ros` as this module knows them, while the context lasts."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in ("launch", "launch_ros")}
    for name in before:
        del sys.modules[name]
    for name, content in MODULES.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(content | {"__path__": []})
    try:
        yield
    finally:
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def describe(launch_file: str | os.PathLike[str]) -> LaunchDescription:
    """The launch file's description, unexecuted."""
    with stand_ins():
        try:
            description = runpy.run_path(os.fspath(launch_file))["generate_launch_description"]()
        except (ImportError, TypeError) as error:
            raise LaunchError(f"{launch_file}: the recorder does not know this: {error}") from error
    if isinstance(description, LaunchDescription):
        return description
    raise LaunchError(f"{launch_file} gives no LaunchDescription")


def resolve(launch_file: str | os.PathLike[str], **arguments: str) -> list[tuple[list[str], dict[str, str]]]:
    """What `ros2 launch` would start: argv and additional environment of each process, in order.

    LaunchError for an argument that the file does not declare, and for whatever the recorder does not know.
    """
    description = describe(launch_file)
    context = Context(Path(launch_file).resolve().parent.parent, dict(arguments))
    for entity in description.entities:
        if not isinstance(entity, Action):
            raise LaunchError(f"{entity!r} is no action that the recorder knows")
        entity.visit(context)
    if unknown := set(arguments) - context.declared:
        raise LaunchError(f"{launch_file} has no argument {', '.join(sorted(unknown))}")
    return context.started


def rules(argv: list[str], flag: str) -> list[str]:
    """What follows each `flag` in a process's arguments."""
    return [value for key, value in itertools.pairwise(argv) if key == flag]
