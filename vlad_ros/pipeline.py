# SPDX-License-Identifier: Apache-2.0
"""The method, step by step: scans in, recognised places out. Each step is documented in its own package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.local_map import JoinedMap
from vlad_ros.drive.scan import Place, Scan, check_scan
from vlad_ros.drive.stamp_gate import Judged, StampGate
from vlad_ros.drive.windows import Drive, Window
from vlad_ros.loops.described import Described
from vlad_ros.loops.memory import PlaceMemory
from vlad_ros.model.describer import Describer, Seen
from vlad_ros.stopwatch import Ledger
from vlad_ros.types import F32, F64, LoopClosure, PathLike

DEFAULTS = RecognizerConfig()


class PlaceRecognizer(PlaceMemory):
    """Recognises the places of one vehicle's drive; with `use_bev` from external rasters, each keyframe alone."""

    def __init__(
        self, describer: Describer, calibration: Calibration, config: RecognizerConfig, use_bev: bool = False
    ) -> None:
        super().__init__(describer, calibration, config, use_bev)
        self.on_selected: Callable[[Place], None] = lambda at: None  # a keyframe, before its local map is complete
        self._gate: StampGate[tuple[Scan, bool | None]] = StampGate()
        self._drive = self._new_drive()

    @classmethod
    def from_pretrained(
        cls,
        path: PathLike | None = None,
        device: str = "auto",
        config: RecognizerConfig = DEFAULTS,
        use_bev: bool = False,
        inference: str = "auto",
    ) -> PlaceRecognizer:
        """Load weights from `path` (None: bundled) on `device` (auto, cpu, cuda:N), run by `inference` (auto, torch,
        openvino, onnx). ValueError if they are unusable."""
        describer, metadata = Describer.from_pretrained(path, device, config.descriptor_size, inference)
        return cls(describer, metadata.calibrated(path), config, use_bev)

    def process(
        self, points: np.ndarray, stamp: int, bev: F32 | None = None, T_odom_base: F64 | None = None
    ) -> list[LoopClosure]:
        """The loop candidates of the keyframes that this scan completes (often none). Arguments as in `step`."""
        return [closure for one in self.step(points, stamp, bev, T_odom_base) for closure in one.closures]

    def flush(self) -> list[LoopClosure]:
        """The loop candidates of the keyframes still waiting for their local maps, processed now."""
        return [closure for one in self.finish() for closure in one.closures]

    def describe(self, points: np.ndarray, bev: F32 | None = None) -> F32:
        """Descriptor (D,) float32, unit norm, of one cloud (N, >=3) [m] in the body frame, or of the raster `bev`
        (C, H, W) with that cloud. Nothing is accumulated or remembered. ValueError as in `step`."""
        scan = self._check(points, 0, bev, None)
        return self.describer.see(scan.points, scan.raster).descriptor

    def step(
        self,
        points: np.ndarray,
        stamp: int,
        bev: F32 | None = None,
        T_odom_base: F64 | None = None,
        is_keyframe: bool | None = None,
        cropped: bool = False,
    ) -> list[Described]:
        """The keyframes that this scan completes, in order of their stamps, each exactly once.

        `points` (N, >=3) [m] in the body frame, `stamp` [ns], `bev` (C, H, W) an external raster, `T_odom_base`
        (4, 4) the body's pose at the stamp; `is_keyframe` overrules the selection; `cropped`: `BodyPoints` has cropped
        the points. What `StampGate` says of the stamp is counted: it may hold the scan until the next one. ValueError,
        before anything changes: an unusable cloud, a transform that is not rigid, a raster that does not fit.
        """
        scan = self._check(points, stamp, bev, T_odom_base, cropped)
        return self._admit(self._gate.judge(scan.stamp, (scan, is_keyframe)))

    def finish(self) -> list[Described]:
        """The keyframes still waiting, described with the windows they have; the drive may continue afterwards."""
        return self._admit(self._gate.believe()) + self._complete(self._drive.close())

    def _admit(self, judged: list[Judged[tuple[Scan, bool | None]]]) -> list[Described]:
        done: list[Described] = []
        for (scan, is_keyframe), verdict, gap in judged:
            if verdict != "ok":
                self.counters[verdict] += 1
            if verdict == "pause":
                done += self._complete(self._drive.interrupt())
                self.database.exclusion.skip_time(self.session, gap)
            elif verdict == "session_opened":
                done += self._complete(self._drive.close())
                self._go_on(scan, gap)
            elif verdict != "ok":
                continue
            done += self._advance(scan, is_keyframe)
        return done

    def _advance(self, scan: Scan, is_keyframe: bool | None) -> list[Described]:
        at, ended = self._drive.move(scan)  # along the drive; a jump of odometry ends the windows before it
        done = self._complete(ended)
        selected, seen = self._look(scan, at, is_keyframe)
        if selected:
            self.on_selected(at)
        if self._drive.joins(at):  # with its neighbours, into the local maps of the keyframes around it
            return done + self._complete(self._drive.add(at, scan.points, selected, seen and seen.descriptor))
        return [*done, self._recognise(at, seen.descriptor, seen)] if selected and seen else done

    def _look(self, scan: Scan, at: Place, is_keyframe: bool | None) -> tuple[bool, Seen | None]:
        """Whether a scan is selected as keyframe by its travel or, without odometry, its appearance; and the network's
        output for it alone, unless its local map will be described and answer in its place."""
        selector = self._drive.selector
        if not (selector.wants(at) if is_keyframe is None else is_keyframe):
            return False, None
        alone = not self._drive.joins(at) or self.database.has_single_scans or selector.wants_scan_descriptor(at)
        seen = self.describer.see(scan.points, scan.raster) if alone else None
        return selector.takes(at, seen and seen.descriptor, forced=is_keyframe is not None), seen

    def _complete(self, windows: list[Window]) -> list[Described]:
        """Describe keyframes whose local maps are complete, and recognise them."""
        return [self._recognise(at, scan, self.describer.see(joined.points), joined) for at, scan, joined in windows]

    def _recognise(self, at: Place, scan: F32 | None, seen: Seen, joined: JoinedMap | None = None) -> Described:
        """Search for a keyframe among the earlier ones, add it, and judge the candidates."""
        config = self.config
        with Ledger() as ledger:
            keyframe = seen.keyframe(self.session, at, scan, joined)
            candidates = self.database.search(keyframe, config.top_k, config.exclude_time, config.exclude_distance)
            keyframe = dataclasses.replace(keyframe, geometry=seen.geometry())
            id = self.database.add(keyframe)
            closures = self._judge.judge(id, keyframe, candidates, self.database)
            self._settle(id, closures)
        return Described(id, keyframe, closures, seen.bev, {**seen.milliseconds, **ledger.milliseconds})

    def _settle(self, id: int, closures: list[LoopClosure]) -> None:
        """Have a keyframe join the place where it was found, and thin that place out if it is too full."""
        found = next((closure.match_id for closure in closures if closure.accepted), None)
        if found is not None:
            self.database.join_place(id, found)
            if self.config.max_keyframes_per_place:
                removed = self.database.thin_place(id, self.config.max_keyframes_per_place)
                self.counters["keyframe_removed"] += removed

    def _go_on(self, scan: Scan, gap: int) -> None:
        """Start a session after the clock was set back; unless odometry restarted too, the last places are excluded."""
        before, left = self.session, self._drive
        self.open_session()
        self._drive = self._new_drive()
        if left.at is not None and left.leads_to(scan.T_odom_base, self._gate.pace):
            self.database.exclusion.follow_on(self.session, before, gap, left.at.travel or 0.0)

    def _new_drive(self) -> Drive:
        return Drive(self.config, self.describer.bev, self.counters, self.use_bev)

    def _check(
        self, points: np.ndarray, stamp: int, bev: F32 | None, T_odom_base: F64 | None, cropped: bool = False
    ) -> Scan:
        if bev is not None and not self.use_bev:
            raise ValueError("a BEV was given, but this recogniser makes its own (use_bev is false)")
        return check_scan(points, stamp, bev, T_odom_base, self.config, self.describer.bev, cropped)
