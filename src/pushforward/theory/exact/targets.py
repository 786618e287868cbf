r"""Distributions known in closed form: the oracles that models and samplers are tested against."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, float64

from ...errors import UsageError
from ...shapes import Condition, Data, PerDatum, Times
from ..denoisers import Denoiser
from ..paths import Path
from ..predictions import PosteriorMeans


class GaussianMixture:
    r""":math:`p(x) = \sum_k w_k\,\mathcal N(x \mid m_k, S_k)`.

    Weights ``(k,)`` are normalised, means are ``(k, d)``, and ``spread`` is standard deviations
    ``(k,)`` of round components or covariances ``(k, d, d)``. Each covariance is kept as
    :math:`S_k = U_k \Lambda_k U_k^\top`, because :math:`\alpha^2 S_k + \sigma^2 I` has the same
    axes at every time. Parameters are kept in float64 and cast to the data at use.
    """

    def __init__(self, weights: Tensor, means: Tensor, spread: Tensor) -> None:
        self.weights, self.means = weights.double() / weights.double().sum(), means.double()
        k, d = means.shape
        if spread.ndim == 1:
            self.variances = spread.double().square()[:, None].expand(k, d)
            self.axes = torch.eye(d, dtype=torch.float64).expand(k, d, d)
        else:
            self.variances, self.axes = torch.linalg.eigh(spread.double())
        if bool((self.variances <= 0).any() or (self.weights <= 0).any()):
            raise UsageError("a Gaussian mixture needs positive weights and definite covariances")

    @property
    def dim(self) -> int:
        return self.means.shape[1]

    @property
    def mean(self) -> Tensor:
        return self.weights @ self.means

    @property
    def covariances(self) -> Tensor:
        return (self.axes * self.variances[:, None]) @ self.axes.mT

    @property
    def covariance(self) -> Tensor:
        within, offset = self.weights @ self.covariances.flatten(1), self.means - self.mean
        return within.view(self.dim, -1) + (self.weights[:, None] * offset).mT @ offset

    def component_offsets(
        self, x: Data, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Offsets from :math:`\alpha m_k` along each component's axes, variances there, log terms.

        Shapes ``(batch, k, d)``, ``(batch or 1, k, d)`` and ``(batch, k)``; the last is
        :math:`\log w_k\,\mathcal N(x \mid \alpha m_k, \alpha^2 S_k + \sigma^2 I)`.
        """
        alpha, sigma = alpha.reshape(-1, 1, 1), sigma.reshape(-1, 1, 1)
        offset = x[:, None] - alpha * self.means.to(x)
        offset = torch.einsum("kij,nki->nkj", self.axes.to(x), offset)
        variance = alpha.square() * self.variances.to(x) + sigma.square()
        terms = offset.square() / variance + variance.log() + math.log(2 * math.pi)
        return offset, variance, self.weights.to(x).log() - terms.sum(-1) / 2

    def log_terms(self, x: Data) -> Tensor:
        r""":math:`\log w_k\,\mathcal N(x \mid m_k, S_k)`, with shape ``(batch, k)``."""
        return self.component_offsets(x, x.new_ones(()), x.new_zeros(()))[2]

    def log_prob(self, x: Data) -> PerDatum:
        return self.log_terms(x).logsumexp(1)

    def score(self, x: Data) -> Data:
        r""":math:`\nabla \log p(x) = -\sum_k r_k(x) S_k^{-1}(x - m_k)`."""
        offset, variance, terms = self.component_offsets(x, x.new_ones(()), x.new_zeros(()))
        weighted = terms.softmax(1)[..., None] * offset / variance
        return -torch.einsum("kij,nkj->ni", self.axes.to(x), weighted)

    def sample(self, n: int) -> Tensor:
        """In torch's default precision, ``(n, d)``."""
        k = torch.multinomial(self.weights, n, replacement=True)
        z = torch.randn(n, self.dim, dtype=torch.float64) * self.variances[k].sqrt()
        x = self.means[k] + torch.einsum("nij,nj->ni", self.axes[k], z)
        return x.to(torch.get_default_dtype())

    def nodes(self) -> Iterator[tuple[Data, PerDatum, PerDatum]]:
        """Nodes of the trapezoidal rule, the probabilities of their cells, and the log-density."""
        if self.dim > 2:
            raise UsageError("integrals over a mixture are computed in one or two dimensions only")
        # A quarter of the narrowest deviation is far inside the regime of geometric convergence for
        # the density; on the line there is room for scores, which turn faster between distant modes
        reach = 9 * self.variances.max().sqrt()
        step = float(self.variances.min().sqrt() / (16 if self.dim == 1 else 4))
        ends = zip((self.means.amin(0) - reach).tolist(), (self.means.amax(0) + reach).tolist())
        sides = [torch.arange(low, high, step, dtype=float64) for low, high in ends]
        cell = math.prod(float(side[1] - side[0]) for side in sides)
        for first in sides[0].split(max(1, 2**20 // len(sides[-1]))):
            grid = torch.cartesian_prod(first, *sides[1:]).reshape(-1, self.dim)
            log_p = self.log_prob(grid)
            yield grid, log_p.exp() * cell, log_p

    def expectation(self, f: Callable[[Data], PerDatum]) -> float:
        r""":math:`\mathbb E f(x)` of a smooth function by quadrature, in one or two dimensions."""
        return sum(float(mass @ f(x).detach()) for x, mass, _ in self.nodes())

    def entropy(self) -> float:
        """Differential entropy in nats: closed for one component, by quadrature up to 2-D."""
        if len(self.weights) == 1:
            return float((self.variances.log() + math.log(2 * math.pi) + 1).sum() / 2)
        return -sum(float(mass @ log_p) for _, mass, log_p in self.nodes())

    def diffuse(self, alpha: Tensor, sigma: Tensor) -> "GaussianMixture":
        r"""The distribution of :math:`\alpha x + \sigma \varepsilon`, for scalars."""
        alpha, sigma = alpha.double(), sigma.double()
        eye = torch.eye(self.dim, dtype=torch.float64)
        covariances = alpha.square() * self.covariances + sigma.square() * eye
        return GaussianMixture(self.weights, alpha * self.means, covariances)

    def condition_on(self, index: Sequence[int], values: Tensor) -> "GaussianMixture":
        r"""The distribution of the other coordinates given :math:`x_{\mathrm{index}} = v`.

        .. math:: w_k' \propto w_k\,\mathcal N(v \mid m_k^B, S_k^{BB}), \quad
            m_k' = m_k^A + S_k^{AB} (S_k^{BB})^{-1} (v - m_k^B), \quad
            S_k' = S_k^{AA} - S_k^{AB} (S_k^{BB})^{-1} S_k^{BA}
        """
        given = list(index)
        free = [i for i in range(self.dim) if i not in given]
        S, v = self.covariances, values.double()
        known = GaussianMixture(self.weights, self.means[:, given], S[:, given][:, :, given])
        gain = torch.linalg.solve(S[:, given][:, :, given], S[:, given][:, :, free]).mT
        means = self.means[:, free] + (gain @ (v - self.means[:, given])[..., None])[..., 0]
        covariances = S[:, free][:, :, free] - gain @ S[:, given][:, :, free]
        return GaussianMixture(known.log_terms(v[None])[0].softmax(0), means, covariances)


class Gaussian(GaussianMixture):
    r""":math:`\mathcal N(m, S)` with mean ``(d,)`` and covariance ``(d, d)``."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__(mean.new_ones(1), mean[None], covariance[None])


class ExactDenoiser(Denoiser):
    r"""The denoiser of a Gaussian mixture, with no network and no error.

    .. math:: \hat x = \sum_k r_k\,[m_k + \alpha S_k C_k^{-1}(x_t - \alpha m_k)], \qquad
        \hat\varepsilon = \sigma \sum_k r_k\,C_k^{-1}(x_t - \alpha m_k), \qquad
        C_k = \alpha^2 S_k + \sigma^2 I

    A condition is one-hot in the components, as everywhere: ``c[:, 0] = 1``, ``c[:, 1 + k] = 1``;
    the zero vector, or a 1 alone, says nothing.
    """

    def __init__(self, mixture: GaussianMixture, path: Path) -> None:
        super().__init__()
        self.mixture, self.path = mixture, path

    def forward(self, x_t: Data, t: Times, c: Condition = None) -> PosteriorMeans:
        alpha, sigma = self.path(t)
        offset, variance, terms = self.mixture.component_offsets(x_t, alpha, sigma)
        if c is not None:
            known = c[:, 1:]
            terms = torch.where((known == 0) & known.any(1, keepdim=True), -math.inf, terms)
        r, axes = terms.softmax(1)[..., None], self.mixture.axes.to(x_t)
        alpha, sigma = alpha.reshape(-1, 1, 1), sigma.reshape(-1, 1, 1)
        innovation = r * offset / variance
        shift = alpha * self.mixture.variances.to(x_t) * innovation
        x = (r * self.mixture.means.to(x_t)).sum(1) + torch.einsum("kij,nkj->ni", axes, shift)
        return PosteriorMeans(x=x, eps=torch.einsum("kij,nkj->ni", axes, sigma * innovation))


def lesson_mixture() -> GaussianMixture:
    """0.3 N(-2, 0.5^2) + 0.7 N(2, 0.7^2): mean 0.8, variance 3.778, entropy 1.5709637 nats."""
    rows = [[0.3, 0.7], [-2.0, 2.0], [0.5, 0.7]]
    weights, means, scales = torch.tensor(rows, dtype=torch.float64)
    return GaussianMixture(weights, means[:, None], scales)


def gaussian_ring(modes: int = 8, radius: float = 4.0, scale: float = 0.5) -> GaussianMixture:
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
    return GaussianMixture(angle.new_ones(modes), means, angle.new_full((modes,), scale))


def gaussian_ring8() -> GaussianMixture:
    return gaussian_ring(8)
