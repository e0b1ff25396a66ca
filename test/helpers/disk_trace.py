# SPDX-License-Identifier: Apache-2.0
"""What a process did to the files of a folder, recorded by strace, and what a kill or a power cut would leave of it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

SECTOR = 512  # bytes that a disk writes whole
CALLS = "openat,pwrite64,write,fsync,fdatasync,ftruncate,rename,link,unlink"
CALL = re.compile(r"^\d+ +(?:<\.\.\. )?(\w+)(?: resumed>|\()(.*?)(?:\) += +(-?\d+|\?).*| <unfinished \.\.\.>)?$")
ARGUMENT = re.compile(r"\"((?:\\x[0-9a-f]{2})*)\"|(-?\w+)<((?:\\x[0-9a-f]{2}|[^>])*)>|([\w|-]+)")


@dataclasses.dataclass
class Step:
    """One system call on files of the folder; `name` and `other` are names in it, `data` what was written at `at`."""

    call: str
    name: str
    at: int = 0
    data: bytes = b""
    other: str = ""


def record(command: list[str], folder: Path, log: Path, env: dict[str, str]) -> list[Step]:
    """Run `command`, which works on `folder`; its calls in their order. Writes count from their beginning on, syncs
    from their end on."""
    options = ["-f", "-y", "-xx", "-s", str(1 << 26), "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log)]
    subprocess.run(["strace", *options, *command], check=True, env=env)
    steps, pending = [], dict[str, str]()
    for line in log.read_text().splitlines():
        thread, found = line.split()[0], CALL.match(line)
        if found is None:
            continue
        call, arguments, result = found.groups()
        if "sync" in call:  # its arguments are told where it begins
            if result is None:
                pending[thread] = arguments
                continue
            arguments = pending.pop(thread, "") + arguments
        if (" resumed>" in line and "sync" not in call) or (result or "0").startswith("-"):
            continue
        steps += _steps(call, arguments, folder)
    return steps


def _steps(call: str, text: str, folder: Path) -> list[Step]:
    values = []
    for string, number, path, word in ARGUMENT.findall(text):
        values.append(_bytes(path).decode() if number else word if word else _bytes(string))
    names = [value.decode() if isinstance(value, bytes) else value for value in values[: 1 + (call in LINKS)]]
    if call == "openat":
        file, flags = Path(values[1].decode()), values[2]
        if file.parent != folder or "O_CREAT" not in flags:
            return []
        return [Step("create", file.name)] + ([Step("truncate", file.name)] if "O_TRUNC" in flags else [])
    if Path(names[0]) == folder:
        return [Step("sync", "")]
    if not names or Path(names[0]).parent != folder:
        return []
    name = Path(names[0]).name
    if call in LINKS:
        return [Step(call, name, other=Path(names[1]).name)]
    if call in ("fsync", "fdatasync"):
        return [Step("sync", name)]
    if call == "ftruncate":
        return [Step("truncate", name, int(values[1], 0))]
    if call in ("pwrite64", "write"):
        return [Step("write", name, int(values[3]) if call == "pwrite64" else -1, values[1])]
    return [Step(call, name)]


LINKS = ("rename", "link")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if "\\x" in text else text.encode()


@dataclasses.dataclass
class _File:
    """A file's calls by the position in the record, and the last position at which it was synced."""

    calls: list[tuple[int, Step]] = dataclasses.field(default_factory=list)
    synced: int = -1


def left_by_kill(steps: list[Step]) -> dict[str, bytes]:
    """The files after `steps`: the system goes on to write what it was given."""
    return _replayed(steps, len(steps), lambda position, file: None)


def left_by_power_cut(steps: list[Step], rng: np.random.Generator) -> dict[str, bytes]:
    """The files as a disk may have them that lost its power after `steps`. What was synced is there; of later writes
    each is there, or is not, or is there in part, in any order; names and sizes are as at some instant since the last
    sync, which also syncs the file system's own log."""
    last = max((i for i, step in enumerate(steps) if step.call == "sync"), default=-1)
    named = int(rng.integers(last + 1, len(steps) + 1))

    def part(position: int, step: Step) -> np.ndarray | None:
        kind = int(rng.integers(3))
        if kind == 2:
            return None
        sectors = -(-(step.at % SECTOR + len(step.data)) // SECTOR)
        return np.repeat(rng.random(sectors) < 0.5 * kind, SECTOR)[step.at % SECTOR :][: len(step.data)]

    return _replayed(steps, named, part)


def _replayed(steps: list[Step], named: int, part: Callable[[int, Step], np.ndarray | None]) -> dict[str, bytes]:
    """Names and sizes change up to the position `named`; `part`: what of an unsynced write is there, None: all."""
    names, live = dict[str, _File](), dict[str, _File]()
    for position, step in enumerate(steps):
        for table in (live, names) if position < named else (live,):
            if step.call == "create":
                table.setdefault(step.name, live.get(step.name) or _File())
            elif step.call in LINKS and step.name in table:
                table[step.other] = table[step.name] if step.call == "link" else table.pop(step.name)
            elif step.call == "unlink":
                table.pop(step.name, None)
        if step.call in ("write", "truncate") and step.name in live:
            live[step.name].calls.append((position, step))
        if step.call == "sync" and step.name in live:
            live[step.name].synced = position
    return {name: _content(file, named, part) for name, file in names.items()}


def _content(file: _File, named: int, part: Callable[[int, Step], np.ndarray | None]) -> bytes:
    content = bytearray()
    for position, step in file.calls:
        if step.call == "truncate":
            if position < max(named, file.synced):
                content = content[: step.at] + bytes(max(0, step.at - len(content)))
            continue
        at = len(content) if step.at < 0 else step.at
        written = None if position < file.synced else part(position, step)
        if written is not None and not written.any():
            continue
        content += bytes(max(0, at + len(step.data) - len(content)))
        target = np.frombuffer(content, np.uint8)[at : at + len(step.data)]
        source = np.frombuffer(step.data, np.uint8)
        target[slice(None) if written is None else written] = source if written is None else source[written]
        del target
    return bytes(content)
