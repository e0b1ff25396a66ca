# SPDX-License-Identifier: Apache-2.0
"""The node's map file: its lock, its services, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable

from vlad_ros.config import NodeConfig
from vlad_ros.loops.memory import PlaceMemory
from vlad_ros.mapping.lock import MapError, MapLock
from vlad_ros.mapping.set_aside import set_aside
from vlad_ros.ros.listener import Listener

OBSOLETE = ("save_on_exit", "autosave_period")


class MapKeeper:
    """Opens the map of `memory` as `map_path` and `map_mode` say. MapError when that is impossible; nothing is held."""

    def __init__(self, memory: PlaceMemory, config: NodeConfig, listener: Listener) -> None:
        self._memory, self._config, self._listener = memory, config, listener
        self._told = 0  # faults
        self._extends = bool(config.map_path) and config.map_mode == "extend"
        for name in OBSOLETE:
            if getattr(config, name):
                listener.warn(f"{name} does nothing: with map_path set each keyframe is on disk within a second")
        self._lock = MapLock(config.map_path) if self._extends else None
        try:
            if config.map_path:
                self._open()
        except ValueError:
            self._release()
            raise

    def _open(self) -> None:
        path = self._config.map_path
        self._memory.extend_map(path) if self._extends else self._memory.load_map(path)
        self._told = 0
        self.watch()

    def watch(self) -> None:
        """Say, and count, what could not be written or read."""
        database = self._memory.database
        faults = database.faults
        for fault in faults[self._told :]:
            self._listener.reject("map_damaged", fault)
        self._told = len(faults)
        if database.store.trouble:
            behind = database.store.behind
            self._listener.reject("save_failed", f"{database.store.trouble}; {behind} keyframes wait in memory for it")

    def values(self) -> dict[str, str]:
        """Values shown in diagnostics."""
        database = self._memory.database
        values = {"keyframes in the map": str(len(database))}
        if self._extends:
            values["keyframes not yet on disk"] = str(database.store.behind)
        return values

    def flush(self) -> None:
        """Have everything on disk, or count why it is not."""
        try:
            if self._extends:
                self._memory.database.store.flush()
        except MapError as error:
            self._listener.reject("save_failed", str(error))

    def save(self) -> Callable[[], str]:
        """What `~/save_map` waits for: everything is in the file, its log taken in, and synced. MapError when this map
        is not written."""
        database, path = self._memory.database, self._config.map_path
        if not self._extends:
            raise MapError(f"map_mode is localise, which never writes {path}: set map_mode to extend")
        number = len(database)

        def finish() -> str:
            database.store.checkpoint()
            return f"{number} keyframes saved to {path}"

        return finish

    def load(self) -> str:
        """Open the file again; what is in it and not in memory is there now."""
        if self._extends:
            self._memory.database.store.flush()
        self._open()
        return f"{len(self._memory.database)} keyframes loaded from {self._config.map_path}"

    def clear(self) -> str:
        """Begin an empty map; a file that was extended is set aside."""
        number, path = len(self._memory.database), self._config.map_path
        if not self._extends:
            self._memory.clear_map()
            return f"{number} keyframes forgotten" + (f"; {path} is as it was" if path else "")
        self._memory.database.close()
        try:
            aside = set_aside(path)
        finally:
            self._open()  # the new file; or, where the old one could not be moved, that one
        return f"{number} keyframes set aside in {aside}; {path} begins anew"

    def close(self, force: bool) -> None:
        """Write what is left, and let go of map and lock. MapError, with everything kept, when that is impossible,
        unless `force`."""
        self._memory.database.close(force)
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
