r"""The variational bound of a diffusion chain (`ddpm_schedule`) in closed form (lesson 5.1 to 5.3).

With the right posterior means the bound depends on the data through one number a step, the error
of the best guess of the noise,

.. math:: e_k = \mathbb E\,\|\varepsilon - \mathbb E[\varepsilon \mid x_k]\|^2
    = d - \sigma_k^2\,\mathbb E\,\|\nabla\log p_k(x_k)\|^2 .

All values are in nats.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ...shapes import Data, PerDatum, sum_event
from ..ddpm_schedule import DDPMPath, data_gain, terminal_kl
from ..densities import exact_divergence
from .targets import GaussianMixture

Reverse = Callable[[Data, int], tuple[Data, Tensor]]


def forward_chain(x: Data, betas: Tensor) -> Iterator[Data]:
    for beta in betas.tolist():
        x = math.sqrt(1 - beta) * x + math.sqrt(beta) * torch.randn_like(x)
        yield x


def moment_recursion(betas: Tensor, mean: float, variance: float) -> tuple[Tensor, Tensor]:
    r"""Mean and variance of every :math:`x_k`, step by step, each ``(T + 1,)`` (lesson 5.1).

    .. math:: m_k = \sqrt{1-\beta_k}\,m_{k-1}, \qquad V_k = (1-\beta_k) V_{k-1} + \beta_k

    Solved by :math:`\sqrt{\bar\alpha_k}\,m_0` and :math:`\bar\alpha_k V_0 + 1 - \bar\alpha_k` (Ho
    et al., 2020, eq. 4); betas may leave signal at the end, and a datum has ``variance`` 0.
    """
    means, variances = [mean], [variance]
    for beta in betas.tolist():
        means.append(math.sqrt(1 - beta) * means[-1])
        variances.append((1 - beta) * variances[-1] + beta)
    return torch.tensor(means, dtype=torch.float64), torch.tensor(variances, dtype=torch.float64)


def divergence_from_noise(mixture: GaussianMixture) -> float:
    r""":math:`\mathrm{KL}(p \,\|\, \mathcal N(0, I))` by quadrature, in one or two dimensions."""
    energy = mixture.expectation(lambda x: sum_event(x.square() + math.log(2 * math.pi)) / 2)
    return energy - mixture.entropy()


def _normal_log_density(x: Data, mean: Data, variance: Tensor) -> PerDatum:
    r""":math:`\log\mathcal N(x \mid \mu, \operatorname{diag} v)` of each datum."""
    return -sum_event((x - mean).square() / variance + (2 * math.pi * variance).log()) / 2


def path_log_ratio(path: DDPMPath, states: list[Data], reverse: Reverse) -> PerDatum:
    r""":math:`\log q(x_1, \dots, x_T \mid x_0) - \log p(x_0, \dots, x_T)` along whole paths.

    Its mean over the chain is the loss of the lesson's 5.3, :math:`-\mathrm{ELBO}(x_0)`.
    ``reverse`` gives mean and variance of :math:`p(x_{k-1} \mid x_k)` from :math:`x_k` and k.
    """
    end = states[-1]
    total = -_normal_log_density(end, 0 * end, torch.ones_like(end))
    for k in range(1, path.steps + 1):
        x_s, x_t, beta = states[k - 1], states[k], path.beta(k).to(end)
        total = total + _normal_log_density(x_t, (1 - beta).sqrt() * x_s, beta.expand_as(x_t))
        total = total - _normal_log_density(x_s, *reverse(x_t, k))
    return total


def bound_terms(path: DDPMPath, states: list[Data], reverse: Reverse) -> Tensor:
    r"""The same ratio as the T + 1 terms whose means the lesson sums, ``(T + 1, n)``.

    .. math:: \log\frac{q(x_T \mid x_0)}{p(x_T)}, \quad
        \log\frac{q(x_{k-1} \mid x_k, x_0)}{p(x_{k-1} \mid x_k)}\ (k = T, \dots, 2), \quad
        -\log p(x_0 \mid x_1)

    By Bayes' rule along the chain they add up to `path_log_ratio` on every path and for every
    ``reverse`` (Ho et al., 2020, appendix A).
    """
    x, end = states[0], states[-1]
    alpha_bar = path.alpha_bar(path.steps).to(x)
    first = _normal_log_density(end, alpha_bar.sqrt() * x, (1 - alpha_bar).expand_as(end))
    terms = [first - _normal_log_density(end, 0 * end, torch.ones_like(end))]
    for k in range(path.steps, 1, -1):
        mean, variance = path.posterior(x, states[k], k)
        truth = _normal_log_density(states[k - 1], mean, variance.expand_as(mean))
        terms.append(truth - _normal_log_density(states[k - 1], *reverse(states[k], k)))
    return torch.stack([*terms, -_normal_log_density(x, *reverse(states[1], 1))])


def expected_noise_error(mixture: GaussianMixture, alpha: Tensor, sigma: Tensor) -> Tensor:
    r""":math:`\mathbb E\,\|\varepsilon - \mathbb E[\varepsilon \mid x_t]\|^2` at scales ``(n,)``.

    The least loss of a noise prediction: closed for one component, by quadrature up to 2-D, and
    :math:`\alpha^2 s^2 / (\alpha^2 s^2 + \sigma^2)` for :math:`\mathcal N(m, s^2)`. That of x is
    :math:`\sigma^2 e / \alpha^2`, of v :math:`e / \alpha^2` where :math:`\alpha^2 + \sigma^2 = 1`.
    """
    if len(mixture.weights) == 1:
        signal = alpha.double().square()[:, None] * mixture.variances
        return (signal / (signal + sigma.double().square()[:, None])).sum(1)
    noisy = (fisher_information(mixture.diffuse(a, s)) for a, s in zip(alpha, sigma))
    errors = [mixture.dim - float(s) ** 2 * information for s, information in zip(sigma, noisy)]
    return torch.tensor(errors, dtype=torch.float64)


def fisher_information(mixture: GaussianMixture) -> float:
    r""":math:`\mathbb E\,\|\nabla\log p(x)\|^2` by quadrature, in one or two dimensions."""
    return mixture.expectation(lambda x: sum_event(mixture.score(x).square()))


def noise_error_floors(path: DDPMPath, mixture: GaussianMixture) -> Tensor:
    """`expected_noise_error` at k = 1, ..., T, ``(T,)``; the mean is the least L_simple."""
    return expected_noise_error(mixture, *path(path.chain()[:-1].flip(0)))


def best_variance(path: DDPMPath, floor: Tensor, d: int) -> Tensor:
    r"""The variance of the reverse steps that makes the bound tightest, ``(T,)``.

    .. math:: \Sigma_k = \tilde\beta_k + \frac{\bar\alpha_{k-1}\beta_k^2}{(1-\bar\alpha_k)^2}
        \frac{\sigma_k^2}{\alpha_k^2} \frac{e_k}{d}

    (Bao et al., 2022, theorem 1). For standard normal data it is :math:`\beta_k`, for a single
    point :math:`\tilde\beta_k`.
    """
    return _posterior_variances(path) + _reverse_mean_error(path, floor) / d


def _reverse_mean_error(path: DDPMPath, floor: Tensor) -> Tensor:
    r""":math:`\mathbb E\,\|\tilde\mu_k(x_k, x_0) - \tilde\mu_k(x_k, \hat x_0)\|^2`, ``(T,)``."""
    k = torch.arange(1, path.steps + 1)
    alpha_bar = path.alpha_bar(k)
    return data_gain(path, k).square() * (1 - alpha_bar) / alpha_bar * floor


def _posterior_variances(path: DDPMPath) -> Tensor:
    zero = torch.zeros(path.steps, dtype=torch.float64)
    return path.posterior(zero, zero, torch.arange(1, path.steps + 1))[1]


def expected_bound(
    path: DDPMPath, floor: Tensor, second: float, d: int, variance: Tensor
) -> Tensor:
    r"""Every term of the loss of 5.3 for the best means, averaged over data, ``(T + 1,)``.

    .. math:: L_T = \tfrac12\big(\bar\alpha_T\,\mathbb E\|x_0\|^2
            - d\,(\bar\alpha_T + \log(1 - \bar\alpha_T))\big), \qquad
        L_{k-1} = \tfrac12\Big(\frac{d\tilde\beta_k + c_k}{\Sigma_k} - d
            + d\log\frac{\Sigma_k}{\tilde\beta_k}\Big), \qquad
        L_0 = \tfrac12\Big(\frac{c_1}{\Sigma_1} + d\log 2\pi\Sigma_1\Big)

    with :math:`c_k` of `_reverse_mean_error`, :math:`e_k` in ``floor`` and ``second`` for
    :math:`\mathbb E\,\|x_0\|^2`. No network has less; the sum bounds the data's entropy from above.
    """
    tilde = _posterior_variances(path)[1:]
    moved = _reverse_mean_error(path, floor)
    kl = ((d * tilde + moved[1:]) / variance[1:] - d + d * (variance[1:] / tilde).log()) / 2
    first = (moved[0] / variance[0] + d * (2 * math.pi * variance[0]).log()) / 2
    typical = torch.full((1, d), math.sqrt(second / d), dtype=torch.float64)
    ends = terminal_kl(typical, float(path.alpha_bar(path.steps)))
    return torch.cat([ends, kl.flip(0), first[None]])


def entropy_from_denoising(
    mixture: GaussianMixture, reach: float = 36.0, step: float = 0.5
) -> float:
    r"""Differential entropy from denoising errors alone, in one or two dimensions.

    .. math:: h(x) = \tfrac d2\log 2\pi e + \tfrac12\int_{-\infty}^{\infty}
        \Big(e(\lambda) - \frac{d}{1 + e^{-\lambda}}\Big)\,d\lambda, \qquad
        \lambda = \log\frac{\alpha^2}{\sigma^2}

    It is the I-MMSE relation (Guo, Shamai and Verdú, 2005): the bound of infinitely many steps is
    tight, and its weight of the noise's error is one half for each unit of :math:`\lambda`. By the
    trapezoidal rule; beyond :math:`|\lambda|` = ``reach`` the integrand is below
    :math:`e^{-reach}`.
    """
    levels = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
    signal = levels.sigmoid()
    errors = expected_noise_error(mixture, signal.sqrt(), (-levels).sigmoid().sqrt())
    excess = float((errors - mixture.dim * signal).sum()) * step
    return (mixture.dim * math.log(2 * math.pi * math.e) + excess) / 2


def reverse_gap(mixture: GaussianMixture, beta: float) -> float:
    r"""How far the true reverse step is from a Gaussian, on average, on the line.

    .. math:: \mathbb E\,\mathrm{KL}\big(q(x_{k-1} \mid x_k)\,\|\,\mathcal N(m, V)\big)
        = \tfrac12\,\mathbb E\log V + h(x_k) - h(x_{k-1}) - \tfrac12\log\beta

    with the moments m, V of :math:`x_{k-1}`, the mixture, given :math:`x_k`. It falls as
    :math:`\beta^3`, see `reverse_gap_rate`, and is 0 for Gaussians.
    """
    noise = torch.tensor(beta, dtype=torch.float64)
    noisy = mixture.diffuse((1 - noise).sqrt(), noise.sqrt())

    def log_variance(x: Data) -> PerDatum:
        _, curvature = exact_divergence(lambda x, _: noisy.score(x), x, noise)
        return (beta / (1 - beta) * (1 + beta * curvature)).log()

    spread = noisy.expectation(log_variance)
    return (spread - math.log(beta)) / 2 + noisy.entropy() - mixture.entropy()


def reverse_gap_rate(mixture: GaussianMixture) -> float:
    r"""The limit of `reverse_gap` over :math:`\beta^3` for small steps, on the line.

    .. math:: \tfrac1{12}\,\mathbb E\big[((\log p)'''(x))^2\big]

    The third cumulant of the reverse step is :math:`\beta^3(\log p)'''`, its variance
    :math:`\beta`, and a skewness g costs :math:`g^2/12` nats (Edgeworth's expansion).
    """

    def jerk(x: Data) -> PerDatum:
        x = x.detach().requires_grad_()
        slope = mixture.score(x)
        for _ in range(2):
            (slope,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        return slope.detach().square().flatten()

    return mixture.expectation(jerk) / 12
