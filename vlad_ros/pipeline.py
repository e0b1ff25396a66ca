# SPDX-License-Identifier: Apache-2.0
"""The method, step by step: scans come in, places are recognised. How each step works is told next door."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.cloud.raster import Bev
from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.keyframes import Drive, Scan, StampGate, View
from vlad_ros.drive.local_map import JoinedMap
from vlad_ros.loops.acceptance import Judge
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.model.describer import Describer
from vlad_ros.model.weights import WeightsError
from vlad_ros.types import F32, F64, Keyframe, LoopClosure

DEFAULTS = RecognizerConfig()
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Described:
    """A keyframe that has got its answer: its row in the database, its candidates, most probable first, the raster
    that its descriptor was made from (a tensor where the describer works on a GPU), and the wall time of each stage."""

    keyframe_id: int
    keyframe: Keyframe
    closures: list[LoopClosure]
    bev: Bev
    milliseconds: dict[str, float]


class Stopwatch:
    """Wall time of named laps [ms]."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """What went by since the last lap."""
        now = time.perf_counter()
        self.milliseconds[name], self._last = 1e3 * (now - self._last), now


class PlaceRecognizer:
    """Recognises the places of one vehicle's drive; `counters` counts what was dropped or interrupted, and why.

    `calibration` is the weights' own. With `use_bev` rasters come from outside and every keyframe is described alone
    (by its own raster where none was given).
    """

    def __init__(
        self, describer: Describer, calibration: Calibration, config: RecognizerConfig, use_bev: bool = False
    ) -> None:
        self.describer, self.calibration, self.config, self.use_bev = describer, calibration, config, use_bev
        self._verifier = Verifier()
        self.counters: Counter[str] = Counter()
        self._stamps = StampGate()
        self.clear_map()
        self._open_drive()

    @classmethod
    def from_pretrained(
        cls,
        path: PathLike | None = None,
        device: str = "auto",
        config: RecognizerConfig = DEFAULTS,
        *,
        use_bev: bool = False,
    ) -> PlaceRecognizer:
        """With the weights at `path` (None: those that ship) on `device` (auto, cpu, cuda, cuda:N).

        WeightsError (a ValueError) names the file and what is wrong with it; ValueError a device that is not there.
        """
        describer, metadata = Describer.from_pretrained(path, device, config.descriptor_size)
        if metadata.calibration is None:
            name = path or "the shipped weights"
            raise WeightsError(
                f"{name}: has no calibration, so that no loop could be judged; make one with vlad calibrate"
            )
        return cls(describer, metadata.calibration, config, use_bev)

    def describe(self, points: np.ndarray, bev: F32 | None = None) -> F32:
        """Descriptor (D,) float32, unit norm, of one cloud (N, >=3) [m] in the body frame, or of the raster `bev`
        (C, H, W) with that cloud. Nothing is accumulated or remembered. ValueError as in `step`."""
        return self.describer.look(self._read(points, 0, bev, None)).descriptor

    def warm_up(self, points: np.ndarray) -> None:
        """Go once through description and verification with any cloud (N, >=3): the first keyframe then does not wait
        for what is compiled at first use. Nothing is remembered."""
        geometry = self.describer.look(self._read(points, 0, None, None)).geometry()
        self._verifier.verify(geometry, geometry)

    def process(
        self, points: np.ndarray, stamp: int, bev: F32 | None = None, T_odom_base: F64 | None = None
    ) -> list[LoopClosure]:
        """The loop candidates of the keyframes that this scan completes (often none). Arguments as in `step`."""
        return [closure for one in self.step(points, stamp, bev, T_odom_base) for closure in one.closures]

    def flush(self) -> list[LoopClosure]:
        """The loop candidates of the keyframes still waiting for their local maps; they wait no longer."""
        return [closure for one in self.finish() for closure in one.closures]

    def step(
        self,
        points: np.ndarray,
        stamp: int,
        bev: F32 | None = None,
        T_odom_base: F64 | None = None,
        is_keyframe: bool | None = None,
    ) -> list[Described]:
        """The keyframes that this scan completes, in order of their stamps, each exactly once.

        `points` (N, >=3) [m] in the body frame, `stamp` [ns], `bev` (C, H, W) a raster from outside, `T_odom_base`
        (4, 4) the body's pose at the stamp; `is_keyframe` overrules the selection. A stamp that does not grow is
        dropped, one older by more than 1 s opens a session; both are counted. ValueError, before anything changes:
        a cloud that nothing can be made of, a transform that is not rigid, a raster that does not fit the weights.
        """
        scan = self._read(points, stamp, bev, T_odom_base)
        verdict = self._stamps.judge(scan.stamp)
        described: list[Described] = []
        if verdict != "ok":
            self.counters[verdict] += 1
            if verdict != "session_opened":
                return described
            described = self.finish()
            self.open_session()
            self._open_drive()
        return described + [self._recognise(view) for view in self._drive.advance(scan, is_keyframe)]

    def finish(self) -> list[Described]:
        """The keyframes still waiting, described with the windows they have; the drive may go on afterwards."""
        return [self._recognise(view) for view in self._drive.close()]

    def _recognise(self, view: View) -> Described:
        """Describe a keyframe, search for it among the earlier ones, add it to them, judge what was found."""
        watch = Stopwatch()
        if isinstance(view.seen, JoinedMap):
            is_local_map, partial, seen = True, view.seen.partial, self.describer.see(view.seen.points)
        else:
            is_local_map, partial, seen = False, False, view.seen
        keyframe = Keyframe(
            session=self.session,
            stamp=view.stamp,
            descriptor=seen.descriptor,
            scan_descriptor=view.scan_descriptor,
            is_local_map=is_local_map,
            partial=partial,
            T_odom_base=view.T_odom_base,
            travel=view.travel,
            geometry=seen.geometry(),
        )
        watch.lap("describe")
        config = self.config
        candidates = self.database.search(keyframe, config.top_k, config.exclude_time, config.exclude_distance)
        id = self.database.add(keyframe)
        watch.lap("search")
        closures = self._judge.judge(id, keyframe, candidates, self.database)
        watch.lap("verify")
        return Described(id, keyframe, closures, seen.bev, watch.milliseconds)

    def save_map(self, path: PathLike) -> None:
        """Save the keyframes described so far, atomically. MapError when that cannot be done."""
        self.database.save(path)

    def load_map(self, path: PathLike) -> None:
        """Replace the map by a file's; the drive goes on as a new session of it, and keyframes still waiting for
        their windows meet the new map. MapError, with everything left as it is, when the file cannot be used."""
        self.database = KeyframeDatabase.load(path, **self._make())
        self.open_session()

    def clear_map(self) -> None:
        """Forget every keyframe; the drive goes on as the first session of an empty map."""
        self.database = KeyframeDatabase(**self._make())
        self.open_session()

    def open_session(self) -> None:
        """What is described from now on is a session of its own, whose loops remember nothing of those before: the map
        is another, the stamps have begun anew, or the vehicle was carried away."""
        self.session = self.database.next_session()
        self._judge = Judge(self._verifier, self.calibration, self.config)

    def _read(self, points: np.ndarray, stamp: int, bev: F32 | None, T_odom_base: F64 | None) -> Scan:
        if bev is not None and not self.use_bev:
            raise ValueError("a BEV was given, but this recogniser makes its own (use_bev is false)")
        return self.describer.read(points, stamp, bev, T_odom_base, self.config)

    def _make(self) -> dict[str, Any]:
        """What a map must have been made with to be of use here."""
        describer, kind = self.describer, "bev" if self.use_bev else "points"
        return {"dim": describer.dim, "model_hash": describer.model_hash, "bev": describer.bev, "kind": kind}

    def _open_drive(self) -> None:
        self._drive = Drive(self.config, self.describer.bev, self.describer.look, self.counters, self.use_bev)
