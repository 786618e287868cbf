"""An affine layer, fitted in closed form, after which data have zero mean and unit covariance."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..shapes import Data

FULL = 1024  # dimensions up to which correlations are removed; above, entries are standardised
ROWS = 20_000  # data that are looked at, spread evenly
LEAST = 1e-3  # deviation that a constant entry is given


class Whitening(nn.Module):
    r"""The map :math:`z = L^{-1} D^{-1} (x - m)`, which a model of z can start from.

    :math:`D` holds the deviations and :math:`L L^\top` is the correlation matrix, shrunk towards
    the identity (Ledoit & Wolf, 2004), so that it has an inverse with fewer data than dimensions. A
    standard normal :math:`z` is then the Gaussian fitted to x. Until `fit` it changes nothing.
    """

    mean: Tensor
    scale: Tensor
    root: Tensor

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        d = math.prod(event_shape)
        self.event_shape = event_shape
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("scale", torch.ones(d))
        self.register_buffer("root", torch.eye(d if d <= FULL else 0))

    def fit(self, x: Data) -> None:
        rows = x[:: -(-len(x) // ROWS)].flatten(1).double()
        mean, scale = rows.mean(0), rows.std(0, correction=0).clamp(min=LEAST)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        if len(self.root):
            self.root.copy_(_correlation_cholesky(((rows - mean) / scale).cpu().numpy()))

    def forward(self, x: Data) -> Data:
        z = (x.flatten(1) - self.mean) / self.scale
        if len(self.root):
            z = torch.linalg.solve_triangular(self.root.mT, z, upper=True, left=False)
        return z.view_as(x)

    def inverse(self, z: Data) -> Data:
        return (self.mean + self.scale_differences(z.flatten(1))).view_as(z)

    def scale_differences(self, rows: Tensor) -> Tensor:
        r"""Rows times :math:`(DL)^\top`: what `inverse` does to differences, ``(..., d)``."""
        return (rows @ self.root.mT if len(self.root) else rows) * self.scale

    @property
    def log_det(self) -> Tensor:
        r""":math:`\log|\det \partial z/\partial x|`, in nats."""
        return -self.scale.log().sum() - self.root.diagonal().log().sum()


def _correlation_cholesky(rows: np.ndarray) -> Tensor:
    from sklearn.covariance import ledoit_wolf

    correlation = torch.as_tensor(np.atleast_2d(ledoit_wolf(rows, assume_centered=True)[0]))
    # a constant column has no variance, and columns that depend on each other no inverse
    return torch.linalg.cholesky(correlation.fill_diagonal_(1 + 1e-6))
