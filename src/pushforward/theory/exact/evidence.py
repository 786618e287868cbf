r"""The evidence lower bound by every derivation (lesson 2.2, 2.3), exactly.

A joint distribution :math:`p(x \mid z)\,p(z)` is given by its values at nodes :math:`z_i` with
weights :math:`w_i`: all values of a discrete latent, where the weights are one, or the nodes of a
quadrature. Expectations are then sums, and nothing is left to chance:

.. math:: \mathbb E_q f = \sum_i w_i\,q(z_i)\,f(z_i), \qquad
    p(x) = \sum_i w_i\,p(x \mid z_i)\,p(z_i)

In closed form, a linear decoder with Gaussian noise is probabilistic PCA (Tipping & Bishop, 1999):

.. math:: z \sim \mathcal N(0, I), \quad x \mid z \sim \mathcal N(Wz + b, \sigma^2 I)
    \quad\Longrightarrow\quad x \sim \mathcal N(b, WW^\top + \sigma^2 I), \quad
    z \mid x \sim \mathcal N(M^{-1} W^\top (x - b) / \sigma^2, M^{-1}), \quad
    M = I + W^\top W / \sigma^2

Every bound on its evidence is known, and so is the model that a :math:`\beta`-VAE learns (Lucas et
al., 2019): reverse water-filling of the data's spectrum.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from ...errors import UsageError
from ...shapes import Data, PerDatum


def latent_quadrature(reach: float, count: int, dim: int = 1) -> tuple[Tensor, float]:
    r"""Nodes of the trapezoidal rule on :math:`[-r, r]^d`, ``(count ** dim, dim)``, and log-weight.

    The error falls geometrically in ``count`` once the nodes lie closer than the narrowest feature.
    """
    side = torch.linspace(-reach, reach, count, dtype=torch.float64)
    nodes = torch.cartesian_prod(*[side] * dim).reshape(-1, dim)
    return nodes, dim * math.log(2 * reach / (count - 1))


def shannon_bound(entropy: float, d: int, error: Tensor) -> Tensor:
    r"""The least rate in nats of any code with the mean squared error D, summed over d entries.

    .. math:: R(D) \ge h(x) - \tfrac d2 \log \frac{2 \pi e D}{d}

    (Shannon, 1959). Gaussians meet it while :math:`D / d` is below their smallest eigenvalue.
    """
    return entropy - d / 2 * (2 * math.pi * math.e * error / d).log()


class QuadratureJoint:
    r""":math:`p(x, z)` at nodes of z, for each of n data; all values are in nats, one a datum.

    Given are :math:`\log p(x \mid z_i)`, ``(n, k)``, :math:`\log p(z_i)`, ``(k,)``, and
    :math:`\log w_i`: 0 for a discrete latent, that of `latent_quadrature` for a quadrature. Every
    ``log_q`` is :math:`\log q(z_i \mid x)` at the nodes, ``(n, k)``, minus infinity where q
    has no mass; :math:`\sum_i w_i\,q(z_i) = 1`.
    """

    def __init__(self, log_likelihood: Tensor, log_prior: Tensor, log_weight: float = 0.0) -> None:
        self.log_likelihood, self.log_prior, self.log_weight = log_likelihood, log_prior, log_weight

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
        return beta * (self.log_likelihood / beta + self.log_prior + self.log_weight).logsumexp(-1)


class LinearVAE:
    r""":math:`p(x \mid z) = \mathcal N(Wz + b, \sigma^2 I)` with a standard normal prior.

    W is ``weight``, ``(d, latent)``; the q of every method is any Gaussian over ``(n, latent)``.
    """

    def __init__(self, weight: Tensor, bias: Tensor, sigma: float | Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.variance = torch.as_tensor(sigma, dtype=weight.dtype, device=weight.device) ** 2

    @property
    def prior(self) -> MultivariateNormal:
        latent = self.weight.shape[1]
        return MultivariateNormal(self.weight.new_zeros(latent), torch.eye(latent).to(self.weight))

    def evidence(self, inflation: float = 1.0) -> MultivariateNormal:
        """p(x), or what it would be with the noise's variance multiplied by ``inflation``."""
        noise = inflation * self.variance * torch.eye(len(self.bias)).to(self.bias)
        return MultivariateNormal(self.bias, self.weight @ self.weight.mT + noise)

    def posterior(self, x: Data, beta: float = 1.0) -> MultivariateNormal:
        r"""The q that maximises `elbo`, the posterior of noise with variance :math:`\beta\sigma^2`:
        :math:`q \propto p(z)\,p(x \mid z)^{1/\beta}`.
        """
        variance, eye = beta * self.variance, self.prior.covariance_matrix
        precision = eye + self.weight.mT @ self.weight / variance
        mean = torch.linalg.solve(precision, self.weight.mT @ (x - self.bias).mT / variance).mT
        return MultivariateNormal(mean, precision_matrix=precision)

    def factorised(self, x: Data) -> MultivariateNormal:
        r"""The best q whose entries are independent: the posterior's means and inverse precisions.

        The KL from a posterior of precision P: :math:`\tfrac12(\sum_i \log P_{ii} - \log\det P)`.
        """
        exact = self.posterior(x)
        diagonal = exact.precision_matrix.diagonal(dim1=-2, dim2=-1)
        return MultivariateNormal(exact.mean, precision_matrix=torch.diag_embed(diagonal))

    def distortion(self, x: Data, q: MultivariateNormal) -> PerDatum:
        r""":math:`-\mathbb E_q \log p(x \mid z)` in nats.

        .. math:: \frac{\|x - b - W\mu\|^2 + \operatorname{tr}(W S W^\top)}{2\sigma^2}
            + \frac d2 \log 2\pi\sigma^2
        """
        residual = (x - self.bias - q.mean @ self.weight.mT).square().sum(-1)
        spread = torch.einsum("di,...ij,dj->...", self.weight, q.covariance_matrix, self.weight)
        constant = len(self.bias) / 2 * (2 * math.pi * self.variance).log()
        return (residual + spread) / (2 * self.variance) + constant

    def rate(self, q: MultivariateNormal) -> PerDatum:
        return kl_divergence(q, self.prior)

    def elbo(self, x: Data, q: MultivariateNormal, beta: float = 1.0) -> PerDatum:
        r"""What a :math:`\beta`-VAE maximises, a bound on log p(x) for :math:`\beta \ge 1` only."""
        return -self.distortion(x, q) - beta * self.rate(q)

    def elbo_by_jensen(self, x: Data, q: MultivariateNormal) -> PerDatum:
        r""":math:`\mathbb E_q \log p(x, z) - \mathbb E_q \log q`, from Jensen's inequality."""
        second_moment = q.mean.square().sum(-1) + q.variance.sum(-1)
        log_prior = -(second_moment + self.weight.shape[1] * math.log(2 * math.pi)) / 2
        return log_prior - self.distortion(x, q) + q.entropy()

    def elbo_by_divergence(self, x: Data, q: MultivariateNormal) -> PerDatum:
        r""":math:`\log p(x) - \mathrm{KL}(q \,\|\, p(z \mid x))`, from Bayes' rule."""
        return self.evidence().log_prob(x) - self.gap(x, q)

    def gap(self, x: Data, q: MultivariateNormal) -> PerDatum:
        """How far the ELBO lies below log p(x): KL(q || p(z | x)) in nats."""
        return kl_divergence(q, self.posterior(x))

    def best_elbo(self, x: Data, beta: float) -> PerDatum:
        r"""The largest `elbo` over all q.

        .. math:: \beta \log \mathcal N(x \mid b, WW^\top + \beta\sigma^2 I)
            - \tfrac d2 \log 2\pi\sigma^2 + \tfrac{\beta d}2 \log 2\pi\beta\sigma^2
        """
        d, level = len(self.bias), 2 * math.pi * self.variance
        constant = beta * d / 2 * (level * beta).log() - d / 2 * level.log()
        return beta * self.evidence(beta).log_prob(x) + constant

    def log_weights(self, x: Data, q: MultivariateNormal, k: int) -> Tensor:
        r""":math:`\log p(x, z) - \log q(z \mid x)` for k draws from q, ``(k, n)``."""
        z = q.sample(torch.Size((k,)))
        error = (x - self.bias - z @ self.weight.mT).square().sum(-1)
        constant = len(self.bias) * (2 * math.pi * self.variance).log()
        log_likelihood = -(error / self.variance + constant) / 2
        return log_likelihood + self.prior.log_prob(z) - q.log_prob(z)


class _LinearVAEOptimum(NamedTuple):
    singular: Tensor  # the singular values of W, falling
    active: Tensor  # whether each latent is used
    rate: Tensor  # the mean rate, in nats
    error: Tensor  # the mean squared error of a reconstruction, summed over entries


def linear_vae_optimum(
    spectrum: Tensor, latent: int, sigma: float, beta: float = 1.0
) -> _LinearVAEOptimum:
    r"""The optimum of a linear :math:`\beta`-VAE with fixed noise: water-filling.

    .. math:: s_i = \sqrt{(\lambda_i - \beta\sigma^2)_+}, \qquad
        R = \tfrac12 \sum_{i \le q} \Big(\log \frac{\lambda_i}{\beta\sigma^2}\Big)_+, \qquad
        D = \sum_{i \le q} \min(\lambda_i, \beta\sigma^2) + \sum_{i > q} \lambda_i

    with the eigenvalues :math:`\lambda` of the data's covariance, ``spectrum``, and q latents. A
    unit is active if and only if :math:`\lambda_i > \beta\sigma^2`: else the optimum is collapse.
    """
    spectrum, level = spectrum.sort(descending=True).values, beta * sigma**2
    kept = spectrum[:latent]
    rate = (kept / level).log().clamp(min=0).sum() / 2
    error = kept.clamp(max=level).sum() + spectrum[latent:].sum()
    return _LinearVAEOptimum((kept - level).clamp(min=0).sqrt(), kept > level, rate, error)


def learned_variance(spectrum: Tensor, latent: int, beta: float = 1.0) -> Tensor:
    r"""The noise's variance at the optimum when it is learned and all latents are active.

    .. math:: \sigma^2 = \frac{\sum_{i > q} \lambda_i}{d - \beta q}

    For :math:`\beta = 1` it is the mean of the discarded eigenvalues, as in PCA.
    """
    d = len(spectrum)
    if beta * latent >= d:
        raise UsageError(f"beta * latent is {beta * latent:g}; it must be less than d = {d}")
    return spectrum.sort(descending=True).values[latent:].sum() / (d - beta * latent)
