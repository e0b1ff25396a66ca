# SPDX-License-Identifier: Apache-2.0
"""Client of one node: receives all its topics over DDS and calls its services, for the demo and the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import PointCloud2

from vlad_ros.ros.environment import use_shared_memory
from vlad_ros.ros.outputs.diagnostics import status_name
from vlad_ros.ros.outputs.messages import ROW
from vlad_ros.ros.tools.node_process import NodeProcess
from vlad_ros.stamps import stamp_of
from vlad_ros.types import F32

DEPTH = 10000
QUIET_S = 1.0  # no keyframe for this long: the node has nothing left to do
MEET_S = 0.2  # discovery is not symmetric: a server that has not discovered its client yet loses the answer
ASK_AGAIN_S = 2.0
START_S = 600.0  # a fresh clone compiles first: a minute, or several on a busy computer


class NodeClient:
    """Client of the node `name`, spinning in its own thread; owns rclpy during its lifetime.

    `descriptors`: (stamp [ns], frame, (D,) float32) in the order of their arrival; `closures`: (stamp, rows of
    `messages.ROW`); `diagnostics`: the newest values by key. `on_closures(stamp, rows)` is called as they arrive.
    """

    def __init__(self, name: str = "/vlad", on_closures: Callable[[int, np.ndarray], None] | None = None) -> None:
        self.name = name
        self.descriptors: list[tuple[int, str, F32]] = []
        self.closures: list[tuple[int, np.ndarray]] = []
        self.diagnostics: dict[str, str] = {}
        self._on_closures = on_closures
        self._reports = self._reports_since_keyframe = 0
        use_shared_memory()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("vlad_watch")
        qos = QoSProfile(depth=DEPTH)
        self.node.create_subscription(PointCloud2, f"{name}/descriptor", self._descriptor, qos)
        self.node.create_subscription(PointCloud2, f"{name}/loop_closures", self._closure, qos)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._diagnostic, qos)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def __enter__(self) -> NodeClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        rclpy.try_shutdown()

    def _descriptor(self, message: PointCloud2) -> None:
        descriptor = np.frombuffer(message.data, "<f4").copy()
        self.descriptors.append((stamp_of(message), message.header.frame_id, descriptor))
        self._reports_since_keyframe = 0

    def _closure(self, message: PointCloud2) -> None:
        stamp, rows = stamp_of(message), np.frombuffer(message.data, ROW).copy()
        self.closures.append((stamp, rows))
        self._reports_since_keyframe = 0
        if self._on_closures is not None:
            self._on_closures(stamp, rows)

    def _diagnostic(self, message: DiagnosticArray) -> None:
        for status in filter(self.is_ours, message.status):
            self.diagnostics.update({value.key: value.value for value in status.values})
            self._reports += 1
            self._reports_since_keyframe += 1

    def is_ours(self, status: DiagnosticStatus) -> bool:
        """Whether the status is from this node, not from another one on /diagnostics."""
        return bool(status.name == status_name(self.name))

    def counts(self) -> dict[str, int]:
        """The node's latest reported counters, by reason."""
        return {key[6:]: int(value) for key, value in self.diagnostics.items() if key.startswith("count ")}

    def call(self, kind: Any, service: str, request: Any, timeout: float = 60.0) -> Any:
        """Call `name`/`service`, or a `service` by its whole name; TimeoutError, an OSError, if there is no answer."""
        whole = service if service.startswith("/") else f"{self.name}/{service}"
        client = self.node.create_client(kind, whole)
        try:
            if not client.wait_for_service(timeout):
                raise TimeoutError(f"{whole}: no such service in {timeout:.0f} s")
            time.sleep(MEET_S)
            future, answered = client.call_async(request), threading.Event()
            future.add_done_callback(lambda _: answered.set())
            if not answered.wait(timeout):
                raise TimeoutError(f"{whole}: no answer in {timeout:.0f} s")
            return future.result()
        finally:
            self.node.destroy_client(client)

    def state(self, timeout: float = 60.0) -> str:
        """The node's lifecycle state; retries if there is no answer, finally TimeoutError."""
        end = time.monotonic() + timeout
        while True:
            try:
                return str(self.call(GetState, "get_state", GetState.Request(), ASK_AGAIN_S).current_state.label)
            except TimeoutError:
                if time.monotonic() > end:
                    raise

    def wait_active(self, node: NodeProcess, timeout: float = START_S) -> None:
        """Wait until the node is active; RuntimeError, with the end of its log, if it has exited or takes too long."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if node.process.poll() is not None:
                raise RuntimeError(f"the node exited with code {node.process.returncode}:\n{node.tail()}")
            try:
                if self.state(ASK_AGAIN_S) == "active":
                    return
            except TimeoutError:
                continue
            time.sleep(0.1)
        raise RuntimeError(f"the node is not active after {timeout:.0f} s:\n{node.tail()}")

    def deactivate(self) -> None:
        """Ask the node to answer waiting keyframes and to stop; returns when all answers have arrived."""
        request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_DEACTIVATE))
        if not self.call(ChangeState, "change_state", request, START_S).success:
            raise RuntimeError(f"{self.name} could not be deactivated")
        while self.diagnostics.get("state") == "active":  # earlier reports are still in flight
            time.sleep(0.05)
        self.wait_quiet()

    def wait_quiet(self, quiet: float = QUIET_S, timeout: float = 120.0) -> None:
        """Wait until no keyframe has been announced for `quiet` seconds and the node reports that no scan waits.

        Time is counted by the node's reports, one per second: it stops while the node or this client is stalled.
        """
        begin, reports = time.monotonic(), self._reports
        while time.monotonic() - begin < timeout:
            fresh = min(self._reports - reports, self._reports_since_keyframe)
            if fresh > quiet and self.diagnostics.get("scans waiting", "0") == "0":
                return
            time.sleep(0.05)
