"""The steps of problem 4, checked by SymPy, by quadrature, and on the lesson's table."""

import math

import sympy as sp
import torch

from ....theory import ddpm_schedule
from ....theory.exact import diffusion_bound, targets
from ...claims import Number, double
from ...sections.diffusion.forward import PATH, unscaled_betas

A, B, M, S, U, X = sp.symbols("alpha_t bar_alpha m s u x_0", positive=True)


def _simplify_to_zero(what: str, expression: sp.Expr) -> list[Number]:
    left = sp.simplify(expression)
    return [Number(f"{what}, simplified", 0.0 if left == 0 else math.nan, 0, 0)]


def check_first_step() -> list[Number]:
    betas = ddpm_schedule.linear_betas(1000)[:1]
    means, variances = diffusion_bound.moment_recursion(betas, 2.0, 0.0)
    alpha = 1 - float(betas[0])
    return [
        Number("mean of $x_1$ at $x_0 = 2$", float(means[1]), 2 * math.sqrt(alpha), 1e-14),
        Number("variance of $x_1$", float(variances[1]), 1 - alpha, 1e-14),
    ]


def check_mean_product() -> list[Number]:
    return _simplify_to_zero(
        "difference of the means", sp.sqrt(A) * sp.sqrt(B) * X - sp.sqrt(A * B) * X
    )


def check_variance_sum() -> list[Number]:
    return _simplify_to_zero("difference of the variances", A * (1 - B) + (1 - A) - (1 - A * B))


def check_characteristic_function() -> list[Number]:
    """Of a sum of independent normals: the product of their characteristic functions."""
    a, b = sp.symbols("a b", positive=True)
    first = sp.exp(sp.I * U * a * M - (a * S * U) ** 2 / 2)
    second = sp.exp(-((b * U) ** 2) / 2)
    whole = sp.exp(sp.I * U * a * M - (a**2 * S**2 + b**2) * U**2 / 2)
    return _simplify_to_zero("quotient less 1", sp.powsimp(first * second / whole) - 1)


def check_telescoping_sum() -> list[Number]:
    alphas = sp.symbols("alpha_1:6", positive=True)
    noise = sum((1 - alphas[s]) * sp.Mul(*alphas[s + 1 :]) for s in range(len(alphas)))
    return _simplify_to_zero("difference for five steps", sp.expand(noise - (1 - sp.Mul(*alphas))))


def check_whole_table() -> list[Number]:
    means, variances = diffusion_bound.moment_recursion(PATH.betas, 2.0, 0.0)
    alpha_bar = PATH.alpha_bar(torch.arange(1, 1001))
    gaps = (means[1:] - 2 * alpha_bar.sqrt()).abs(), (variances[1:] + alpha_bar - 1).abs()
    return [
        Number(f"largest error of the {what} over 1,000 steps", float(gap.max()), 0, 1e-12)
        for what, gap in zip(("mean", "variance"), gaps)
    ]


def check_gaussian_kl() -> list[Number]:
    """The divergence of two Gaussians, by algebra and by an integral."""
    mean, variance = sp.sqrt(B) * X, 1 - B
    general = (variance + mean**2 - 1 - sp.log(variance)) / 2
    exact = _simplify_to_zero("difference", general - (B * X**2 - B - sp.log(1 - B)) / 2)
    x = sp.symbols("x", real=True)
    point = {B: sp.Rational(3, 10), X: sp.Rational(3, 2)}
    m, v = mean.subs(point), variance.subs(point)
    density = sp.exp(-((x - m) ** 2) / (2 * v)) / sp.sqrt(2 * sp.pi * v)
    ratio = (x**2 - (x - m) ** 2 / v - sp.log(v)) / 2
    integral = float(sp.Integral(density * ratio, (x, -12, 12)).evalf())
    got = ddpm_schedule.terminal_kl(double(1.5)[:, None], 0.3)
    return [*exact, Number("an integral at $\\bar\\alpha = 0.3$, $x_0 = 1.5$", float(got), integral,
                           1e-9)]  # fmt: skip


def check_small_signal() -> list[Number]:
    kl = (B * X**2 - B - sp.log(1 - B)) / 2
    series = sp.series(kl, B, 0, 3).removeO()
    return _simplify_to_zero(
        "difference of the series", sp.expand(series - (B * X**2 / 2 + B**2 / 4))
    )


def check_kl_convexity() -> list[Number]:
    """One mixture against the mean over data."""
    mean, variance = diffusion_bound.moment_recursion(unscaled_betas(100), 1.0, 0.0)
    target = targets.lesson_mixture()
    marginal = diffusion_bound.divergence_from_noise(target.diffuse(mean[-1], variance[-1].sqrt()))
    alpha_bar = float(mean[-1]) ** 2
    each = target.expectation(lambda x: ddpm_schedule.terminal_kl(x, alpha_bar))
    return [Number("KL of $q(x_T)$, lesson's betas, $T = 100$, nats", marginal, each, 0, "<=")]


def check_product_bounds() -> list[Number]:
    numbers = []
    for T in (10, 100, 1000):
        betas = unscaled_betas(T)
        kept = 2 * math.log(float(diffusion_bound.moment_recursion(betas, 1.0, 0.0)[0][-1]))
        total, most = float(betas.sum()), float(betas.max())
        what = f"$\\log\\bar\\alpha_T$, $T = {T}$"
        numbers += [
            Number(what, kept, -total, 0, "<="),
            Number(what, kept, -total / (1 - most), 0, ">="),
        ]
    return numbers


def check_riemann_sum() -> list[Number]:
    """The integral and two of its sums, with the first correction in 1/T."""
    s = sp.symbols("s", positive=True)
    beta = sp.Rational(1, 10) + sp.Rational(199, 10) * s
    integral, squared = (float(sp.integrate(f, (s, 0, 1))) for f in (beta, beta**2))
    numbers = [Number("$\\int_0^1 \\beta(s)\\,ds$", integral, 10.05, 1e-12)]
    for T in (1000, 4000):
        kept = -2 * math.log(
            float(diffusion_bound.moment_recursion(continuous_betas(T), 1.0, 0.0)[0][-1])
        )
        what = f"$-\\log\\bar\\alpha_T$, $T = {T}$, against $\\int\\beta + \\int\\beta^2/2T$"
        numbers.append(Number(what, kept, integral + squared / (2 * T), 1000 / T**2))
    return numbers


def check_wallis_product() -> list[Number]:
    """The infinite product, and 4,000 of its factors."""
    k = sp.symbols("k", integer=True, positive=True)
    exact = sp.product(1 - 1 / (4 * k**2), (k, 1, sp.oo))
    T = 4000
    kept = float(diffusion_bound.moment_recursion(summable_betas(T), 1.0, 0.0)[0][-1]) ** 2
    return [
        Number("the infinite product, $2/\\pi$", float(sp.N(exact)), 2 / math.pi, 1e-12),
        Number("$\\bar\\alpha_T$, $T = 4000$", kept, 2 / math.pi * (1 + 1 / (4 * T)), 1e-6),
    ]


def check_harmonic_limit() -> list[Number]:
    k, T = sp.symbols("k T", integer=True, positive=True)
    exact = sp.simplify(sp.product(k / (k + 1), (k, 1, T)) - 1 / (T + 1))
    kept = float(diffusion_bound.moment_recursion(harmonic_betas(2000), 1.0, 0.0)[0][-1]) ** 2
    return [
        Number("the product less $1/(T+1)$", float(exact), 0, 0),
        Number("$\\bar\\alpha_T$, $T = 2000$", kept, 1 / 2001, 1e-12),
    ]


def continuous_betas(steps: int) -> torch.Tensor:
    """A continuous schedule in T steps: the sum of beta tends to an integral."""
    k = torch.arange(1, steps + 1, dtype=torch.float64)
    return (0.1 + 19.9 * (k - 0.5) / steps) / steps


def summable_betas(steps: int) -> torch.Tensor:
    """Betas whose sum converges."""
    return 1 / (4 * torch.arange(1, steps + 1, dtype=torch.float64) ** 2)


def harmonic_betas(steps: int) -> torch.Tensor:
    """Betas that tend to 0 and whose sum does not converge."""
    return 1 / (torch.arange(1, steps + 1, dtype=torch.float64) + 1)
