# SPDX-License-Identifier: Apache-2.0
"""NetVLAD beside NetVLADLoupe: steps, parameters and times; and what each branch contributes to the descriptor."""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor, nn

from vlad_ros.config import RecognizerConfig
from vlad_ros.drive.scan import crop
from vlad_ros.model.describer import Describer
from vlad_ros.model.netvlad import NetVLAD, NetVLADLoupe
from vlad_ros.model.network import Aggregation, PlaceNetwork
from vlad_ros.plots import style
from vlad_ros.plots.variant_steps import COLOURS, Step, steps
from vlad_ros.types import F32, F64

REPEATS = 30
SIMULATED = ("street", "campus", "park", "indoor")  # worlds to take scans of where none is named


@dataclass(frozen=True, eq=False)
class Variant:
    """One aggregation: its `steps` on one scan's keypoints, numbers of `parameters` by name, median milliseconds for
    the numbers of features `counts`; `trained`: with the weights, else with random ones."""

    name: str
    trained: bool
    steps: list[Step]
    parameters: dict[str, int]
    counts: tuple[int, ...]
    milliseconds: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Branches:
    """`share` = sigmoid(w) of the fusion branch; per scan what each branch contributes to the descriptor,
    `contributions` (N, 2) fusion, bev, which sum to 1, and the `cosine` (N,) between the two."""

    share: float
    contributions: F64
    cosine: F64


@torch.no_grad()
def median_ms(module: nn.Module, *inputs: Tensor) -> float:
    """Median wall time [ms] of `REPEATS` runs after two to warm up; on one thread other programs disturb it less."""
    taken, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(REPEATS + 2):
            start = time.perf_counter()
            module(*inputs)
            taken.append(1e3 * (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return float(np.median(taken[2:]))


def variants(network: PlaceNetwork, counts: tuple[int, ...]) -> list[Variant]:
    """NetVLAD and NetVLADLoupe of a network on the CPU; the one that the weights do not have is made from their
    configuration, untrained. `counts`: numbers of features to time them with, the first also for the steps."""
    config = network.config
    other = dataclasses.replace(config, head="loupe" if config.head == "netvlad" else "netvlad")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = Aggregation(other).vlad.eval()
        features = [torch.randn(1, count, config.fea_size) for count in counts]
    modules = [(network.head_fusion.vlad, True), (fresh, False)]
    modules.sort(key=lambda pair: isinstance(pair[0], NetVLADLoupe))
    return [_variant(module, trained, features) for module, trained in modules]


def _variant(module: NetVLAD | NetVLADLoupe, trained: bool, features: list[Tensor]) -> Variant:
    """`features` (1, N, C), laid out as `Aggregation` hands them to each of the two."""
    inputs = []
    for x in features:
        weights = torch.ones(x.shape[:2])
        loupe = isinstance(module, NetVLADLoupe)
        inputs.append((x, weights) if loupe else (x.transpose(1, 2)[..., None], weights[..., None]))
    return Variant(
        name=type(module).__name__,
        trained=trained,
        steps=steps(copy.deepcopy(module), *inputs[0]),
        parameters={name: parameter.numel() for name, parameter in module.named_parameters()},
        counts=tuple(x.shape[1] for x in features),
        milliseconds=tuple(median_ms(module, *both) for both in inputs),
    )


def branches(describer: Describer, clouds: list[F32]) -> Branches:
    """Of scans (N, >=3) [m] in the body frame. The descriptor is the normalised sum of both branches' descriptors,
    each times its share; a branch's contribution is the inner product of its part with the sum, over that of the sum
    with itself."""
    share = float(torch.sigmoid(describer.network.fusion.w.detach()))
    contributions, cosine = [], []
    for cloud in clouds:
        points = crop(cloud, RecognizerConfig(), describer.bev)
        description = describer.network.describe([describer.rasterize(points)])
        fusion, bev = (vlad[0].double().cpu().numpy() for vlad in (description.vlad_fusion, description.vlad_bev))
        parts = np.stack([share * fusion, (1.0 - share) * bev])
        whole = parts.sum(axis=0)
        contributions.append(parts @ whole / max(float(whole @ whole), 1e-12))
        cosine.append(fusion @ bev)
    return Branches(share, np.array(contributions), np.array(cosine))


def draw(both: list[Variant], shares: Branches, names: list[str]) -> Figure:
    """The variants' steps to the left; parameters, times and branches to the right."""
    figure = Figure(figsize=(17, 11 + max(0.0, 0.25 * (len(names) - 8))), layout="constrained")
    left, right = style.split(figure, 1, 2, width_ratios=(1.25, 1))
    (_, channels, count, *_), (_, clusters, *_) = both[0].steps[0].shape, both[0].steps[2].shape
    left.suptitle(f"steps and the shapes they give: {count} features of {channels} channels, {clusters} clusters")
    rows = max(len(variant.steps) for variant in both)
    for axes, variant in zip(left.subplots(1, 2), both, strict=True):
        _steps(axes, variant, rows)
    handles = [Patch(facecolor=colour, alpha=0.7, label=kind) for kind, colour in COLOURS.items()]
    left.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    top, bottom = style.split(right, 2, 1, height_ratios=(1, 1 + 0.06 * max(0, len(names) - 6)))
    parameters, times = top.subplots(2, 1, height_ratios=(1.6, 1))
    _parameters(parameters, both)
    _times(times, both)
    _branches(bottom.subplots(), shares, names)
    figure.suptitle("Two aggregations of the same features, and the two branches of the descriptor", fontsize=14)
    return figure


def _label(variant: Variant) -> str:
    return variant.name if variant.trained else f"{variant.name} (untrained)"


def _steps(axes: Axes, variant: Variant, rows: int) -> None:
    axes.set(xlim=(0, 1), ylim=(rows - 0.5, -0.5), title=_label(variant))
    axes.axis("off")
    for row, step in enumerate(variant.steps):
        kind = 0 if row < 2 else 1 if step.parameters else 2  # features and weights come in
        axes.add_patch(Rectangle((0.0, row - 0.34), 1.0, 0.68, facecolor=list(COLOURS.values())[kind], alpha=0.7))
        axes.text(0.03, row - 0.15, step.name, va="center", fontsize=11, weight="bold")
        shape = " x ".join(str(size) for size in step.shape if size > 1)
        axes.text(0.97, row - 0.15, shape, va="center", ha="right", fontsize=11, family="monospace")
        axes.text(0.03, row + 0.16, step.does, va="center", fontsize=9)
        owners = ", ".join(dict.fromkeys(name.split(".")[0] for name in step.parameters))
        axes.text(0.97, row + 0.16, owners, va="center", ha="right", fontsize=8, style="italic")
        if 0 < row < len(variant.steps) - 1:
            arrow = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=(0.5, row + 0.66), xytext=(0.5, row + 0.34), arrowprops=arrow)


def _parameters(axes: Axes, both: list[Variant]) -> None:
    rows = [
        (f"{variant.name}.{name}", count, colour, hatch)
        for variant, colour, hatch in zip(both, (style.BLUE, style.ORANGE), ("", "//"), strict=True)
        for name, count in variant.parameters.items()
    ]
    labels, counts, colours, hatches = zip(*rows, strict=True)
    bars = axes.barh(range(len(rows)), counts, color=colours, hatch=hatches)
    axes.bar_label(bars, labels=[f"{count:,}" for count in counts], padding=3, fontsize=8)
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    totals = ", ".join(f"{variant.name} {sum(variant.parameters.values()):,}" for variant in both)
    axes.set(xscale="log", xlabel="parameters [-]", xlim=(1, 10 * max(counts)), title=f"parameters: {totals}")
    axes.invert_yaxis()


def _times(axes: Axes, both: list[Variant]) -> None:
    at = np.arange(len(both[0].counts))
    for shift, variant, colour, hatch in zip((-0.2, 0.2), both, (style.BLUE, style.ORANGE), ("", "//"), strict=True):
        bars = axes.barh(at + shift, variant.milliseconds, 0.36, color=colour, hatch=hatch, label=variant.name)
        axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set_yticks(at, [f"{count} features" for count in both[0].counts], fontsize=8)
    most = max(time for variant in both for time in variant.milliseconds)
    axes.set(xlabel="time [ms]", xlim=(0, 1.6 * most), title=f"median of {REPEATS} runs on one thread of the CPU")
    axes.invert_yaxis()
    axes.legend(loc="center right", frameon=False, fontsize=8)


def _branches(axes: Axes, shares: Branches, names: list[str]) -> None:
    at = np.arange(len(names))
    left: F64 = np.zeros(len(names))
    for column, colour, hatch, label in (
        (0, style.BLUE, "", "fusion branch (keypoints)"),
        (1, style.ORANGE, "//", "BEV branch (cells)"),
    ):
        bars = axes.barh(at, shares.contributions[:, column], 0.7, left=left, color=colour, hatch=hatch, label=label)
        left = left + shares.contributions[:, column]
        values = [f"{value:.2f}" for value in shares.contributions[:, column]]
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none"}
        axes.bar_label(bars, labels=values, label_type="center", fontsize=8, bbox=box)
    axes.axvline(shares.share, color="black", ls="--", label=f"sigmoid(w) = {shares.share:.3f}")
    labels = [f"{name}\n(cosine of both {value:.2f})" for name, value in zip(names, shares.cosine, strict=True)]
    axes.set_yticks(at, labels, fontsize=8)
    axes.set(
        xlabel="share of the descriptor [-]",
        xlim=(min(0.0, float(shares.contributions.min())), max(1.0, float(shares.contributions.max()))),
        title="what each branch contributes on each scan",
    )
    axes.invert_yaxis()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)


def lines(both: list[Variant], shares: Branches) -> list[str]:
    """What the picture says, for a terminal."""
    out = []
    for variant in both:
        times = ", ".join(
            f"{time:.2f} ms for {count} features"
            for count, time in zip(variant.counts, variant.milliseconds, strict=True)
        )
        out.append(f"{_label(variant)}: {sum(variant.parameters.values()):,} parameters, {times}")
    fusion, bev = shares.contributions.mean(axis=0)
    out.append(
        f"sigmoid(w)    {shares.share:.3f}; the fusion branch contributes {fusion:.3f}, the BEV branch {bev:.3f}"
    )
    return out


def simulated_scans() -> tuple[list[F32], list[str]]:
    """One scan per simulated world of `SIMULATED`, and their names."""
    from vlad_ros.simulation.sensors import cast, draw_tilt, spinning
    from vlad_ros.simulation.worlds import make_world

    scans, names, sensor = [], [], spinning(32)
    for kind in SIMULATED:
        world, rng = make_world(kind, 0), np.random.default_rng(0)
        on_roads = np.concatenate(world.roads)
        x, y = on_roads[np.linalg.norm(on_roads - world.size / 2, axis=1).argmin()]  # nearest to the middle
        scans.append(cast(world, sensor, (float(x), float(y), 0.0), rng, draw_tilt(sensor, rng)))
        names.append(f"simulated {kind}")
    return scans, names


def make(describer: Describer, clouds: list[F32], names: list[str], path: Path) -> tuple[list[Variant], Branches]:
    """Compute, draw and save."""
    network = describer.network
    both = variants(network, (network.config.num_keypoints, len(network.cell_xy)))
    shares = branches(describer, clouds)
    style.save(draw(both, shares, names), path)
    return both, shares
