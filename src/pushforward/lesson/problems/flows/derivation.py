"""The field that flow matching learns, and how it is related to DDPM's noise prediction.

Time is the lesson's here: noise at 0, data at 1, :math:`x_t = (1 - t) x_0 + t x_1`.
"""

import math

import sympy
import torch
from torch import Tensor

from ....theory import ddpm_schedule, densities, predictions
from ....theory.exact import dynamics
from ....theory.exact.targets import ExactDenoiser, lesson_mixture
from ....theory.paths import LinearPath
from ...claims import Number, double
from ...sections.recent.matching import MEAN, SCALE, gauss_hermite_pairs
from .. import DerivationStep

TARGET, LINEAR = lesson_mixture(), LinearPath()
T, S, M = sympy.symbols("t s m", positive=True)


def _simplified_value(what: str, expression: sympy.Expr) -> Number:
    """A difference that must simplify to nothing."""
    return Number(what, float(sympy.simplify(expression)), 0, 0)


def _check_loss_decomposition() -> list[Number]:
    """The loss of any field is that of the right one plus their distance."""
    x, eps, weight = gauss_hermite_pairs()
    t = torch.tensor(0.35, dtype=torch.float64)
    x_t, y = LINEAR.interpolate(x, eps, t), eps - x
    u = dynamics.gaussian_velocity(LINEAR, double(MEAN), SCALE, x_t, t)
    v = 0.3 * x_t - 0.2 + 0.1 * x_t.square()

    def mean(z: Tensor) -> float:
        return float((weight * z[:, 0]).sum())

    gap = mean((v - y).square()) - mean((u - y).square()) - mean((v - u).square())
    return [Number("loss of a quadratic field, less its two parts", gap, 0, 1e-10)]


def _check_gaussian_regression() -> list[Number]:
    """The regression of x1 - x0 on x_t, both normal."""
    covariance = T * S**2 - (1 - T)  # of x1 - x0 with (1 - t) x0 + t x1
    variance = (1 - T) ** 2 + T**2 * S**2
    x = sympy.symbols("x")
    u = M + covariance / variance * (x - T * M)
    at = {T: sympy.Rational(13, 20), S: sympy.Rational(3, 2), M: sympy.Rational(4, 5), x: 1}
    field = dynamics.gaussian_velocity(
        LINEAR, double(MEAN), SCALE, double(1.0)[:, None], double(0.35)
    )
    flow = T * M + sympy.sqrt(variance) * x  # where x0 = x is at t
    moved = sympy.diff(flow, T) - u.subs(x, flow)
    return [
        Number("formula less the library's field at a point", float(u.subs(at)) + float(field), 0,
               1e-12),
        _simplified_value("rate of the curve less the field on it", moved),
    ]  # fmt: skip


def _check_continuity_equation() -> list[Number]:
    r""":math:`\partial_t \log p_t + \nabla\cdot u + u\cdot\nabla\log p_t = 0` of the mixture."""
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)[:, None]
    t, h = torch.tensor(0.4, dtype=torch.float64), 1e-5
    field = ExactDenoiser(TARGET, LINEAR).velocity
    u, divergence = densities.exact_divergence(field, x, t)
    later, earlier = (TARGET.diffuse(*LINEAR(t + e)).log_prob(x) for e in (h, -h))
    score = TARGET.diffuse(*LINEAR(t)).score(x)
    left = (later - earlier) / (2 * h) + divergence + (u * score).sum(1)
    return [Number("largest residual on 25 points", float(left.detach().abs().max()), 0, 1e-7)]


def _check_loss_floor() -> list[Number]:
    """An antiderivative of the residual variance, and its ends."""
    residual = S**2 / ((1 - T) ** 2 + T**2 * S**2)
    inside = S * sympy.atan((T * (1 + S**2) - 1) / S)
    ends = (inside.subs(T, 1) - inside.subs(T, 0)).subs(S, sympy.Rational(3, 2))
    return [
        _simplified_value("derivative of the antiderivative, less the residual",
                         sympy.diff(inside, T) - residual),
        Number("its ends less the floor, s = 3/2", float(ends), dynamics.gaussian_floor(1.5),
               1e-12),
    ]  # fmt: skip


def _check_data_and_noise() -> list[Number]:
    x0, x1 = sympy.symbols("x_0 x_1")
    x_t, rate = (1 - T) * x0 + T * x1, x1 - x0
    return [
        _simplified_value("data point", x_t + (1 - T) * rate - x1),
        _simplified_value("noise", x_t - T * rate - x0),
    ]


def _check_noise_weight() -> list[Number]:
    """The noise's error is the velocity's times alpha, on the linear path of either loss."""
    t = double(0.35)  # the library's, so that alpha is the lesson's t, 0.65
    weight = predictions.noise_error_weight(predictions.velocity_prediction)(LINEAR, t)
    return [Number("weight of the velocity's squared error", float(weight), 0.65**2, 1e-12)]


def _check_ddpm_marginal() -> list[Number]:
    """DDPM's marginal by its recursion, at the end of a chain of a thousand."""
    table = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000))
    signal, variance = 1.0, 0.0
    for beta in table.betas.tolist():
        signal, variance = signal * math.sqrt(1 - beta), (1 - beta) * variance + beta
    alpha, sigma = (float(z) for z in table(double(1.0)))
    return [
        Number("signal after a thousand steps", alpha, signal, 1e-12),
        Number("deviation of the noise there", sigma, math.sqrt(variance), 1e-12),
    ]


FIELD = [
    DerivationStep(
        r"Draw noise $x_0 \sim \mathcal N(0, I)$, a data point $x_1$ and a time $t \sim U[0, 1]$ "
        r"independently. The pair moves on a line at a constant rate, which a network regresses.",
        r"x_t = (1 - t) x_0 + t x_1,\qquad L(v) = \mathbb E\,"
        r"\lVert v(x_t, t) - (x_1 - x_0) \rVert^2",
    ),
    DerivationStep(
        r"Add and subtract $u = \mathbb E[x_1 - x_0 \mid x_t]$ inside the norm. The cross term is "
        r"zero, because the mean of $x_1 - x_0 - u$ given $x_t$ is.",
        r"L(v) = \mathbb E\,\lVert v - u \rVert^2 + \mathbb E \operatorname{tr} "
        r"\operatorname{Var}[x_1 - x_0 \mid x_t]",
        _check_loss_decomposition,
    ),
    DerivationStep(
        r"The second term does not depend on $v$: it is the floor, and the minimiser is $u$. For "
        r"data $\mathcal N(m, s^2 I)$ everything is normal, and the conditional mean is linear.",
        r"u_t(x) = m + \frac{t s^2 - (1 - t)}{(1 - t)^2 + t^2 s^2}\,(x - t m)",
        _check_gaussian_regression,
    ),
    DerivationStep(
        r"For any smooth $\varphi$, $\frac{d}{dt} \mathbb E \varphi(x_t) = \mathbb "
        r"E\,\nabla\varphi(x_t) \cdot (x_1 - x_0) = \mathbb E\,\nabla\varphi(x_t) \cdot u_t(x_t)$ "
        r"by the tower rule. That is the continuity equation: the flow of $u$ has the distribution "
        r"of $x_t$ at every $t$, and carries noise to data, although it follows no pair.",
        r"\partial_t p_t + \nabla \cdot (p_t u_t) = 0",
        _check_continuity_equation,
    ),
    DerivationStep(
        r"The floor for normal data, an entry.",
        r"\int_0^1 \frac{s^2}{(1 - t)^2 + t^2 s^2}\,dt = s \Bigl[\arctan"
        r"\frac{t(1 + s^2) - 1}{s}\Bigr]_0^1 = \frac{\pi}{2} s",
        _check_loss_floor,
    ),
]
DIFFUSION = [
    DerivationStep(
        r"DDPM's chain has normal marginals as well, on another path: the products of its steps.",
        r"x_k = \sqrt{\bar\alpha_k}\,x + \sqrt{1 - \bar\alpha_k}\,\epsilon,\qquad "
        r"\bar\alpha_k = \prod_{j \le k} (1 - \beta_j)",
        _check_ddpm_marginal,
    ),
    DerivationStep(
        r"Its loss regresses the noise in place of the rate, so that by the same argument it finds "
        r"$\mathbb E[\epsilon \mid x_k]$. Given $x_t$, rate, data point and noise determine each "
        r"other.",
        r"x_1 = x_t + (1 - t)(x_1 - x_0),\qquad x_0 = x_t - t (x_1 - x_0)",
        _check_data_and_noise,
    ),
    DerivationStep(
        r"Conditional means obey the same equations. On one path the two losses differ by a weight "
        r"alone: an error of the velocity is $t$ times as large in the noise.",
        r"\lVert \epsilon_\theta - \mathbb E[\epsilon \mid x_t] \rVert^2 = t^2 "
        r"\lVert v_\theta - u_t \rVert^2",
        _check_noise_weight,
    ),
]
