r"""Mixture density network (Bishop, 1994): Gaussians whose parameters are functions of a condition.

.. math:: p(x \mid c) = \sum_{k=1}^K w_k(c)\,\mathcal N\bigl(x \mid \mu_k(c),\,
    L_k(c) L_k(c)^\top\bigr)

learned by maximum likelihood. Without a condition it is a Gaussian mixture fitted by gradients.

Training starts at the clusters of k-means, all with one covariance, that of the data around their
centres: a mixture that already fits, of which the single Gaussian is the case K = 1. The network
learns what differs, in coordinates where that covariance is the identity; above 32 dimensions it
stretches these coordinates, below it shears them too.
"""

import math
import warnings
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..networks.mlp import mlp
from ..networks.whitening import Whitening
from ..options import LAYERS
from ..shapes import Condition, Data, PerDatum, Scalar
from .gaussian import condition_mixture, sample_mixture

FULL = 32  # dimensions up to which components have covariances of any shape
NARROWEST = 0.03  # deviation of a component along any axis, in those of the data in their clusters
MOST = 16  # components, unless a number is given
CLUSTERED = 20_000  # data that k-means looks at


class MixtureDensity(GenerativeModel):
    likelihood = Likelihood.EXACT
    recipe = Recipe(steps=2000, batch=512, lr=5e-3, ema=0.99)

    def __init__(
        self, event_shape: tuple[int, ...], condition: int, components: int, hidden: list[int]
    ) -> None:
        super().__init__()
        self.event_shape, self.components = event_shape, components
        self.d = math.prod(event_shape)
        self.lower = self.d * (self.d - 1) // 2 if self.d <= FULL else 0
        self.sizes = [1, self.d, self.d, self.lower]  # weight, mean, diagonal and rest of U
        self.known = max(condition, 1)
        self.net = mlp(self.known, *hidden, components * sum(self.sizes))
        self.whitening = Whitening(event_shape)

    def prepare(self, x: Data, c: Condition = None) -> None:
        last = self.net[-1]
        if not isinstance(last, nn.Linear):
            raise TypeError("the network ends in a linear layer")
        centres, own = _fit_kmeans(x.flatten(1), self.components)
        self.whitening.fit(x - centres[own].view_as(x))
        with torch.no_grad():
            last.weight.mul_(0.1)
            weight, mean, diagonal, lower = self.split(last.bias)
            share = torch.bincount(own, minlength=self.components).clamp(min=1) / len(x)
            weight.copy_(share.log()[:, None])
            mean.copy_(self.whitening(centres))
            diagonal.zero_()
            lower.zero_()

    def split(self, parameters: Tensor) -> list[Tensor]:
        """Log-weights, means, log-diagonals and lower entries, ``(..., K, size)``; views."""
        return list(parameters.unflatten(-1, (self.components, -1)).split(self.sizes, dim=-1))

    def parts(self, c: Condition) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""The mixture in the network's coordinates, one for each condition or one for all.

        Component k is the distribution of :math:`\mu + U^{-1}\varepsilon` with U lower triangular:
        log-weights ``(n, K)``, means and log-diagonals of U ``(n, K, d)``, and the rest of U,
        ``(n, K, d, d)``, or ``(n, K, 0, 0)`` where it is diagonal.
        """
        known = self.whitening.mean.new_zeros(1, self.known) if c is None else c
        weight, mean, diagonal, lower = self.split(self.net(known).to(known))
        size = self.d if self.lower else 0
        below = lower.new_zeros(*lower.shape[:2], size, size)
        i, j = torch.tril_indices(size, size, -1, device=lower.device)
        below[..., i, j] = lower
        diagonal = diagonal.clamp(-3.0, -math.log(NARROWEST))
        return weight[..., 0].log_softmax(-1), mean, diagonal, below

    def mixture(self, c: Condition) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights ``(n, K)``, means, Cholesky factors; n is 1 without conditions."""
        log_w, mean, diagonal, below = self.parts(c)
        inverse = torch.diag_embed(diagonal.exp()) + (below if self.lower else 0)
        factor = torch.linalg.solve_triangular(inverse, torch.eye(self.d).to(mean), upper=False)
        mean = self.whitening.mean + self.whitening.scale_differences(mean)
        return log_w, mean, self.whitening.scale_differences(factor.mT).mT

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        log_w, mean, diagonal, below = self.parts(c)
        away = self.whitening(x).flatten(1)[:, None] - mean
        z = away * diagonal.exp()
        if self.lower:
            z = z + torch.einsum("nkij,nkj->nki", below, away)
        normal = diagonal.sum(-1) - z.square().sum(-1) / 2 - self.d / 2 * math.log(2 * math.pi)
        return (log_w + normal).logsumexp(1) + self.whitening.log_det

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        return {"nll": -self.log_prob(x, self.drop_condition(c)).mean()}

    def sample(self, n: int, c: Condition = None) -> Tensor:
        z, (log_w, mean, factor) = self.noise(n, self.d), self.mixture(c)
        if c is None:  # one mixture for all
            return sample_mixture(log_w, mean, factor[0], z).unflatten(1, self.event_shape)
        k, own = torch.multinomial(log_w.exp(), 1)[:, 0], torch.arange(n, device=z.device)
        x = mean[own, k] + (factor[own, k] @ z[..., None])[..., 0]
        return x.unflatten(1, self.event_shape)

    def complete(self, n: int, x: Tensor, known: Tensor, c: Condition = None) -> Tensor:
        fixed, flat = known.flatten(), x.flatten()
        log_w, mean, (factor,) = self.mixture(None if c is None else c[:1])
        parts = condition_mixture(log_w, mean, factor @ factor.mT, fixed, flat[None, fixed])
        out = flat.repeat(n, 1)
        out[:, ~fixed] = sample_mixture(*parts, self.noise(n, int((~fixed).sum())))
        return out.unflatten(1, self.event_shape)


def _fit_kmeans(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Centres ``(count, d)``, some alike if distinct rows are few, and each row's number."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    plain, seed = rows.double().cpu().numpy(), int(torch.randint(2**31, ()))
    some = np.random.default_rng(seed).permutation(plain)[:CLUSTERED]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than centres
        found = KMeans(min(count, len(some)), n_init=1, random_state=seed).fit(some)
    own = torch.as_tensor(found.predict(plain)).long().to(rows.device)
    return rows.new_tensor(np.resize(found.cluster_centers_, (count, rows.shape[1]))), own


def build(
    event: Event, *, components: int = 0, width: int = 64, depth: Annotated[int, LAYERS] = 2
) -> MixtureDensity:
    """A mixture density network.

    Arguments:
        components: Gaussians; 0 for 16, or fewer where rows are less than 32 times their length.
        width: Units in each hidden layer.
        depth: Hidden layers.
    """
    most = event.size // (2 * math.prod(event.shape)) if event.size else MOST
    hidden = [width] * depth if event.condition else []
    components = components or max(1, min(MOST, most))
    return MixtureDensity(event.shape, event.condition, components, hidden)
