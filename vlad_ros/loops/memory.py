# SPDX-License-Identifier: Apache-2.0
"""What was seen so far: the map, the session that is driven now, and the judge who remembers its last loops."""

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

    `calibration` is the weights' own. With `use_bev` rasters come from outside.
    """

    def __init__(self, describer: Describer, calibration: Calibration, config: RecognizerConfig, use_bev: bool) -> None:
        self.describer, self.calibration, self.config, self.use_bev = describer, calibration, config, use_bev
        self.counters: Counter[str] = Counter()
        self._verifier = Verifier()
        self.clear_map()

    def save_map(self, path: PathLike) -> None:
        """Save the keyframes described so far, atomically. MapError when that cannot be done."""
        self.database.save(path)

    def load_map(self, path: PathLike) -> None:
        """Replace the map by a file's; the drive goes on as a new session of it, and keyframes still waiting for
        their windows meet the new map. MapError, with everything left as it is, when the file cannot be used."""
        self.database = KeyframeDatabase.load(path, **self.describer.make(self.use_bev))
        self.open_session()

    def clear_map(self) -> None:
        """Forget every keyframe; the drive goes on as the first session of an empty map."""
        self.database = KeyframeDatabase(**self.describer.make(self.use_bev))
        self.open_session()

    def open_session(self) -> None:
        """What is described from now on is a session of its own, whose loops remember nothing of those before: the map
        is another, the stamps have begun anew, or the vehicle was carried away."""
        self.session = self.database.next_session()
        self._judge = Judge(self._verifier, self.calibration, self.config)
