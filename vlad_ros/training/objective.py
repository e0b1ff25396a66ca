# SPDX-License-Identifier: Apache-2.0
"""The network and the loss of a stage as one module: from a batch to a loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlad_ros.model.network import PlaceNetwork
from vlad_ros.training.batches import Batch
from vlad_ros.training.losses import dense_losses, distances, graded_loss, turn_loss, within
from vlad_ros.training.recipe import StageRecipe

DENSE_WITHIN = 8.0  # m: views farther apart share too few cells for the dense loss


class Objective(nn.Module):
    """The module that DistributedDataParallel wraps: it takes from the loss which parameters a batch has used."""

    def __init__(self, network: PlaceNetwork, stage: StageRecipe) -> None:
        super().__init__()
        self.network, self.stage = network, stage

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, on the network's device, and the figures to log."""
        network, stage, device = self.network, self.stage, self.network.cell_xy.device
        out = network(*network.inputs(batch.bevs))
        pose, group, world = (torch.from_numpy(each).to(device) for each in (batch.pose, batch.group, batch.world))
        pose = pose.float()
        half = len(pose) // 2
        apart = (pose[:half, :2] - pose[half:, :2]).norm(dim=1).tolist()
        pairs = [(i, i + half) for i, metres in enumerate(apart) if metres < DENSE_WITHIN]
        dense, score, matched = dense_losses(out, pose, pairs, network.bev)
        loss = stage.dense_weight * (dense + score)
        figures = {"dense": dense.item(), "score": score.item(), "matched": matched}
        if stage.global_weight:
            distance = distances(pose, world)
            fused, *heads = (
                graded_loss(each, distance, group, stage.sigma, stage.reach)
                for each in (out.descriptor, out.vlad_bev, out.vlad_fusion)
            )
            loss = loss + stage.global_weight * (fused + stage.head_weight * (heads[0] + heads[1]))
            figures |= {"global": fused.item(), "global_bev": heads[0].item(), "global_fusion": heads[1].item()}
            if stage.turn_weight:
                turned = turn_loss(out.descriptor, group)
                loss = loss + stage.turn_weight * turned
                figures |= {"turned": turned.item()}
            figures |= {"within_5m": within(out.descriptor.detach(), distance, group)}
            figures |= {"sigmoid_w": float(torch.sigmoid(network.fusion.w.detach()))}
        return loss, {"loss": loss.item(), **figures}
