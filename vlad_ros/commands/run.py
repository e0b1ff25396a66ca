# SPDX-License-Identifier: Apache-2.0
"""`vlad run SEQUENCE.npz|BAG -o RUN`: a drive through the recogniser, without ROS, and what it leaves in a folder."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlad_ros.config import EvaluationConfig, NodeConfig, RecognizerConfig, RunConfig
from vlad_ros.options import add_options, from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Drive, folder, weights, what stands in for odometry, and all that the recogniser can be told."""
    from vlad_ros.runs.player import JUDGE

    parser.add_argument("source", metavar="SEQUENCE.npz|BAG", help="a sequence file, or the folder of a rosbag2")
    parser.add_argument("-o", "--out", required=True, metavar="RUN", help="folder; an earlier run in it is replaced")
    parser.add_argument(
        "--cloud", metavar="FILE.ply", help="join the keyframes' whole scans in one cloud, by odometry and loops"
    )
    parser.add_argument(
        "--rerun", metavar="FILE.rrd", help="a recording for the viewer of rerun: clouds, edges, trajectory over time"
    )
    parser.add_argument("--weights", metavar="FILE", help="weights file; the shipped ones when left out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add_options(parser, NodeConfig, only=("inference",))
    add_options(parser, RunConfig)
    add_options(parser, EvaluationConfig, only=JUDGE)
    add_options(parser, RecognizerConfig)


def run(args: argparse.Namespace) -> int:
    """Play, write, and print the numbers."""
    from vlad_ros.atomic import withdrawing
    from vlad_ros.pipeline import PlaceRecognizer
    from vlad_ros.plots.recording import save_recording
    from vlad_ros.runs.cloud import save_cloud
    from vlad_ros.runs.player import play
    from vlad_ros.runs.sources import open_source

    folder = _free(Path(args.out))
    config, judge = from_options(RunConfig, args), from_options(EvaluationConfig, args)
    settings = from_options(RecognizerConfig, args)
    _check_extras(args, config)
    source = open_source(args.source, config, judge, crop=settings)
    recognizer = PlaceRecognizer.from_pretrained(args.weights, args.device, settings, inference=args.inference)

    def bar(scans: Iterator) -> Iterator:
        from tqdm import tqdm

        return iter(tqdm(scans, total=source.count, unit="scan", file=sys.stderr, disable=None))

    with withdrawing(folder):
        folder.mkdir(parents=True, exist_ok=True)  # rather than find out after the drive that it cannot be
        played = play(recognizer, source, folder, config, judge, bar)
        print(text(played.about))
    if args.cloud:
        again = open_source(args.source, config, judge, lambda sentence: None, settings)  # it was told the first time
        print(f"cloud      {save_cloud(played, bar(again.scans), recognizer, args.cloud)}")
    if args.rerun:
        print(f"recording  {save_recording(played, recognizer.database, args.rerun)}")
    return 0


def _check_extras(args: argparse.Namespace, config: RunConfig) -> None:
    """ValueError, before the drive is played, for a cloud or a recording that could not be written."""
    from vlad_ros.plots.recording import find_rerun

    for name in ("cloud", "rerun"):
        path = getattr(args, name)
        if path is None:
            continue
        if not config.odometry:
            raise ValueError(f"--{name} needs odometry, which --no-odometry leaves out")
        if not os.access(Path(path).resolve().parent, os.W_OK) or Path(path).is_dir():
            raise ValueError(
                f"--{name} {path}: its folder is not there or cannot be written to, or it is a folder itself"
            )
    if args.rerun is not None:
        find_rerun()


def _free(folder: Path) -> Path:
    """A folder that nothing of value lies in."""
    from vlad_ros.runs.writer import UNFINISHED

    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder with -o")
    others = [path for path in folder.iterdir() if path.name != UNFINISHED] if folder.exists() else []
    if others and not (folder / "keyframes.csv").exists():
        raise ValueError(f"{folder} is not empty and not an earlier run's; name another folder with -o")
    if folder.exists() and not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} cannot be written to; name another folder with -o")
    return folder


def text(about: dict[str, Any]) -> str:
    """The numbers of a run for people, the protocol beside them."""
    value = {name: number["value"] for name, number in about["metrics"].items()}
    lines = [
        f"{about['source']}",
        f"protocol   {about['protocol']}",
        f"keyframes  {value['keyframes']}; {value['candidates']} candidates, {value['accepted']} edges accepted",
    ]
    lines += [f"counted    {words}" for words in about["counted"]]
    if "precision" not in value:
        return "\n".join(lines)
    for name, of in (
        ("precision", f"{value['false_edges']} false edges"),
        ("recall", f"{value['closed_revisits']} of {value['revisits']} revisits have a right edge"),
    ):
        lines.append(f"{name:<10} {'-' if value[name] is None else format(value[name], '.3f')}   {of}")
    if value["error_m_p50"] is not None:
        lines.append(
            f"error      p50 {value['error_m_p50']:.2f} m, {value['error_deg_p50']:.2f} deg; "
            f"p95 {value['error_m_p95']:.2f} m, {value['error_deg_p95']:.2f} deg"
        )
    return "\n".join(lines)
