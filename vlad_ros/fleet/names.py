# SPDX-License-Identifier: Apache-2.0
"""Names in a fleet: robots, and the key of each keyframe. What a server says is checked as what is sent to it."""

from __future__ import annotations

import re
from typing import NamedTuple
from uuid import UUID

ROBOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LATEST = 2**62  # ns; stamps lie below it


class FleetError(ValueError):
    """The fleet cannot be reached, or what it says cannot be used; the message is a sentence for the user."""


class RefusedError(FleetError):
    """The fleet is of another make or version, or of no use: asking again does not help."""


class Key(NamedTuple):
    """What a keyframe is known by everywhere: the robot, the UUID of its session, and its stamp [ns] there."""

    robot: str
    session: UUID
    stamp: int

    def __str__(self) -> str:
        return f"{self.robot}/{self.session}/{self.stamp}"


def check_robot(name: str) -> str:
    """`name`; ValueError unless it may be a robot's."""
    if not ROBOT.fullmatch(name):
        raise ValueError(
            f"robot {name!r:.99}: a name has 1 to 64 letters, digits, '_', '-' or '.', a letter or digit first"
        )
    return name


def parse_session(text: str) -> tuple[str, UUID]:
    """The robot and the session of ROBOT/SESSION; ValueError names what it is not."""
    robot, _, session = text.partition("/")
    try:
        found = check_robot(robot), UUID(session)
    except ValueError as error:
        raise ValueError(f"{text!r:.199} is no ROBOT/SESSION, a robot's name and the UUID of a session") from error
    return found


def parse_key(text: object) -> Key:
    """The key that `str` of one has made, exactly; ValueError for anything else."""
    if isinstance(text, str) and len(text) < 200:
        head, _, stamp = text.rpartition("/")
        if re.fullmatch(r"-?[0-9]{1,19}", stamp):
            key = Key(*parse_session(head), int(stamp))
            if str(key) == text and abs(key.stamp) < LATEST:
                return key
    raise ValueError(f"{text!r:.199} is no keyframe's key")
