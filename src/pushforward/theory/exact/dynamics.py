r"""Flows, samplers and Langevin chains on distributions known in closed form.

Regression on the rate :math:`\dot x_t` of a path finds

.. math:: u_t(x_t) = \mathbb E[\dot x_t \mid x_t], \qquad
    \mathbb E\|v - \dot x_t\|^2 = \mathbb E\|v - u_t\|^2
    + \mathbb E \operatorname{tr} \operatorname{Var}[\dot x_t \mid x_t]

(Lipman et al., 2023, theorem 2): the last term is a floor that no network goes below.

For data :math:`\mathcal N(m, s^2)` in each entry the best guesses are affine in :math:`x_t`, so a
step of any sampler is :math:`x \gets a x + b + \sqrt v z`, a Gaussian stays one, and its mean and
variance at the end are known without a single draw.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...shapes import Data, PerDatum, Scalar, Times, append_dims, sum_event
from ..ddpm_schedule import DDPMPath
from ..ode import Field
from ..paths import Path
from .targets import GaussianMixture


def gaussian_velocity(path: Path, mean: Tensor, scale: float, x_t: Data, t: Times) -> Data:
    r"""The field for data :math:`\mathcal N(m, v^2 I)`, v the ``scale`` (lesson 6.2).

    .. math:: u_t(x) = \dot\alpha_t m
        + \frac{\alpha_t\dot\alpha_t v^2 + \sigma_t\dot\sigma_t}{\alpha_t^2 v^2 + \sigma_t^2}
        (x - \alpha_t m)

    On the linear path, in the lesson's time :math:`s = 1 - t` and with its sign, it is
    :math:`m + \frac{s v^2 - (1-s)}{(1-s)^2 + s^2 v^2}(x - s m)`.
    """
    (alpha, sigma), (d_alpha, d_sigma) = path(append_dims(t, x_t)), path.rates(append_dims(t, x_t))
    rate = alpha * d_alpha * scale**2 + sigma * d_sigma
    variance = (alpha * scale).square() + sigma.square()
    return d_alpha * mean + rate / variance * (x_t - alpha * mean)


def residual_variance(mixture: GaussianMixture, path: Path, x_t: Data, t: Times) -> PerDatum:
    r"""What the regression cannot know, :math:`\operatorname{tr}\operatorname{Var}[\dot x_t|x_t]`.

    .. math:: \Big(\dot\alpha_t - \dot\sigma_t \frac{\alpha_t}{\sigma_t}\Big)^2
        \Big[\sum_k r_k \big(\|\hat x_k\|^2 + \operatorname{tr} \sigma_t^2 S_k C_k^{-1}\big)
        - \|\hat x\|^2\Big], \qquad C_k = \alpha_t^2 S_k + \sigma_t^2 I

    with :math:`\hat x_k` the posterior mean in component k and :math:`r_k` its responsibility. Its
    mean over :math:`x_t` and t is the least loss, summed over entries; for Gaussian data the linear
    path's is `gaussian_floor` an entry. Sigma must not be 0 at t.
    """
    (alpha, sigma), (d_alpha, d_sigma) = path(t), path.rates(t)
    offset, variance, terms = mixture.component_offsets(x_t, alpha, sigma)
    a, s = alpha.reshape(-1, 1, 1), sigma.reshape(-1, 1, 1)
    spread = mixture.variances.to(x_t)
    # posterior means less the components' own, along the axes of each
    shift = torch.einsum("kij,nkj->nki", mixture.axes.to(x_t), a * spread * offset / variance)
    means = mixture.means.to(x_t) + shift
    square = means.square().sum(2) + (s.square() * spread / variance).sum(2)
    r = terms.softmax(1)
    mean = (r[..., None] * means).sum(1)
    unknown = (r * square).sum(1) - mean.square().sum(1)
    return (d_alpha - d_sigma * alpha / sigma).square() * unknown


def gaussian_floor(scale: float) -> float:
    r"""The least loss an entry on the linear path for data :math:`\mathcal N(m, v^2 I)`.

    .. math:: \int_0^1 \frac{v^2}{(1-t)^2 v^2 + t^2}\,dt = \frac{\pi}{2} v

    For unit data it is :math:`\pi/2`, whatever their mean: a loss near 1.57 is a perfect field.
    """
    return math.pi / 2 * scale


def velocity_error(v: Field, u: Field, x_t: Data, t: Times) -> Scalar:
    r"""The excess of the loss over its floor, :math:`\mathbb E\|v(x_t, t) - u_t(x_t)\|^2`."""
    return sum_event((v(x_t, t) - u(x_t, t)).square()).mean()


def ddim_contraction(path: Path, scale: float, times: Tensor) -> float:
    r"""How much DDIM's steps shrink data :math:`\mathcal N(m, v^2 I)`, relative to the exact map.

    .. math:: \prod_k \cos(\phi_{k+1} - \phi_k), \qquad \phi_k = \arctan\frac{\sigma_k}{\alpha_k v}

    Every step projects on the tangent of a circle, whatever the path. The product is also the fixed
    point of consistency distillation whose teacher takes these steps.
    """
    alpha, sigma = path(times.double())
    return float(torch.atan2(sigma, alpha * scale).diff().cos().prod())


def least_contraction(steps: int) -> float:
    r"""The best that any grid of N steps can do: equal angles, :math:`\cos(\pi/2N)^N`.

    It is about :math:`1 - \pi^2/8N`; one step gives 0, the mean of the data.
    """
    return math.cos(math.pi / (2 * steps)) ** steps


def gaussian_flow_map(
    path: Path, mean: Tensor, scale: float, x_t: Data, t: Times, s: Times
) -> Data:
    r"""The flow's map for data :math:`\mathcal N(m, v^2 I)`, from t to s.

    .. math:: x_s = \alpha_s m + \frac{D_s}{D_t}(x_t - \alpha_t m), \qquad
        D_t^2 = \alpha_t^2 v^2 + \sigma_t^2
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = path(append_dims(t, x_t)), path(append_dims(s, x_t))
    ratio = torch.hypot(alpha_s * scale, sigma_s) / torch.hypot(alpha_t * scale, sigma_t)
    return alpha_s * mean + ratio * (x_t - alpha_t * mean)


def quantile_map(mixture: GaussianMixture, path: Path, x_t: Data, t: Tensor, s: Tensor) -> Data:
    r"""The flow's map on the line, :math:`F_s^{-1} \circ F_t`, from a scalar t to a scalar s.

    The flow keeps the order of points, and only the map of quantiles is increasing.
    """
    later, earlier = mixture.diffuse(*path(t)), mixture.diffuse(*path(s))
    side = torch.where(mixture_log_cdf(later, x_t) < math.log(0.5), 1.0, -1.0)  # the lesser tail
    goal = mixture_log_cdf(later, x_t, side)
    reach = _component_z_scores(later, x_t).abs().amax(1, keepdim=True)  # no quantile is more
    high = earlier.means.abs().max() + earlier.variances.max().sqrt() * reach
    low = -high
    for _ in range(70):
        middle = (low + high) / 2
        below = mixture_log_cdf(earlier, side * middle, side) < goal
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (side * high).to(x_t)


def _component_z_scores(mixture: GaussianMixture, x: Data) -> Tensor:
    r""":math:`(x - m_k) / s_k` of each component on the line, ``(n, k)``, in float64."""
    return (x.double() - mixture.means.mT) / mixture.variances.mT.sqrt()


def mixture_log_cdf(mixture: GaussianMixture, x: Data, side: Tensor | float = 1.0) -> Data:
    r""":math:`\log F(x)` on the line, in float64, and :math:`\log(1 - F(x))` at a side of -1.

    .. math:: \log \sum_k w_k\,\Phi\bigl(\pm(x - m_k) / s_k\bigr)

    Both keep their digits in the tail, where F itself is 0 or 1.
    """
    terms = mixture.weights.log() + torch.special.log_ndtr(side * _component_z_scores(mixture, x))
    return terms.logsumexp(1, keepdim=True)


class Moments(NamedTuple):
    mean: float
    variance: float


def propagate_moments(start: Moments, slope: Tensor, shift: Tensor, noise: Tensor) -> Moments:
    r"""After steps :math:`x \gets a x + b + \sqrt v z` of slopes a, shifts b and noises v."""
    mean, variance = start
    for a, b, v in zip(slope.tolist(), shift.tolist(), noise.tolist()):
        mean, variance = a * mean + b, a * a * variance + v
    return Moments(mean, variance)


def _noise_moments(path: Path, times: Tensor) -> Moments:
    return Moments(0.0, float(path.scale(times[0].double())) ** 2)


def ancestral_moments(
    path: Path, times: Tensor, data: Moments, v: float = 0.0, start: Moments | None = None
) -> Moments:
    """The distribution of `samplers.ddpm` with exact estimates.

    With v = 1 standard normal data keep their variance at every step; with v = 0 a single point is
    reached exactly. ``start`` is the distribution at the first of the times, by default noise.
    """
    alpha, sigma = path(times.double())
    a, s, b, r = alpha[:-1], sigma[:-1], alpha[1:], sigma[1:]
    gain = a * data.variance / (a.square() * data.variance + s.square())  # of x given x_t
    ratio = a / b * r / s
    beta = s.square() * (1 - ratio.square())
    on_x, on_x_t = b * beta / s.square(), a / b * (r / s).square()
    noise = beta * (r / s).square() ** (1 - v) * (r > 0)
    start = _noise_moments(path, times) if start is None else start
    return propagate_moments(start, on_x_t + on_x * gain, on_x * (1 - gain * a) * data.mean, noise)


def reverse_chain_moments(
    path: DDPMPath, data: Moments, *, growth: float = 1.0, weight: float = 1.0, noise: float = 1.0
) -> Moments:
    r"""The distribution at data of a table's chain run backwards with its score, from noise.

    .. math:: x_{k-1} = (1-\beta_k)^{-g/2}\big(x_k + w\,\beta_k\nabla\log p_k(x_k)\big)
        + \sqrt{n\,\beta_k}\,z

    with ``growth`` g, ``weight`` w and ``noise`` n, none in the last step. The marginals are kept,
    as T grows, exactly if g = 1 and w = (1 + n) / 2: DDPM is n = 1, and n = 0 the probability flow.
    Langevin dynamics, which leaves a distribution where it is, has g = 0 and w = n / 2: half the
    score for the same noise. A reverse step is the sum of both, :math:`1 = \tfrac12 + \tfrac12`
    (Song et al., 2021, section 4).
    """
    k = torch.arange(path.steps, 0, -1)
    beta, alpha_bar = path.beta(k), path.alpha_bar(k)
    grown = (1 - beta) ** (-growth / 2)
    pull = weight * beta / (alpha_bar * data.variance + 1 - alpha_bar)
    slope, shift = grown * (1 - pull), grown * pull * alpha_bar.sqrt() * data.mean
    return propagate_moments(Moments(0.0, 1.0), slope, shift, noise * beta * (k > 1))


def ddim_factor(path: Path, times: Tensor, deviation: float) -> float:
    r"""What `samplers.ddim` multiplies noise with, for data :math:`\mathcal N(0, s^2)`.

    The exact :math:`D_0/D_T`, :math:`D^2 = \alpha^2 s^2 + \sigma^2`, times `ddim_contraction`.
    """
    alpha, sigma = path(times.double())
    size = torch.hypot(alpha * deviation, sigma)
    return float(size[-1] / size[0]) * ddim_contraction(path, deviation, times)


def _corrector_moments(
    path: Path, t: Tensor, moments: Moments, data: Moments, corrections: int, snr: float
) -> Moments:
    r"""After Langevin steps at one level, :math:`h = 2(r\sigma_t)^2`, with its exact score.

    Each contracts offsets by :math:`1 - h/(\alpha^2 s^2 + \sigma^2)` and adds variance :math:`2h`.
    """
    alpha, sigma = (float(z) for z in path(t))
    h = 2 * (snr * sigma) ** 2
    pull = h / (alpha**2 * data.variance + sigma**2)
    one = torch.ones(corrections, dtype=torch.float64)
    return propagate_moments(moments, (1 - pull) * one, pull * alpha * data.mean * one, 2 * h * one)


def annealed_langevin_moments(
    path: Path, times: Tensor, data: Moments, corrections: int, snr: float
) -> Moments:
    """The distribution of `langevin.annealed_langevin` with exact scores."""
    times = times.double()
    alpha, sigma = (z.tolist() for z in path(times))
    moments = _noise_moments(path, times)
    for i, t in enumerate(times[:-1]):
        moments = _corrector_moments(path, t, moments, data, corrections, snr)
        factor, shift = alpha[i + 1] / alpha[i], 0.0
        if sigma[i + 1] == 0:
            factor = alpha[i] * data.variance / (alpha[i] ** 2 * data.variance + sigma[i] ** 2)
            shift = (1 - factor * alpha[i]) * data.mean
        moments = Moments(factor * moments.mean + shift, factor**2 * moments.variance)
    return moments


def predictor_corrector_moments(
    path: Path, times: Tensor, data: Moments, corrections: int, snr: float
) -> Moments:
    """The distribution of `langevin.predictor_corrector` with exact scores."""
    times = times.double()
    moments = _noise_moments(path, times)
    for ends in times.unfold(0, 2, 1):
        moments = ancestral_moments(path, ends, data, start=moments)
        if path.sigma(ends[1]) > 0:
            moments = _corrector_moments(path, ends[1], moments, data, corrections, snr)
    return moments


def gaussian_ula(
    covariance: Tensor, h: float, steps: int, offset: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Moments :math:`m_k - \mu, C_k` of k steps of ULA towards :math:`\mathcal N(\mu, \Sigma)`.

    .. math:: A = I - h\Sigma^{-1}, \qquad m_k - \mu = A^k(m_0 - \mu), \qquad
        C_k = \Sigma_h + A^k(C_0 - \Sigma_h)A^k, \qquad \Sigma_h = \Sigma(I - h\Sigma^{-1}/2)^{-1}

    ``offset`` is :math:`m_0 - \mu`, and ``spread`` :math:`C_0`.
    """
    eye, inverse = torch.eye(len(covariance)).to(covariance), torch.linalg.inv(covariance)
    settled = torch.linalg.solve(eye - h / 2 * inverse, covariance)
    power = torch.linalg.matrix_power(eye - h * inverse, steps)
    return power @ offset, settled + power @ (spread - settled) @ power


def gaussian_bias(covariance: Tensor, h: float) -> float:
    r"""What ULA gets wrong in the long run on a Gaussian, in nats, for h below the limit.

    .. math:: \mathrm{KL}(\mathcal N(0, \Sigma_h)\,\|\,\mathcal N(0, \Sigma))
        = \tfrac12 \sum_i (v_i - 1 - \log v_i), \qquad v_i = \frac{1}{1 - h/2\lambda_i}

    with :math:`\Sigma`'s eigenvalues :math:`\lambda`: :math:`\sum_i h^2/16\lambda_i^2` for small h.
    """
    v = 1 / (1 - h / (2 * torch.linalg.eigvalsh(covariance)))
    return float((v - 1 - v.log()).sum() / 2)


def gaussian_acceptance(h: float) -> float:
    r"""How often MALA accepts on :math:`\mathcal N(0, 1)` once it has settled.

    .. math:: 1 - \frac2\pi \arcsin\sqrt{\frac{h^3}{(h + 2)(h^2 - 2h + 4)}}

    The ratio is :math:`e^{-h(y^2 - x^2)/4}`, and by its symmetry the chance is
    :math:`2P(y^2 < x^2) = 2P((y - x)(y + x) < 0)`, an orthant of two correlated normal numbers.
    """
    return 1 - 2 / math.pi * math.asin(math.sqrt(h**3 / ((h + 2) * (h * h - 2 * h + 4))))
