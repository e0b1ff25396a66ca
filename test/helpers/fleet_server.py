# SPDX-License-Identifier: Apache-2.0
"""A real `milvus-lite server` over loopback, killed and started at will, and what tests ask of a fleet."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 60.0  # s


class FleetServer:
    """One server at one port of 127.0.0.1, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        where = ("--data-dir", str(self.folder / "data"), "--host", "127.0.0.1", "--port", str(self.port))
        with open(self.folder / "log", "ab") as log:
            command = [sys.executable, "-m", "milvus_lite.cmdline", "server", *where]
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        until(self._listens)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for `condition`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
