r"""Divergences between two distributions by quadrature, and in closed form between Gaussians.

Each takes the log-densities of both distributions at the same points and the weight of each: 1
for the sum over a discrete distribution; at the points of a `trapezoidal_grid` it is the integral
in one or two dimensions (lesson 3.3). Values are in nats where they are logarithms.

.. math:: \mathrm{KL}(p \| q) = \int p \log \frac pq, \qquad
    \mathrm{JS}(p, q) = \tfrac12 \mathrm{KL}\Bigl(p \,\Big\|\, \frac{p + q}2\Bigr)
    + \tfrac12 \mathrm{KL}\Bigl(q \,\Big\|\, \frac{p + q}2\Bigr) \in [0, \log 2]

What can be said from samples alone is in `divergence_estimators`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import UsageError
from ...shapes import PerDatum, Scalar
from ..score_matching import explicit_score_matching
from .diffusion_bound import expected_noise_error
from .targets import Gaussian, GaussianMixture

Weight = Tensor | float


class _QuadratureGrid(NamedTuple):
    points: Tensor  # ``(n, d)``
    weight: float  # the volume that each stands for


def trapezoidal_grid(
    low: Sequence[float | int], high: Sequence[float | int], count: int = 1001
) -> _QuadratureGrid:
    """The trapezoidal rule on a box in one or two dimensions, ``count`` points a side, float64.

    It converges geometrically for smooth densities that vanish at the sides, which need no half
    weights: steps of half a standard deviation give ten digits for Gaussians.
    """
    if len(low) != len(high) or not 1 <= len(low) <= 2:
        raise UsageError(f"a box has one or two dimensions, not {len(low)} and {len(high)}")
    sides = [torch.linspace(a, b, count, dtype=torch.float64) for a, b in zip(low, high)]
    volume = math.prod((b - a) / (count - 1) for a, b in zip(low, high))
    return _QuadratureGrid(torch.cartesian_prod(*sides).reshape(-1, len(low)), volume)


def _check_masses(log_p: PerDatum, log_q: PerDatum, weight: Weight) -> None:
    for k, log in (("p", log_p), ("q", log_q)):
        if not abs((mass := float((weight * log.detach().exp()).sum())) - 1) < 1e-4:
            raise UsageError(
                f"{k} has mass {mass:.6g} on these points, not 1: widen or refine them"
            )


def quadrature_mean(log_p: PerDatum, f: PerDatum, weight: Weight = 1.0) -> Scalar:
    r""":math:`\int p f`; where :math:`p = 0` nothing is added, whatever ``f`` is there."""
    p = log_p.exp()
    return (weight * p * torch.where(p > 0, f, 0.0)).sum()  # 0 * inf would be nan in the gradient


def kl_divergence(log_p: PerDatum, log_q: PerDatum, weight: Weight = 1.0) -> Scalar:
    r""":math:`\mathrm{KL}(p \| q) = \int p \log(p/q)` in nats; infinite where q misses part of p.

    The reverse punishes samples where there are no data, and forgives modes that are left out.
    """
    _check_masses(log_p, log_q, weight)
    return quadrature_mean(log_p, log_p - log_q, weight)


def jensen_shannon(log_p: PerDatum, log_q: PerDatum, weight: Weight = 1.0) -> Scalar:
    """The mean KL of both to their mixture, from 0 to log 2 nats (Lin, 1991; lesson 3.3)."""
    least = torch.finfo(log_p.dtype).min  # at two minus infinities the gradient is nan
    log_m = torch.logaddexp(log_p.clamp(min=least), log_q.clamp(min=least)) - math.log(2)
    return (kl_divergence(log_p, log_m, weight) + kl_divergence(log_q, log_m, weight)) / 2


def total_variation(log_p: PerDatum, log_q: PerDatum, weight: Weight = 1.0) -> Scalar:
    r""":math:`\tfrac12 \int |p - q|`, from 0 to 1: twice the accuracy of the best test, less 1.

    Kinks where the densities cross leave a `trapezoidal_grid` an error of its step squared.
    """
    _check_masses(log_p, log_q, weight)
    return (weight * (log_p.exp() - log_q.exp()).abs()).sum() / 2


def chi_square(log_p: PerDatum, log_q: PerDatum, weight: Weight = 1.0) -> Scalar:
    r""":math:`\chi^2(p \| q) = \int (p - q)^2 / q = e^{D_2(p \| q)} - 1`, from 0 to infinity."""
    return torch.expm1(renyi_divergence(log_p, log_q, 2.0, weight))


def renyi_divergence(
    log_p: PerDatum, log_q: PerDatum, order: float, weight: Weight = 1.0
) -> Scalar:
    r"""Rényi's divergence of an order above 0 other than 1, in nats (Rényi, 1961).

    .. math:: D_\alpha(p \| q) = \frac 1{\alpha - 1} \log \int p^\alpha q^{1 - \alpha}

    It grows with the order and is KL in the limit 1.
    """
    _check_masses(log_p, log_q, weight)
    _check_renyi_order(order)
    terms = torch.where(log_p > -math.inf, order * log_p + (1 - order) * log_q, -math.inf)
    log_weight = torch.as_tensor(weight, dtype=terms.dtype).log()
    return torch.logsumexp(terms + log_weight, 0) / (order - 1)


def _check_renyi_order(order: float) -> None:
    if order <= 0 or order == 1:
        raise UsageError(f"Renyi's order is above 0 and not 1, where it is kl; here {order}")


def _squared_mahalanobis(p: Gaussian, q: Gaussian, covariance: Tensor) -> Tensor:
    offset = p.mean - q.mean
    return offset @ torch.linalg.solve(covariance, offset)


def gaussian_kl(p: Gaussian, q: Gaussian) -> float:
    r"""KL of two Gaussians in nats (lesson 2.6 has the case :math:`q = \mathcal N(0, I)`).

    .. math:: \tfrac12 \Bigl[\operatorname{tr}(\Sigma_q^{-1} \Sigma_p)
        + (m_p - m_q)^\top \Sigma_q^{-1} (m_p - m_q) - d
        + \log\frac{\det\Sigma_q}{\det\Sigma_p}\Bigr]
    """
    ratio = torch.linalg.solve(q.covariance, p.covariance)
    log_det = torch.logdet(q.covariance) - torch.logdet(p.covariance)
    return float(ratio.trace() + _squared_mahalanobis(p, q, q.covariance) - p.dim + log_det) / 2


def gaussian_renyi(p: Gaussian, q: Gaussian, order: float) -> float:
    r"""Rényi's divergence of two Gaussians in nats (Gil, Alajaji and Linder, 2013, Table 2).

    .. math:: \frac\alpha2 \delta^\top \Sigma_*^{-1} \delta - \frac 1{2(\alpha - 1)}
        \log \frac{\det \Sigma_*}{\det\Sigma_p^{1 - \alpha} \det\Sigma_q^\alpha}, \qquad
        \Sigma_* = \alpha \Sigma_q + (1 - \alpha) \Sigma_p

    Infinite where :math:`\Sigma_*` is not definite: the tails of p are too heavy for q.
    """
    _check_renyi_order(order)
    mixed = order * q.covariance + (1 - order) * p.covariance
    if bool((torch.linalg.eigvalsh(mixed) <= 0).any()):
        return math.inf
    dets = (1 - order) * torch.logdet(p.covariance) + order * torch.logdet(q.covariance)
    log_ratio = torch.logdet(mixed) - dets
    return float(order * _squared_mahalanobis(p, q, mixed) - log_ratio / (order - 1)) / 2


def gaussian_chi_square(p: Gaussian, q: Gaussian) -> float:
    r""":math:`\chi^2` of two Gaussians; :math:`e^{\delta^2} - 1` for unit covariances."""
    order_2 = gaussian_renyi(p, q, 2.0)
    return math.expm1(order_2) if order_2 < 700 else math.inf


def _mahalanobis_distance(p: Gaussian, q: Gaussian) -> float:
    if not torch.allclose(p.covariance, q.covariance, rtol=1e-9, atol=0):
        raise UsageError("no closed form for two covariances: integrate over a box")
    return math.sqrt(float(_squared_mahalanobis(p, q, q.covariance)))


def gaussian_total_variation(p: Gaussian, q: Gaussian) -> float:
    r""":math:`2\Phi(\delta/2) - 1` for Gaussians of one covariance."""
    return math.erf(_mahalanobis_distance(p, q) / math.sqrt(8))


def gaussian_jensen_shannon(p: Gaussian, q: Gaussian) -> float:
    r"""JS of Gaussians of one covariance, in nats, in any dimension.

    JS does not change under one-to-one maps and the likelihood ratio depends on one coordinate:
    it is that of :math:`\mathcal N(0, 1)` and :math:`\mathcal N(\delta, 1)`, by quadrature.
    """
    delta = _mahalanobis_distance(p, q)
    x, weight = trapezoidal_grid([-12], [delta + 12], 2 * math.ceil(10 * delta + 200) + 1)
    log_p, log_q = ((-(x[:, 0] - m).square() - math.log(2 * math.pi)) / 2 for m in (0.0, delta))
    return float(jensen_shannon(log_p, log_q, weight))


def denoising_floor(mixture: GaussianMixture, sigma: float) -> float:
    r"""The least mean of `denoising_score_matching`, by quadrature in one or two dimensions.

    .. math:: \tfrac12\big(d/\sigma^2 - \mathbb E\,\|\nabla\log p_\sigma\|^2\big)

    It is the constant between that and `explicit_score_matching` on the blurred distribution; for
    :math:`\mathcal N(m, v)` it is :math:`\tfrac12(1/\sigma^2 - 1/(v + \sigma^2))`.
    """
    one = torch.ones(1, dtype=torch.float64)
    return float(expected_noise_error(mixture, one, sigma * one)) / (2 * sigma**2)


def mixture_fisher_divergence(p: GaussianMixture, q: GaussianMixture) -> float:
    r""":math:`\mathbb E_p\|\nabla\log p - \nabla\log q\|^2` by quadrature, up to 2-D.

    It compares shapes, not masses: where modes are far apart it does not see their weights.
    """
    return 2 * p.expectation(lambda x: explicit_score_matching(q.score, p.score, x))


def fisher_divergence(p: Gaussian, q: Gaussian) -> float:
    r""":math:`\mathbb E_p\|\nabla\log p - \nabla\log q\|^2` between two Gaussians.

    .. math:: \operatorname{tr}(B\Sigma_p B) + \|\Sigma_q^{-1}(m_p - m_q)\|^2, \qquad
        B = \Sigma_q^{-1} - \Sigma_p^{-1}
    """
    precision = torch.linalg.inv(q.covariance)
    B = precision - torch.linalg.inv(p.covariance)
    offset = precision @ (p.mean - q.mean)
    return float((B @ p.covariance @ B).trace() + offset @ offset)


def quadrature_auroc(score: Tensor, ordinary: Tensor, anomalous: Tensor) -> Tensor:
    r"""The area under the ROC curve of a score, for two distributions on the same nodes.

    .. math:: P(s(x') > s(x)) + \tfrac12 P(s(x') = s(x)), \qquad
        x \sim \text{ordinary},\ x' \sim \text{anomalous}

    No score has more than the likelihood ratio (Neyman & Pearson, 1933): for uniform anomalies
    :math:`1/p(x)`. Masses are normalised; the error is :math:`O(h^2)` for spacing h.
    """
    node = score.unique(return_inverse=True)[1]  # equal scores are one node
    p, q = (node.bincount(m / m.sum()) for m in (ordinary, anomalous))
    return (q * (p.cumsum(0) - p / 2)).sum()


class _SurpriseMoments(NamedTuple):
    mode: float  # the largest value of log p(x), at the mode of p, in nats
    mean: float  # over draws of p itself: minus the entropy
    deviation: float


def gaussian_surprise(d: int) -> _SurpriseMoments:
    r"""Of the standard normal distribution in d dimensions, whose squared norm is chi-squared.

    .. math:: \max \log p = -\tfrac d2 \log 2\pi, \qquad
        \mathbb E \log p = -\tfrac d2 (1 + \log 2\pi), \qquad \operatorname{sd} = \sqrt{d/2}

    The mode lies :math:`\sqrt{d/2}` deviations above what draws have: for large d an anomaly.
    """
    mode = -d / 2 * math.log(2 * math.pi)
    return _SurpriseMoments(mode, mode - d / 2, math.sqrt(d / 2))
