# SPDX-License-Identifier: Apache-2.0
"""`vlad map merge`: the sessions of several maps in one, in the first one's frame where loops say how they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vlad_ros.calibration import Calibration
from vlad_ros.mapping.database import KeyframeDatabase
from vlad_ros.maps.loops_between import find_loops, towards
from vlad_ros.maps.new_map import fill
from vlad_ros.maps.parts import Loops, Part, Rows, parts_of, rows_of
from vlad_ros.maps.placing import Meeting, bend, meet
from vlad_ros.poses import inverse
from vlad_ros.types import F64, Bar, PathLike


@dataclass(frozen=True, eq=False)
class Merged:
    """`database`: all keyframes; `parts`: what shared a frame before, the first one being the map's; `numbers`: of each
    map its sessions' numbers now; `meetings`: by part, how it was placed or why it was not."""

    database: KeyframeDatabase
    parts: list[Part]
    numbers: list[dict[int, int]]
    meetings: dict[int, Meeting]

    @property
    def apart(self) -> list[int]:
        """The parts that could not be placed."""
        return [number for number, meeting in self.meetings.items() if meeting.refusal]


def merge(databases: Sequence[KeyframeDatabase], calibration: Calibration, bar: Bar = iter) -> Merged:
    """The keyframes of all `databases`, of one make; their sessions keep UUID and name, and get the next free numbers.

    What shares a frame is placed as one, by loops to all that is placed already, the part with most of them first; its
    keyframes lie where the loops put them, so that the odometry of two days may drift apart in between. What cannot be
    placed keeps its keyframes, without a pose in the map. `bar` wraps the search for loops.
    """
    numbers = _numbers(databases)
    parts = parts_of(databases)
    rows = rows_of(databases, parts, numbers)
    loops = find_loops(databases, parts, rows, calibration, bar)
    meetings = _place(rows, loops, len(parts))
    made = _write(databases, parts, numbers, rows, [n for n in range(len(parts)) if _is_placed(n, meetings)])
    return Merged(made, parts, numbers, meetings)


def _numbers(databases: Sequence[KeyframeDatabase]) -> list[dict[int, int]]:
    """New numbers of the sessions; the first map's keep theirs."""
    numbers, free = [], 0
    for number, database in enumerate(databases):
        numbers.append({s: free + at if number else s for at, s in enumerate(database.sessions)})
        free = max(free, *numbers[-1].values()) + 1
    return numbers


def _place(rows: Rows, loops: Loops, parts: int) -> dict[int, Meeting]:
    """How each part but the first meets the others; the poses of those that are placed are then the map's."""
    placed, left = {0}, list(range(1, parts))
    meetings: dict[int, Meeting] = {}
    while left:
        there = np.isin(rows.part, list(placed))
        found = {part: meet(towards(loops, rows, placed, part), rows, there, rows.part == part) for part in left}
        meetings |= found
        best = max(left, key=lambda part: (not found[part].refusal, found[part].places))
        if found[best].refusal:
            break
        own = np.flatnonzero(rows.part == best)
        rows.poses[own] = bend(rows, own, found[best].loops)
        placed.add(best)
        left.remove(best)
    return meetings


def _is_placed(part: int, meetings: dict[int, Meeting]) -> bool:
    return part not in meetings or not meetings[part].refusal


def _write(
    databases: Sequence[KeyframeDatabase],
    parts: Sequence[Part],
    numbers: Sequence[dict[int, int]],
    rows: Rows,
    placed: Sequence[int],
) -> KeyframeDatabase:
    first = databases[0]
    made = KeyframeDatabase(first.dim, model_hash=first.model_hash, bev=first.bev, kind=first.kind)
    for number, database in enumerate(databases):
        bent = {id: rows.poses[row] for id, row in rows.of(number).items() if rows.part[row] in placed[1:]}
        root = parts[0].sessions if number == 0 else ()

        def told(id: int, database: KeyframeDatabase = database, bent: dict = bent, root: tuple = root) -> F64 | None:
            own = database.keyframe(id).session in root
            return database.corrections.told(id) if own else bent.get(id)

        ids = database.ids().tolist()
        fill(made, database, ((id, database.whole(id)) for id in ids), numbers[number], told)
        for session, new in numbers[number].items():
            if session not in root:
                made.set_T_map_odom(new, _T_map_odom(made, new))
    for new in (numbers[0][session] for session in parts[0].sessions):
        if made.sessions[new] is None:
            made.set_T_map_odom(new, np.eye(4))
    return made


def _T_map_odom(made: KeyframeDatabase, session: int) -> F64 | None:
    """By the newest keyframe that was placed and has odometry, as after a back-end's path; None without."""
    for id in reversed(made.ids(session).tolist()):
        T_odom_base, T_map_base = made.keyframe(id).T_odom_base, made.corrected(id)
        if T_odom_base is not None and T_map_base is not None:
            return np.asarray(T_map_base @ inverse(T_odom_base))
    return None


def text(merged: Merged, paths: Sequence[PathLike]) -> Iterator[str]:
    """What was done with each session, for people to read."""
    for number, part in enumerate(merged.parts):
        for session in part.sessions:
            name = f"session {merged.numbers[part.map][session]:<4} of {paths[part.map]}"
            yield f"{name}: {_told(merged.meetings[number]) if number in merged.meetings else 'the frame of the map'}"


def _told(meeting: Meeting) -> str:
    if meeting.refusal:
        return f"kept apart, {meeting.refusal}"
    spread = (np.quantile(values, q) for q in (0.5, 0.95) for values in (meeting.metres, meeting.degrees))
    m, deg, most_m, most_deg = (float(value) for value in spread)
    return (
        f"placed by {len(meeting.loops)} loops of {meeting.places} keyframes; odometry of both agrees within "
        f"{m:.2f} m, {deg:.1f} deg (median), {most_m:.2f} m, {most_deg:.1f} deg (95 %)"
    )
