# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of the README and of docs/, all of them from simulated drives.

python docs/make_pictures.py [--weights FILE] [NAME ...]      (without a name: all; ten minutes)
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from vlad_ros import cli
from vlad_ros.commands import demo_drive as demo
from vlad_ros.drive.travel import path_length
from vlad_ros.files.sequence import Sequence, save_sequence
from vlad_ros.runs.tables import Run, read_run
from vlad_ros.simulation.aliased_drives import aliased_drive
from vlad_ros.simulation.days import make_day, overlapping
from vlad_ros.simulation.routes import plan_route
from vlad_ros.simulation.sensors import dome, spinning
from vlad_ros.simulation.worlds import make_world

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "test/helpers"))
from browser import chromium, open_page  # noqa: E402

SEED = 1
ELSEWHERE = 40.0  # m
DRIVES: dict[str, Callable[[], Sequence]] = {
    "town": lambda: demo.simulate(SEED),  # the same way again, and back in the opposite direction
    "blocks": lambda: at_town_speed(aliased_drive("blocks", SEED, sensor=spinning(32, 450), loops=False, length=400.0)),
}


def at_town_speed(drive: Sequence) -> Sequence:
    """The drive with the stamps of one at demo.SPEED: slow enough that its beginning may be compared with its end."""
    metres = path_length(drive.poses_to("drive"))
    return dataclasses.replace(drive, stamps=1.0 + metres / demo.SPEED)


class Studio:
    """The simulated drives and what was made of them, each made at most once, in a folder of its own."""

    def __init__(self, folder: Path, weights: str | None) -> None:
        self._folder, self._weights = folder, ["--weights", weights] if weights else []
        self._drives: dict[str, Sequence] = {}

    def vlad(self, *words: str) -> None:
        """Run the tool; SystemExit where it fails."""
        if status := cli.main(
            [*words, *([] if words[:2] in (("plot", "closure"), ("plot", "map")) else self._weights)]
        ):
            raise SystemExit(status)

    def drive(self, name: str) -> Sequence:
        """A simulated drive, in the folder, too."""
        if name not in self._drives:
            self._drives[name] = DRIVES[name]()
            save_sequence(self._folder / f"{name}.npz", self._drives[name])
        return self._drives[name]

    def scan(self, name: str, index: int) -> str:
        """A scan of a drive, as the tool wants it named."""
        self.drive(name)
        return f"{self._folder / name}.npz:{index}"

    def run(self, name: str) -> Run:
        """A drive played through the recogniser, with drifting odometry."""
        folder = self._folder / f"run_{name}"
        if not folder.exists():
            self.drive(name)
            self.vlad("run", f"{self._folder / name}.npz", "-o", str(folder), "--drift", "--device", "cpu")
        return read_run(folder)

    def bag_run(self) -> Run:
        """The town's bag, with the drifting odometry that it holds and nothing to judge by."""
        folder = self._folder / "run_bag"
        if not folder.exists():
            demo.write_drive(self.drive("town"), self._folder / "bag")
            self.vlad("run", str(self._folder / "bag"), "-o", str(folder), "--device", "cpu")
        return read_run(folder)

    def merged(self) -> str:
        """The maps of two days in a campus, who share half of their way, by drifting odometry, in one."""
        world = make_world("campus", SEED, 420.0)
        way, maps = plan_route(world, SEED, 1.0, (), 0.0, 250.0, "loop").poses, []
        for day, (part, sensor) in enumerate(zip(overlapping(way, 0.5), (spinning(32), dome()), strict=True), 1):
            made = make_day(world, part, sensor, day, back=day == 2, aside=0.7)
            run = self._folder / f"day_{day}"
            save_sequence(run.with_suffix(".npz"), dataclasses.replace(made.drive, poses=made.odometry))
            self.vlad("run", f"{run}.npz", "-o", str(run), "--device", "cpu")
            maps.append(str(read_run(run).map_path))
        out = str(self._folder / "town.map")
        self.vlad("map", "merge", *maps, "-o", out)
        return out

    def panel(self, run: Run, name: str, path: Path) -> None:
        """A panel of the run's report as a browser shows it. LookupError where there is no Chromium."""
        report = run.path / "report.html"
        if not report.exists():
            cli.main(["report", str(run.path), "--pictures", "0"])
        with chromium(self._folder / f"profile_{name}") as driver:
            driver.set_window_size(1400, 6000)  # nothing of a panel is out of sight
            open_page(driver, report)
            section = driver.find_element("css selector", f"section:has(#{name})")
            path.write_bytes(section.screenshot_as_png)

    def demo(self) -> Path:
        """The demo's folder; needs ROS 2 or its wheels."""
        folder = self._folder / "demo"
        self.vlad("demo", "--out", str(folder), "--seed", str(SEED))
        return folder


def draw_demo(studio: Studio, path: Path) -> None:
    """README: what the node announced."""
    shutil.copy(studio.demo() / "demo.png", path)


def draw_assignment(studio: Studio, path: Path) -> None:
    """A scan's soft assignment."""
    studio.vlad("plot", "assignment", studio.scan("town", 30), "-o", str(path))


def draw_vlad(studio: Studio, path: Path) -> None:
    """A scan and another one that was taken ELSEWHERE or farther away."""
    places = studio.drive("town").poses_to("show")[:, :3, 3]
    far = int(np.argmax(np.linalg.norm(places - places[30], axis=1) > ELSEWHERE))
    studio.vlad("plot", "vlad", studio.scan("town", 30), studio.scan("town", far), "-o", str(path))


def draw_heads(studio: Studio, path: Path) -> None:
    """Both aggregations, and the branches on scans of four worlds."""
    studio.vlad("plot", "heads", "-o", str(path))


def draw_accepted(studio: Studio, path: Path) -> None:
    """The first loop that was accepted from the opposite direction."""
    run = studio.run("town")
    cosine = np.trace(run.closures.T_match_query[:, :3, :3], axis1=1, axis2=2) / 2 - 0.5
    found = np.flatnonzero(run.closures.accepted & (cosine < -0.9))
    _draw_closure(studio, run, found, path)


def draw_refused(studio: Studio, path: Path) -> None:
    """Of a drive through blocks that all look alike, never twice through one: the candidate nearest to acceptance."""
    run = studio.run("blocks")
    closures = run.closures
    found = np.flatnonzero(~closures.accepted & np.isfinite(closures.evidence["overlap"]))
    _draw_closure(studio, run, found[np.argsort(-closures.probability[found])], path)


def draw_tutorial_trajectory(studio: Studio, path: Path) -> None:
    """Tutorial: the way and its loops, in the report."""
    studio.panel(studio.bag_run(), "trajectory", path)


def draw_tutorial_reliability(studio: Studio, path: Path) -> None:
    """Tutorial: the reliability curve, in the report."""
    studio.panel(studio.bag_run(), "reliability", path)


def draw_merged(studio: Studio, path: Path) -> None:
    """Maps: two days in one frame."""
    studio.vlad("plot", "map", studio.merged(), "-o", str(path))


def _draw_closure(studio: Studio, run: Run, found: np.ndarray, path: Path) -> None:
    if not len(found):
        raise SystemExit(f"{path.name}: the run has no such closure")
    studio.vlad("plot", "closure", str(run.path), str(found[0]), "-o", str(path))


PICTURES: dict[str, Callable[[Studio, Path], None]] = {
    "netvlad_soft_assignment": draw_assignment,
    "netvlad_vlad_structure": draw_vlad,
    "netvlad_variants": draw_heads,
    "closure_accepted": draw_accepted,
    "closure_refused": draw_refused,
    "tutorial_trajectory": draw_tutorial_trajectory,
    "tutorial_reliability": draw_tutorial_reliability,
    "merged": draw_merged,
    "demo": draw_demo,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", metavar="NAME", nargs="*", help=f"of {', '.join(PICTURES)}; all when left out")
    parser.add_argument("--weights", metavar="FILE", help="weights file; the shipped ones when left out")
    parser.add_argument("--out", metavar="FOLDER", default=str(DOCS), help="where the pictures go (default: docs)")
    args = parser.parse_args()
    unknown = set(args.names) - set(PICTURES)
    if unknown:
        parser.error(f"there is no picture {', '.join(sorted(unknown))}; there are {', '.join(PICTURES)}")
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder), args.weights)
        for name in args.names or PICTURES:
            PICTURES[name](studio, Path(args.out) / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
