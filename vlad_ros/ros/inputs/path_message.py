# SPDX-License-Identifier: Apache-2.0
"""Parse a serialised nav_msgs/Path with numpy: rclpy would create a Python object for each of ten thousand poses.

In CDR every number is aligned to its own size, counted from after the four bytes that name the byte order. A
Path is its header (stamp: int32 and uint32; frame: uint32 length, characters), the uint32 number of poses, and for
each of them a header of its own and seven float64, x y z and the quaternion x y z w.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vlad_ros.stamps import SECOND
from vlad_ros.types import F64, Ints

ENCODINGS = {b"\x00\x00": ">", b"\x00\x01": "<"}
STAMP, NUMBERS = 12, 56  # bytes up to a frame's characters; of seven numbers
SMALLEST = STAMP + NUMBERS  # bytes of a pose


def read_path(data: bytes) -> tuple[Ints, F64]:
    """Stamps (N,) [ns] and positions with quaternions (N, 7), as in the message.

    ValueError for bytes that are not a Path: another encoding, truncated, or too short for their number of poses.
    """
    order = ENCODINGS.get(data[:2])
    if order is None or len(data) < 4:
        raise ValueError(f"the path is not in plain CDR, it begins with {data[:4].hex(' ') or 'nothing'}")
    body = data[4:]
    words = np.frombuffer(body, f"{order}u4", len(body) // 4)
    first = _behind_header(words) + 4
    if first > 4 * len(words):
        raise ValueError(f"the path ends after {len(data)} bytes, within its header")
    count = int(words[first // 4 - 1])
    if count * SMALLEST > 4 * len(words) - first:
        raise ValueError(f"the path of {len(data)} bytes has no room for its {count} poses")
    heads = _even_heads(words, first, count)
    if heads is None:
        heads = _uneven_heads(words, first, count)
    at = heads // 4
    stamps = words.view(f"{order}i4")[at].astype(np.int64) * SECOND + words[at + 1]
    numbers = np.frombuffer(body, f"{order}f8", len(body) // 8)
    begin = _numbers_of(heads, words[at + 2].astype(np.int64)) // 8
    return stamps, numbers[begin[:, None] + np.arange(7)].astype(np.float64)


def _behind_header(words: npt.NDArray[np.uint32]) -> int:
    length = int(words[2]) if len(words) > 2 else 4 * len(words)
    return _aligned(STAMP + length, 4)


def _aligned(at: int, size: int) -> int:
    return -(-at // size) * size


def _numbers_of(head: Ints, length: Ints) -> Ints:
    """Offset of a pose's numbers, given its header's offset `head` and the length of its frame name."""
    return (head + STAMP + length + 7) // 8 * 8


def _even_heads(words: npt.NDArray[np.uint32], first: int, count: int) -> Ints | None:
    """Offsets of the poses' headers (N,), computed assuming equally long frame names; None if they are not."""
    if not count:
        return np.zeros(0, np.int64)
    length = int(words[first // 4 + 2])
    second = _aligned(first + STAMP + length, 8) + NUMBERS  # only the first may begin at an odd multiple of four
    step = _aligned(STAMP + length, 8) + NUMBERS
    if second + (count - 1) * step > 4 * len(words):
        return None
    heads = second + step * np.arange(-1, count - 1)
    heads[0] = first
    return heads if (words[heads // 4 + 2] == length).all() else None


def _uneven_heads(words: npt.NDArray[np.uint32], first: int, count: int) -> Ints:
    """The same offsets, found one after the other. ValueError if the message ends before the last."""
    heads, at, end = np.empty(count, np.int64), first, 4 * len(words)
    for i in range(count):
        heads[i] = at
        length = words.item(at // 4 + 2) if at + STAMP <= end else end
        at = _aligned(at + STAMP + length, 8) + NUMBERS
        if at > end:
            raise ValueError(f"the path ends within pose {i + 1} of {count}")
    return heads
