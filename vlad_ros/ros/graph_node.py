# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node of the pose graph: the place node's keyframes and loops and any odometry in, TF map -> odom and a
corrected trajectory out."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from vlad_ros.parameter_table import GRAPH
from vlad_ros.ros.graph_session import GraphSession
from vlad_ros.ros.inputs import parameters
from vlad_ros.ros.lifecycle import ManagedNode, run_node

TELL = 0.5  # s between two corrections to the place node


class GraphNode(ManagedNode):
    """Parameters, transitions, services and diagnostics; they act on the `GraphSession`."""

    def __init__(self, stop: threading.Event, arguments: Sequence[str]) -> None:
        super().__init__("vlad_graph", GRAPH, stop, arguments)
        self._session: GraphSession | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._every_second, clock=self.steady)
        self.create_timer(TELL, self._tell, clock=self.steady)
        for name in ("save_trajectory", "apply_edits"):
            self.create_service(Trigger, f"~/{name}", self._service(name))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Resume the graph file, create topics; refused with a reason when gtsam or the file is not available."""

        def configure() -> None:
            config, graph = parameters.read_as(self, GRAPH)
            self._session = GraphSession(self, config, graph)

        return self.transition("inactive", configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to listen."""
        return self.transition("active", lambda: self._set_open(True))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to listen, tell the place node the last corrections, save the graph."""
        return self.transition("inactive", lambda: self._set_open(False))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free graph, file and topics."""
        return self.transition("unconfigured", self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up."""
        return self.transition("finalized", self._free)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reset to the unconfigured state."""
        return self.transition("unconfigured", self._free)

    def _set_open(self, opened: bool) -> None:
        if self._session is not None:
            self._session.set_open(opened)

    def _free(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session = None

    def _service(self, name: str) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            if self._session is None:
                response.message = f"{name} needs the node configured, it is {self.state}"
                return response
            actions = {"save_trajectory": self._session.save_trajectory, "apply_edits": self._session.apply_edits}
            try:
                response.success, response.message = True, actions[name]()
            except (ValueError, OSError) as error:
                response.message = str(error)
            return response

        return answer

    def _tell(self) -> None:
        if self._session is not None and self.state == "active":
            self._session.tell()

    def _every_second(self) -> None:
        array = DiagnosticArray()
        array.header.stamp = self.get_clock().now().to_msg()
        if self._session is not None:
            self._session.every_second(self.state == "active")
            array.status = [self._session.status(self.state)]
        self._diagnostics.publish(array)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    return run_node(GraphNode, "vlad_graph", args)


if __name__ == "__main__":
    sys.exit(main())
