r"""What a network predicts, and how to recover the rest.

Data, noise, v, velocity, score: each is a linear combination :math:`y = a_t x + b_t \varepsilon`.
A prediction *is* its pair :math:`(a_t, b_t)`. Together with :math:`x_t = \alpha_t x +
\sigma_t \varepsilon` it makes a 2x2 linear system whose solution is :math:`(x, \varepsilon)`,
so one formula replaces every pairwise conversion.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..shapes import Condition, Data, Times, append_dims
from .paths import Path

Prediction = Callable[[Path, Tensor], tuple[Tensor, Tensor]]


class PosteriorMeans(NamedTuple):
    r"""Posterior means of :math:`x` and of :math:`\varepsilon` given :math:`x_t`."""

    x: Tensor
    eps: Tensor


def data_prediction(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """The datum :math:`x` itself; it says nothing about the noise at t = 0."""
    return torch.ones_like(t), torch.zeros_like(t)


def noise_prediction(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""The noise :math:`\varepsilon` (Ho et al., 2020); it says nothing of x where alpha = 0."""
    return torch.zeros_like(t), torch.ones_like(t)


def v_prediction(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`v = \alpha_t \varepsilon - \sigma_t x` (Salimans & Ho, 2022)."""
    alpha, sigma = path(t)
    return -sigma, alpha


def velocity_prediction(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\dot x_t = \dot\alpha_t x + \dot\sigma_t \varepsilon` (Lipman et al., 2023)."""
    return path.rates(t)


def unit_velocity_prediction(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    r"""The velocity over :math:`\sqrt{\dot\alpha_t^2 + \dot\sigma_t^2}`.

    It has unit variance where x and eps have and are independent, and is small where they are
    alike: on the linear path it is :math:`(\varepsilon - x)/\sqrt2`.
    """
    d_alpha, d_sigma = path.rates(t)
    size = torch.hypot(d_alpha, d_sigma)
    return d_alpha / size, d_sigma / size


def score_prediction(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\nabla \log p(x_t \mid x) = -\varepsilon / \sigma_t` (Vincent, 2011)."""
    return torch.zeros_like(t), -1 / path.sigma(t)


def edm_prediction(sigma_data: float) -> Prediction:
    r"""The unit-variance target of EDM preconditioning (Karras et al., 2022, table 1).

    .. math:: y = \frac{\sigma_t}{\sigma_d s_t} x - \frac{\alpha_t \sigma_d}{s_t} \varepsilon,
        \qquad s_t^2 = \sigma_t^2 + \alpha_t^2\sigma_d^2
    """

    def prediction(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = path(t)
        scale = torch.hypot(sigma, alpha * sigma_data)
        return sigma / (sigma_data * scale), -alpha * sigma_data / scale

    return prediction


def noise_error_weight(prediction: Prediction) -> Callable[[Path, Tensor], Tensor]:
    r"""The weight that turns a prediction's squared error into the noise's.

    .. math:: w_t = \Big(\frac{\alpha_t}{\alpha_t b_t - \sigma_t a_t}\Big)^2

    The weighted loss is L_simple whatever the network predicts (Ho et al., 2020), and denoising
    score matching with the weight :math:`\sigma_t^2` (Song & Ermon, 2019).
    """

    def weight(path: Path, t: Tensor) -> Tensor:
        (alpha, sigma), (a, b) = path(t), prediction(path, t)
        return (alpha / (alpha * b - sigma * a)).square()

    return weight


def prediction_target(path: Path, prediction: Prediction, x: Data, eps: Data, t: Times) -> Data:
    r""":math:`y = a_t x + b_t \varepsilon`."""
    a, b = prediction(path, append_dims(t, x))
    return a * x + b * eps


def conversion_coefficients(
    path: Path, source: Prediction, goal: Prediction, t: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The coefficients of :math:`x_t` and y in the prediction ``goal``, where ``source`` is y.

    .. math:: y' = \frac{(a'b - b'a)\,x_t + (\alpha b' - \sigma a')\,y}{\alpha b - \sigma a}
    """
    (alpha, sigma), (a, b), (a_goal, b_goal) = path(t), source(path, t), goal(path, t)
    det = alpha * b - sigma * a
    return (a_goal * b - b_goal * a) / det, (alpha * b_goal - sigma * a_goal) / det


def convert_prediction(
    path: Path, source: Prediction, goal: Prediction, x_t: Data, y: Data, t: Times
) -> Data:
    p, q = conversion_coefficients(path, source, goal, append_dims(t, x_t))
    return p * x_t + q * y


def solve_posterior_means(
    path: Path, prediction: Prediction, x_t: Data, y: Data, t: Times
) -> PosteriorMeans:
    r"""Invert :math:`x_t = \alpha_t x + \sigma_t \varepsilon,\ y = a_t x + b_t \varepsilon`."""
    t = append_dims(t, x_t)
    p, q = conversion_coefficients(path, prediction, data_prediction, t)
    r, s = conversion_coefficients(path, prediction, noise_prediction, t)
    return PosteriorMeans(x=p * x_t + q * y, eps=r * x_t + s * y)


def batch_posterior_means(
    path: Path, x: Data, x_t: Data, t: Times, c: Condition = None
) -> PosteriorMeans:
    r"""Datum and noise in the mean over which datum of the batch each :math:`x_t` was made of.

    .. math:: \hat x_i = \sum_j r_{ij}\,x_j, \qquad
        r_{ij} \propto \exp\Bigl(-\frac{\|x_{t,i} - \alpha_i x_j\|^2}{2\sigma_i^2}\Bigr), \qquad
        \hat\varepsilon_i = \frac{x_{t,i} - \alpha_i \hat x_i}{\sigma_i}

    The data of a batch are exchangeable, those of one condition if there are conditions. So this is
    :math:`\mathbb E[x_i \mid x_{t,i}, \{x_j\}]`: of the same mean given :math:`x_t` as the datum
    itself, and by Rao and Blackwell of no larger variance (compare Xu et al., 2023, who draw other
    data for it). In few dimensions the variance is much smaller, in many the same.
    The i-th datum made the i-th :math:`x_t`; at the times t there is noise and data in them.
    """
    alpha, sigma = path(t[:, None])
    exact = "donot_use_mm_for_euclid_dist"
    gap = torch.cdist(x_t.flatten(1) / alpha, x.flatten(1), compute_mode=exact)
    logits = -(gap * alpha / sigma).square() / 2
    if c is not None:
        kind = c.unique(dim=0, return_inverse=True)[1]  # comparing all pairs of rows takes seconds
        logits = logits.masked_fill(kind[:, None] != kind, -math.inf)
    mean = (logits.softmax(1) @ x.flatten(1)).view_as(x)
    alpha, sigma = path(append_dims(t, x))
    return PosteriorMeans(mean, (x_t - alpha * mean) / sigma)
