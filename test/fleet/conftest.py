# SPDX-License-Identifier: Apache-2.0
"""The fleet's tests need Milvus Lite; each has a queue folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_server import FleetServer


@pytest.fixture(autouse=True)
def ros_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROS_HOME", str(tmp_path / "ros"))
    return tmp_path / "ros"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    """A server for the tests of a module that do not kill it."""
    pytest.importorskip("milvus_lite")
    server = FleetServer(tmp_path_factory.mktemp("fleet"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FleetServer]:
    """A server of its own, not yet started."""
    pytest.importorskip("milvus_lite")
    server = FleetServer(tmp_path)
    yield server
    server.kill()
