# SPDX-License-Identifier: Apache-2.0
"""Messages as broken drivers, recorders and memories leave them: odd fields, spoilt or missing bytes."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

FLOATS = [math.nan, math.inf, -math.inf, 0.0, -0.0, 2.0, -1.0, 1e300, -1e300, 1e30, 5e-324]
INTEGERS = [0, 1, -1, 2, 3, 5, 64, 255, 2**16, 10**9 - 1, 10**9, 2**31 - 1, -(2**31), 2**32 - 1]
STRINGS = ["", "/", "//", "base_link", "/lidar", "lidar ", "a" * 300, "\u00e4\n", "8UC5", "32FC5", "mono8", "rgb8"]

Leaf = tuple[Any, str]


def names(message: Any) -> list[str]:
    """The fields of a message, whether rclpy's or rosbags'."""
    if hasattr(message, "get_fields_and_field_types"):
        return list(message.get_fields_and_field_types())
    return [field.name for field in dataclasses.fields(message)] if dataclasses.is_dataclass(message) else []


def leaves(message: Any) -> Iterator[Leaf]:
    """(message, field) of everything in it that is no message."""
    for name in names(message):
        value = getattr(message, name)
        if names(value):
            yield from leaves(value)
        elif isinstance(value, list) and value and names(value[0]):
            yield message, name
            for part in value[:3]:
                yield from leaves(part)
        elif not name.startswith("__"):
            yield message, name


def odd(value: Any, rng: random.Random) -> Any:
    """Another value in the place of `value`."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return rng.choice([*FLOATS, rng.uniform(-100, 100)])
    if isinstance(value, int):
        return rng.choice([*INTEGERS, value + 1, rng.randrange(2**32)])
    if isinstance(value, str):
        return rng.choice(STRINGS)
    return value[: rng.randrange(len(value) + 1)]


def change(message: Any, rng: random.Random) -> None:
    """Give one field an odd value; where it cannot carry it, leave it."""
    owner, name = rng.choice(list(leaves(message)))
    before = getattr(owner, name)
    try:
        setattr(owner, name, odd(before, rng))
    except AssertionError:  # rclpy: a number out of range, an array of fixed size
        setattr(owner, name, before)


def spoil(data: bytes, rng: random.Random, within: int | None = None) -> bytes:
    """`data` with one to four bytes replaced (among the first `within`), or cut short, or with a tail."""
    kind = rng.randrange(8)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    if kind == 1:
        return data + rng.randbytes(rng.randrange(1, 20))
    spoilt, size = bytearray(data), min(within or len(data), len(data))
    for _ in range(rng.randint(1, 4)):
        spoilt[rng.randrange(size)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(spoilt)


def mutated(make: Callable[[], Any], write: Callable[[Any], bytes], rng: random.Random, within: int) -> bytes:
    """The serialised message of `make`, its fields or its bytes (mostly the first `within`) changed."""
    message = make()
    if rng.random() < 0.6:
        for _ in range(rng.randint(1, 3)):
            change(message, rng)
    try:
        data = write(message)
    except Exception:  # a value that this writer cannot carry
        data = write(make())
    return spoil(data, rng, within if rng.random() < 0.8 else None) if rng.random() < 0.5 else data
