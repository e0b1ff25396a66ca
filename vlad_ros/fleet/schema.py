# SPDX-License-Identifier: Apache-2.0
"""The fleet's three collections, and each keyframe's way into them and, checked, out of them.

Milvus has no field for bytes, and its texts hold 65,535: so bytes are base64, and a keyframe's payload is as many rows
of a collection of its own as it needs, which the search never loads. Milvus wants a vector in every collection; what is
not searched has one of two zeros.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vlad_ros.fleet.names import Key, parse_key
from vlad_ros.fleet.packed import Packed, pose
from vlad_ros.mapping import tables
from vlad_ros.mapping.codec import pack_descriptor, packed_dim, unpack_descriptors
from vlad_ros.types import F64

if TYPE_CHECKING:
    from pymilvus import CollectionSchema

VERSION = f"1 of maps {tables.VERSION}"  # descriptors and payloads are packed as in a map file of that version
KEYFRAMES, PAYLOADS, CATALOGUE = "vlad_keyframes", "vlad_payloads", "vlad_fleet"
KEY = 200  # characters
TEXT = 65532  # characters of base64 in one row
PARTS = 100  # rows of one payload
POSE = 128  # characters of a pose
LISTED = ("key", "is_local_map", "partial", "travel", "T_odom_base", "T_map_base", "parts")  # all but the vector
NOWHERE = [0.0, 0.0]

Row = dict[str, Any]


def fields(collection: str, dim: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, type and options of a collection's fields."""
    key = ("key", "VARCHAR", {"is_primary": True, "max_length": KEY})
    nowhere = ("nowhere", "FLOAT_VECTOR", {"dim": 2})
    if collection == CATALOGUE:
        return [key, ("value", "VARCHAR", {"max_length": 4096}), nowhere]
    if collection == PAYLOADS:
        return [key, ("payload", "VARCHAR", {"max_length": 65535}), nowhere]
    place = {"max_length": POSE, "nullable": True}
    return [
        key,
        ("robot", "VARCHAR", {"max_length": 64}),
        ("session", "VARCHAR", {"max_length": 36}),
        ("stamp", "INT64", {}),
        ("is_local_map", "BOOL", {}),
        ("partial", "BOOL", {}),
        ("travel", "DOUBLE", {"nullable": True}),
        ("T_odom_base", "VARCHAR", place),
        ("T_map_base", "VARCHAR", place),
        ("parts", "INT64", {}),
        ("descriptor", "FLOAT_VECTOR", {"dim": dim}),
    ]


def schema_of(collection: str, dim: int) -> CollectionSchema:
    """As pymilvus wants it."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for name, kind, options in fields(collection, dim):
        schema.add_field(name, DataType[kind], **options)
    return schema


def to_rows(packed: Packed) -> tuple[Row, list[Row]]:
    """A keyframe's row, and those of its payload. ValueError where it is too large."""
    text = base64.b64encode(packed.payload).decode()
    parts = [text[at : at + TEXT] for at in range(0, len(text), TEXT)]
    if len(parts) > PARTS:
        raise ValueError(f"keyframe {packed.key} has a payload of {len(packed.payload)} bytes, too large for a fleet")
    key = packed.key
    row = {
        "key": str(key),
        "robot": key.robot,
        "session": str(key.session),
        "stamp": key.stamp,
        "is_local_map": packed.is_local_map,
        "partial": packed.partial,
        "travel": packed.travel,
        "T_odom_base": to_text(packed.T_odom_base),
        "T_map_base": to_text(packed.T_map_base),
        "parts": len(parts),
        "descriptor": unpack_descriptors([packed.descriptor], packed_dim(packed.descriptor))[0],
    }
    return row, [{"key": f"{key}/{at}", "payload": part, "nowhere": NOWHERE} for at, part in enumerate(parts)]


def payload_keys(row: Mapping[str, Any]) -> list[str]:
    """The keys of a keyframe's payload. ValueError where it cannot have so many."""
    parts = row.get("parts")
    if not isinstance(parts, int) or not 0 < parts <= PARTS:
        raise ValueError(f"it has {parts!r:.99} parts")
    return [f"{parse_key(row.get('key'))}/{at}" for at in range(parts)]


def from_rows(row: Mapping[str, Any], parts: Sequence[object]) -> Packed:
    """A keyframe from its row and the texts of its payload; what is in it, `unpack` checks. ValueError for a row that
    is none."""
    is_local_map, partial = row.get("is_local_map"), row.get("partial")
    travel, vector = row.get("travel"), row.get("descriptor")
    if not (isinstance(is_local_map, bool) and isinstance(partial, bool) and isinstance(travel, float | int | None)):
        raise ValueError("a flag or the travel of it is of another type")
    try:
        numbers = np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError("its descriptor is no vector") from error
    if numbers.ndim != 1 or len(numbers) % 2 or not np.all(np.isfinite(numbers)):
        raise ValueError("its descriptor is no vector of finite numbers")
    payload = b"".join(_bytes(part) for part in parts)
    poses = [None if row.get(name) is None else _bytes(row[name]) for name in ("T_odom_base", "T_map_base")]
    metres = None if travel is None else float(travel)
    key, descriptor = parse_key(row.get("key")), pack_descriptor(numbers)
    return Packed(key, is_local_map, partial, metres, poses[0], poses[1], descriptor, payload)


def to_text(data: bytes | None) -> str | None:
    """Bytes as a text field holds them."""
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: object) -> bytes:
    if not isinstance(text, str) or len(text) > TEXT:
        raise ValueError("a text of it is too long, or none")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a text of it is no base64") from error


def T_odom_base(row: Mapping[str, Any]) -> F64 | None:
    """The pose (4, 4) of a row, None where it has none; ValueError where it is impossible."""
    text = row.get("T_odom_base")
    return pose(None if text is None else _bytes(text))


def session_of(key: Key) -> str:
    """The catalogue's key of a keyframe's session."""
    return f"session/{key.robot}/{key.session}"
