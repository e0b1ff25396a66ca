# SPDX-License-Identifier: Apache-2.0
"""A keyframe goes up and comes back to the last bit; whatever else a server says is a ValueError."""

from __future__ import annotations

import base64
import dataclasses
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from map_rows import DIM, equal, geometry, keyframe, mixed

from vlad_ros.fleet import schema
from vlad_ros.fleet.names import Key, check_robot, parse_key, parse_session
from vlad_ros.fleet.packed import SIZES, Packed, pack, pose, unpack
from vlad_ros.fleet.schema import from_rows, payload_keys, to_rows
from vlad_ros.mapping.codec import round_descriptor
from vlad_ros.poses import from_xyz_rpy
from vlad_ros.types import Keyframe

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
KEY = Key("red", UUID(int=7), 12)
T = from_xyz_rpy((1.0, 2.0, 3.0, 0.1, 0.2, 0.3))


def rounded(one: Keyframe) -> Keyframe:
    """As a map keeps it."""
    scan = None if one.scan_descriptor is None else round_descriptor(one.scan_descriptor)
    return dataclasses.replace(one, descriptor=round_descriptor(one.descriptor), scan_descriptor=scan)


def travelled(packed: Packed) -> Packed:
    """As it comes back from the server."""
    row, parts = to_rows(packed)
    assert [part["key"] for part in parts] == payload_keys(row)
    assert set(row) == {name for name, _, _ in schema.fields(schema.KEYFRAMES, DIM)}
    for name, kind, options in schema.fields(schema.KEYFRAMES, DIM):
        assert kind != "VARCHAR" or row[name] is None or len(row[name]) <= options["max_length"], name
    assert all(len(part["key"]) <= schema.KEY and len(part["payload"].encode()) <= 65535 for part in parts)
    return from_rows(row | {"descriptor": row["descriptor"].tolist()}, [part["payload"] for part in parts])


@pytest.mark.parametrize("one", mixed(18))
def test_every_keyframe_comes_back(one) -> None:
    packed = pack(KEY._replace(stamp=one.stamp), one, T if one.travel else None)
    assert travelled(packed) == packed
    assert equal(unpack(packed, DIM, one.session), rounded(one))
    np.testing.assert_array_equal(pose(packed.T_map_base), T if one.travel else None)


def test_a_large_payload_goes_up_in_parts() -> None:
    rng = np.random.default_rng(0)
    one = dataclasses.replace(keyframe(rng), geometry=geometry(rng, 2000, 20_000))
    packed = pack(KEY, one, None)
    assert len(to_rows(packed)[1]) > 2
    assert equal(unpack(travelled(packed), DIM, 0), dataclasses.replace(rounded(one), stamp=KEY.stamp))
    with pytest.raises(ValueError, match="too large for a fleet"):
        to_rows(packed._replace(payload=bytes(schema.PARTS * schema.TEXT)))


@given(NAMES, st.uuids(), st.integers(-(2**62) + 1, 2**62 - 1))
def test_keys_come_back(robot: str, session: UUID, stamp: int) -> None:
    key = Key(robot, session, stamp)
    assert parse_key(str(key)) == key and len(str(key)) + 3 <= schema.KEY
    assert parse_session(f"{robot}/{session}") == key[:2]


HOSTILE_NAMES = [
    "",
    " ",
    "a" * 65,
    'a" or true or robot != "',
    "a/b",
    "../a",
    "-a",
    "é",
    "a\n",
    "a'b",
    "a\x00",
    "*",
    "%",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_might_mean_something_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 letters"):
        check_robot(name)
    with pytest.raises(ValueError, match="is no"):
        parse_key(f"{name}/{UUID(int=7)}/12")


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", 7, None, f"a/{UUID(int=7)}", f"a/{UUID(int=7)}/", f"a/{UUID(int=7)}/1e3", f"a/{UUID(int=7)}/012"),
        *(
            f"a/{UUID(int=7)}/{2**62}",
            f"a/{UUID(int=7).hex}/1",
            f"a/{UUID(int=7)}/\u0661",
            f"a/{UUID(int=7)}/{10**999}",
        ),
    ],
)
def test_a_key_that_is_none_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_key(text)


ROW, PARTS = to_rows(pack(KEY, dataclasses.replace(mixed()[1], stamp=12), T))
TEXTS = [part["payload"] for part in PARTS]
LIES = {
    "other key": ({"key": "red"}, None),
    "no flag": ({"is_local_map": 1}, None),
    "travel": ({"travel": "7"}, None),
    "travel that is none": ({"travel": float("nan")}, None),
    "pose": ({"T_odom_base": base64.b64encode(bytes(96)).decode()}, None),
    "short pose": ({"T_odom_base": "AAAA"}, None),
    "corrected pose": ({"T_map_base": base64.b64encode(np.full(12, np.nan).tobytes()).decode()}, None),
    "pose of another type": ({"T_odom_base": 7}, None),
    "no descriptor": ({"descriptor": None}, None),
    "text": ({"descriptor": ["a"]}, None),
    "short descriptor": ({"descriptor": [1.0]}, None),
    "long descriptor": ({"descriptor": [0.0] * 9}, None),
    "not finite": ({"descriptor": [float("nan")] * DIM}, None),
    "too large": ({"descriptor": [1e38] * DIM}, None),
    "no payload": ({}, []),
    "lost part": ({}, [None]),
    "no base64": ({}, ["!" + TEXTS[0][1:]]),
    "too long": ({}, ["A" * 65536]),
    "cut": ({}, [TEXTS[0][:-4]]),
    "more": ({}, [*TEXTS, "AAAA"]),
    "sizes": ({}, [base64.b64encode(SIZES.pack(2**32 - 1, 2**32 - 1)).decode()]),
    "bomb": ({}, [base64.b64encode(SIZES.pack(0, 8) + b"\xff" * 8).decode()]),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_row_that_lies_is_refused(lie: str) -> None:
    change, parts = LIES[lie]
    with pytest.raises(ValueError):
        packed = from_rows(ROW | change, TEXTS if parts is None else parts)
        unpack(packed, DIM, 0)
        pose(packed.T_map_base)


@pytest.mark.parametrize(
    "change", [{"T_level_body": np.zeros((4, 4))}, {"keypoints": np.full((5, 2), 2e4, np.float32)}]
)
def test_a_geometry_that_no_vehicle_has_is_refused(change: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    one = dataclasses.replace(keyframe(rng), geometry=dataclasses.replace(geometry(rng), **change))
    with pytest.raises(ValueError, match=r"T_level_body|keypoint"):
        unpack(pack(KEY, one, None), DIM, 0)


@given(st.binary(max_size=200), st.data())
def test_whatever_a_payload_holds_is_refused_or_plausible(noise: bytes, data: st.DataObject) -> None:
    payload = bytearray(pack(KEY, mixed()[1], None).payload)
    at = data.draw(st.integers(0, len(payload)))
    payload[at : at + len(noise)] = noise
    packed = from_rows(ROW, [base64.b64encode(payload).decode()])
    try:
        found = unpack(packed, DIM, 0)
    except ValueError:
        return
    assert found.scan_descriptor is None or abs(np.linalg.norm(found.scan_descriptor) - 1.0) < 0.011


@pytest.mark.parametrize("parts", [0, -1, 101, "1", None, 1.5])
def test_no_server_has_us_fetch_without_an_end(parts: object) -> None:
    with pytest.raises(ValueError, match="parts"):
        payload_keys(ROW | {"parts": parts})
