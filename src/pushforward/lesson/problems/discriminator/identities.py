"""The steps of the proof, by SymPy and by quadrature."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ....theory.exact import discriminator, divergences, targets
from ...claims import Number


def _prove_vanishing(what: str, difference: Any) -> Number:
    """A number that is 0 if SymPy can show that an expression is, and 1 if it cannot."""
    import sympy

    return Number(what, 0.0 if sympy.simplify(difference) == 0 else 1.0, 0)


@cache
def _density_symbols() -> tuple[Any, Any, Any]:
    """The densities p and q at one point, and D there, all positive."""
    import sympy

    return sympy.symbols("p q D", positive=True)


def _game_integrand() -> Any:
    import sympy

    p, q, D = _density_symbols()
    return p * sympy.log(D) + q * sympy.log(1 - D)


def mixture_and_gaussian() -> tuple[Tensor, Tensor, float]:
    """Log-densities of the lesson's mixture and of the Gaussian of its moments, and the weight."""
    data = targets.lesson_mixture()
    samples = targets.Gaussian(data.mean, data.covariance)
    x, weight = divergences.trapezoidal_grid([-20.0], [22.0], 6001)
    return data.log_prob(x), samples.log_prob(x), weight


def check_stationary_point() -> list[Number]:
    """The derivative, and its only zero."""
    import sympy

    p, q, D = _density_symbols()
    slope = sympy.diff(_game_integrand(), D)
    zeros = sympy.solve(slope, D)
    return [
        _prove_vanishing("derivative", slope - (p / D - q / (1 - D))),
        Number("zeros", len(zeros), 1),
        _prove_vanishing("the zero", zeros[0] - p / (p + q)),
    ]


def check_concavity() -> list[Number]:
    """The second derivative, anywhere and at the zero."""
    import sympy

    p, q, D = _density_symbols()
    second = sympy.diff(_game_integrand(), D, 2)
    at_zero = second.subs(D, p / (p + q))
    return [
        _prove_vanishing("second derivative", second + p / D**2 + q / (1 - D) ** 2),
        _prove_vanishing("the same at the zero", at_zero + (p + q) ** 3 / (p * q)),
    ]


def check_bernoulli_kl() -> list[Number]:
    import sympy

    p, q, D = _density_symbols()
    best, rest = p / (p + q), q / (p + q)
    lost = p * sympy.log(best) + q * sympy.log(rest) - _game_integrand()
    bernoulli = best * sympy.log(best / D) + rest * sympy.log(rest / (1 - D))
    return [
        _prove_vanishing("the identity", sympy.expand_log(lost - (p + q) * bernoulli, force=True))
    ]


def check_regret() -> list[Number]:
    """The same integrated, for a discriminator that wobbles about the best."""
    log_p, log_q, weight = mixture_and_gaussian()
    best = discriminator.optimal_logit(log_p, log_q)
    other = best.clamp(-5, 5) + 0.5
    lost = discriminator.expected_game_value(log_p, log_q, best, weight)
    lost = lost - discriminator.expected_game_value(log_p, log_q, other, weight)
    found = discriminator.discriminator_regret(log_p, log_q, other, weight)
    return [
        Number("$V(D^*) - V(D)$ less the integral, nats", float(lost - found), 0, 1e-10),
        Number("the integral, nats", float(found), 0, 0, ">="),
    ]


def check_disjoint_supports() -> list[Number]:
    """Two uniform distributions with a gap between: points where neither has mass."""
    log_p, log_q = (
        torch.tensor(v, dtype=torch.float64).log() for v in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    )
    far = torch.tensor([40.0, 0.0, -40.0], dtype=torch.float64)
    values = [
        float(discriminator.expected_game_value(log_p, log_q, far + far.new_tensor([0, f, 0]), 1.0))
        for f in (-5.0, 5.0)
    ]
    return [
        Number("change of $V$ with $D$ between the distributions", values[1] - values[0], 0, 1e-15),
        Number("$V$ as $D \\to 1$ and $0$ on the distributions: its supremum", values[0], 0, 1e-15),
    ]


def check_value_integrand() -> list[Number]:
    """The integrand at D* against the integrands of both KL divergences."""
    import sympy

    p, q, D = _density_symbols()
    m = (p + q) / 2
    right = p * sympy.log(p / m) + q * sympy.log(q / m) - (p + q) * sympy.log(2)
    difference = sympy.expand_log(_game_integrand().subs(D, p / (p + q)) - right, force=True)
    left = sympy.expand_log(sympy.simplify(difference), force=True)
    return [_prove_vanishing("the integrands", left)]


def check_integrated_value() -> list[Number]:
    """C(G) of two densities, neither a closed form of the other."""
    log_p, log_q, weight = mixture_and_gaussian()
    best = discriminator.optimal_logit(log_p, log_q)
    found = float(discriminator.expected_game_value(log_p, log_q, best, weight))
    js = float(divergences.jensen_shannon(log_p, log_q, weight))
    same = discriminator.expected_game_value(log_p, log_p, torch.zeros_like(log_p), weight)
    return [
        Number("$C(G)$, nats", found, 2 * js - math.log(4), 1e-10),
        Number("$C(G)$ where $q = p$, nats", float(same), -math.log(4), 1e-10),
        Number("JS of the lesson's mixture and the Gaussian of its moments, nats", js, 0, 0, ">="),
    ]
