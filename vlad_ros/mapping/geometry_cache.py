# SPDX-License-Identifier: Apache-2.0
"""The geometries of a map that were last written or asked for; the others stay on disk."""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict

from vlad_ros.mapping import tables
from vlad_ros.mapping.codec import unpack_geometry
from vlad_ros.mapping.geometry_check import check_geometry
from vlad_ros.types import Geometry

CACHED = 128


class GeometryCache:
    """`faults`: a sentence for each geometry of the map `name` that could not be read. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.faults: list[str] = []
        self.feature_size: int | None = None  # that the map's geometries have; None: there was none when it was opened
        self._kept: OrderedDict[int, Geometry | None] = OrderedDict()
        self._changing = threading.Lock()

    def keep(self, id: int, geometry: Geometry | None) -> None:
        """Have the geometry of `id` in memory for a while."""
        with self._changing:
            self._kept[id] = geometry
            self._kept.move_to_end(id)
            while len(self._kept) > CACHED:
                self._kept.popitem(last=False)

    def get(self, id: int, connection: sqlite3.Connection | None, is_owed: bool) -> Geometry | None:
        """The geometry of a keyframe; None if it has none or it cannot be read, or `is_owed` and is missing. Damage is
        remembered; what the medium refuses is tried again the next time."""
        with self._changing:
            if id in self._kept:
                self._kept.move_to_end(id)
                return self._kept[id]
        try:
            geometry = None if connection is None else self._read(id, connection, is_owed)
        except sqlite3.OperationalError as error:
            self._tell(f"the geometry of keyframe {id} in {self._name} cannot be read: {error}")
            return None
        except (sqlite3.Error, ValueError) as error:
            self._tell(f"the geometry of keyframe {id} in {self._name} is damaged: {error}")
            geometry = None
        self.keep(id, geometry)
        return geometry

    def _read(self, id: int, connection: sqlite3.Connection, is_owed: bool) -> Geometry | None:
        packed = tables.read_geometry(connection, id)
        if packed is None and is_owed:
            raise ValueError("it is missing")
        geometry = None if packed is None else unpack_geometry(packed)
        if geometry is not None and self.feature_size is not None:
            check_geometry(geometry, self.feature_size)
        return geometry

    def learn_feature_size(self, connection: sqlite3.Connection) -> None:
        """Set `feature_size` to that of the first geometry."""
        try:
            id = tables.first_geometry(connection)
        except sqlite3.Error as error:
            self._tell(f"the geometries of {self._name} cannot be read: {error}")
            return
        first = None if id is None else self.get(id, connection, is_owed=True)
        self.feature_size = None if first is None else first.features.shape[1]

    def _tell(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)
