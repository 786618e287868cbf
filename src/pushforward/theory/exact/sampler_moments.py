r"""The exact distributions that samplers reach on Gaussian data, by recursions of two moments.

For data :math:`\mathcal N(m, s^2)` in each entry the best guesses are affine in :math:`x_t`, so a
step of any sampler is :math:`x \gets a x + b + \sqrt v z`, a Gaussian stays one, and its mean and
variance at the end are known without a single draw.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..ddpm_schedule import DDPMPath
from ..paths import Path
from .flow_maps import ddim_contraction


class Moments(NamedTuple):
    """Of a number."""

    mean: float
    variance: float


def propagate_moments(start: Moments, slope: Tensor, shift: Tensor, noise: Tensor) -> Moments:
    r"""After steps :math:`x \gets a x + b + \sqrt v z` of slopes a, shifts b and noises v."""
    mean, variance = start
    for a, b, v in zip(slope.tolist(), shift.tolist(), noise.tolist()):
        mean, variance = a * mean + b, a * a * variance + v
    return Moments(mean, variance)


def _noise_moments(path: Path, times: Tensor) -> Moments:
    """The noise that samplers start with at the first of the times."""
    return Moments(0.0, float(path.scale(times[0].double())) ** 2)


def ancestral_moments(
    path: Path, times: Tensor, data: Moments, v: float = 0.0, start: Moments | None = None
) -> Moments:
    r"""The distribution of `samplers.ddpm` with exact estimates.

    .. math:: x_s = \tilde\mu_s(x_t, \mathbb E[x \mid x_t]) + \beta^{v/2}\tilde\beta^{(1-v)/2} z

    With v = 1 standard normal data keep their variance at every step; with v = 0 a single point
    is reached exactly. In between the chain is a bit too narrow or too wide at finite T.

    Times decrease, and ``start`` is the distribution at the first of them, by default noise.
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

    The marginals are kept, as T grows, exactly if g = 1 and w = (1 + n) / 2: DDPM is n = 1, and
    n = 0 the probability flow. Langevin dynamics, which leaves a distribution where it is, has g =
    0 and w = n / 2: half the score for the same noise. A reverse step is the sum of both, :math:`1
    = \tfrac12 + \tfrac12` (Song et al., 2021, section 4). No noise in the last step.

    Arguments:
        path: The table.
        data: The data's distribution.
        growth: g, whether the shrinking of the forward step is undone.
        weight: w, of the score.
        noise: n.
    """
    k = torch.arange(path.steps, 0, -1)
    beta, alpha_bar = path.beta(k), path.alpha_bar(k)
    grown = (1 - beta) ** (-growth / 2)
    pull = weight * beta / (alpha_bar * data.variance + 1 - alpha_bar)
    return propagate_moments(
        Moments(0.0, 1.0),
        grown * (1 - pull),
        grown * pull * alpha_bar.sqrt() * data.mean,
        noise * beta * (k > 1),
    )


def ddim_factor(path: Path, times: Tensor, deviation: float) -> float:
    r"""What `samplers.ddim` multiplies noise with, for data :math:`\mathcal N(0, s^2)`.

    .. math:: \frac{D_0}{D_T}\prod_k \cos(\varphi_k - \varphi_{k+1}), \qquad
        \varphi = \arctan\frac{\sigma}{\alpha s}, \quad D^2 = \alpha^2 s^2 + \sigma^2

    The exact factor is :math:`D_0 / D_T`. N equal angles shrink least,
    :math:`\cos(\pi/2N)^N \approx e^{-\pi^2/8N}`.
    """
    alpha, sigma = path(times.double())
    size = torch.hypot(alpha * deviation, sigma)
    return float(size[-1] / size[0]) * ddim_contraction(path, deviation, times)


def _corrector_moments(
    path: Path, t: Tensor, moments: Moments, data: Moments, corrections: int, snr: float
) -> Moments:
    r"""The distribution after Langevin steps at one level, :math:`h = 2(r\sigma_t)^2`, with its
    exact score.

    Each contracts offsets by :math:`1 - h/D^2`, :math:`D^2 = \alpha^2 s^2 + \sigma^2`, and adds
    :math:`2h` of variance.
    """
    alpha, sigma = (float(z) for z in path(t))
    h = 2 * (snr * sigma) ** 2
    pull = h / (alpha**2 * data.variance + sigma**2)
    one = torch.ones(corrections, dtype=torch.float64)
    return propagate_moments(moments, (1 - pull) * one, pull * alpha * data.mean * one, 2 * h * one)


def annealed_langevin_moments(
    path: Path, times: Tensor, data: Moments, corrections: int, snr: float
) -> Moments:
    r"""The distribution of `langevin.annealed_langevin` with exact scores, from :math:`\mathcal
    N(0, s^2)`.

    The steps of `_corrector_moments` at each level; between levels :math:`x/\alpha` is kept, and the
    last step is the best guess of the data.
    """
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
    r"""The distribution of `langevin.predictor_corrector` with exact scores, likewise.

    A step of `ancestral_moments` with v = 0, then those of `_corrector_moments` at the new level
    unless it is data.
    """
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
    r"""The exact distribution of k steps of ULA towards :math:`\mathcal N(\mu, \Sigma)`.

    .. math:: A = I - h\Sigma^{-1}, \qquad m_k - \mu = A^k(m_0 - \mu), \qquad
        C_k = \Sigma_h + A^k(C_0 - \Sigma_h)A^k, \qquad \Sigma_h = \Sigma(I - h\Sigma^{-1}/2)^{-1}

    Arguments:
        covariance: :math:`\Sigma`, with shape ``(d, d)``.
        h: The step.
        steps: k.
        offset: :math:`m_0 - \mu`, with shape ``(d,)``.
        spread: :math:`C_0`, with shape ``(d, d)``.

    Returns:
        :math:`m_k - \mu` and :math:`C_k`.
    """
    eye, inverse = torch.eye(len(covariance)).to(covariance), torch.linalg.inv(covariance)
    settled = torch.linalg.solve(eye - h / 2 * inverse, covariance)
    power = torch.linalg.matrix_power(eye - h * inverse, steps)
    return power @ offset, settled + power @ (spread - settled) @ power


def gaussian_bias(covariance: Tensor, h: float) -> float:
    r"""What ULA gets wrong in the long run on a Gaussian, in nats, for h below the limit.

    .. math:: \mathrm{KL}(\mathcal N(0, \Sigma_h)\,\|\,\mathcal N(0, \Sigma))
        = \tfrac12 \sum_i (v_i - 1 - \log v_i), \qquad v_i = \frac{1}{1 - h/2\lambda_i}

    with the eigenvalues :math:`\lambda` of :math:`\Sigma`: :math:`\sum_i h^2/16\lambda_i^2` for
    small h.
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
