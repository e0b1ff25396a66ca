# SPDX-License-Identifier: Apache-2.0
"""The client against a real server over loopback and against the embedded engine, both Milvus Lite."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from fleet_server import FleetServer
from map_rows import DIM, MAKE, geometry, keyframe

from vlad_ros.fleet import schema
from vlad_ros.fleet.client import FleetClient
from vlad_ros.fleet.names import FleetError, Key, RefusedError
from vlad_ros.fleet.packed import Packed, pack, unpack
from vlad_ros.fleet.server import OPTIONS, check_uri, connect
from vlad_ros.mapping.codec import pack_pose
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.poses import from_xyz_rpy

pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")
MADE = KeyframeDatabase(DIM, **MAKE).store.make
RED, BLUE = UUID(int=1), UUID(int=2)


def rows(robot: str, session: UUID, count: int = 30) -> list[Packed]:
    """A drive: every third keyframe has no local map, every fifth no odometry."""
    rng, found = np.random.default_rng(session.int), []
    for i in range(count):
        one = keyframe(rng, 0, 100 + i, i % 3 > 0, None if i % 5 == 4 else float(i))
        one = dataclasses.replace(one, geometry=geometry(rng))
        found.append(pack(Key(robot, session, one.stamp), one, None))
    return found


@pytest.fixture(scope="module", params=["server", "embedded"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "server":
        return request.getfixturevalue("running").uri
    return str(tmp_path_factory.mktemp("embedded") / "fleet.db")


@pytest.fixture(scope="module")
def fleet(uri: str) -> FleetClient:
    client = FleetClient(uri, MADE)
    client.put(rows("red", RED))
    client.put(rows("blue", BLUE))
    return client


def test_what_was_put_comes_back(fleet: FleetClient) -> None:
    sent = rows("red", RED)
    assert fleet.fetch([one.key for one in reversed(sent)]) == sent
    assert fleet.session_keys("red", RED) == [one.key for one in sent]
    assert (fleet.count(), fleet.count("red", RED), fleet.count("red", BLUE)) == (60, 30, 0)
    assert fleet.sessions() == [("blue", BLUE), ("red", RED)] and fleet.faults == []
    assert fleet.fetch([Key("red", RED, 7)]) == []


def test_put_again_replaces(fleet: FleetClient) -> None:
    first = rows("red", RED)[0]
    turned = first._replace(descriptor=rows("blue", BLUE)[1].descriptor, payload=rows("blue", BLUE)[1].payload)
    fleet.put([turned])
    assert fleet.count() == 60 and fleet.fetch([first.key]) == [turned]
    fleet.put([first])
    assert fleet.count() == 60 and fleet.fetch([first.key]) == [first]


@pytest.mark.parametrize("is_local_map", [True, False])
@pytest.mark.parametrize("robot", ["red", "blue", "green"])
def test_the_search_is_that_of_brute_force(fleet: FleetClient, robot: str, is_local_map: bool) -> None:
    """Among the other robots' keyframes of the same kind."""
    others = [one for one in rows("red", RED) + rows("blue", BLUE) if one.key.robot != robot]
    others = [one for one in others if one.is_local_map == is_local_map]
    query = keyframe(np.random.default_rng(5)).descriptor
    similar = {one.key: float(unpack(one, DIM, 0).descriptor @ query) for one in others}
    hits = fleet.search(query, is_local_map, robot, 7)
    assert [hit.key for hit in hits] == sorted(similar, key=lambda key: -similar[key])[:7]
    assert [hit.similarity for hit in hits] == pytest.approx([similar[hit.key] for hit in hits], abs=1e-5)
    poses = {one.key: unpack(one, DIM, 0).T_odom_base for one in others}
    assert all(np.array_equal(hit.T_odom_base, poses[hit.key]) or poses[hit.key] is None for hit in hits)


def test_surroundings_by_travel_and_by_time(fleet: FleetClient) -> None:
    by_travel = fleet.window("red", RED, "travel", 9.5, 15.0)
    assert [key.stamp - 100 for key in by_travel] == [10, 11, 12, 13, 15]  # 14 has no odometry
    assert [key.stamp - 100 for key in fleet.window("blue", BLUE, "stamp", 113, 115)] == [13, 14, 15]
    assert fleet.window("blue", RED, "stamp", 0, 999) == []


def test_corrected_poses_go_up_again_and_move_nothing_else(fleet: FleetClient) -> None:
    one, T = rows("red", RED)[3], pack_pose(from_xyz_rpy((1.0, 2.0, 3.0, 0.0, 0.0, 0.5)))
    fleet.correct({one.key: T, Key("red", RED, 7): T})  # the fleet has never had the second
    assert fleet.fetch([one.key]) == [one._replace(T_map_base=T)] and fleet.count() == 60
    fleet.put([one])
    assert fleet.fetch([one.key]) == [one]


def test_another_make_is_refused_and_changes_nothing(uri: str, fleet: FleetClient) -> None:
    for change, why in {
        ("model_hash", "b" * 64): r"was made with other weights \(000000000000...; these are bbbbbbbbbbbb...\)",
        ("bev", "{}"): "was made with another BEV configuration",
        ("metric", "l2"): "compares by inner_product, not by l2",
        ("dim", "16"): "holds descriptors of length 8; this network makes 16",
        ("kind", "bev"): "holds keyframes made from points, not from bev",
    }.items():
        with pytest.raises(RefusedError, match=why):
            FleetClient(uri, MADE | dict([change])).put(rows("green", UUID(int=3)))
    assert fleet.count() == 60
    any_make = FleetClient(uri, None)
    assert any_make.count() == 60 and any_make.make == MADE


def test_asking_begins_no_fleet(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"there is no fleet at .*: a first vehicle, or vlad fleet push, begins it"):
        FleetClient(str(tmp_path / "none.db"), None).count()


def test_rows_that_lie_are_left_out_and_told(tmp_path: Path) -> None:
    """A server that anybody may write to: names, sizes and vectors as they come."""
    uri = str(tmp_path / "fleet.db")
    client, (good, *_) = FleetClient(uri, MADE), rows("red", RED)
    client.put([good])
    row, parts = schema.to_rows(good)
    raw = connect(uri, {})
    bad = {
        'red"/x/1': {},
        f"red/{RED}/1": {"parts": 10**9},
        f"red/{RED}/2": {"T_odom_base": "AAAA"},
        f"red/{RED}/3": {"descriptor": np.full(DIM, np.nan, np.float32)},
        f"red/{RED}/4": {"descriptor": np.full(DIM, 3.0, np.float32)},
        f"red/{RED}/5": {},  # without a payload
    }
    raw.upsert(schema.KEYFRAMES, [row | {"key": key} | change for key, change in bad.items()])
    raw.upsert(schema.PAYLOADS, [parts[0] | {"key": f"{key}/0"} for key in list(bad)[:5]])
    raw.upsert(schema.CATALOGUE, [{"key": "session/a b/c", "value": "", "nowhere": [0.0, 0.0]}])
    assert {hit.key.robot for hit in client.search(np.ones(DIM), good.is_local_map, "blue", 9)} <= {"red"}
    keys = client.session_keys("red", RED)
    assert sorted(key.stamp for key in keys) == [1, 2, 3, 4, 5, 100]
    whole = []
    for packed in client.fetch(keys):
        try:
            whole.append(unpack(packed, DIM, 0).stamp)
        except ValueError as error:
            assert "unit vector" in str(error) or "rigid" in str(error) or "payload" in str(error)
    assert whole == [100] and client.sessions() == [("red", RED)]
    assert len(client.faults) >= 4 and all("is left out: " in fault for fault in client.faults)


def test_a_catalogue_that_is_none_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "fleet.db")
    FleetClient(uri, MADE).put(rows("red", RED)[:1])
    raw = connect(uri, {})
    for value in (
        "",
        "{}",
        "[",
        "7",
        '{"version": "2"}',
        json.dumps({"version": schema.VERSION, "dim": "1e9"}),
        "[" * 4000,
    ):
        raw.upsert(schema.CATALOGUE, [{"key": "make", "value": value, "nowhere": schema.NOWHERE}])
        with pytest.raises(RefusedError, match="is of another version, or none"):
            FleetClient(uri, MADE).count()


def test_collections_of_another_shape_are_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "fleet.db")
    FleetClient(uri, MADE).put(rows("red", RED)[:1])
    raw = connect(uri, {})
    raw.drop_collection(schema.PAYLOADS)
    index = raw.prepare_index_params()
    index.add_index("nowhere", index_type="FLAT", metric_type="L2")
    raw.create_collection(schema.PAYLOADS, schema=schema.schema_of(schema.CATALOGUE, DIM), index_params=index)
    with pytest.raises(RefusedError, match="the fields of vlad_payloads are not those of this version"):
        FleetClient(uri, MADE).count()


def test_a_server_that_is_gone_is_a_sentence_and_one_that_is_back_answers(server: FleetServer) -> None:
    client, sent = FleetClient(server.uri, MADE), rows("red", RED)
    with pytest.raises(
        FleetError, match=r"the fleet http://127.0.0.1:\d+ cannot be used: no Milvus answers there; is it running"
    ) as refused:
        client.put(sent)
    assert not isinstance(refused.value, RefusedError) and "\n" not in str(refused.value)
    server.start()
    client.put(sent)
    server.kill()  # -9: what it has answered is there again
    with pytest.raises(FleetError, match="cannot be used"):
        client.count()
    server.start()
    assert client.count() == 30 and client.fetch([one.key for one in sent]) == sent


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\nhello", b"\x00" * 64])
def test_something_else_that_listens_there_is_a_sentence(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlad_ros.fleet.server.CONNECT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.0)
        with pytest.raises(FleetError, match="cannot be used"):
            FleetClient(f"http://127.0.0.1:{other.getsockname()[1]}", MADE).count()


def test_the_token_goes_to_the_server_and_into_no_log(
    running: FleetServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd
) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "root:Secret7")
    caplog.set_level(logging.DEBUG)
    logging.getLogger("pymilvus").setLevel(logging.DEBUG)
    client = FleetClient(running.uri, MADE)
    client.put(rows("red", RED))
    assert client._client._config.token == "root:Secret7"  # it is the client's
    said = []
    for uri in (running.uri, "http://127.0.0.1:1"):
        other = FleetClient(uri, MADE | {"kind": "bev"})
        with pytest.raises(FleetError) as refused:
            other.put(rows("red", RED))
        said.append(str(refused.value))
    said.append(client._without_token("who is root:Secret7, or Secret7?"))
    said += [repr(client), str(vars(client)["uri"]), caplog.text, *capfd.readouterr()]
    assert not any("Secret7" in text for text in said)


def test_tls_is_the_clients_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its options come from the environment; a certificate that is not there is a sentence."""
    for option in OPTIONS:
        monkeypatch.setenv(f"MILVUS_{option.upper()}", str(tmp_path / option))
    given: dict[str, str] = {}

    def record(uri: str, options: dict[str, str]) -> None:
        given.update(options, uri=uri)
        raise OSError("enough")

    with monkeypatch.context() as patch, pytest.raises(FleetError, match="enough"):
        patch.setattr("vlad_ros.fleet.server.connect", record)
        FleetClient("https://localhost:1", MADE).count()
    assert given == {option: str(tmp_path / option) for option in OPTIONS} | {"uri": "https://localhost:1"}
    with pytest.raises(FleetError, match="cannot be used") as refused:
        FleetClient("https://127.0.0.1:1", MADE).count()
    assert "server_pem_path" in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["", "127.0.0.1:19530", "http://", "http://root:Secret@127.0.0.1", "ftp://a", "fleet", "https://a b", "tcp://a:1"],
)
def test_an_address_that_is_none_or_holds_a_password_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="MILVUS_TOKEN") as refused:
        check_uri(uri)
    assert "Secret" not in str(refused.value)


def test_without_the_extra_there_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['pymilvus'] = None; from vlad_ros.cli import main; "
        f"sys.exit(main(['fleet', 'info', '--fleet-uri', {str(tmp_path / 'fleet.db')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    said = "a fleet needs pymilvus, which is not installed: pip install -r requirements-fleet.txt"
    assert done.stderr.strip() == f"vlad fleet: {said}"
