#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trajectories of whole SLAM systems side by side: odometry alone, KISS-SLAM, KISS-SLAM with our loops, our pose graph.

    pip install kiss-slam==0.0.2 retro-slam==0.0.1    # kiss-slam needs open3d; Debian: apt install libusb-1.0-0 libgl1
    python bench/slam_table.py --out slam_table       # an hour or two; run it again and it goes on where it was
    python bench/slam_table.py --out slam_table --draw street docs/slam_street.png

Six simulated drives of 600 to 700 m through the first worlds from seed 7000 on that have the route, and `loop_mid360`
from the folder that VLAD_DATA names. All systems get the same scans and nothing else, with the settings that they
come with; none is deskewed. RMSE is of all scans, after a rigid alignment. A closure is right within 1 m and 5 degrees
of the true poses of the two scans that it joins: in KISS-SLAM those that begin its local maps, in ours the
keyframes. The CPU seconds are of all threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from slam_systems import METHODS, Result
from table import markdown, write_csv
from tqdm import tqdm

from vlad_ros.atomic import replacing
from vlad_ros.drive.travel import path_length
from vlad_ros.evaluation.trajectory import aligned, rmse, rmse_degrees
from vlad_ros.files.sequence import Sequence, load_sequence, save_sequence
from vlad_ros.plots import style
from vlad_ros.simulation.aliased_drives import aliased_drive
from vlad_ros.simulation.routes import make_drive
from vlad_ros.simulation.sensors import dome, spinning

SEED, SPACING, SPEED = 7000, 2.0, 6.0  # m, m/s
SPIN = spinning(16, 450)
AROUND = {"spacing": SPACING, "length": 350.0, "revisits": ("opposite",)}
HALLS = {"spacing": SPACING, "length": 70.0, "revisits": ("opposite", "same") * 4, "shape": "line"}
KINDS: dict[str, Callable[[int], Sequence]] = {
    "street": lambda seed: make_drive("street", seed, seed=seed, sensor=SPIN, **AROUND),
    "park": lambda seed: make_drive("park", seed, seed=seed, sensor=dome(), **AROUND),
    "blocks": lambda seed: aliased_drive("blocks", seed, sensor=SPIN, loops=True, spacing=SPACING, length=230.0),
    "campus": lambda seed: make_drive("campus", seed, seed=seed, sensor=SPIN, **AROUND),
    "carpark": lambda seed: make_drive("carpark", seed, seed=seed, sensor=SPIN, **HALLS),
    "indoor": lambda seed: make_drive("indoor", seed, seed=seed, sensor=dome(), **HALLS),
}
REAL = "loop_mid360"


def drive(name: str, folder: Path) -> Sequence:
    """The drive, made once and kept in the folder; SystemExit where it is not to be had."""
    if name == REAL:
        return load_sequence(Path(os.environ.get("VLAD_DATA", ".")) / f"{REAL}.npz")
    path = folder / f"{name}.npz"
    for seed in range(SEED, SEED + 20):
        if path.exists():
            break
        try:
            made = KINDS[name](seed)
        except ValueError:
            continue
        stamps = 1.0 + path_length(made.poses_to("bench")) / SPEED
        made = dataclasses.replace(made, stamps=stamps + 1e-3 * np.arange(len(stamps)))  # turns on the spot take time
        save_sequence(path, made)
        (folder / f"{name}.txt").write_text(f"seed {seed}, {path_length(made.poses_to('bench'))[-1]:.0f} m\n")
    return load_sequence(path)


def kept(folder: Path, name: str, system: str) -> Path:
    """The file of a system's result on a drive."""
    return folder / f"{name}, {system}.npz"


def read(path: Path) -> Result:
    """A result from its file."""
    with np.load(path, allow_pickle=False) as data:
        return Result(data["poses"], data["ends"], data["right"], float(data["seconds"]))


def run(name: str, folder: Path) -> list[dict[str, object]]:
    """The rows of a drive; what has no result yet is run, and left out where it is not installed."""
    made, rows = drive(name, folder), []
    for systems, method in METHODS.items():
        if not all(kept(folder, name, system).exists() for system in systems):
            try:
                results = method(made)
            except ModuleNotFoundError as error:
                tqdm.write(f"{', '.join(systems)}: left out, {error}", file=sys.stderr)
                continue
            for system, result in results.items():
                with replacing(kept(folder, name, system)) as temporary, open(temporary, "wb") as file:
                    np.savez_compressed(file, **dataclasses.asdict(result))
        rows += [row(name, system, made, read(kept(folder, name, system))) for system in systems]
    return rows


def row(name: str, system: str, made: Sequence, result: Result) -> dict[str, object]:
    """A row of the table."""
    truth = made.poses_to("bench")
    return {
        "drive": name,
        "system": system,
        "RMSE [m]": f"{rmse(aligned(result.poses, truth), truth):.2f}",
        "[deg]": f"{rmse_degrees(result.poses, truth):.2f}",
        "right": int(result.right.sum()),
        "wrong": int((~result.right).sum()),
        "CPU [s]": round(result.seconds),
    }


def draw(name: str, folder: Path, path: Path) -> None:
    """The trajectories from above with their closures, and how far they are off, from the results in the folder."""
    made = drive(name, folder)
    truth = made.poses_to("bench")
    there = [system for systems in METHODS for system in systems if kept(folder, name, system).exists()]
    shape = {"figsize": (3.6 * len(there), 6.0), "layout": "constrained", "squeeze": False}
    figure, axes = plt.subplots(2, len(there), sharey="row", height_ratios=(2, 1), **shape)
    for (ax, below), system in zip(axes.T, there, strict=True):
        result = read(kept(folder, name, system))
        xyz = aligned(result.poses, truth)
        xy = xyz[:, :2]
        ax.plot(*truth[:, :2, 3].T, color=style.GREY, lw=4.0, alpha=0.6)
        for right, colour in ((True, style.TRUE), (False, style.FALSE)):
            lines = xy[result.ends[result.right == right]]
            ax.add_collection(LineCollection(lines, colors=colour, linewidths=1.0, zorder=3))
        ax.plot(*xy.T, color=style.BLACK, lw=1.2)
        ax.set(title=f"{system}\n{rmse(xyz, truth):.2f} m", aspect="equal", adjustable="datalim", xlabel="x [m]")
        below.plot(path_length(truth), np.linalg.norm(xyz - truth[:, :3, 3], axis=1), color=style.BLACK, lw=1.2)
        below.set(xlabel="way [m]")
    axes[0, 0].set_ylabel("y [m]")
    axes[1, 0].set(ylabel="off by [m]", ylim=(0, None))
    handles = [
        Line2D([], [], color=style.GREY, lw=4.0, alpha=0.6, label="true"),
        Line2D([], [], color=style.BLACK, lw=1.2, label="estimated"),
        Line2D([], [], color=style.TRUE, label="right closure"),
        Line2D([], [], color=style.FALSE, label="wrong closure"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    style.save(figure, path)
    plt.close(figure)


def main() -> None:
    """Print the table in Markdown, and keep it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("slam_table"), help="folder of drives, results, table.csv")
    parser.add_argument("--drives", nargs="+", choices=(*KINDS, REAL), default=[*KINDS, REAL])
    parser.add_argument("--draw", nargs=2, metavar=("DRIVE", "FILE.png"), help="only the picture of a drive")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.draw:
        draw(args.draw[0], args.out, Path(args.draw[1]))
        return
    rows: list[dict[str, object]] = []
    for name in args.drives:
        rows += run(name, args.out)
        write_csv(args.out / "table.csv", rows)
    print(markdown(rows))


if __name__ == "__main__":
    main()
