# SPDX-License-Identifier: Apache-2.0
"""A port of 127.0.0.1 that leads to another one and counts the bytes of both directions."""

from __future__ import annotations

import contextlib
import socket
import threading


class CountingProxy:
    """`up` and `down`: bytes to the server and from it, so far. Where nobody listens there, it hangs up."""

    def __init__(self, target: int) -> None:
        self.up = self.down = 0
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listening.accept()
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                near.close()
                continue
            for one, other, name in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pump, args=(one, other, name), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                setattr(self, name, getattr(self, name) + len(data))
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
