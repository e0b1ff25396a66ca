# SPDX-License-Identifier: Apache-2.0
"""One thread that owns network, database and local map; other threads put scans and jobs into its queue."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from vlad_ros.cloud.decode import CloudError
from vlad_ros.config import NodeConfig
from vlad_ros.drive.body_points import BodyPoints, reason_of
from vlad_ros.drive.frames import FrameError, Frames
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.loops.described import Described
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.ros.listener import Listener
from vlad_ros.ros.outputs.messages import raster_of
from vlad_ros.ros.statistics import Statistics
from vlad_ros.stopwatch import Ledger
from vlad_ros.types import F32, F64


class Job:
    """A job to run between two scans; `wait` returns whether it succeeded, and a message. What the action itself
    returns as an action, which may wait for a disk, runs in a thread of its own while the scans go on."""

    def __init__(self, action: Callable[[], str | Callable[[], str]]) -> None:
        self._action = action
        self._done = threading.Event()
        self._answer = (False, "")

    def run(self) -> None:
        """Run the job, in the worker's thread."""
        self._finish(self._action)

    def _finish(self, action: Callable[[], str | Callable[[], str]]) -> None:
        try:
            said = action()
        except (ValueError, OSError) as error:
            self.refuse_or_accept(False, str(error))
            return
        if isinstance(said, str):
            self.refuse_or_accept(True, said)
        else:
            threading.Thread(target=self._finish, args=(said,), name="vlad_job", daemon=True).start()

    def refuse_or_accept(self, success: bool, sentence: str) -> None:
        """Set the result and wake the waiting thread."""
        self._answer = (success, sentence)
        self._done.set()

    @property
    def done(self) -> bool:
        """Whether the job has finished or was refused."""
        return self._done.is_set()

    def wait(self) -> tuple[bool, str]:
        """Block until the job has finished or was refused."""
        self._done.wait()
        return self._answer


class WorkQueue:
    """First in, first out; at most `size` scans, the oldest is dropped unless it `may_wait`; jobs never are."""

    def __init__(
        self, size: int, dropped: Callable[[], None], may_wait: Callable[[PendingScan], bool] = lambda scan: False
    ) -> None:
        self._size = size
        self._dropped = dropped
        self._may_wait = may_wait
        self._items: deque[PendingScan | Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: PendingScan | Job) -> bool:
        """Append; False when the queue is closed."""
        with self._changed:
            if self._closed:
                return False
            self._items.append(item)
            while self.scans() > self._size:
                oldest = next(i for i in self._items if isinstance(i, PendingScan))
                if self._may_wait(oldest):
                    break
                self._items.remove(oldest)
                self._dropped()
            self._changed.notify()
            return True

    def scans(self) -> int:
        """How many scans wait."""
        with self._changed:
            return sum(isinstance(item, PendingScan) for item in self._items)

    def get(self) -> PendingScan | Job | None:
        """Wait for the oldest item; None when the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            return None if self._closed else self._items.popleft()

    def close(self) -> list[PendingScan | Job]:
        """Close the queue; returns the items still waiting."""
        with self._changed:
            self._closed = True
            left = list(self._items)
            self._items.clear()
            self._changed.notify_all()
            return left


class Audience(Protocol):
    """Receiver of the results of the scans."""

    def move(self, stamp: int, T_odom_base: F64 | None) -> None:
        """The body's pose at a scan."""

    def publish(self, described: list[Described]) -> None:
        """Keyframes that have been answered."""


class Worker(threading.Thread):
    """Processes scans and jobs until `finish`."""

    def __init__(
        self,
        recognizer: PlaceRecognizer,
        config: NodeConfig,
        frames: Frames,
        audience: Audience,
        listener: Listener,
        statistics: Statistics,
        may_wait: Callable[[PendingScan], bool],
    ) -> None:
        super().__init__(name="vlad_worker", daemon=True)
        self._recognizer = recognizer
        self._config = config
        self._audience = audience
        self._listener = listener
        self._statistics = statistics
        self._counters: Counter[str] = Counter(recognizer.counters)
        self._last_pose: F64 | None = None
        self.reader = BodyPoints(config, recognizer.config, frames, listener.warn, statistics.count)
        self.queue = WorkQueue(config.queue_size, lambda: listener.reject("queue_full", ""), may_wait)

    def run(self) -> None:
        """The thread's loop; a program error loses one scan but never ends the loop."""
        while (item := self.queue.get()) is not None:
            try:
                item.run() if isinstance(item, Job) else self._process(item)
            except Exception:
                self._listener.failed(traceback.format_exc())
                if isinstance(item, Job):
                    item.refuse_or_accept(False, "internal error, see the node's log")
            self._statistics.worked()

    def finish(self) -> int:
        """End after the current item, and answer the waiting keyframes; returns the number of scans dropped."""
        left = self.queue.close()
        self.join()
        for item in left:
            if isinstance(item, Job):
                item.refuse_or_accept(False, "the node was deactivated before this was done")
        self.flush()
        return sum(isinstance(item, PendingScan) for item in left)

    def flush(self) -> None:
        """Publish the keyframes whose windows are still open."""
        described = self._recognizer.finish()
        self._relay_counters()
        self._audience.publish(described)

    def _process(self, scan: PendingScan) -> None:
        waited = time.monotonic() - scan.arrival
        with Ledger() as ledger:
            described = self._answer(scan)
        if described is None:
            return
        self._statistics.took("wait", waited)
        for name, milliseconds in (ledger.milliseconds | {"rest": ledger.rest}).items():
            self._statistics.took(name, milliseconds / 1e3)
        self._statistics.took("scan with keyframe" if described else "scan without keyframe", ledger.whole / 1e3)
        if described:
            self._statistics.took("cloud to candidate", time.monotonic() - scan.arrival)

    def _answer(self, scan: PendingScan) -> list[Described] | None:
        """The keyframes that the scan completes, published; None, with the reason reported, when it cannot be used."""
        points = self._points(scan)
        if points is None:
            return None
        usable, raster = self._raster(scan)
        if not usable:
            return None
        pose = self._pose(scan)
        self._audience.move(scan.stamp, pose)
        try:
            described = self._recognizer.step(points, scan.stamp, raster, pose, scan.is_keyframe, cropped=True)
        except ValueError as error:
            self._listener.reject(reason_of(error), str(error))
            return None
        finally:
            self._relay_counters()
        self._statistics.used(pose is not None, self._moved(pose))
        self._audience.publish(described)
        return described

    def _points(self, scan: PendingScan) -> F32 | None:
        """The cloud (N, 4) in the body frame, at the stamp; None, with the reason reported, when it cannot be used."""
        try:
            points = self.reader.points(scan)
        except (CloudError, FrameError) as error:
            self._listener.reject(reason_of(error), str(error))
        else:
            return points
        return None

    def _pose(self, scan: PendingScan) -> F64 | None:
        try:
            return self.reader.pose(scan)
        except FrameError as error:
            self._listener.reject(error.reason, str(error))
            return None

    def _raster(self, scan: PendingScan) -> tuple[bool, F32 | None]:
        """Whether the scan is to be used, and the raster that came with it."""
        if not self._config.use_bev:
            return True, None
        try:
            if scan.bev is not None:
                return True, raster_of(scan.bev, self._recognizer.describer.bev)
            drop = self._config.bev_missing == "drop"
            self._listener.reject("bev_missing", "it is dropped" if drop else "it is used without")
        except ValueError as error:
            self._listener.reject("bad_bev", str(error))
        return self._config.bev_missing == "process", None

    def _moved(self, pose: F64 | None) -> float:
        """Metres from the last scan's pose; 0 where either is not known."""
        before, self._last_pose = self._last_pose, pose
        return 0.0 if before is None or pose is None else float(np.linalg.norm(pose[:3, 3] - before[:3, 3]))

    def _relay_counters(self) -> None:
        """Report the pipeline's counts since the last call."""
        counters: Counter[str] = Counter(self._recognizer.counters)
        news, self._counters = counters - self._counters, counters
        for event, number in news.items():
            if event == "no_odometry" and self._config.odom_source == "none":
                continue
            for _ in range(number):
                self._listener.reject(event, "")
