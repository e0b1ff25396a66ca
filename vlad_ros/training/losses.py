# SPDX-License-Identifier: Apache-2.0
"""The training losses: of corresponding features, of keypoint scores, and of descriptors graded by distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vlad_ros.config import BevConfig
from vlad_ros.model.keypoints import cell_centres, sample
from vlad_ros.model.network import Description

DENSE_TEMPERATURE = 0.08
GLOBAL_TEMPERATURE = 0.05
CELLS_PER_PAIR = 150
NOT_NEGATIVE_WITHIN = 4.0  # m: nearer cells may look alike
MATCH_WITHIN = 1.5  # m: a match this near the truth counts as right
POSITIVE_WITHIN = 6.0  # m: a view with no other one this near has no positive


def relative(poses_a: Tensor, poses_b: Tensor, xy: Tensor) -> Tensor:
    """Move ``xy`` (..., 2) from frame a to frame b; poses (x, y, yaw) of both in one world."""
    ca, sa, cb, sb = poses_a[2].cos(), poses_a[2].sin(), poses_b[2].cos(), poses_b[2].sin()
    x = ca * xy[..., 0] - sa * xy[..., 1] + poses_a[0] - poses_b[0]
    y = sa * xy[..., 0] + ca * xy[..., 1] + poses_a[1] - poses_b[1]
    return torch.stack([cb * x + sb * y, -sb * x + cb * y], dim=-1)


def cell_index(xy: Tensor, bev: BevConfig) -> Tensor:
    """(..., 2) row and column of ``xy`` [m]."""
    return torch.floor((bev.extent / 2 - xy) / bev.resolution).long()


def correspond(seen_a: Tensor, seen_b: Tensor, pose_a: Tensor, pose_b: Tensor, bev: BevConfig) -> tuple[Tensor, ...]:
    """Random occupied cells of a, where they lie in b, and whether b saw anything there.

    ``seen_*`` (H, W) bool. Returns xy_a, xy_b (n, 2) [m] and found (n,) bool, for cells that lie inside b's raster.
    """
    centres = cell_centres(bev.size, bev.resolution, seen_a.device)[seen_a]
    xy_a = centres[torch.randperm(len(centres))[: 4 * CELLS_PER_PAIR]]
    xy_b = relative(pose_a, pose_b, xy_a)
    inside = (xy_b.abs() < bev.extent / 2 - bev.resolution).all(dim=1)
    xy_a, xy_b = xy_a[inside], xy_b[inside]
    around = F.max_pool2d(seen_b[None, None].float(), 3, 1, 1)[0, 0] > 0
    rows, columns = cell_index(xy_b, bev).unbind(1)
    return xy_a, xy_b, around[rows, columns]


def dense_losses(
    out: Description, pose: Tensor, pairs: list[tuple[int, int]], bev: BevConfig
) -> tuple[Tensor, Tensor, float]:
    """InfoNCE between features of corresponding cells, the score loss, and the share of right matches.

    A cell's score is trained to be the probability that its feature finds its match in the other view (as in SiLK;
    Gleize et al., ICCV 2023); cells that the other view did not see count as not found.
    """
    features: list[list[Tensor]] = [[], [], [], []]  # of a, of b, xy in b, number of the pair
    scores: list[tuple[Tensor, Tensor]] = []
    for number, (a, b) in enumerate(pairs):
        xy_a, xy_b, found = correspond(out.occupancy[a], out.occupancy[b], pose[a], pose[b], bev)
        kept = torch.where(found)[0][:CELLS_PER_PAIR]
        if len(kept) < 20:
            continue
        fa = sample(out.feature_map[a : a + 1], xy_a[kept][None], bev)[0]
        fb = sample(out.feature_map[b : b + 1], xy_b[kept][None], bev)[0]
        for values, value in zip(features, (fa, fb, xy_b[kept], torch.full_like(kept, number)), strict=True):
            values.append(value)
        scores += _score_samples(out.score_logits, a, b, xy_a, xy_b, found, kept, fa.detach() @ fb.detach().T, bev)
    if not scores:
        zero = out.feature_map.sum() * 0
        return zero, zero, 0.0
    all_a, all_b, xy, pair = (torch.cat(values) for values in features)
    similarity = all_a @ all_b.T / DENSE_TEMPERATURE
    near = (pair[:, None] == pair) & (torch.cdist(xy, xy) < NOT_NEGATIVE_WITHIN)
    similarity = similarity.masked_fill(near.fill_diagonal_(False), -1e9)
    target = torch.arange(len(all_a), device=all_a.device)
    dense = (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
    logits, labels = (torch.cat(values) for values in zip(*scores, strict=True))
    right = float((similarity.argmax(dim=1) == target).float().mean())
    return dense, F.binary_cross_entropy_with_logits(logits, labels), right


def _score_samples(
    logits: Tensor,
    a: int,
    b: int,
    xy_a: Tensor,
    xy_b: Tensor,
    found: Tensor,
    kept: Tensor,
    similarity: Tensor,
    bev: BevConfig,
) -> list[tuple[Tensor, Tensor]]:
    """Score logits and labels of one pair: 1 where matched both ways within MATCH_WITHIN, else 0; unseen cells 0."""
    there = (xy_b[kept][similarity.argmax(dim=1)] - xy_b[kept]).norm(dim=1) < MATCH_WITHIN
    back = (xy_b[kept][similarity.argmax(dim=0)] - xy_b[kept]).norm(dim=1) < MATCH_WITHIN
    right = (there & back).float()
    unseen = xy_a[~found][: len(kept)]
    samples = []
    for view, xy, label in (
        (a, xy_a[kept], right),
        (b, xy_b[kept], right),
        (a, unseen, torch.zeros_like(unseen[:, 0])),
    ):
        rows, columns = cell_index(xy, bev).unbind(1)
        samples.append((logits[view][rows, columns], label))
    return samples


def distances(pose: Tensor, world: Tensor) -> Tensor:
    """(n, n) metres between the views; views of different worlds are far apart."""
    return torch.cdist(pose[:, :2], pose[:, :2]) + 1e4 * (world[:, None] != world)


def graded_loss(descriptor: Tensor, distance: Tensor, group: Tensor, sigma: float, reach: float = 0.0) -> Tensor:
    """Cross entropy of the softmax over similarities to a target that falls off with distance (sigma [m]).

    Views of one group share points: they are neither positive nor negative to each other. With `reach` [m] half of the
    views are trained as in a sparser map: the views nearer than a random 0..reach are left out for them, so that the
    nearest of the remaining ones must be found.
    """
    nearest = reach * torch.rand(len(distance), 1) * (torch.rand(len(distance), 1) < 0.5)  # drawn on the CPU
    excluded = (group[:, None] == group) | (distance < nearest.to(distance.device))
    remaining = distance.masked_fill(excluded, torch.inf)
    has = remaining.amin(dim=1) < POSITIVE_WITHIN
    remaining, excluded = remaining[has], excluded[has]
    if not len(remaining):
        return descriptor.sum() * 0
    target = (-(remaining**2) / (2 * sigma**2)).softmax(dim=1)
    logits = (descriptor[has] @ descriptor.T / GLOBAL_TEMPERATURE).masked_fill(excluded, -1e9)
    return -(target * logits.log_softmax(dim=1).clamp_min(-50.0)).sum(dim=1).mean()


def turn_loss(descriptor: Tensor, group: Tensor) -> Tensor:
    """Mean of one minus the cosine within groups, each one cloud under several headings; 0 without such groups."""
    twins = (group[:, None] == group).fill_diagonal_(False)
    return (1 - descriptor @ descriptor.T)[twins].mean() if bool(twins.any()) else descriptor.sum() * 0


def within(descriptor: Tensor, distance: Tensor, group: Tensor, radius: float = 5.0) -> float:
    """Of the views with a neighbour within `radius` [m], the share whose most similar view lies within it."""
    excluded = group[:, None] == group
    best = (descriptor @ descriptor.T).masked_fill(excluded, -9.0).argmax(dim=1)
    near = (distance <= radius) & ~excluded
    has = near.any(dim=1)
    return float(near.gather(1, best[:, None])[has].float().mean()) if bool(has.any()) else float("nan")
