r"""The discriminator's game between two known distributions, by quadrature (lesson 3.2 to 3.4)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...shapes import Data, PerDatum, Scalar
from .divergences import quadrature_mean


def optimal_logit(log_p: PerDatum, log_q: PerDatum) -> PerDatum:
    r"""The logit of the best discriminator, :math:`D^* = p / (p + q)` (Goodfellow et al., 2014).

    .. math:: f^*(x) = \log p(x) - \log q(x)

    :math:`D^*` is not defined where both densities vanish.
    """
    return log_p - log_q


def expected_game_value(
    log_p: PerDatum, log_q: PerDatum, logit: PerDatum, weight: Tensor | float
) -> Scalar:
    r"""The value of the game of two known distributions at any discriminator, by quadrature, in
    nats.

    .. math:: V(D) = \int p \log D + q \log(1 - D)

    Arguments:
        log_p: Log-density of the data at points, ``(n,)``.
        log_q: Of the samples.
        logit: The discriminator's there.
        weight: The volume of each point, as in `divergences.trapezoidal_grid`; 1 for discrete
            distributions.
    """
    data = quadrature_mean(log_p, logsigmoid(logit), weight)
    return data + quadrature_mean(log_q, logsigmoid(-logit), weight)


def discriminator_regret(
    log_p: PerDatum, log_q: PerDatum, logit: PerDatum, weight: Tensor | float
) -> Scalar:
    r"""What a discriminator falls short of the best one, in nats (lesson 3.3).

    .. math:: V(D^*) - V(D) = 2\,\mathbb E_m\, \mathrm{KL}\bigl(\mathrm{Bern}(D^*(x)) \,\|\,
        \mathrm{Bern}(D(x))\bigr) \ge 0, \qquad m = \frac{p + q}2

    This much the generator's objective is below :math:`2\,\mathrm{JS} - \log 4`.
    """
    best = optimal_logit(log_p, log_q)
    real = best.sigmoid() * (logsigmoid(best) - logsigmoid(logit))
    fake = (-best).sigmoid() * (logsigmoid(-best) - logsigmoid(-logit))
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return 2 * quadrature_mean(log_m, real + fake, weight)


class _GeneratorSlopes(NamedTuple):
    """Gradients of both generator losses with respect to a shift of all samples, ``(d,)``."""

    saturating: Tensor
    non_saturating: Tensor


def generator_slopes(
    log_p: PerDatum, log_q: PerDatum, pull: Data, weight: Tensor | float
) -> _GeneratorSlopes:
    r"""How both losses pull samples that move as one, at the optimal discriminator (lesson 3.4).

    .. math:: -\mathbb E_q\, D^* \nabla f^* = \nabla_\theta\, 2\,\mathrm{JS}(p, q_\theta), \qquad
        -\mathbb E_q (1 - D^*) \nabla f^*
        = \nabla_\theta \bigl[\mathrm{KL}(q_\theta \| p) - 2\,\mathrm{JS}(p, q_\theta)\bigr]

    for :math:`q_\theta(x) = q(x - \theta)` at :math:`\theta = 0` (Arjovsky and Bottou, 2017).

    ``pull`` is :math:`\nabla f^* = \nabla \log p - \nabla \log q` at the points, ``(n, d)``.
    """
    f = optimal_logit(log_p, log_q)
    return _GeneratorSlopes(
        *(
            torch.stack([-quadrature_mean(log_q, chance * g, weight) for g in pull.mT])
            for chance in (f.sigmoid(), (-f).sigmoid())
        )
    )


def mode_drop_cost(mass: float) -> float:
    r"""What it costs in JS to leave out a separate mode of the data, in nats.

    .. math:: \mathrm{JS}(m) = \tfrac12 \Bigl[m \log 2 + (1 - m) \log\frac{1 - m}{1 - m/2}
        - \log(1 - m/2)\Bigr]

    For q = p given the other modes. A half costs 0.22 of at most 0.69 nats: collapse is no optimum
    of JS but a matter of who moves when. It is cheap, about :math:`m \log 2 / 2`, only for small m.
    """
    kept = 1 - mass
    lost = mass * math.log(2) - math.log1p(-mass / 2)
    return (lost + (kept * math.log(kept / (1 - mass / 2)) if kept else 0.0)) / 2
