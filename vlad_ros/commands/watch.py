# SPDX-License-Identifier: Apache-2.0
"""`vlad watch`: the running node on a text screen."""

from __future__ import annotations

import argparse
import time

from vlad_ros.config import WatchConfig
from vlad_ros.options import add_options, from_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which node, and how it is shown."""
    add_options(parser, WatchConfig)


def run(args: argparse.Namespace) -> int:
    """Draw until Ctrl-C; once, where asked to or where nobody sees it change: exit status 1 when the node is silent."""
    from rich.console import Console
    from rich.live import Live

    from vlad_ros.ros.tools.watch import Watch
    from vlad_ros.terminal import screen

    config, console = from_options(WatchConfig, args), Console()
    with Watch(config.node) as watch:
        if config.once or not console.is_terminal:
            heard = watch.wait(config.patience)
            console.print(screen(watch.view(), config.loops))
            return 0 if heard else 1
        try:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                while True:
                    live.update(screen(watch.view(), config.loops, console.height), refresh=True)
                    time.sleep(1.0 / config.refresh)
        except KeyboardInterrupt:
            return 0
