# SPDX-License-Identifier: Apache-2.0
"""The lifecycle node: configure allocates, activate accepts scans, deactivate finishes pending work and saves."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Generator, Sequence

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from vlad_ros.ros.inputs import parameters
from vlad_ros.ros.outputs.diagnostics import status
from vlad_ros.ros.reasons import REASONS, TOPICS
from vlad_ros.ros.resources import Resources
from vlad_ros.ros.statistics import Statistics

OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Turn:
    """Awaited by a service: the executor runs other callbacks meanwhile, then resumes."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class PlaceNode(LifecycleNode):  # type: ignore[misc]
    """Parameters, transitions, services and diagnostics; they act on the `Resources`."""

    def __init__(self, stop: threading.Event, arguments: Sequence[str]) -> None:
        super().__init__("vlad")
        self._answer_impossible_transitions()
        parameters.declare(self, arguments)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._stop = stop
        self.exit_code = 0
        self.statistics = Statistics()
        self._resources: Resources | None = None
        self._state = "unconfigured"
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._every_second, clock=steady)
        for name in ("save_map", "load_map", "clear_map", "relocalize"):
            self.create_service(Trigger, f"~/{name}", self._service(name))
        if parameters.read(self)[0].autostart:
            self._autostart = self.create_timer(0.0, self._start, clock=steady)

    def _answer_impossible_transitions(self) -> None:
        """Catch rclpy's error for a transition that is invalid in this state, which would end the process."""
        (service,) = (service for service in self.services if service.srv_name.endswith("/change_state"))
        change_state = service.callback

        def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except RuntimeError as error:
                self.get_logger().warning(f"impossible while {self._state}: {error}")
                response.success = False
                return response

        service.callback = answer

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

        return self._transition("inactive", configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start accepting scans."""
        return self._transition("active", self._open)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Finish the current scan, answer the waiting keyframes, drop the rest, save if configured."""
        return self._transition("inactive", self._close)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free network and map; refused when the map was to be saved and cannot be."""
        return self._transition("unconfigured", self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up."""
        return self._transition("finalized", lambda: self._free(force=True))

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Reset to the unconfigured state."""
        return self._transition("unconfigured", lambda: self._free(force=True))

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

    def _transition(self, target: str, action: Callable[[], object]) -> TransitionCallbackReturn:
        # rclpy swallows exceptions of a transition; a refusal must log why.
        try:
            action()
        except (ValueError, OSError, RuntimeError) as error:
            self.get_logger().error(f"not {target}: {error}")
            return FAILED
        self._state = target
        self.get_logger().info(target)
        return OK

    def _start(self) -> None:
        """autostart: configure and activate, or end with exit code 1."""
        self.destroy_timer(self._autostart)
        if self.trigger_configure() != OK or (not self._stop.is_set() and self.trigger_activate() != OK):
            self.exit_code = 1
            self._stop.set()

    def end(self) -> None:
        """Shut down at process end, as a shutdown transition does."""
        if self._state != "finalized":
            self.trigger_shutdown()

    # Parameters, services, diagnostics.

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """As rclpy does, which calls this for each `ros2 param set`; decimal parameters take integers, too."""
        return super().set_parameters_atomically(parameters.as_declared(parameter_list))

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        return parameters.check(self, changes, self._state)

    def _service(self, name: str) -> Callable[[Trigger.Request, Trigger.Response], Awaitable[Trigger.Response]]:
        async def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            resources = self._resources
            if resources is None or self._state != "active":
                response.success = False
                response.message = (
                    f"{name} needs the node active, it is {self._state}: ros2 lifecycle set "
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
        if resources is not None and self._state == "active":
            warnings = resources.watch()
        values = self.statistics.values() | (resources.values() if resources is not None else {})
        health = status(self.get_fully_qualified_name(), self._state, warnings, values)
        if resources is not None:
            resources.outputs.say(health.message, bool(warnings))
            resources.taken.look()
        array = DiagnosticArray(status=[health])
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    arguments = sys.argv if args is None else args
    try:
        # Our own signal handlers keep the context alive, so that the last keyframes can still be published.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        get_logger("vlad").fatal(parameters.explain(error))
        return 1
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # One thread: no callback waits. rclpy's MultiThreadedExecutor submits a callback again and again until a thread of
    # its pool has started it; with a busy worker this becomes a busy loop that starves both of the interpreter.
    node, executor = None, SingleThreadedExecutor()
    try:
        node = PlaceNode(stop, arguments)
        executor.add_node(node)
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.1)
            except Exception:  # of a callback: only that message is lost
                node.failed(traceback.format_exc())
        return node.exit_code
    except parameters.ParameterError as error:
        get_logger("vlad").fatal(str(error))
        return 1
    finally:
        executor.shutdown()  # waits for a transition in progress
        if node is not None:
            node.end()
            node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
