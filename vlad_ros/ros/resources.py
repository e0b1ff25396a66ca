# SPDX-License-Identifier: Apache-2.0
"""Resources held from configure to cleanup: recogniser, map and its lock, topics, and while active the worker."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch
from rclpy.lifecycle import LifecycleNode

from vlad_ros.config import NodeConfig, RecognizerConfig
from vlad_ros.drive.frames import Frames
from vlad_ros.drive.pairing import Inputs
from vlad_ros.drive.pending_scan import PendingScan
from vlad_ros.drive.pose_source import NoOdometry, PoseSource, TopicOdometry
from vlad_ros.fleet.vehicle import Fleet, Voice
from vlad_ros.loops.warm_up import warm_up
from vlad_ros.maps.kept_cloud import save_kept
from vlad_ros.pipeline import PlaceRecognizer
from vlad_ros.ros.inputs.requests import Requests
from vlad_ros.ros.inputs.subscriptions import POINTS_TYPE, Subscriptions
from vlad_ros.ros.inputs.tf import TfOdometry, Transforms
from vlad_ros.ros.listener import Listener
from vlad_ros.ros.map_keeper import MapKeeper
from vlad_ros.ros.outputs.diagnostics import LOSSY, SLOW_DDS, explain_silence
from vlad_ros.ros.outputs.health import ENOUGH, explain_odometry, health
from vlad_ros.ros.outputs.publishers import Publishers
from vlad_ros.ros.outputs.taken import Intake, Taken
from vlad_ros.ros.statistics import SILENCE, Statistics
from vlad_ros.ros.worker import Job, Worker


class Resources:
    """ValueError with a reason if weights, device, map, lock or TF are not available; nothing is then held."""

    def __init__(
        self,
        node: LifecycleNode,
        listener: Listener,
        statistics: Statistics,
        config: NodeConfig,
        recognizer_config: RecognizerConfig,
    ) -> None:
        self._config = config
        self._listener = listener
        self._statistics = statistics
        self._worker: Worker | None = None
        self._tick: Job | None = None
        self._answered = False  # whether the waiting keyframes were answered since the last cloud
        with contextlib.ExitStack() as undo:
            self.recognizer = PlaceRecognizer.from_pretrained(
                config.weights or None, config.device, recognizer_config, config.use_bev, config.inference
            )
            self._map = MapKeeper(self.recognizer, config, listener)
            undo.callback(self._map.close, force=True)
            warm_up(self.recognizer.describer)
            transforms = self._transforms(node)
            if transforms is not None:
                undo.callback(transforms.close)
            self.frames = Frames(config, None if transforms is None else transforms.find, listener.warn)
            poses = self._pose_source(transforms)
            self.inputs = Inputs(config, poses, self._release, lambda reason: listener.reject(reason, ""))
            self.outputs = Publishers(node, self.recognizer, lambda: self.frames.body, config, listener, statistics)
            self.fleet = self._join_fleet(undo)
            self.outputs.odom_frame = config.odom_frame if config.odom_source == "tf" else ""
            undo.callback(self.outputs.close)
            self.subscriptions = Subscriptions(
                node, config, self.inputs, self.outputs, listener, statistics, self._later
            )
            undo.callback(self.subscriptions.close)
            undo.callback(Requests(node, config, self.outputs.initial_pose, listener, self._later).close)
            self.taken = Taken(node, self._intakes)
            undo.callback(self.taken.close)
            self._undo = undo.pop_all()

    def _transforms(self, node: LifecycleNode) -> Transforms | None:
        """TF if needed: requested by odom_source, or to find the sensor in base_frame."""
        config = self._config
        if config.odom_source == "tf":
            return Transforms(node)
        if config.base_frame and not config.mounting_xyz_rpy and Transforms.installed():
            return Transforms(node)
        return None

    def _pose_source(self, transforms: Transforms | None) -> PoseSource:
        config = self._config
        if config.odom_source == "topic":
            return TopicOdometry(config.base_frame)
        if config.odom_source == "tf" and transforms is not None:
            return TfOdometry(transforms, config)
        return NoOdometry()

    def _join_fleet(self, undo: contextlib.ExitStack) -> Fleet | None:
        if not self._config.fleet_uri:
            return None
        voice = Voice(self._listener.warn, self._listener.inform, self._later, self.outputs.tell_guests)
        fleet = Fleet(self._config.fleet_uri, self._config.robot, self.recognizer, voice)
        undo.callback(fleet.close)
        self.outputs.on_published = fleet.observe
        return fleet

    def open(self) -> None:
        """Start the worker and accept scans."""
        self._worker = Worker(
            self.recognizer,
            self._config,
            self.frames,
            self.outputs,
            self._listener,
            self._statistics,
            self.inputs.may_wait,
        )
        self._worker.start()
        self._statistics.restart()
        self._answered = False
        self.subscriptions.open = True

    def close(self) -> None:
        """Finish the current scan, answer the waiting keyframes, drop and count the rest; the map is on disk then."""
        if self._worker is None:
            return
        self.subscriptions.open = False
        dropped = self.inputs.clear()
        worker, self._worker = self._worker, None
        dropped += worker.finish()
        if dropped:
            self._statistics.count("inactive", dropped)
        self.outputs.draw(now=True)
        self._map.flush()

    def free(self, force: bool) -> None:
        """Release topics, lock, network and map. MapError, with everything kept, when the map cannot be written whole,
        unless `force`."""
        self.close()
        self._map.close(force)
        self._undo.close()
        device = self.recognizer.describer.device
        del self.recognizer, self.outputs, self.subscriptions, self.inputs, self.taken, self.fleet
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()

    def request(self, name: str) -> Job:
        """Queue a service for the worker behind the earlier scans; impossible requests are refused at once."""
        actions: dict[str, Callable[[], str | Callable[[], str]]] = {
            "save_map": self._map.save,
            "load_map": lambda: self._anew(self._map.load),
            "clear_map": lambda: self._anew(self._map.clear),
            "save_cloud": self._save_cloud,
            "relocalize": self.outputs.relocalize,
            "query": self.outputs.initial_pose.query,
        }
        job, worker = Job(actions[name]), self._worker
        if not self._config.map_path and name in ("save_map", "load_map"):
            job.refuse_or_accept(False, f"{name} needs the parameter map_path, which is empty")
        elif worker is None or not worker.queue.put(job):
            job.refuse_or_accept(False, f"{name}: the node has just been deactivated")
        return job

    def watch(self) -> list[str]:
        """Once a second: report silence and losses; run the jobs that are triggered by time, not by a scan."""
        self.subscriptions.look()
        self._map.watch()
        for fault in self.fleet.faults() if self.fleet is not None else ():
            self._listener.reject("fleet_row", fault)
        warnings = []
        silence = self._statistics.silent_for()
        if silence >= SILENCE:
            publishers = self.subscriptions.points_publishers()
            topic, reliable = self.subscriptions.points_topic, self._config.points_reliable
            warnings.append(explain_silence(topic, POINTS_TYPE, reliable, publishers, silence))
        rates = self._statistics.rates(self._config.expected_rate)
        if rates is not None and rates[0] < LOSSY * rates[1]:
            warnings.append(f"{rates[0]:.1f} of {rates[1]:.1f} clouds a second arrive; {SLOW_DDS}")
        flow = self._statistics.flow()
        waiting = self._worker.queue.scans() if self._worker else 0
        warnings += health(flow, waiting, self._config, self.recognizer.config)
        if (
            self._config.odom_source == "topic"
            and flow.counts.get("used", 0) >= ENOUGH
            and not flow.counts.get("posed", 0)
        ):
            warnings += filter(None, [self._explain_odometry()])
        self._queue_tick(silence >= SILENCE)
        return warnings

    def _explain_odometry(self) -> str:
        odometry = self.inputs.odometry
        if odometry is None:
            return ""
        topic, publishers = self.subscriptions.publishers("odom")
        frames = self.frames.body, self.frames.sensor or ""
        return explain_odometry(topic, publishers, odometry.children, frames, (odometry.newest, self.inputs.newest))

    def values(self) -> dict[str, str]:
        """Values shown in diagnostics."""
        worker, recognizer = self._worker, self.recognizer
        values = {
            "topic": self.subscriptions.points_topic,
            "body frame": self.frames.body,
            "device": str(recognizer.describer.device),
            "session": str(recognizer.session),
            "scans waiting": str(worker.queue.scans() if worker else 0),
            "deskew": worker.reader.state if worker else "",
        }
        values |= self._map.values() | self.outputs.localisation.values() | self.outputs.initial_pose.values()
        values |= self.fleet.values() if self.fleet is not None else {}
        rates = self._statistics.rates(self._config.expected_rate)
        if rates is not None:
            values["clouds a second of stamp time, received / expected"] = f"{rates[0]:.1f} / {rates[1]:.1f}"
        return values

    def _intakes(self) -> Iterator[Intake]:
        """How far the inputs are. Scans that only wait for matching inputs are released by later scans."""
        queued = self._worker.queue.scans() if self._worker else 0
        free = self._config.queue_size - queued - self.inputs.waiting
        return self.subscriptions.intakes(max(free, 0 if queued else 1))

    def _queue_tick(self, silent: bool) -> None:
        worker = self._worker
        if worker is None or (self._tick is not None and not self._tick.done):
            return
        if silent and not self._answered:
            self.inputs.release_all(believe=True)
        self._tick = Job(lambda: self._on_tick(worker, silent))
        worker.queue.put(self._tick)

    def _on_tick(self, worker: Worker, silent: bool) -> str:
        if silent and not self._answered:
            worker.flush()
        self._answered = silent
        self.outputs.draw()
        return ""

    def _release(self, scan: PendingScan) -> None:
        if self._worker is None or not self._worker.queue.put(scan):
            self._statistics.count("inactive")

    def _later(self, action: Callable[[], None]) -> None:
        """Queue a job for the worker; does nothing while the node is inactive."""

        def act() -> str:
            action()
            return ""

        if self._worker is not None:
            self._worker.queue.put(Job(act))

    def _save_cloud(self) -> Callable[[], str]:
        database = self.recognizer.database
        ids = database.ids()
        return lambda: save_kept(database, ids, self._config.cloud_path)

    def _anew(self, change: Callable[[], str]) -> str:
        """After a change of the map nothing that was drawn holds."""
        try:
            return change()
        finally:
            self.outputs.wipe()
