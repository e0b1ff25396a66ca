# SPDX-License-Identifier: Apache-2.0
"""Shorter descriptors: a projection onto principal directions, partly whitened."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Module):
    """A matrix (`size`, `dim`), then unit norm. Its rows are sorted: the first ones alone are a projection, too."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.matrix: Tensor
        self.register_buffer("matrix", torch.zeros(size, dim))

    def forward(self, descriptor: Tensor, size: int) -> Tensor:
        """``descriptor`` (B, dim) -> (B, `size`), unit norm."""
        return F.normalize(descriptor @ self.matrix[:size].T, dim=1)


def principal_directions(descriptors: Tensor, size: int, power: float) -> Tensor:
    """(size, dim) float32: eigenvectors of the covariance of ``descriptors`` (N, dim), the largest first, each divided
    by its eigenvalue to the `power`.

    PCA with whitening as in Jegou and Chum (ECCV 2012), who divide by the square root: power 0.5; 0 is PCA alone. The
    mean is not subtracted, so that unrelated descriptors keep a similarity near zero. ValueError for more rows than
    numbers in a descriptor, and for too few descriptors.
    """
    count, dim = descriptors.shape
    if not 0 < size <= dim:
        raise ValueError(f"a projection of {dim} numbers must have 1..{dim} rows, not {size}")
    if count < 2 * size:
        raise ValueError(f"{size} directions cannot be learnt from {count} descriptors; give at least {2 * size}")
    values, vectors = torch.linalg.eigh(torch.cov(descriptors.double().T))
    largest = values.flip(0)[:size].clamp_min(1e-9)
    return (vectors.flip(1)[:, :size] / largest**power).T.float().contiguous()
