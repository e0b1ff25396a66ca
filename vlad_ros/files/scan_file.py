# SPDX-License-Identifier: Apache-2.0
"""One scan from a file: a sequence, a bag, or a single cloud (.pcd, KITTI .bin, .npy)."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from vlad_ros.cloud.decode import DATATYPES, decode, four_columns
from vlad_ros.files.pcd import TYPES, check_not_compressed, read_header
from vlad_ros.types import F32

SOURCES = "SEQUENCE.npz:INDEX, BAG:INDEX, a .pcd, .bin (KITTI: float32 x y z intensity) or .npy (N, >=3) file"


def read_scan(source: str | os.PathLike[str]) -> F32:
    """The points (N, 4) float32 x y z intensity of `source`, in the sensor frame. ValueError names what is wrong."""
    text = os.fspath(source)
    name, colon, number = text.rpartition(":")
    index = int(number) if colon and number.isdecimal() else None
    path = Path(text if index is None else name)
    if not path.exists():
        raise ValueError(f"{path}: no such file; a scan is {SOURCES}")
    if path.suffix == ".npz":
        return _from_sequence(path, index)
    if path.is_dir() or path.suffix in (".mcap", ".db3"):
        return _from_bag(path, index)
    readers = {".pcd": _from_pcd, ".bin": _from_bin, ".npy": _from_npy}
    if path.suffix not in readers:
        raise ValueError(f"{path}: not a known kind of scan; use {SOURCES}")
    if index is not None:
        raise ValueError(f"{path} holds a single scan; leave out :{index}")
    return readers[path.suffix](path)


def _from_sequence(path: Path, index: int | None) -> F32:
    from vlad_ros.files.sequence import load_sequence

    scans = load_sequence(path).scans
    if index is None or index >= len(scans):
        asked = "say which scan" if index is None else f"there is no scan {index}"
        raise ValueError(f"{path} holds {len(scans)} scans, {asked}: {path}:0 to {path}:{len(scans) - 1}")
    return scans[index]


def _from_bag(path: Path, index: int | None) -> F32:
    """The cloud `index` of a bag, counted over all its topics in bag order."""
    from vlad_ros.cloud.decode import decode_message
    from vlad_ros.files.bags import CLOUD, deserialise, open_bag

    if index is None:
        raise ValueError(f"{path} is a bag, say which scan of it: {path}:0 is the first")
    with open_bag(path) as bag:
        clouds = [connection for connection in bag.connections if connection.msgtype == CLOUD]
        if not clouds:
            raise ValueError(f"{path}: no PointCloud2 topic in this bag")
        count = 0
        for connection, _, data in bag.messages(clouds):
            if count == index:
                return decode_message(deserialise(data, connection.msgtype))
            count += 1
    raise ValueError(f"{path} holds {count} clouds, there is no cloud {index}: {path}:0 to {path}:{count - 1}")


def _from_bin(path: Path) -> F32:
    from vlad_ros.files.kitti import read_bin

    return read_bin(path)


def _from_npy(path: Path) -> F32:
    try:
        return four_columns(np.asarray(np.load(path, allow_pickle=False)))
    except Exception as error:  # any error that numpy raises on a damaged file
        raise ValueError(f"{path}: not a readable array of points ({error})") from error


def _from_pcd(path: Path) -> F32:
    """Decode a PCD file as a PointCloud2 with a text header."""
    header, begin = read_header(path)
    data = path.read_bytes()[begin:]
    try:
        check_not_compressed(header)
        names, counts = header["FIELDS"], [int(count) for count in header.get("COUNT", [])]
        sizes, points = [int(size) for size in header["SIZE"]], int(header["POINTS"][0])
        kinds = [TYPES[kind] + str(size) for kind, size in zip(header["TYPE"], sizes, strict=True)]
        counts = counts or [1] * len(names)
        if header["DATA"][0] == "ascii":
            table = np.array(data.split(), np.float64).reshape(points, sum(counts))
            data, sizes, kinds = table.astype("<f8").tobytes(), [8] * len(names), ["f8"] * len(names)
        widths = [size * count for size, count in zip(sizes, counts, strict=True)]
        offsets = np.cumsum([0, *widths]).tolist()
        numbers = {kind: number for number, kind in DATATYPES.items()}
        fields: list[Any] = [
            SimpleNamespace(name=name, offset=offset, datatype=numbers.get(kind, 0), count=count)
            for name, offset, kind, count in zip(names, offsets[:-1], kinds, counts, strict=True)
        ]
        step = offsets[-1]
        return decode(fields, data, height=1, width=points, point_step=step, row_step=step * points, is_bigendian=False)
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{path}: not a readable PCD file ({error})") from error
