r"""Mixture density network (Bishop, 1994): Gaussians whose parameters are functions of a condition.

.. math:: p(x \mid c) = \sum_{k=1}^K w_k(c)\,\mathcal N\bigl(x \mid \mu_k(c),\,
    L_k(c) L_k(c)^\top\bigr)

learned by maximum likelihood. Without a condition it is a Gaussian mixture fitted by gradients.
Above 32 dimensions the factors are diagonal.
"""

import math

import torch
from torch import Tensor, nn

from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..networks.mlp import mlp
from ..shapes import Condition, Data, PerDatum, Scalar
from .gaussian import conditioned, drawn

FULL = 32  # dimensions up to which the factors are full
SMALLEST = 0.003  # deviation of a component along any axis, in standard deviations of the data


class MixtureDensity(GenerativeModel):
    """A Gaussian mixture for every condition.

    Arguments:
        event_shape: The shape of one datum.
        condition: The length of ``c``, 0 for none.
        components: Gaussians.
        hidden: The widths of the hidden layers.
        recipe: How this model likes to be trained.
    """

    likelihood = Likelihood.EXACT

    def __init__(
        self,
        event_shape: tuple[int, ...],
        condition: int,
        *,
        components: int,
        hidden: list[int],
        recipe: Recipe,
    ) -> None:
        super().__init__()
        self.event_shape, self.components, self.recipe = event_shape, components, recipe
        self.d = math.prod(event_shape)
        self.lower = self.d * (self.d - 1) // 2 if self.d <= FULL else 0
        self.sizes = [1, self.d, self.d, self.lower]  # weight, mean, diagonal and rest of L
        self.known = max(condition, 1)
        self.net = mlp(self.known, *hidden, components * sum(self.sizes))

    def prepare(self, x: Data, c: Condition = None) -> None:
        """Start every component at a datum, a deviation of half the data's wide."""
        last, rows = self.net[-1], torch.randint(len(x), (self.components,)).to(x.device)
        if not isinstance(last, nn.Linear):
            raise TypeError("the network ends in a linear layer")
        with torch.no_grad():
            last.weight.mul_(0.1)
            weight, mean, diagonal, lower = self.split(last.bias)
            for part, value in ((weight, 0.0), (diagonal, math.log(0.5)), (lower, 0.0)):
                part.fill_(value)
            mean.copy_(x[rows].flatten(1))

    def split(self, parameters: Tensor) -> list[Tensor]:
        """Log-weights, means, log-diagonals and lower entries, ``(..., K, size)``; views."""
        return list(parameters.unflatten(-1, (self.components, -1)).split(self.sizes, dim=-1))

    def mixture(self, c: Condition, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights ``(n, K)``, means ``(n, K, d)``, Cholesky factors ``(n, K, d, d)``."""
        if c is None:
            c = like.new_zeros(len(like), self.known)
        weight, mean, diagonal, lower = self.split(self.net(c).to(like))
        factor = torch.diag_embed(diagonal.clamp(math.log(SMALLEST), 3.0).exp())
        if self.lower:
            i, j = torch.tril_indices(self.d, self.d, -1, device=factor.device)
            below = torch.zeros_like(factor)
            below[..., i, j] = lower
            factor = factor + below
        return weight[..., 0].log_softmax(-1), mean, factor

    def log_prob(self, x: Data, c: Condition = None) -> PerDatum:
        log_w, mean, factor = self.mixture(c, x)
        away = (x.flatten(1)[:, None] - mean)[..., None]
        z = torch.linalg.solve_triangular(factor, away, upper=False)[..., 0]
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        normal = -z.square().sum(-1) / 2 - log_det - self.d / 2 * math.log(2 * math.pi)
        return (log_w + normal).logsumexp(1)

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        return {"nll": -self.log_prob(x, self.hidden(c)).mean()}

    def sample(self, n: int, c: Condition = None) -> Tensor:
        z = self.noise(n, self.d)
        log_w, mean, factor = self.mixture(c, z)
        k = torch.multinomial(log_w.exp(), 1)[:, 0]
        own = torch.arange(n, device=z.device)
        return (mean[own, k] + (factor[own, k] @ z[..., None])[..., 0]).unflatten(
            1, self.event_shape
        )

    def complete(self, n: int, x: Tensor, known: Tensor, c: Condition = None) -> Tensor:
        """Exact: the conditional of a mixture is a mixture."""
        fixed, flat = known.flatten(), x.flatten()
        log_w, mean, factor = self.mixture(None if c is None else c[:1], flat[None])
        value = flat[None, fixed]
        parts = conditioned(log_w, mean, factor[0] @ factor[0].mT, fixed, value)
        out = flat.repeat(n, 1)
        out[:, ~fixed] = drawn(*parts, self.noise(n, int((~fixed).sum())))
        return out.unflatten(1, self.event_shape)


def build(event: Event, *, components: int = 16, width: int = 64, depth: int = 2) -> MixtureDensity:
    """A mixture density network.

    Arguments:
        event: The kind of data.
        components: Gaussians.
        width: Units in each hidden layer.
        depth: Hidden layers.
    """
    return MixtureDensity(
        event.shape,
        event.condition,
        components=components,
        hidden=[width] * depth if event.condition else [],
        recipe=Recipe(steps=2000, batch=512, lr=5e-3, ema=0.99),
    )
