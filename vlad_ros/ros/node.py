# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: configure allocates, activate accepts scans, deactivate finishes pending work and saves."""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from vlad_ros.parameter_table import PLACE
from vlad_ros.ros.inputs import parameters
from vlad_ros.ros.lifecycle import ManagedNode, run_node
from vlad_ros.ros.outputs.diagnostics import status
from vlad_ros.ros.reasons import REASONS, TOPICS
from vlad_ros.ros.resources import Resources
from vlad_ros.ros.statistics import Statistics


class Turn:
    """Awaited by a service: the executor runs other callbacks meanwhile, then resumes."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class PlaceNode(ManagedNode):
    """Parameters, transitions, services and diagnostics; they act on the `Resources`."""

    def __init__(self, stop: threading.Event, arguments: Sequence[str]) -> None:
        super().__init__("vlad", PLACE, stop, arguments)
        self.statistics = Statistics()
        self._resources: Resources | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(1.0, self._every_second, clock=self.steady)
        for name in ("save_map", "load_map", "clear_map", "relocalize"):
            self.create_service(Trigger, f"~/{name}", self._service(name))

    # Reports from the other parts.

    def reject(self, reason: str, detail: str) -> None:
        """Count `reason` and warn, rate-limited, with topic, reason and count."""
        number = self.statistics.count(reason)
        if self.statistics.may_warn(reason):
            topic = self.resolve_topic_name(TOPICS.get(reason, "points"))
            sentence = ": ".join(filter(None, (REASONS.get(reason, ""), detail)))
            self.get_logger().warning(f"{topic}: {reason} ({number} so far): {sentence}")

    def warn(self, sentence: str) -> None:
        """Log a message once."""
        self.get_logger().warning(sentence)

    def inform(self, sentence: str) -> None:
        """A routine message."""
        self.get_logger().info(sentence)

    def failed(self, trace: str) -> None:
        """An error of the program itself."""
        self.statistics.count("internal_error")
        self.get_logger().error(trace)

    # Transitions.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load weights and map, create topics; refused with a reason when one of them is not available."""

        def configure() -> None:
            node_config, recognizer_config = parameters.read(self)
            self.get_logger().info("configuring; the first time after an installation this compiles for a minute")
            self._resources = Resources(self, self, self.statistics, node_config, recognizer_config)

        return self.transition("inactive", configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start accepting scans."""
        return self.transition("active", self._open)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the current scan, answer the waiting keyframes, drop the rest, save if configured."""
        return self.transition("inactive", self._close)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free network and map; refused when the map was to be saved and cannot be."""
        return self.transition("unconfigured", self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up."""
        return self.transition("finalized", lambda: self._free(force=True))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reset to the unconfigured state."""
        return self.transition("unconfigured", lambda: self._free(force=True))

    def _open(self) -> None:
        if self._resources is not None:
            self._resources.open()

    def _close(self) -> None:
        if self._resources is not None:
            self._resources.close()

    def _free(self, force: bool = False) -> None:
        if self._resources is not None:
            self._resources.free(force)
        self._resources = None

    # Parameters, services, diagnostics.

    def _service(self, name: str) -> Callable[[Trigger.Request, Trigger.Response], Awaitable[Trigger.Response]]:
        async def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            resources = self._resources
            if resources is None or self.state != "active":
                response.success = False
                response.message = (
                    f"{name} needs the node active, it is {self.state}: ros2 lifecycle set "
                    f"{self.get_fully_qualified_name()} {'configure' if resources is None else 'activate'}"
                )
            else:
                job = resources.request(name)
                while not job.done:
                    await Turn()
                response.success, response.message = job.wait()
            return response

        return answer

    def _every_second(self) -> None:
        resources = self._resources
        warnings: list[str] = []
        if resources is not None and self.state == "active":
            warnings = resources.watch()
        values = self.statistics.values() | (resources.values() if resources is not None else {})
        health = status(self.get_fully_qualified_name(), self.state, warnings, values)
        if resources is not None:
            resources.outputs.say(health.message, bool(warnings))
            resources.taken.look()
        array = DiagnosticArray(status=[health])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    return run_node(PlaceNode, "vlad", args)


if __name__ == "__main__":
    sys.exit(main())
