# SPDX-License-Identifier: Apache-2.0
"""State so far: the map, the current session, and the judge that remembers the last loops."""

from __future__ import annotations

from collections import Counter

from vlad_ros.calibration import Calibration
from vlad_ros.config import RecognizerConfig
from vlad_ros.loops.acceptance import Judge
from vlad_ros.loops.verification import Verifier
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.model.describer import Describer
from vlad_ros.types import PathLike


class PlaceMemory:
    """`database` and `session`; `counters` counts what was dropped or interrupted, and why.

    `calibration` belongs to the weights. With `use_bev` rasters are external.
    """

    def __init__(self, describer: Describer, calibration: Calibration, config: RecognizerConfig, use_bev: bool) -> None:
        self.describer, self.calibration, self.config, self.use_bev = describer, calibration, config, use_bev
        self.counters: Counter[str] = Counter()
        self._verifier = Verifier()
        self.clear_map()

    def save_map(self, path: PathLike) -> None:
        """Write a sealed copy of the map atomically; one that is extended at `path` is brought up to date there.
        MapError on failure."""
        self.database.save(path)

    def load_map(self, path: PathLike) -> None:
        """Replace the map by a file's, which is never written; the drive continues as a new session of it, and
        keyframes still waiting for their windows are searched in the new map. MapError, and nothing changes, when the
        file cannot be used."""
        self._replace(KeyframeDatabase.load(path, **self.describer.make(self.use_bev)))

    def extend_map(self, path: PathLike) -> None:
        """As `load_map`, but the file grows with the drive: each keyframe is on disk within a second. It is created
        where there is none, and of format version 2 it is converted. The caller holds its `MapLock`."""
        self._replace(KeyframeDatabase.extend(path, **self.describer.make(self.use_bev)))

    def clear_map(self) -> None:
        """Forget all keyframes; the drive continues as the first session of an empty map. A map file stays."""
        self._replace(KeyframeDatabase(**self.describer.make(self.use_bev)))

    def _replace(self, database: KeyframeDatabase) -> None:
        before, self.database = getattr(self, "database", None), database
        self.open_session()
        if before is not None:
            before.close()

    def open_session(self) -> None:
        """Start a new session that forgets all earlier loops: the map was replaced, the stamps restarted, or the
        vehicle was carried away."""
        self.session = self.database.next_session()
        self._judge = Judge(self._verifier, self.calibration, self.config)
