# SPDX-License-Identifier: Apache-2.0
"""What a vehicle, or `vlad fleet`, says to the fleet and asks of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import numpy as np

from vlad_ros.fleet import schema
from vlad_ros.fleet.names import Key, parse_key, parse_session
from vlad_ros.fleet.packed import Packed
from vlad_ros.fleet.server import TIMEOUT, Server, entry
from vlad_ros.types import F32, F64

if TYPE_CHECKING:
    from pymilvus import MilvusClient

BATCH = 64  # keyframes fetched by one call, a few megabytes
PAGE = 1000  # rows of an iterator's call
EFFORT = 128  # rows that a search of HNSW keeps in view


class Hit(NamedTuple):
    """A keyframe of the fleet that looks like the one asked about, and its pose in its session, None if it has none."""

    key: Key
    similarity: float
    T_odom_base: F64 | None


class FleetClient(Server):
    """See `Server`. `faults`: a sentence for each row that was no keyframe, and was left out."""

    def __init__(self, uri: str, make: Mapping[str, str] | None) -> None:
        super().__init__(uri, make)
        self.faults: list[str] = []
        self._announced: set[str] = set()  # sessions

    # -- up -----------------------------------------------------------------------------------------------------------

    def put(self, keyframes: Sequence[Packed]) -> None:
        """Insert or replace keyframes: what was there under their keys is gone."""
        rows, parts = zip(*map(schema.to_rows, keyframes), strict=True)
        news = {schema.session_of(packed.key) for packed in keyframes} - self._announced

        def upsert(client: MilvusClient) -> None:
            client.upsert(schema.PAYLOADS, [part for some in parts for part in some], timeout=TIMEOUT)
            client.upsert(schema.KEYFRAMES, list(rows), timeout=TIMEOUT)  # the payload is there when this is found
            if news:
                client.upsert(schema.CATALOGUE, [entry(name, "") for name in sorted(news)], timeout=TIMEOUT)

        self.call(upsert)
        self._announced |= news

    def correct(self, poses: Mapping[Key, bytes]) -> None:
        """Set the poses in their robot's map of keyframes; those that the fleet does not hold are left out."""

        def upsert(client: MilvusClient) -> None:
            found = client.get(
                schema.KEYFRAMES, ids=[str(key) for key in poses], output_fields=["key"], timeout=TIMEOUT
            )
            held = {row["key"] for row in found}
            rows = [{"key": str(key), "T_map_base": schema.to_text(T)} for key, T in poses.items() if str(key) in held]
            if rows:
                client.upsert(schema.KEYFRAMES, rows, partial_update=True, timeout=TIMEOUT)

        self.call(upsert)

    # -- down ---------------------------------------------------------------------------------------------------------

    def search(self, descriptor: F32, is_local_map: bool, robot: str, k: int) -> list[Hit]:
        """Up to `k` keyframes of other robots than `robot`, of the same kind, most similar to `descriptor` (D,)."""
        found = self.call(
            lambda client: client.search(
                schema.KEYFRAMES,
                data=[np.ascontiguousarray(descriptor, np.float32)],
                filter=f'robot != "{robot}" and is_local_map == {str(bool(is_local_map)).lower()}',
                limit=k,
                output_fields=["key", "T_odom_base"],
                search_params={"metric_type": "IP", "params": {"ef": max(EFFORT, k)}},
                timeout=TIMEOUT,
            )
        )
        hits = []
        for one in found[0] if found else []:
            with self._tolerant():
                row = one["entity"]
                hits.append(Hit(parse_key(row.get("key")), float(one["distance"]), schema.T_odom_base(row)))
        return hits

    def window(self, robot: str, session: UUID, name: str, first: float, last: float) -> list[Key]:
        """The keyframes of a session whose `name` (travel [m] or stamp [ns]) lies between `first` and `last`."""
        return self._keys(f'robot == "{robot}" and session == "{session}" and {name} >= {first} and {name} <= {last}')

    def session_keys(self, robot: str, session: UUID) -> list[Key]:
        """All keyframes of a session."""
        return self._keys(f'robot == "{robot}" and session == "{session}"')

    def fetch(self, keys: Sequence[Key]) -> list[Packed]:
        """Whole keyframes, by session and stamp. Those that are no longer there, or are none, are left out."""
        found: list[Packed] = []
        for at in range(0, len(keys), BATCH):
            wanted = {str(key) for key in keys[at : at + BATCH]}
            rows = self._get(schema.KEYFRAMES, sorted(wanted), [*schema.LISTED, "descriptor"])
            ids = {}
            for row in rows:
                with self._tolerant():
                    if row.get("key") in wanted:
                        ids[str(row["key"])] = schema.payload_keys(row)
            parts = self._get(schema.PAYLOADS, [id for some in ids.values() for id in some], ["key", "payload"])
            payloads = {part.get("key"): part.get("payload") for part in parts}
            for row in rows:
                with self._tolerant():
                    if row.get("key") in ids:
                        found.append(schema.from_rows(row, [payloads.get(id) for id in ids[str(row["key"])]]))
        return sorted(found, key=lambda packed: (packed.key.robot, packed.key.session.bytes, packed.key.stamp))

    def count(self, robot: str = "", session: UUID | None = None) -> int:
        """The number of keyframes, of all or of one session."""
        which = f'robot == "{robot}" and session == "{session}"' if session else ""
        rows = self.call(
            lambda client: client.query(
                schema.KEYFRAMES,
                filter=which,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=TIMEOUT,
            )
        )
        return int(rows[0]["count(*)"])

    def sessions(self) -> list[tuple[str, UUID]]:
        """Robot and session of each drive, sorted."""
        found = []
        for row in self._iterate(schema.CATALOGUE, 'key like "session/%"', ["key"]):
            with self._tolerant():
                found.append(parse_session(str(row.get("key")).removeprefix("session/")))
        return sorted(found, key=lambda one: (one[0], one[1].bytes))

    # -- how ----------------------------------------------------------------------------------------------------------

    def _keys(self, which: str) -> list[Key]:
        keys = []
        for row in self._iterate(schema.KEYFRAMES, which, ["key"]):
            with self._tolerant():
                keys.append(parse_key(row.get("key")))
        return sorted(keys, key=lambda key: (key.robot, key.session.bytes, key.stamp))

    def _get(self, collection: str, ids: list[str], names: list[str]) -> list[dict[str, Any]]:
        if not ids:
            return []
        return list(self.call(lambda client: client.get(collection, ids=ids, output_fields=names, timeout=TIMEOUT)))

    def _iterate(self, collection: str, which: str, names: list[str]) -> list[dict[str, Any]]:
        def read(client: MilvusClient) -> list[dict[str, Any]]:
            pages = client.query_iterator(
                collection, batch_size=PAGE, filter=which, output_fields=names, timeout=TIMEOUT
            )
            rows: list[dict[str, Any]] = []
            while page := pages.next():
                rows += page
            pages.close()
            return rows

        return self.call(read)

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """One bad row ends nothing."""
        try:
            yield
        except ValueError as error:
            self.faults.append(f"a row of the fleet {self.uri} is left out: {error}")
