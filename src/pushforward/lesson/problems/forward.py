"""Practice problem 4: the forward process."""

import math

import numpy as np
import sympy as sp
import torch
from matplotlib.figure import Figure

from ...report.style import DASHES, DENSITY, INK, LINES, MARKS, QUIET, whole
from ...theory import forward, tables, targets
from ..claims import Number, double
from ..sections.diffusion.figures import TIMES, forward_process, panels
from ..sections.diffusion.forward import PATH, at_the_end, unscaled
from . import Experiment, Part, Problem, Step

A, B, M, S, U, X = sp.symbols("alpha_t bar_alpha m s u x_0", positive=True)


def zero(what: str, expression: sp.Expr) -> list[Number]:
    """A difference that SymPy simplifies to 0."""
    left = sp.simplify(expression)
    return [Number(f"{what}, simplified", 0.0 if left == 0 else math.nan, 0, 0)]


def one_step() -> list[Number]:
    betas = tables.linear_betas(1000)[:1]
    means, variances = forward.recursion(betas, 2.0, 0.0)
    alpha = 1 - float(betas[0])
    return [
        Number("mean of $x_1$ at $x_0 = 2$", float(means[1]), 2 * math.sqrt(alpha), 1e-14),
        Number("variance of $x_1$", float(variances[1]), 1 - alpha, 1e-14),
    ]


def mean_step() -> list[Number]:
    return zero("difference of the means", sp.sqrt(A) * sp.sqrt(B) * X - sp.sqrt(A * B) * X)


def variance_step() -> list[Number]:
    return zero("difference of the variances", A * (1 - B) + (1 - A) - (1 - A * B))


def characteristic() -> list[Number]:
    """Of a sum of independent normals: the product of their characteristic functions."""
    a, b = sp.symbols("a b", positive=True)
    first = sp.exp(sp.I * U * a * M - (a * S * U) ** 2 / 2)
    second = sp.exp(-((b * U) ** 2) / 2)
    whole_law = sp.exp(sp.I * U * a * M - (a**2 * S**2 + b**2) * U**2 / 2)
    return zero("quotient less 1", sp.powsimp(first * second / whole_law) - 1)


def telescope() -> list[Number]:
    alphas = sp.symbols("alpha_1:6", positive=True)
    noise = sum(
        (1 - alphas[s]) * sp.Mul(*alphas[s + 1 :]) for s in range(len(alphas))
    )
    return zero("difference for five steps", sp.expand(noise - (1 - sp.Mul(*alphas))))


def whole_table() -> list[Number]:
    means, variances = forward.recursion(PATH.betas, 2.0, 0.0)
    alpha_bar = PATH.alpha_bar(torch.arange(1, 1001))
    gaps = (means[1:] - 2 * alpha_bar.sqrt()).abs(), (variances[1:] + alpha_bar - 1).abs()
    return [
        Number(f"largest error of the {what} over 1,000 steps", float(gap.max()), 0, 1e-12)
        for what, gap in zip(("mean", "variance"), gaps)
    ]


def divergence() -> list[Number]:
    mean, variance = sp.sqrt(B) * X, 1 - B
    general = (variance + mean**2 - 1 - sp.log(variance)) / 2
    exact = zero("difference", general - (B * X**2 - B - sp.log(1 - B)) / 2)
    x = sp.symbols("x", real=True)
    point = {B: sp.Rational(3, 10), X: sp.Rational(3, 2)}
    m, v = mean.subs(point), variance.subs(point)
    density = sp.exp(-((x - m) ** 2) / (2 * v)) / sp.sqrt(2 * sp.pi * v)
    ratio = (x**2 - (x - m) ** 2 / v - sp.log(v)) / 2
    integral = float(sp.Integral(density * ratio, (x, -12, 12)).evalf())
    got = forward.terminal_kl(double(1.5)[:, None], 0.3)
    return [*exact, Number("the integral at $\\bar\\alpha = 0.3$, $x_0 = 1.5$", float(got), integral,
                           1e-9)]  # fmt: skip


def small_signal() -> list[Number]:
    kl = (B * X**2 - B - sp.log(1 - B)) / 2
    series = sp.series(kl, B, 0, 3).removeO()
    return zero("difference of the series", sp.expand(series - (B * X**2 / 2 + B**2 / 4)))


def convexity() -> list[Number]:
    mean, variance = forward.recursion(unscaled(100), 1.0, 0.0)
    law = targets.lesson_mixture()
    marginal = forward.divergence_from_noise(law.diffused(mean[-1], variance[-1].sqrt()))
    alpha_bar = float(mean[-1]) ** 2
    each = law.expectation(lambda x: forward.terminal_kl(x, alpha_bar))
    return [Number("KL of $q(x_T)$, lesson's betas, $T = 100$, nats", marginal, each, 0, "<=")]


def product_bounds() -> list[Number]:
    numbers = []
    for T in (10, 100, 1000):
        betas = unscaled(T)
        kept = 2 * math.log(float(forward.recursion(betas, 1.0, 0.0)[0][-1]))
        total, most = float(betas.sum()), float(betas.max())
        what = f"$\\log\\bar\\alpha_T$, $T = {T}$"
        numbers += [
            Number(what, kept, -total, 0, "<="),
            Number(what, kept, -total / (1 - most), 0, ">="),
        ]
    return numbers


def riemann() -> list[Number]:
    s = sp.symbols("s", positive=True)
    ends = sp.Rational(1, 10), sp.Integer(20)
    integral = float(sp.integrate(ends[0] + (ends[1] - ends[0]) * s, (s, 0, 1)))
    numbers = [Number("$\\int_0^1 \\beta(s)\\,ds$", integral, 10.05, 1e-12)]
    for T in (1000, 4000):
        kept = -2 * math.log(float(forward.recursion(flow(T), 1.0, 0.0)[0][-1]))
        numbers.append(Number(f"$-\\log\\bar\\alpha_T$, $T = {T}$", kept, integral, 100 / T))
    return numbers


def wallis() -> list[Number]:
    k = sp.symbols("k", integer=True, positive=True)
    exact = sp.product(1 - 1 / (4 * k**2), (k, 1, sp.oo))
    T = 4000
    kept = float(forward.recursion(square(T), 1.0, 0.0)[0][-1]) ** 2
    return [
        Number("the infinite product, $2/\\pi$", float(sp.N(exact)), 2 / math.pi, 1e-12),
        Number("$\\bar\\alpha_T$, $T = 4000$", kept, 2 / math.pi * (1 + 1 / (4 * T)), 1e-6),
    ]


def harmonic_end() -> list[Number]:
    k, T = sp.symbols("k T", integer=True, positive=True)
    exact = sp.simplify(sp.product(k / (k + 1), (k, 1, T)) - 1 / (T + 1))
    kept = float(forward.recursion(harmonic(2000), 1.0, 0.0)[0][-1]) ** 2
    return [
        Number("the product less $1/(T+1)$", float(exact), 0, 0),
        Number("$\\bar\\alpha_T$, $T = 2000$", kept, 1 / 2001, 1e-12),
    ]


def flow(steps: int) -> torch.Tensor:
    """A continuous schedule in T steps: the sum of beta tends to an integral."""
    k = torch.arange(1, steps + 1, dtype=torch.float64)
    return (0.1 + 19.9 * (k - 0.5) / steps) / steps


def square(steps: int) -> torch.Tensor:
    """Betas whose sum converges."""
    return 1 / (4 * torch.arange(1, steps + 1, dtype=torch.float64) ** 2)


def harmonic(steps: int) -> torch.Tensor:
    """Betas that tend to 0 and whose sum does not converge."""
    return 1 / (torch.arange(1, steps + 1, dtype=torch.float64) + 1)


def visualise() -> Experiment:
    n, law = 20_000, targets.lesson_mixture()
    torch.manual_seed(0)
    x = law.sample(n).double()
    states = [x, *forward.chain(x, PATH.betas)]
    means, variances = forward.recursion(PATH.betas, float(law.mean), float(law.covariance))
    numbers, from_noise = [], {}
    for k in TIMES:
        noisy = law.diffused(*PATH(double(k / 1000)[0]))
        from_noise[k] = forward.divergence_from_noise(noisy)
        square = (states[k] - means[k]).square()
        numbers += [
            Number(f"mean of the draws, $t = {k}$", float(states[k].mean()), float(means[k]),
                   5 * math.sqrt(float(variances[k]) / n)),
            Number(f"variance of the draws, $t = {k}$", float(square.mean()), float(variances[k]),
                   5 * float(square.std()) / math.sqrt(n)),
        ]  # fmt: skip
    halves = {k: states[k] for k in TIMES}
    left = {k: float((halves[k] < 0).double().mean()) for k in TIMES}
    kept = {k: float(means[k] / means[0]) for k in TIMES}
    discussion = [
        f"We draw {n:,} data from the lesson's mixture, take 1,000 steps of the chain one after the "
        "other, and draw over the histograms the density that P4.1 predicts: that of "
        "$\\sum_i w_i\\,\\mathcal N(\\sqrt{\\bar\\alpha_t}\\,m_i, \\bar\\alpha_t s_i^2 + 1 - "
        "\\bar\\alpha_t)$, with no fit. Means and variances agree within five standard errors at "
        "each of the five times.",
        f"Half-way through, at $t = 500$, {kept[500]:.2f} of the signal is left: the two modes have "
        f"merged (at $t = 250$, with {kept[250]:.2f}, they had not), and the law is "
        f"{from_noise[500]:.4f} nats from noise, against {from_noise[0]:.3f} at the start and "
        f"{from_noise[250]:.3f} at $t = 250$. At $t = 750$ it is {from_noise[750]:.1e}, at $t = 1000$ "
        f"{from_noise[1000]:.1e}. The last quarter of the steps does little: the linear schedule "
        "spends it on what is noise already, which is why the cosine schedule was proposed.",
        f"The part of the mass left of 0 goes from {left[0]:.3f} to {left[1000]:.3f}: fresh "
        "noise forgets from which mode a datum came.",
    ]
    figures = {"forward_process": forward_process(), "density_in_time": density_in_time(states)}
    return Experiment(discussion, numbers, figures)


def density_in_time(states: list[torch.Tensor]) -> Figure:
    """The density of x_t (shade, each column scaled to its largest value) and eight chains."""
    law, grid = targets.lesson_mixture(), torch.linspace(-4, 4, 200, dtype=torch.float64)
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    columns = [law.diffused(*PATH(t)).log_prob(grid[:, None]).exp() for t in times]
    density = torch.stack([c / c.max() for c in columns], dim=1)
    figure, (axes,) = panels(1, 2.4)
    axes.pcolormesh(1000 * times, grid, density, cmap=DENSITY, rasterized=True, shading="gouraud")
    paths = torch.stack([s[:8, 0] for s in states])
    axes.plot(paths, color=INK, lw=0.5, alpha=0.7)
    axes.set(xlabel="t", ylabel="x", xlim=(0, 1000), ylim=(-4, 4))
    return figure


def end_of_long_chains() -> Experiment:
    lengths = (30, 100, 300, 1000, 3000)
    kinds = {
        "the lesson's, unscaled": unscaled,
        "β(t/T) / T": flow,
        "1 / 4t²": square,
        "1 / (t + 1)": harmonic,
    }
    found = {name: [at_the_end(betas(T)) for T in lengths] for name, betas in kinds.items()}
    lesson, scaled, finite, slow = found.values()
    one = float(forward.terminal_kl(double(1.0)[:, None], math.exp(-10.05)))
    what = "KL of $q(x_T)$ from noise in nats"
    numbers = [
        Number(f"{what}, $\\beta_t = \\beta(t/T)/T$: $T = 3000$ and 1000", scaled[4], scaled[3],
               0.1 * scaled[3]),
        Number(f"{what}, $\\beta_t = 1/4t^2$: $T = 3000$ and 1000", finite[4], finite[3],
               0.01 * finite[3]),
        Number(f"{what}, $\\beta_t = 1/(t+1)$, $T = 3000$ against 1000: it keeps falling", slow[4],
               0.5 * slow[3], 0, "<="),
    ]  # fmt: skip
    discussion = [
        "The divergence of $q(x_T)$ from noise, for the lesson's mixture, against the length of the "
        "chain and for four schedules.",
        f"*The lesson's betas*, the same ends for every $T$: $\\sum_t \\beta_t \\approx T/100$ grows "
        f"without bound, and the divergence falls from {lesson[1]:.3f} nats at $T = 100$ to "
        f"{lesson[3]:.1e} at $T = 1000$ (and below what quadrature resolves at 3,000). But short "
        f"chains with these betas do not end in noise at all: {lesson[0]:.2f} nats at $T = 30$.",
        "*A continuous schedule in ever smaller steps*, which is what $T \\to \\infty$ means for a "
        f"diffusion: the sum tends to $\\int\\beta = 10.05$, and the divergence to a constant, "
        f"{scaled[4]:.2e} nats ({scaled[3]:.2e} at $T = 1000$), with {one:.2e} for a datum at 1. It "
        "is small because 10.05 is large, and no number of steps makes it smaller.",
        f"*A summable schedule*, $1/4t^2$: the divergence stays at {finite[4]:.2f} nats, because "
        "$2/\\pi$ of the variance of the signal never goes. The statement of the problem is false "
        "here.",
        f"*A schedule that tends to 0 but cannot be summed*, $1/(t+1)$: {slow[1]:.1e}, {slow[3]:.1e} "
        f"and {slow[4]:.1e} nats at $T = 100$, 1,000 and 3,000. So the hypothesis is about the sum: "
        "$x_T \\to \\mathcal N(0, I)$ exactly if $\\sum_t \\beta_t \\to \\infty$.",
    ]
    return Experiment(discussion, numbers, {"long_chains": long_chains(lengths, found)})


def long_chains(lengths: tuple[int, ...], found: dict[str, list[float]]) -> Figure:
    """Nats of the law of x_T from noise against the number of steps, for four schedules."""
    figure, (axes,) = panels(1, 2.4)
    for i, (name, values) in enumerate(found.items()):
        seen = [v if v > 1e-9 else np.nan for v in values]
        axes.plot(lengths, seen, MARKS[i], color=LINES[(0, 5, 2, 6)[i]], ls=DASHES[i], label=name)
    axes.axhline(5e-3, color=QUIET, lw=0.6)
    axes.annotate("what our tables allow", (30, 5e-3), (0, 3), textcoords="offset points",
                  color=QUIET)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="steps T", ylabel="nats from noise", ylim=(1e-8, 5))
    axes.xaxis.set_major_formatter(whole)
    axes.yaxis.set_major_formatter(whole)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="betas")
    return figure


DERIVATION = [
    Step(
        "One step of the chain, with $\\alpha_t = 1 - \\beta_t$ and $z_t \\sim \\mathcal N(0, I)$ "
        "independent of everything before. For $t = 1$ it is the claim, since "
        "$\\bar\\alpha_1 = \\alpha_1$.",
        "x_t = \\sqrt{\\alpha_t}\\,x_{t-1} + \\sqrt{1-\\alpha_t}\\,z_t",
        one_step,
    ),
    Step(
        "Suppose that the claim holds for $t - 1$: for some $\\bar\\varepsilon \\sim \\mathcal N(0, I)$, "
        "independent of $x_0$ and a function of $z_1, \\dots, z_{t-1}$ alone,",
        "x_{t-1} = \\sqrt{\\bar\\alpha_{t-1}}\\,x_0 + \\sqrt{1-\\bar\\alpha_{t-1}}\\,\\bar\\varepsilon",
    ),
    Step(
        "Insert it into the step.",
        "x_t = \\sqrt{\\alpha_t\\bar\\alpha_{t-1}}\\,x_0 + "
        "\\sqrt{\\alpha_t(1-\\bar\\alpha_{t-1})}\\,\\bar\\varepsilon + \\sqrt{1-\\alpha_t}\\,z_t",
    ),
    Step(
        "The coefficient of $x_0$ is $\\sqrt{\\bar\\alpha_t}$, by the definition of "
        "$\\bar\\alpha_t = \\alpha_t\\bar\\alpha_{t-1}$.",
        "\\mathbb E[x_t | x_0] = \\sqrt{\\bar\\alpha_t}\\,x_0",
        mean_step,
    ),
    Step(
        "$\\bar\\varepsilon$ and $z_t$ are independent, because $\\bar\\varepsilon$ depends on earlier "
        "noise only. A sum of independent Gaussians is Gaussian: characteristic functions multiply.",
        "e^{i u a m - a^2 s^2 u^2/2}\\;e^{-b^2 u^2/2} = e^{i u a m - (a^2 s^2 + b^2) u^2/2}",
        characteristic,
    ),
    Step(
        "So variances add.",
        "\\alpha_t(1-\\bar\\alpha_{t-1}) + (1-\\alpha_t) = 1 - \\alpha_t\\bar\\alpha_{t-1} "
        "= 1 - \\bar\\alpha_t",
        variance_step,
    ),
    Step(
        "That is the claim for $t$, which closes the induction. In each entry the noise is "
        "independent, so the covariance is a multiple of $I$.",
        "q(x_t | x_0) = \\mathcal N(\\sqrt{\\bar\\alpha_t}\\,x_0, (1-\\bar\\alpha_t) I)",
        whole_table,
    ),
    Step(
        "The same without induction: unrolled, each noise is shrunk by the steps after it, and the "
        "variances telescope.",
        "\\sum_{s=1}^t (1-\\alpha_s)\\prod_{r=s+1}^t \\alpha_r = 1 - \\prod_{s=1}^t \\alpha_s",
        telescope,
    ),
]
LIMIT = [
    Step(
        "How far the end is from noise, for one datum in one dimension: the divergence between two "
        "Gaussians with the moments of P4.1.",
        "\\mathrm{KL}(q(x_T | x_0) \\| \\mathcal N(0, 1)) = \\tfrac12\\big(\\bar\\alpha_T x_0^2 - "
        "\\bar\\alpha_T - \\log(1-\\bar\\alpha_T)\\big)",
        divergence,
    ),
    Step(
        "For little signal it is half the signal's energy. It is 0 only at $\\bar\\alpha_T = 0$, so "
        "it tends to 0 exactly if $\\bar\\alpha_T$ does.",
        "= \\tfrac12\\bar\\alpha_T x_0^2 + \\tfrac14\\bar\\alpha_T^2 + O(\\bar\\alpha_T^3)",
        small_signal,
    ),
    Step(
        "The divergence is convex, so that the law of all data is at least as close.",
        "\\mathrm{KL}(q(x_T) \\| \\mathcal N) \\le "
        "\\mathbb E_{x_0}\\mathrm{KL}(q(x_T | x_0) \\| \\mathcal N)",
        convexity,
    ),
    Step(
        "When does $\\bar\\alpha_T = \\prod_t(1-\\beta_t)$ tend to 0? Because "
        "$-\\beta/(1-\\beta) \\le \\log(1-\\beta) \\le -\\beta$, exactly if the sum of all $\\beta_t$ is "
        "infinite (if $\\beta_t \\to 1$ for some of them, all the more).",
        "-\\frac{1}{1-\\max\\beta}\\sum_t\\beta_t \\le \\log\\bar\\alpha_T \\le -\\sum_t\\beta_t",
        product_bounds,
    ),
    Step(
        "So $T \\to \\infty$ alone is not enough. With smaller steps of one continuous schedule the "
        "sum tends to an integral, and $\\bar\\alpha_T$ to a positive number.",
        "\\beta_t = \\frac1T\\,\\beta\\Big(\\frac tT\\Big): \\qquad "
        "\\bar\\alpha_T \\to e^{-\\int_0^1\\beta(s)\\,ds} = e^{-10.05}",
        riemann,
    ),
    Step(
        "A schedule with a finite sum keeps most of the signal for ever.",
        "\\beta_t = \\frac1{4t^2}: \\qquad \\prod_{t=1}^\\infty\\Big(1-\\frac1{4t^2}\\Big) = \\frac2\\pi",
        wallis,
    ),
    Step(
        "Betas may tend to 0, as long as their sum is infinite.",
        "\\beta_t = \\frac1{t+1}: \\qquad \\bar\\alpha_T = \\prod_{t=1}^T\\frac t{t+1} = \\frac1{T+1} "
        "\\to 0",
        harmonic_end,
    ),
    Step(
        "The right statement, then: $x_T$ tends to $\\mathcal N(0, I)$ for every datum if and only if",
        "\\sum_{t=1}^\\infty \\beta_t = \\infty",
    ),
]
PROBLEM = Problem(
    title="The forward process",
    parts=[
        Part("Derive $q(x_t | x_0)$ from the recursion.", DERIVATION),
        Part("Show the law of $x_t$ for data on the line at several $t$.", [], visualise),
        Part("Show that $x_T$ tends to $\\mathcal N(0, I)$, and when.", LIMIT, end_of_long_chains),
    ],
)
