# SPDX-License-Identifier: Apache-2.0
"""Convert the raster to and from the bytes of an image message, and to a picture for display."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vlad_ros.config import BevConfig
from vlad_ros.types import F32

# Viridis (Smith and van der Walt, 2015) without its darkest quarter, which is hard to see on the background.
COLOURS = np.array(
    [(59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37)]
)
BACKGROUND = (12, 12, 16)


def _sample_type(encoding: str, config: BevConfig) -> np.dtype[Any]:
    """numpy type of the encoding's samples; ValueError names an encoding that is neither 32FC nor 8UC of C channels."""
    known: dict[str, np.dtype[Any]] = {
        f"32FC{config.channels}": np.dtype("<f4"),
        f"8UC{config.channels}": np.dtype("u1"),
    }
    if encoding not in known:
        raise ValueError(f"BEV encoding must be {' or '.join(known)}, not {encoding!r}")
    return known[encoding]


def to_image(raster: F32, encoding: str, config: BevConfig | None = None) -> bytes:
    """Bytes (H, W, C) of `raster` (C, H, W), rows without padding, little-endian; 8UC: 255 is height_max, 255 is
    occupied. ValueError when encoding or shape do not fit `config` (default: `BevConfig()`)."""
    config = config or BevConfig()
    dtype = _sample_type(encoding, config)
    shape = (config.channels, config.size, config.size)
    if raster.shape != shape:
        raise ValueError(f"BEV raster must be {shape}, not {raster.shape}")
    image = raster.transpose(1, 2, 0)
    if dtype == np.uint8:
        scale = np.full(config.channels, 255.0, np.float32)
        scale[0] /= config.height_max
        image = np.clip(np.rint(image * scale), 0, 255)
    return image.astype(dtype).tobytes()


def from_image(data: Any, encoding: str, config: BevConfig) -> F32:
    """The raster (C, H, W) float32 of an image's `data` (bytes-like, rows without padding, little-endian).

    ValueError, in one sentence, for another encoding, number of channels or size than `config` has, or for numbers
    that are not finite.
    """
    dtype = _sample_type(encoding, config)
    flat = np.frombuffer(data, np.uint8)
    expected = config.size**2 * config.channels * dtype.itemsize
    if len(flat) != expected:
        raise ValueError(
            f"BEV image must hold {expected} bytes ({config.size} x {config.size} cells, {encoding}), not {len(flat)}"
        )
    image = flat.view(dtype).reshape(config.size, config.size, config.channels)
    raster = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    if dtype == np.uint8:
        raster[0] *= config.height_max / 255.0
        raster[1:] = raster[1:] >= 128
    elif not np.isfinite(raster).all():
        raise ValueError("BEV image holds numbers that are not finite")
    else:
        np.clip(raster[0], 0.0, config.height_max, out=raster[0])
        raster[1:] = raster[1:] >= 0.5
    return raster


def preview(raster: F32, config: BevConfig | None = None) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) uint8 rgb of `raster` (C, H, W): height above ground from blue (low) over green to yellow."""
    config = config or BevConfig()
    # The square root gives kerbs, cars and hedges as much of the colour range as facades.
    level = np.sqrt(np.clip(raster[0] / config.height_max, 0.0, 1.0)) * (len(COLOURS) - 1)
    picture = np.stack([np.interp(level, np.arange(len(COLOURS)), channel) for channel in COLOURS.T], axis=-1)
    picture[raster[1:].max(axis=0) <= 0] = BACKGROUND
    return np.rint(picture).astype(np.uint8)
