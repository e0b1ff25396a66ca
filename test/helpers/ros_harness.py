# SPDX-License-Identifier: Apache-2.0
"""A live node in its own process, fed over DDS by the test: synthetic clouds, odometry, rasters; and what it says."""

from __future__ import annotations

import array
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_srvs.srv import Trigger
from untrained import similarity_alone

from vlad_ros.config import BevConfig, ModelConfig
from vlad_ros.model.network import PlaceNetwork
from vlad_ros.model.weights import save_weights
from vlad_ros.ros.outputs.messages import to_pose
from vlad_ros.ros.tools.node_client import NodeClient
from vlad_ros.ros.tools.node_process import NodeProcess
from vlad_ros.stamps import SECOND
from vlad_ros.types import F64

MS = 1_000_000
FLOAT32 = PointField.FLOAT32
XYZI = tuple(PointField(name=name, offset=4 * i, datatype=FLOAT32, count=1) for i, name in enumerate("xyzi"))


def untrained_weights(path: Path, half: float = 0.9) -> Path:
    """A weights file of the right form that knows nothing; loops are as probable as 0.5 at a similarity of `half`."""
    torch.manual_seed(0)
    save_weights(
        path, PlaceNetwork(ModelConfig(), BevConfig()), similarity_alone(half), {"note": "untrained, for tests"}
    )
    return path


def place(seed: int, number: int = 6000) -> np.ndarray:
    """A street-like scene (N, 4) float32: a floor and a dozen boxes that `seed` puts around the sensor."""
    rng = np.random.default_rng(seed)
    floor = np.column_stack([rng.uniform(-35, 35, (number // 3, 2)), rng.normal(-1.7, 0.01, number // 3)])
    centres, sizes = rng.uniform(-30, 30, (12, 2)), rng.uniform(1, 6, (12, 3))
    which = rng.integers(0, 12, number - number // 3)
    boxes = np.column_stack([centres[which], np.full(len(which), -1.7)])
    boxes += rng.uniform(0, 1, boxes.shape) * sizes[which] + rng.normal(0, 0.01, boxes.shape)
    points = np.concatenate([floor, boxes])
    points = points[np.linalg.norm(points[:, :2], axis=1) > 2]
    return np.column_stack([points, rng.uniform(0, 255, len(points))]).astype(np.float32)


def time_of(stamp: int) -> Time:
    """A message's time of nanoseconds."""
    return Time(sec=stamp // SECOND, nanosec=stamp % SECOND)


def cloud(stamp: int, points: np.ndarray, frame: str = "lidar", **changes: Any) -> PointCloud2:
    """A cloud message of `points` (N, 4) float32, its fields changed as told afterwards."""
    message = PointCloud2(
        height=1, width=len(points), fields=list(XYZI), point_step=16, row_step=16 * len(points), is_dense=True
    )
    message.header.stamp, message.header.frame_id = time_of(stamp), frame
    message.data = array.array("B", np.ascontiguousarray(points, "<f4").tobytes())
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def odometry(
    stamp: int, x: float = 0.0, child: str = "lidar", quaternion: tuple[float, ...] = (0, 0, 0, 1)
) -> Odometry:
    """An odometry message at (x, 0, 0)."""
    message = Odometry(child_frame_id=child)
    message.header.stamp, message.header.frame_id = time_of(stamp), "odom"
    message.pose.pose.position.x = float(x)
    q = message.pose.pose.orientation
    q.x, q.y, q.z, q.w = map(float, quaternion)
    return message


def odometry_at(stamp: int, T: F64, child: str = "lidar") -> Odometry:
    """An odometry message of T_odom_child (4, 4)."""
    message = Odometry(child_frame_id=child)
    message.header.stamp, message.header.frame_id, message.pose.pose = time_of(stamp), "odom", to_pose(T)
    return message


class Robot(NodeClient):
    """The test's end of the conversation with one node."""

    def __init__(self, name: str = "/vlad", points: str = "points") -> None:
        super().__init__(name)
        self._points = self.node.create_publisher(PointCloud2, points, QoSProfile(depth=50))
        self._odom = self.node.create_publisher(Odometry, "odom", QoSProfile(depth=200))
        self._bev = self.node.create_publisher(Image, "bev", QoSProfile(depth=50))
        self.level, self.message, self.reports = b"", "", 0

    def _diagnostic(self, message: Any) -> None:
        super()._diagnostic(message)
        self.level, self.message = message.status[0].level, message.status[0].message
        self.reports += 1

    @property
    def warns(self) -> bool:
        """Whether the newest diagnostics warn."""
        return self.level == DiagnosticStatus.WARN

    @property
    def answered(self) -> int:
        """Keyframes whose descriptor and closures have both come: of two topics either may be the first."""
        return min(len(self.descriptors), len(self.closures))

    def send(self, message: PointCloud2 | Odometry | Image) -> None:
        """Publish on the topic that the message is for."""
        topics = {PointCloud2: self._points, Odometry: self._odom, Image: self._bev}
        topics[type(message)].publish(message)

    @property
    def listeners(self) -> int:
        """How many subscriptions hear the clouds."""
        return int(self._points.get_subscription_count())

    def wait_connected(self, *, odom: bool = False, bev: bool = False) -> None:
        """Until the node hears us."""
        publishers = [self._points] + [self._odom] * odom + [self._bev] * bev
        wait_for(lambda: all(p.get_subscription_count() for p in publishers), "the node does not subscribe")
        self.meet()

    def meet(self) -> None:
        """Until the node knows every publisher and subscription that this end has made so far.

        Discovery is not symmetric, but in order: a service that answers a new client has met all that was there before.
        """
        self.state()

    def wait_report(self) -> None:
        """Until diagnostics have told everything that has happened so far."""
        enough = self.reports + 2  # the next may have been on its way
        wait_for(lambda: self.reports >= enough, "no diagnostics")

    def count(self, reason: str) -> int:
        """How often the node has counted `reason`."""
        return int(self.diagnostics.get(f"count {reason}", "0"))

    def change(self, transition: int) -> bool:
        """Ask for a transition; whether it was made."""
        request = ChangeState.Request(transition=Transition(id=transition))
        # A fresh clone compiles while it configures.
        return bool(self.call(ChangeState, "change_state", request, 180.0).success)

    def configure(self) -> bool:
        """To inactive."""
        return self.change(Transition.TRANSITION_CONFIGURE)

    def activate(self) -> bool:
        """To active."""
        return self.change(Transition.TRANSITION_ACTIVATE)

    def cleanup(self) -> bool:
        """To unconfigured."""
        return self.change(Transition.TRANSITION_CLEANUP)

    def ask(self, service: str) -> tuple[bool, str]:
        """Call a Trigger service."""
        answer = self.call(Trigger, service, Trigger.Request())
        return bool(answer.success), str(answer.message)

    def call_save(self, timeout: float) -> None:
        """Save; TimeoutError where nobody answers."""
        self.call(Trigger, "save_map", Trigger.Request(), timeout)

    def set(self, name: str, value: bool | int | float | str) -> tuple[bool, str]:
        """Set a parameter; whether it was accepted, and why not."""
        answer = ParameterValue()
        if isinstance(value, bool):
            answer.type, answer.bool_value = ParameterType.PARAMETER_BOOL, value
        elif isinstance(value, int):
            answer.type, answer.integer_value = ParameterType.PARAMETER_INTEGER, value
        elif isinstance(value, float):
            answer.type, answer.double_value = ParameterType.PARAMETER_DOUBLE, value
        else:
            answer.type, answer.string_value = ParameterType.PARAMETER_STRING, value
        request = SetParameters.Request(parameters=[Parameter(name=name, value=answer)])
        result = self.call(SetParameters, "set_parameters", request).results[0]
        return bool(result.successful), str(result.reason)


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 120.0) -> None:
    """Until `condition` holds; AssertionError with `what` where it does not come true."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096


def node_argv(**parameters: Any) -> list[str]:
    """The source tree's node with these parameters."""
    argv = [sys.executable, "-m", "vlad_ros.ros.node", "--ros-args"]
    for name, value in parameters.items():
        argv += ["-p", f"{name}:={value}"]
    return argv


@contextlib.contextmanager
def live_node(
    log: Path, active: bool = True, points: str = "points", **parameters: Any
) -> Iterator[tuple[Robot, NodeProcess]]:
    """The node in its own process, and the robot that talks with it; active unless told otherwise."""
    argv = [*node_argv(**({"autostart": "true"} if active else {}), **parameters), "-r", f"points:={points}"]
    with Robot(points=points) as robot, NodeProcess(argv, {"PYTHONFAULTHANDLER": "1"}, log) as process:
        if active:
            try:
                robot.wait_active(process, 240.0)  # a fresh clone compiles first
            except RuntimeError:
                process.process.send_signal(signal.SIGABRT)  # a node that hangs shows where
                process.process.wait(10)
                print(process.tail(100))
                raise
            robot.wait_connected()
        yield robot, process
