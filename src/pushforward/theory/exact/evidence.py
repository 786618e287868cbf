r"""The evidence lower bound of any latent-variable model, by every derivation (lesson 2.2, 2.3).

A joint distribution :math:`p(x \mid z)\,p(z)` is given by its values at nodes :math:`z_i` with
weights :math:`w_i`: all values of a discrete latent, where the weights are one, or the nodes of a
quadrature. Expectations are then sums, and nothing is left to chance:

.. math:: \mathbb E_q f = \sum_i w_i\,q(z_i)\,f(z_i), \qquad
    p(x) = \sum_i w_i\,p(x \mid z_i)\,p(z_i)

`linear_vae` has the same quantities in closed form where everything is Gaussian.
"""

import math

import torch
from torch import Tensor

from ...shapes import PerDatum


def latent_quadrature(reach: float, count: int, dim: int = 1) -> tuple[Tensor, float]:
    r"""Nodes of the trapezoidal rule on :math:`[-r, r]^d`, ``(count ** dim, dim)``, and log-weight.

    Of a smooth integrand that vanishes at the ends the error falls geometrically in ``count``, once
    the nodes lie closer together than its narrowest feature is wide.
    """
    side = torch.linspace(-reach, reach, count, dtype=torch.float64)
    nodes = torch.cartesian_prod(*[side] * dim).reshape(-1, dim)
    return nodes, dim * math.log(2 * reach / (count - 1))


def shannon_bound(entropy: float, d: int, error: Tensor) -> Tensor:
    r"""The least rate in nats of any code with the mean squared error D, summed over d entries.

    .. math:: R(D) \ge h(x) - \tfrac d2 \log \frac{2 \pi e D}{d}

    (Shannon, 1959). A Gaussian distribution meets it while :math:`D / d` is below its smallest
    eigenvalue.
    """
    return entropy - d / 2 * (2 * math.pi * math.e * error / d).log()


class QuadratureJoint:
    r""":math:`p(x, z)` at nodes of z, for each of n data.

    Every ``log_q`` is :math:`\log q(z_i \mid x)` at the nodes, ``(n, k)``, minus infinity where q
    has no mass; :math:`\sum_i w_i\,q(z_i) = 1`. All values are in nats, one a datum.

    Arguments:
        log_likelihood: :math:`\log p(x \mid z_i)`, ``(n, k)``.
        log_prior: :math:`\log p(z_i)`, ``(k,)``.
        log_weight: :math:`\log w_i`; 0 for a discrete latent, that of `latent_quadrature` for a
            quadrature.
    """

    def __init__(self, log_likelihood: Tensor, log_prior: Tensor, log_weight: float = 0.0) -> None:
        self.log_likelihood, self.log_prior = log_likelihood, log_prior
        self.log_weight = log_weight

    def expectation(self, log_q: Tensor, values: Tensor) -> PerDatum:
        r""":math:`\mathbb E_q f`, with :math:`0 \cdot \infty = 0` where q has no mass."""
        mass = (log_q + self.log_weight).exp()
        return torch.where(mass > 0, mass * values, 0.0).sum(-1)

    def log_evidence(self) -> PerDatum:
        r""":math:`\log p(x) = \log \sum_i w_i\,p(x \mid z_i)\,p(z_i)`."""
        return (self.log_likelihood + self.log_prior + self.log_weight).logsumexp(-1)

    def log_posterior(self) -> Tensor:
        r""":math:`\log p(z_i \mid x)` by Bayes' rule, ``(n, k)``."""
        return self.log_likelihood + self.log_prior - self.log_evidence()[:, None]

    def elbo_by_jensen(self, log_q: Tensor) -> PerDatum:
        r""":math:`\mathbb E_q \log \frac{p(x, z)}{q(z \mid x)}`: the logarithm taken inside."""
        return self.expectation(log_q, self.log_likelihood + self.log_prior - log_q)

    def distortion(self, log_q: Tensor) -> PerDatum:
        r""":math:`-\mathbb E_q \log p(x \mid z)`."""
        return -self.expectation(log_q, self.log_likelihood)

    def rate(self, log_q: Tensor) -> PerDatum:
        r""":math:`\mathrm{KL}(q \,\|\, p(z))`."""
        return self.expectation(log_q, log_q - self.log_prior)

    def gap(self, log_q: Tensor) -> PerDatum:
        r""":math:`\mathrm{KL}(q \,\|\, p(z \mid x))`; zero if and only if q is the posterior."""
        return self.expectation(log_q, log_q - self.log_posterior())

    def elbo_by_divergence(self, log_q: Tensor) -> PerDatum:
        r""":math:`\log p(x) - \mathrm{KL}(q \,\|\, p(z \mid x))`: the gap taken off."""
        return self.log_evidence() - self.gap(log_q)

    def best_bound(self, beta: float) -> PerDatum:
        r"""The largest :math:`\mathbb E_q \log p(x \mid z) - \beta\,\mathrm{KL}(q \,\|\, p(z))`.

        .. math:: \beta \log \mathbb E_{p(z)}\, p(x \mid z)^{1 / \beta}, \qquad
            q \propto p(z)\,p(x \mid z)^{1 / \beta}

        (Donsker & Varadhan, 1983). It is the logarithm of the power mean of order
        :math:`1/\beta` of the likelihood, which rises with the order: at most :math:`\log p(x)`
        for :math:`\beta \ge 1`, at least :math:`\log p(x)` for :math:`\beta \le 1`, for every x.
        """
        terms = self.log_likelihood / beta + self.log_prior + self.log_weight
        return beta * terms.logsumexp(-1)
