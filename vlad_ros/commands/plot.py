# SPDX-License-Identifier: Apache-2.0
"""`vlad plot ...`: a scan's descriptor, two descriptors, the heads, one loop closure, or a map."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlad_ros.model.describer import Describer
    from vlad_ros.plots.insides import Insides
    from vlad_ros.types import F32

SCAN = "SEQUENCE.npz:INDEX, BAG:INDEX, or a .pcd, .bin (KITTI) or .npy file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One subcommand per picture."""
    pictures = parser.add_subparsers(dest="picture", required=True, metavar="PICTURE")
    one = _picture(pictures, "assignment", "netvlad_soft_assignment.png", "which cluster each keypoint belongs to")
    one.add_argument("scan", metavar="SCAN", help=SCAN)
    two = _picture(pictures, "vlad", "netvlad_vlad_structure.png", "two descriptors, and what makes them similar")
    two.add_argument("scan_a", metavar="SCAN_A", help=SCAN)
    two.add_argument("scan_b", metavar="SCAN_B", help="another scan")
    both = _picture(pictures, "heads", "netvlad_variants.png", "NetVLAD beside its loupe variant, and the two branches")
    both.add_argument("scans", metavar="SCAN", nargs="*", help=f"{SCAN}; simulated ones when left out")
    why = _picture(pictures, "closure", "closure_ID.png", "why one loop was accepted or refused", network=False)
    why.add_argument("run_folder", metavar="RUN", help="folder that vlad run has written")
    why.add_argument("id", metavar="ID", type=int, help="row of closures.csv, the first one is 0")
    town = _picture(pictures, "map", "map.png", "a map from above, session by session", network=False)
    town.add_argument("map", metavar="MAP", help="a map file; it is only read")


def _picture(
    pictures: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    output: str,
    help: str,
    network: bool = True,
) -> argparse.ArgumentParser:
    parser = pictures.add_parser(name, help=help, description=f"Draw {help}.")
    parser.add_argument("-o", "--output", metavar="FILE.png", help=f"the picture (default: {output})")
    parser.set_defaults(default_output=output)
    if network:
        parser.add_argument("--weights", metavar="FILE", help="weights file; the shipped ones when left out")
    return parser


def run(args: argparse.Namespace) -> int:
    """Draw, and print the picture's numbers."""
    draw = {"assignment": _assignment, "vlad": _vlad, "heads": _heads, "closure": _closure, "map": _map}[args.picture]
    path = Path(args.output or args.default_output.replace("ID", str(getattr(args, "id", ""))))
    for line in draw(args, path):
        print(line)
    print(f"picture       {path}")
    return 0


def _describer(args: argparse.Namespace) -> Describer:
    from vlad_ros.model.describer import Describer

    return Describer.from_pretrained(args.weights, "cpu")[0]


def _inside(describer: Describer, scan: F32, name: str) -> Insides:
    """The network's intermediate results; a sentence on stderr where the scan has few keypoints."""
    from vlad_ros.plots.insides import few_keypoints, look_inside

    try:
        inside = look_inside(describer, scan)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if sentence := few_keypoints(inside, name):
        print(sentence, file=sys.stderr)
    return inside


def _assignment(args: argparse.Namespace, path: Path) -> list[str]:
    from vlad_ros.files.scan_file import read_scan
    from vlad_ros.plots import assignment

    describer = _describer(args)
    inside = _inside(describer, read_scan(args.scan), args.scan)
    data = assignment.make(inside, describer.bev.extent, Path(args.scan).name, path)
    return assignment.lines(data)


def _vlad(args: argparse.Namespace, path: Path) -> list[str]:
    from vlad_ros.files.scan_file import read_scan
    from vlad_ros.plots import vlad

    describer = _describer(args)
    scan_a, scan_b = read_scan(args.scan_a), read_scan(args.scan_b)
    a, b = _inside(describer, scan_a, args.scan_a), _inside(describer, scan_b, args.scan_b)
    noisy = vlad.look_at_noisy(describer, scan_a)
    names = (Path(args.scan_a).name, Path(args.scan_b).name)
    return vlad.lines(vlad.make(a, b, noisy, describer.bev.extent, names, path))


def _heads(args: argparse.Namespace, path: Path) -> list[str]:
    from vlad_ros.files.scan_file import read_scan
    from vlad_ros.plots import heads

    describer = _describer(args)
    if args.scans:
        scans, names = [read_scan(scan) for scan in args.scans], [Path(scan).name for scan in args.scans]
    else:
        scans, names = heads.simulated_scans()
    return heads.lines(*heads.make(describer, scans, names, path))


def _closure(args: argparse.Namespace, path: Path) -> list[str]:
    from vlad_ros.plots import closure

    return closure.lines(closure.make(args.run_folder, args.id, path))


def _map(args: argparse.Namespace, path: Path) -> list[str]:
    from vlad_ros.plots import map

    return map.lines(map.make(args.map, path))
