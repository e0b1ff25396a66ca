# SPDX-License-Identifier: Apache-2.0
"""What every lifecycle node of this package does: parameters of dataclasses, refusals with a reason, autostart, and an
orderly end."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from vlad_ros.parameter_table import Kinds
from vlad_ros.ros.inputs import parameters

OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class ManagedNode(LifecycleNode):  # type: ignore[misc]
    """The node `name` with the parameters of `kinds`; `stop` ends its process."""

    def __init__(self, name: str, kinds: Kinds, stop: threading.Event, arguments: Sequence[str]) -> None:
        super().__init__(name)
        self._answer_impossible_transitions()
        self._kinds = kinds
        parameters.declare(self, arguments, kinds)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._stop = stop
        self.exit_code = 0
        self.steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.state = "unconfigured"
        if parameters.read_as(self, kinds)[0].autostart:
            self._autostart = self.create_timer(0.0, self._start, clock=self.steady)

    def _answer_impossible_transitions(self) -> None:
        """Catch rclpy's error for a transition that is invalid in this state, which would end the process."""
        (service,) = (service for service in self.services if service.srv_name.endswith("/change_state"))
        change_state = service.callback

        def answer(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except RuntimeError as error:
                self.get_logger().warning(f"impossible while {self.state}: {error}")
                response.success = False
                return response

        service.callback = answer

    def transition(self, target: str, action: Callable[[], object]) -> TransitionCallbackReturn:
        # rclpy swallows exceptions of a transition; a refusal must log why.
        try:
            action()
        except (ValueError, OSError, RuntimeError) as error:
            self.get_logger().error(f"not {target}: {error}")
            return FAILED
        self.state = target
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
        if self.state != "finalized":
            self.trigger_shutdown()

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """As rclpy does, which calls this for each `ros2 param set`; decimal parameters take integers, too."""
        return super().set_parameters_atomically(parameters.as_declared(parameter_list, self._kinds))

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        return parameters.check(self, changes, self.state, self._kinds)

    def failed(self, trace: str) -> None:
        """An error of the program itself."""
        self.get_logger().error(trace)


def run_node(
    make: Callable[[threading.Event, Sequence[str]], ManagedNode], name: str, args: list[str] | None = None
) -> int:
    """Run the node until SIGINT or SIGTERM; the exit code."""
    arguments = sys.argv if args is None else args
    try:
        # Our own signal handlers keep the context alive, so that the last keyframes can still be published.
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        get_logger(name).fatal(parameters.explain(error))
        return 1
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # One thread: no callback waits. rclpy's MultiThreadedExecutor submits a callback again and again until a thread of
    # its pool has started it; with a busy worker this becomes a busy loop that starves both of the interpreter.
    node, executor = None, SingleThreadedExecutor()
    try:
        node = make(stop, arguments)
        executor.add_node(node)
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.1)
            except Exception:  # of a callback: only that message is lost
                node.failed(traceback.format_exc())
        return node.exit_code
    except parameters.ParameterError as error:
        get_logger(name).fatal(str(error))
        return 1
    finally:
        executor.shutdown()  # waits for a transition in progress
        if node is not None:
            node.end()
            node.destroy_node()
        rclpy.try_shutdown()
