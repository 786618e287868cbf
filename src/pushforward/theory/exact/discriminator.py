r"""Adversarial games between known distributions, by quadrature, and between two points.

In the smallest game (Mescheder et al., 2018) data sit at 0, samples at :math:`\theta`, and the
logit is :math:`f(x) = \psi x`. A state is :math:`(\theta, \psi)`, and its players descend

.. math:: \dot\theta = \operatorname{sigmoid}(\psi\theta)\,\psi, \qquad
    \dot\psi = -\operatorname{sigmoid}(\psi\theta)\,\theta - \gamma\psi

on the saturating loss and on the discriminator's with R1. Near the equilibrium at 0 this is linear
with matrix :math:`\bigl(\begin{smallmatrix} 0 & 1/2 \\ -1/2 & -\gamma \end{smallmatrix}\bigr)`:
without :math:`\gamma` a rotation, which no step size of simultaneous descent keeps from growing.
"""

import cmath
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...shapes import Data, PerDatum, Scalar
from .divergences import quadrature_mean


def optimal_logit(log_p: PerDatum, log_q: PerDatum) -> PerDatum:
    r"""The logit :math:`f^* = \log p - \log q` of the best discriminator, :math:`D^* = p/(p + q)`.

    (Goodfellow et al., 2014). It is not defined where both densities vanish.
    """
    return log_p - log_q


def expected_game_value(
    log_p: PerDatum, log_q: PerDatum, logit: PerDatum, weight: Tensor | float
) -> Scalar:
    r"""The value :math:`\int p \log D + q \log(1 - D)` of the game at any discriminator, in nats.

    Log-densities and the logit are those at the points, ``(n,)``; ``weight`` is the volume of each,
    as in `divergences.trapezoidal_grid`, and 1 for discrete distributions.
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
    saturating: Tensor  # with respect to a shift of all samples, ``(d,)``
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

    def slope(chance: PerDatum) -> Tensor:
        return torch.stack([-quadrature_mean(log_q, chance * g, weight) for g in pull.mT])

    return _GeneratorSlopes(slope(f.sigmoid()), slope((-f).sigmoid()))


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


Pair = tuple[complex, complex]
Turn = Callable[[Tensor, float, float], Tensor]


def descent_direction(state: Tensor, penalty: float = 0.0) -> Tensor:
    r"""Of both players at :math:`(\theta, \psi)`, with R1's weight."""
    theta, psi = state
    push = torch.sigmoid(psi * theta)
    return torch.stack([push * psi, -push * theta - penalty * psi])


def simultaneous_step(state: Tensor, h: float, penalty: float = 0.0) -> Tensor:
    return state + h * descent_direction(state, penalty)


def alternating_step(state: Tensor, h: float, penalty: float = 0.0) -> Tensor:
    """One step of the critic, then one of the generator, which sees the new critic."""
    psi = state[1] + h * descent_direction(state, penalty)[1]
    theta = state[0] + h * descent_direction(torch.stack([state[0], psi]), penalty)[0]
    return torch.stack([theta, psi])


def simultaneous_eigenvalues(h: float, penalty: float = 0.0) -> Pair:
    r"""By what a small deviation is multiplied in a simultaneous step.

    .. math:: \lambda = 1 + \tfrac h2 \left(-\gamma \pm \sqrt{\gamma^2 - 1}\right)

    Without a penalty :math:`|\lambda| = \sqrt{1 + h^2/4} > 1`: it spirals outwards.
    """
    root = cmath.sqrt(penalty**2 - 1)
    return 1 + h * (-penalty + root) / 2, 1 + h * (-penalty - root) / 2


def alternating_eigenvalues(h: float, penalty: float = 0.0) -> Pair:
    r"""By what a small deviation is multiplied in a critic's step and a generator's.

    .. math:: \lambda^2 - (2 - h^2/4 - h\gamma)\lambda + 1 - h\gamma = 0

    Without a penalty :math:`|\lambda| = 1` up to ``h`` = 4: it circles.
    """
    half, det = 1 - h**2 / 8 - h * penalty / 2, 1 - h * penalty
    root = cmath.sqrt(half**2 - det)
    return half + root, half - root


def play_game(turn: Turn, state: Tensor, h: float, steps: int, penalty: float = 0.0) -> Tensor:
    states = [state]
    for _ in range(steps):
        states.append(turn(states[-1], h, penalty))
    return torch.stack(states)


def wgan_gp_step(state: Tensor, h: float, penalty: float) -> Tensor:
    r"""One simultaneous step of WGAN-GP between two points, the game's direction being

    .. math:: \dot\theta = \psi, \qquad
        \dot\psi = -\theta - 2\lambda \operatorname{sign}(\psi)(|\psi| - 1)

    Its critic keeps a slope near one, so no sample comes to rest (Mescheder et al., 2018).
    """
    theta, psi = state
    excess = 2 * penalty * psi.sign() * (psi.abs() - 1)
    return state + h * torch.stack([psi, -theta - excess])


class _CriticOptimum(NamedTuple):
    slope: float  # along the segment from the sample to the datum
    gap: float  # the critic's gap, more than the distance W1
    value: float  # what the critic maximises, the gap minus the penalty


def penalised_optimum(distance: float, penalty: float) -> _CriticOptimum:
    r"""What WGAN-GP's critic reaches on two points at distance :math:`d = W_1`.

    .. math:: \max_s\; s d - \lambda (s - 1)^2: \qquad s = 1 + \frac d{2\lambda}, \quad
        \text{gap} = d + \frac{d^2}{2\lambda}, \quad \text{value} = d + \frac{d^2}{4\lambda}
    """
    d, excess = distance, distance / (2 * penalty)
    return _CriticOptimum(1 + excess, d * (1 + excess), d * (1 + excess / 2))


def spurious_slope(distance: float, penalty: float) -> float | None:
    r"""The second optimum of the two-sided penalty on the line: :math:`-1 + d/2\lambda`.

    Of the wrong sign, stable for :math:`d < 2\lambda`; in more dimensions critics turn around it.
    """
    slope = -1 + distance / (2 * penalty)
    return slope if slope < 0 else None


def clipped_gap(difference: Tensor, limit: float) -> Tensor:
    r"""The gap of the best linear critic with :math:`|w_i| \le c`: :math:`c\,\|\Delta\|_1`.

    Its weights are :math:`c \operatorname{sign} \Delta`; not proportional to :math:`W_1`.
    """
    return limit * difference.abs().sum()
