r"""The forward process and the bound of a chain that undoes it (the lesson's 5.1 to 5.3).

.. math:: x_k = \sqrt{1-\beta_k}\,x_{k-1} + \sqrt{\beta_k}\,z_k, \qquad k = 1, \dots, T

Tables of :math:`\beta` are `tables`; here are the chain itself, what is left of the data at its
end, and every term of the variational bound. With the right posterior means the bound depends on
the data through one number a step, the error of the best guess of the noise,

.. math:: e_k = \mathbb E\,\|\varepsilon - \mathbb E[\varepsilon \mid x_k]\|^2
    = d - \sigma_k^2\,\mathbb E\,\|\nabla\log p_k(x_k)\|^2 .

All values are in nats.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..shapes import Data, PerDatum, sum_event
from .ddpm_schedule import DDPMPath
from .predictions import Prediction

Reverse = Callable[[Data, int], tuple[Data, Tensor]]


def terminal_kl(x: Data, alpha_bar: float) -> PerDatum:
    r"""How far the chain's end is from noise, for each datum (lesson 5.3, first term).

    .. math:: \mathrm{KL}(q(x_T \mid x_0)\,\|\,\mathcal N(0, I))
        = \tfrac12\big(\bar\alpha\,\|x_0\|^2 - d\,(\bar\alpha + \log(1-\bar\alpha))\big)

    Arguments:
        x: Data.
        alpha_bar: :math:`\bar\alpha_T`.
    """
    d = x[0].numel()
    return (alpha_bar * sum_event(x.square()) - d * (alpha_bar + math.log1p(-alpha_bar))) / 2


def bound_weight(prediction: Prediction, v: float) -> Callable[[DDPMPath, Tensor], Tensor]:
    r"""The weight that makes the loss the terms of the bound that depend on the mean, in nats.

    .. math:: w_k = \frac{T}{2\Sigma_k}\Big(
        \frac{\sqrt{\bar\alpha_{k-1}}\beta_k}{1 - \bar\alpha_k}
        \frac{\sigma_k}{\alpha_k b_k - \sigma_k a_k}\Big)^2

    With :math:`\Sigma = \tilde\beta` it is :math:`\tfrac T2(\mathrm{SNR}_{k-1} - \mathrm{SNR}_k)`
    for data and :math:`\tfrac T2(\mathrm{SNR}_{k-1}/\mathrm{SNR}_k - 1)` for noise. The mean over
    k of the weighted loss is the sum of the terms.
    """

    def weight(path: DDPMPath, t: Tensor) -> Tensor:
        (alpha, sigma), (a, b) = path(t), prediction(path, t)
        k = (t * path.steps).round().long()
        gain = data_gain(path, k).to(t) * sigma / (alpha * b - sigma * a)
        return path.steps * gain.square() / (2 * path.variance(k, v))

    return weight


def data_gain(path: DDPMPath, k: Tensor) -> Tensor:
    r"""How much of :math:`x_0` is in :math:`\tilde\mu_k`, for each index of ``(n,)``.

    .. math:: \frac{\sqrt{\bar\alpha_{k-1}}\,\beta_k}{1 - \bar\alpha_k}
    """
    one = torch.ones(len(k), 1, dtype=torch.float64)
    return path.posterior(one, 0 * one, k)[0].squeeze(1)
