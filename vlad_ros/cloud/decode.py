# SPDX-License-Identifier: Apache-2.0
"""Decode incoming point clouds to (N, 4) float32 x y z intensity.

The bytes of a PointCloud2 are read through one strided, read-only view and are never changed. Everything is checked
first; an unreadable cloud is a `CloudError` of one sentence that names the fault and its remedy.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from vlad_ros.jit import kernel
from vlad_ros.stopwatch import stage
from vlad_ros.types import F32, F64, Bools

Rows = npt.NDArray[np.int32]

Reason = Literal["empty", "layout", "fields", "not_finite", "out_of_range"]

# sensor_msgs/PointField: INT8 = 1 ... FLOAT64 = 8
DATATYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}
FLOATS = (7, 8)
INTENSITY = ("intensity", "i", "reflectivity")  # the first one present is used; 0 if there is none
# Time fields of Ouster, Velodyne, Hesai, Livox and others; the first usable one is used.
TIMES = ("t", "time", "timestamp", "time_stamp", "offset_time", "time_offset", "time_offset_ns", "t_offset", "ts")
NO_ROWS: Rows = np.zeros(0, np.int32)
LARGEST = 2**32 - 1  # maximum of the message's unsigned numbers


class CloudError(ValueError):
    """An unusable cloud; `reason` is the short name under which diagnostics counts it."""

    def __init__(self, reason: Reason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason: Reason = reason


class Field(Protocol):
    """The attributes of a sensor_msgs/PointField that `decode` reads."""

    name: str
    offset: int
    datatype: int
    count: int


@dataclass(frozen=True, eq=False)
class PointTimes:
    """The unconverted per-point times of a message: `values` (height * width,) of the field `name`, and which of them
    (N,) belong to a point with finite coordinates that are not all zero."""

    name: str
    values: F64
    of_point: Bools


def decode_message(msg: Any) -> F32:
    """`decode` of a sensor_msgs/PointCloud2, or of anything with its attributes."""
    return decode(**_attributes(msg))


@stage("decode")
def decode_rows(msg: Any) -> tuple[F32, Rows]:
    """`decode_message`, and for each of its points (N,) the row of the message that it came from."""
    points = _columns(_view(**_attributes(msg)))
    rows = np.arange(len(points), dtype=np.int32)
    count = _finite(points, rows)
    return points[:count], rows[:count]


def point_times(msg: Any) -> PointTimes | None:
    """The per-point times of a message, one for each of its rows; None if no field of `TIMES` is readable, because a
    cloud with broken times is still usable. Never raises."""
    try:
        layout = _attributes(msg)
        fields = {str(field.name): field for field in layout["fields"]}
    except (AttributeError, TypeError):
        return None
    for name in TIMES:
        if name in fields:
            try:
                view = _view(**(layout | {"wanted": {"t": name, "x": "x", "y": "y", "z": "z"}}))
            except CloudError:
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                values = view["t"].astype(np.float64).reshape(-1)
                far = np.abs(view["x"]) + np.abs(view["y"]) + np.abs(view["z"])
            return PointTimes(name, values, (np.isfinite(far) & (far > 0)).reshape(-1))
    return None


def _attributes(msg: Any) -> dict[str, Any]:
    """The arguments of `decode` and `_view`, from a message."""
    names = ("fields", "data", "height", "width", "point_step", "row_step", "is_bigendian")
    return {name: getattr(msg, name) for name in names}


def decode(
    fields: Sequence[Field],
    data: Any,
    *,
    height: int,
    width: int,
    point_step: int,
    row_step: int,
    is_bigendian: bool,
) -> F32:
    """The points (N, 4) float32 [m, m, m, intensity] with finite coordinates, N >= 1, row by row; a new array.

    Coordinates are float32 or float64, intensity is of any type; it is 0 if absent or not finite. Other fields, and
    bytes of `data` (bytes-like) beyond the last row, are ignored. `row_step` is used if the rows then fit into `data`;
    some drivers set it to 0, to the whole cloud's size, or count it in points. CloudError as the module says.
    """
    points = _columns(_view(fields, data, height, width, point_step, row_step, is_bigendian))
    return points[: _finite(points, NO_ROWS)]


def _view(
    fields: Sequence[Field],
    data: Any,
    height: int,
    width: int,
    point_step: int,
    row_step: int,
    is_bigendian: bool,
    wanted: dict[str, str] | None = None,
) -> np.ndarray:
    """The structured view (height, width) of a message's bytes with x, y, z and intensity, or the roles of `wanted`."""
    height, width = _whole("height", height), _whole("width", width)
    point_step, row_step = _whole("point_step", point_step), _whole("row_step", row_step)
    if height * width == 0:
        raise CloudError("empty", f"the cloud is empty (width {width}, height {height}): is the sensor sending yet?")
    buffer = _bytes(data)
    row_step = _row_step(len(buffer), height, width, point_step, row_step)
    dtype = _point_type(fields, point_step, ">" if is_bigendian else "<", wanted)
    return np.ndarray((height, width), dtype, buffer, strides=(row_step, point_step))


def _whole(name: str, value: Any) -> int:
    """`value` as an int that a uint32 can hold."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise CloudError("layout", f"{name} must be a whole number, not {value!r}") from error
    if not 0 <= number <= LARGEST:
        raise CloudError("layout", f"{name} must lie in 0..{LARGEST}, not {number}")
    return number


def _point_type(fields: Sequence[Field], point_step: int, order: str, wanted: dict[str, str] | None) -> np.dtype:
    """The structured type of one point: x, y, z and, where there is one, intensity (or `wanted`), at their offsets."""
    by_name: dict[str, list[Field]] = {}
    for field in fields:
        by_name.setdefault(str(getattr(field, "name", "")), []).append(field)
    if wanted is None:
        wanted = {"x": "x", "y": "y", "z": "z"}
        intensity = next((name for name in INTENSITY if name in by_name), None)
        if intensity is not None:
            wanted["intensity"] = intensity
    missing = [name for name in wanted.values() if name not in by_name]
    if missing:
        have = ", ".join(map(repr, by_name)) or "none"
        raise CloudError("fields", f"the cloud has no field {', '.join(missing)} (it has {have}): publish x, y and z")
    formats, offsets = [], []
    for role, name in wanted.items():
        if len(by_name[name]) > 1:
            raise CloudError("fields", f"the cloud has {len(by_name[name])} fields called {name!r}: name each once")
        datatype, offset = _field(by_name[name][0], name, point_step, coordinate=role in "xyz")
        formats.append(order + DATATYPES[datatype])
        offsets.append(offset)
    return np.dtype({"names": list(wanted), "formats": formats, "offsets": offsets, "itemsize": point_step})


def _field(field: Field, name: str, point_step: int, coordinate: bool) -> tuple[int, int]:
    """Datatype and offset of a field, checked."""
    datatype, offset, count = (
        _whole(f"{key} of field {name!r}", getattr(field, key, None)) for key in ("datatype", "offset", "count")
    )
    if datatype not in DATATYPES:
        raise CloudError("fields", f"field {name!r} has the unknown datatype {datatype}: use 1 (INT8) to 8 (FLOAT64)")
    if coordinate and datatype not in FLOATS:
        raise CloudError("fields", f"field {name!r} has datatype {datatype}: publish it as FLOAT32 (7) or FLOAT64 (8)")
    if count != 1:
        raise CloudError("fields", f"field {name!r} has count {count}: publish one number a point")
    end = offset + int(DATATYPES[datatype][1])
    if end > point_step:
        raise CloudError("layout", f"field {name!r} ends at byte {end} of a point, but point_step is {point_step}")
    return datatype, offset


def _bytes(data: Any) -> memoryview:
    """The bytes of `data`, read-only."""
    try:
        view = memoryview(data).toreadonly()
        return view.cast("B") if view.nbytes else memoryview(b"")
    except (TypeError, ValueError, BufferError) as error:
        raise CloudError("layout", f"data must be contiguous bytes, not {type(data).__name__}") from error


def _row_step(size: int, height: int, width: int, point_step: int, row_step: int) -> int:
    """Bytes from one row to the next in `size` bytes of data: the first interpretation by which all rows fit."""
    row = width * point_step
    readings = [row_step, row_step * point_step, size // height]  # as given, given in points, from the data's size
    if size == height * row or height == 1:
        readings = [row]  # no padding, whatever was given
    elif row_step < row:
        readings.append(row)
    for step in readings:
        if step >= row and (height - 1) * step + row <= size:
            return step
    raise CloudError(
        "layout",
        f"data holds {size} bytes, but {height} rows of {row} need {height * row} (row_step is {row_step})",
    )


def _columns(view: np.ndarray) -> F32:
    """The points of a structured view (height, width) as (N, 4), finite or not."""
    points = np.zeros((view.size, 4), np.float32)
    # Values beyond float32 become infinite and are dropped; a signalling NaN becomes a NaN.
    with np.errstate(over="ignore", invalid="ignore"):
        for column, name in enumerate(view.dtype.names or ()):
            points[:, column].reshape(view.shape)[...] = view[name]
    return points


def _finite(points: F32, rows: Rows) -> int:
    """Move the points with finite coordinates, and their `rows`, to the front; returns their number, at least 1."""
    count = compact(points, rows, 0.0, np.inf)
    if count == 0:
        raise CloudError("not_finite", f"none of the {len(points)} points has finite coordinates")
    return count


@kernel
def compact(points: F32, rows: Rows, nearest: float, farthest: float) -> int:
    """Move the finite points with nearest <= range <= farthest [m] to the front, in order, together with `rows` if
    given; returns their number."""
    low, high = nearest * nearest, farthest * farthest
    count = 0
    for k in range(len(points)):
        x, y, z, i = points[k, 0], points[k, 1], points[k, 2], points[k, 3]
        if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z)):
            continue
        squared = float(x) * float(x) + float(y) * float(y) + float(z) * float(z)
        if squared < low or squared > high:
            continue
        points[count, 0], points[count, 1], points[count, 2] = x, y, z
        points[count, 3] = i if np.isfinite(i) else np.float32(0)
        if len(rows):
            rows[count] = rows[k]
        count += 1
    return count


def four_columns(points: np.ndarray) -> F32:
    """`points` (N, >=3) as contiguous (N, 4) float32; a missing fourth column is intensity 0. ValueError when there are
    fewer than three columns."""
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f"points must be (N, 3) or wider, not {points.shape}")
    if points.shape[1] == 3:
        points = np.pad(points, ((0, 0), (0, 1)))
    return np.ascontiguousarray(points[:, :4], np.float32)
