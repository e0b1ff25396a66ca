# SPDX-License-Identifier: Apache-2.0
"""The connection to the fleet's server, by pymilvus: a cluster, `milvus-lite server` or an embedded file, all alike."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vlad_ros.fleet import schema
from vlad_ros.fleet.names import FleetError, RefusedError
from vlad_ros.mapping.connection import mismatch

if TYPE_CHECKING:
    from pymilvus import MilvusClient

T = TypeVar("T")
CONNECT, TIMEOUT = 3.0, 10.0  # s, to connect, and of one call
BEGIN = "a first vehicle, or vlad fleet push, begins it"
GRAPH = {"M": 16, "efConstruction": 200}  # of HNSW
# The client's own options, read from the environment: MILVUS_TOKEN, MILVUS_CA_PEM_PATH and so on.
OPTIONS = (
    *("token", "db_name", "server_name"),
    *("server_pem_path", "ca_pem_path", "client_pem_path", "client_key_path"),
)


class Server:
    """Connects when it is first used, and anew after a failure; for one thread.

    `make`: how the keyframes are made; a fleet of another make is refused, where there is none it is created. None: of
    any make, and nothing is created. FleetError from each call says why it failed, RefusedError that it always will.
    """

    def __init__(self, uri: str, make: Mapping[str, str] | None) -> None:
        self.uri, self._wanted = check_uri(uri), make
        self.make: dict[str, str] = {}  # the fleet's
        self._client: MilvusClient | None = None
        self._options = {name: os.environ[f"MILVUS_{name.upper()}"] for name in OPTIONS if _is_set(name)}

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            with contextlib.suppress(Exception):  # it is of no more use, whatever it says
                self._client.close()
        self._client = None

    def call(self, do: Callable[[MilvusClient], T]) -> T:
        """What `do` returns, connected."""
        failures = import_client()
        try:
            return do(self._connected())
        except failures as error:
            self.close()
            raise FleetError(f"the fleet {self.uri} cannot be used: {self._without_token(cause(error))}") from None
        except FleetError:
            self.close()
            raise

    def _connected(self) -> MilvusClient:
        if self._client is None:
            if not self.uri.startswith("http"):
                self._check_file(Path(self.uri))
            self._client = connect(self.uri, self._options)
            self._check_fleet(self._client)
        return self._client

    def _check_file(self, path: Path) -> None:
        """Milvus Lite would make a fleet of any name."""
        if self._wanted is None and not path.exists():
            raise RefusedError(f"there is no fleet at {path}: {BEGIN}")
        if path.exists() and not path.is_dir():
            raise RefusedError(f"{path} is a file of another program, not an embedded fleet, which is a folder")

    def _check_fleet(self, client: MilvusClient) -> None:
        """Create what is missing, refuse what is different, and have the collections loaded."""
        names = (schema.KEYFRAMES, schema.PAYLOADS, schema.CATALOGUE)
        missing = [name for name in names if not client.has_collection(name, timeout=TIMEOUT)]
        if missing and self._wanted is None:
            raise RefusedError(f"there is no fleet at {self.uri}: {BEGIN}")
        for name in missing:
            create(client, name, int((self._wanted or {})["dim"]))
        for name in names:
            client.load_collection(name, timeout=TIMEOUT)
        said = client.get(schema.CATALOGUE, ids=["make"], output_fields=["value"], timeout=TIMEOUT)
        if not said and self._wanted is not None:
            told = json.dumps({"version": schema.VERSION, **self._wanted})
            client.upsert(schema.CATALOGUE, [entry("make", told)], timeout=TIMEOUT)
            said = client.get(schema.CATALOGUE, ids=["make"], output_fields=["value"], timeout=TIMEOUT)
        self.make = self._read_make(said[0]["value"] if said else None)
        if self._wanted is not None and (difference := mismatch(self.make, self._wanted)):
            raise RefusedError(f"the fleet {self.uri} {difference}")
        for name in names:
            self._check_fields(client, name)

    def _read_make(self, said: object) -> dict[str, str]:
        try:
            make = json.loads(str(said))
            version = make.pop("version")
            if version != schema.VERSION or not all(isinstance(value, str) for value in make.values()):
                raise ValueError(version)
            if not re.fullmatch(r"[0-9]{1,5}", make["dim"]):
                raise ValueError(make["dim"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RefusedError(f"the fleet {self.uri} is of another version, or none: {str(said)!r:.99}") from error
        return dict(make)

    def _check_fields(self, client: MilvusClient, name: str) -> None:
        """Names, types and sizes."""
        found = {
            field["name"]: (field["type"].name, int(field["params"].get("dim", 0)))
            for field in client.describe_collection(name, timeout=TIMEOUT)["fields"]
        }
        wanted = {n: (kind, int(o.get("dim", 0))) for n, kind, o in schema.fields(name, int(self.make["dim"]))}
        if found != wanted:
            raise RefusedError(f"the fleet {self.uri}: the fields of {name} are not those of this version")

    def _without_token(self, text: str) -> str:
        """`text` in one short line."""
        text = " ".join(text.split())
        for secret in filter(None, [self._options.get("token"), *self._options.get("token", "").split(":")[1:]]):
            text = text.replace(secret, "***")
        return text[:200]


def cause(error: Exception) -> str:
    """Why a call has failed, without the client's ornaments, and the remedy where it is known."""
    text = str(getattr(error, "message", "") or (error.details() if hasattr(error, "details") else "") or error)
    if "Fail connecting" in text:
        return "no Milvus answers there; is it running, and is this its address?"
    if "Open local milvus failed" in text:
        return "it cannot be opened; is the folder that it lies in there, and does no other process have it open?"
    return text


def create(client: MilvusClient, name: str, dim: int) -> None:
    """A collection with its index; another vehicle may have been faster."""
    from pymilvus import MilvusException

    index = client.prepare_index_params()
    if name == schema.KEYFRAMES:
        index.add_index("descriptor", index_type="HNSW", metric_type="IP", params=GRAPH)
    else:
        index.add_index("nowhere", index_type="FLAT", metric_type="L2")
    try:
        client.create_collection(name, schema=schema.schema_of(name, dim), index_params=index, timeout=TIMEOUT)
    except MilvusException:
        if not client.has_collection(name, timeout=TIMEOUT):
            raise


def import_client() -> tuple[type[Exception], ...]:
    """What the client raises when something fails; it logs nothing from now on, for we tell what it says. RefusedError
    when it is not installed."""
    os.environ.setdefault("PYTHON_DOTENV_DISABLED", "1")  # it would read any .env file around
    try:
        import grpc
        from pymilvus import MilvusException
    except ModuleNotFoundError as error:
        raise RefusedError(
            f"a fleet needs {error.name}, which is not installed: pip install -r requirements-fleet.txt"
        ) from error
    for name in ("pymilvus", "milvus_lite"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return MilvusException, grpc.RpcError, OSError


def connect(uri: str, options: Mapping[str, str]) -> MilvusClient:
    """A client of its own, with its own `options`."""
    from pymilvus import MilvusClient

    return MilvusClient(uri, timeout=CONNECT, dedicated=True, **options)


def check_uri(uri: str) -> str:
    """`uri`; ValueError unless it names a server or an embedded file, without a password in it."""
    if not re.fullmatch(r"https?://[^/@\s?#]+(/[\w-]*)?|[^:@]+\.db", uri):
        raise ValueError(
            "the fleet must be http://HOST:PORT, https://HOST:PORT or a file ending in .db, its token in MILVUS_TOKEN"
        )
    return uri


def _is_set(name: str) -> bool:
    return bool(os.environ.get(f"MILVUS_{name.upper()}"))


def entry(key: str, value: str) -> schema.Row:
    """A row of the catalogue."""
    return {"key": key, "value": value, "nowhere": schema.NOWHERE}
