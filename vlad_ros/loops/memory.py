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
        """Save the keyframes described so far atomically. MapError on failure."""
        self.database.save(path)

    def load_map(self, path: PathLike) -> None:
        """Replace the map by a file's; the drive continues as a new session of it, and keyframes still waiting for
        their windows are searched in the new map. MapError, and nothing changes, when the file cannot be used."""
        self.database = KeyframeDatabase.load(path, **self.describer.make(self.use_bev))
        self.open_session()

    def clear_map(self) -> None:
        """Remove all keyframes; the drive continues as the first session of an empty map."""
        self.database = KeyframeDatabase(**self.describer.make(self.use_bev))
        self.open_session()

    def open_session(self) -> None:
        """Start a new session that forgets all earlier loops: the map was replaced, the stamps restarted, or the
        vehicle was carried away."""
        self.session = self.database.next_session()
        self._judge = Judge(self._verifier, self.calibration, self.config)
