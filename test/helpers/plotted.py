# SPDX-License-Identifier: Apache-2.0
"""A small drive to be plotted, vlad plot, and what can be asked of every picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from untrained import save_untrained

from vlad_ros import cli
from vlad_ros.files.sequence import Sequence, save_sequence
from vlad_ros.types import F32


def make_scans(count: int, seed: int = 3) -> list[F32]:
    """Scans of heaps on a plane, from places 1.5 m apart on a line."""
    rng = np.random.default_rng(seed)
    heaps = [rng.normal(c, (0.8, 0.8, 0.8), (150, 3)) for c in rng.uniform(-30, 30, (60, 3)) * (1, 1, 0)]
    world = np.concatenate([*heaps, np.c_[rng.uniform(-40, 40, (3000, 2)), np.full(3000, -1.6)]])
    shifted = [world - (1.5 * k, 0.0, 0.0) for k in range(count)]
    return [np.c_[points, np.zeros(len(points))].astype(np.float32) for points in shifted]


def save_drive(where: Path) -> Path:
    """A drive of 6 places, driven twice, and weights."""
    scans = make_scans(6)
    poses = np.tile(np.eye(4), (12, 1, 1))
    poses[:, 0, 3] = 1.5 * np.tile(np.arange(6), 2)
    stamps = np.concatenate([1.0 + np.arange(6.0), 40.0 + np.arange(6.0)])
    rng = np.random.default_rng(1)
    again = [scan + rng.normal(0, 0.01, scan.shape).astype(np.float32) for scan in scans]
    save_sequence(where / "drive.npz", Sequence("drive", [*scans, *again], poses, stamps))
    save_untrained(where / "w.safetensors", scans, 0.5)
    return where


def plot(folder: Path, *words: str) -> int:
    network = [] if words[0] == "closure" else ["--weights", str(folder / "w.safetensors")]
    return cli.main(["plot", *words, *network])


def assert_readable(figure: Figure) -> None:
    """Every axes with data says what is on it and in which unit, and no legend lies over data."""
    figure.canvas.draw()
    for axes in figure.findobj(Axes):
        if not axes.axison:
            continue
        is_bar = axes.get_label() == "<colorbar>"  # which has but one axis
        for axis in (axes.yaxis,) if is_bar else (axes.xaxis, axes.yaxis):
            named = any(character.isalpha() for tick in axis.get_ticklabels() for character in plain(tick.get_text()))
            assert "[" in axis.get_label_text() or named, f"{axes.get_title()}: an axis without a unit"
        legend = axes.get_legend()
        if legend is not None:
            box = legend.get_window_extent()
            for line in axes.lines:
                inside = box.count_contains(line.get_transform().transform(line.get_xydata()))
                assert inside == 0, f"{axes.get_title()}: the legend covers a line"
            for patch in axes.patches:
                assert not box.overlaps(patch.get_window_extent()), f"{axes.get_title()}: the legend covers a bar"


def plain(text: str) -> str:
    """A tick's text without the markup of its number."""
    return text.replace("$\\mathdefault", "")


def panel(figure: Figure, title: str) -> Axes:
    found = [axes for axes in figure.findobj(Axes) if title in axes.get_title()]
    assert len(found) == 1, f"{len(found)} panels are called {title!r}"
    return found[0]
