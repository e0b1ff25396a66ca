# SPDX-License-Identifier: Apache-2.0
"""A million mutated clouds: nothing but `CloudError` may come out of the parser, and nothing but points."""

from __future__ import annotations

import random
import struct
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from campaign import rounds, seed

from vlad_ros.cloud.decode import CloudError, decode_message

NUMBERS = [0, 1, 2, 3, 4, 7, 8, 12, 15, 16, 17, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, -1, -16]
ODD = [None, 1.5, "7", True, np.uint8(16), np.int64(-1), float("nan")]
NAMES = ["x", "y", "z", "intensity", "i", "reflectivity", "X", "", "ring", None, 3]
ATTRIBUTES = ["height", "width", "point_step", "row_step"]


def valid(rng: random.Random) -> SimpleNamespace:
    """A sound cloud of a random shape."""
    height, width, step = (*rng.choice([(1, 8), (2, 4), (4, 2), (8, 1)]), rng.choice([16, 20, 24]))
    fields = [SimpleNamespace(name=n, offset=4 * k, datatype=7, count=1) for k, n in enumerate(["x", "y", "z", "i"])]
    data = b"".join(struct.pack("<4f", *(rng.uniform(-50, 50) for _ in range(4))).ljust(step, b"\0") for _ in range(8))
    return SimpleNamespace(
        fields=fields, data=data, height=height, width=width, point_step=step, row_step=width * step, is_bigendian=False
    )


def number(rng: random.Random) -> Any:
    return rng.choice(NUMBERS if rng.random() < 0.85 else ODD)


def mutate(message: SimpleNamespace, rng: random.Random) -> None:
    """Change one thing."""
    kind = rng.randrange(8)
    if kind == 0:
        setattr(message, rng.choice(ATTRIBUTES), number(rng))
    elif kind == 1 and message.fields:
        setattr(rng.choice(message.fields), rng.choice(["offset", "datatype", "count"]), number(rng))
    elif kind == 2 and message.fields:
        rng.choice(message.fields).name = rng.choice(NAMES)
    elif kind == 3 and message.fields:
        message.fields.pop(rng.randrange(len(message.fields)))
    elif kind == 4:
        extra = SimpleNamespace(name=rng.choice(NAMES), offset=number(rng), datatype=rng.randrange(10), count=1)
        message.fields.insert(rng.randrange(len(message.fields) + 1), extra)
    elif kind == 5 and message.data:
        message.data = rng.choice([message.data[: rng.randrange(200)], rng.randbytes(rng.randrange(300)), b"", None])
    elif kind == 6:
        message.is_bigendian = rng.choice([True, 1, 0, 255])
    elif message.data:
        raw = bytearray(message.data)
        raw[rng.randrange(len(raw))] = rng.choice([0, 127, 128, 255])
        message.data = bytes(raw)


@pytest.mark.campaign
def test_a_million_mutated_clouds() -> None:
    rng, number_of_clouds = random.Random(seed()), rounds(1_000_000)
    read = refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(number_of_clouds):
            message = valid(rng)
            for _ in range(rng.randint(1, 4)):
                mutate(message, rng)
            try:
                points = decode_message(message)
            except CloudError as error:
                assert str(error) and "\n" not in str(error)
                refused += 1
                continue
            assert points.dtype == np.float32 and points.ndim == 2 and points.shape[1] == 4
            assert 1 <= len(points) <= len(message.data) / message.point_step
            assert np.isfinite(points).all()
            read += 1
    assert min(read, refused) > number_of_clouds / 10, "the mutations are too mild or too wild to test anything"
