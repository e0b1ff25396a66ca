# SPDX-License-Identifier: Apache-2.0
"""Two aggregations of local features into one vector: NetVLAD and its learnt-projection variant."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NetVLAD(nn.Module):
    """NetVLAD (Arandjelovic et al., CVPR 2016, eq. 4) with a rectified 1x1 assignment and optional feature weights.

    ``v_k = sum_i a_ki (x_i - c_k)``, normalised per cluster, flattened, normalised again. Computed as
    ``sum a x - sum(a) c``, which needs no (B, K, N, C) tensor of residuals.
    """

    def __init__(self, fea_size: int = 128, num_clusters: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(fea_size, num_clusters, kernel_size=1, bias=True)
        self.relu = nn.ReLU()
        self.centroids = nn.Parameter(torch.rand(num_clusters, fea_size))

    def assign(self, x: Tensor) -> Tensor:
        """Soft assignment (B, K, N) of features ``x`` (B, C, H, W), N = H W; each column sums to 1."""
        return self.relu(self.conv(x)).flatten(2).softmax(dim=1)

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Aggregate ``x`` (B, C, H, W), each feature counted ``weights`` (B, H, W) times, to (B, K C), unit norm.

        A map whose weights are all zero gives zeros, never NaN.
        """
        assignment = self.assign(x)
        if weights is not None:
            assignment = assignment * weights.flatten(1)[:, None]
        weighted = assignment @ x.flatten(2).transpose(1, 2)
        residuals = weighted - assignment.sum(dim=2, keepdim=True) * self.centroids
        return F.normalize(F.normalize(residuals, dim=2).flatten(1), dim=1)

    @torch.no_grad()
    def seed_centroids(self, centroids: Tensor, sharpness: float = 20.0) -> None:
        """Start from cluster centres (K, C) of unit features: assignment logits ``sharpness * <x, c>``."""
        self.centroids.copy_(centroids)
        self.conv.weight.copy_(sharpness * centroids[:, :, None, None])
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]


class NetVLADLoupe(nn.Module):
    """NetVLAD with a learnt projection and context gating (Miech et al., 2017; PointNetVLAD, Uy and Lee, CVPR 2018)."""

    def __init__(self, feature_size: int = 128, cluster_size: int = 16, output_dim: int = 256) -> None:
        super().__init__()
        scale = feature_size**-0.5
        self.cluster_weights = nn.Parameter(torch.randn(feature_size, cluster_size) * scale)
        self.assignment_norm = nn.BatchNorm1d(cluster_size)
        self.centres = nn.Parameter(torch.randn(1, feature_size, cluster_size) * scale)
        self.hidden = nn.Parameter(torch.randn(feature_size * cluster_size, output_dim) * scale)
        self.hidden_norm = nn.BatchNorm1d(output_dim)
        self.gating = nn.Parameter(torch.randn(output_dim, output_dim) * output_dim**-0.5)
        self.gating_norm = nn.BatchNorm1d(output_dim)

    def forward(self, x: Tensor, weights: Tensor | None = None) -> Tensor:
        """Aggregate ``x`` (B, N, C), each feature counted ``weights`` (B, N) times, to (B, output_dim)."""
        logits = self.assignment_norm((x @ self.cluster_weights).flatten(0, 1))
        assignment = logits.unflatten(0, x.shape[:2]).softmax(dim=2)
        if weights is not None:
            assignment = assignment * weights[..., None]
        correction = assignment.sum(dim=1, keepdim=True) * self.centres
        residuals = F.normalize(x.transpose(1, 2) @ assignment - correction, dim=1)
        projected = self.hidden_norm(F.normalize(residuals.flatten(1), dim=1) @ self.hidden)
        gates = torch.sigmoid(self.gating_norm(projected @ self.gating))
        return projected * gates
