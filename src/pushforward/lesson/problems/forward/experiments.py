"""The experiments of problem 4."""

import math

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ....plots.style import DASHES, DENSITY, INK, LINES, MARKS, QUIET, format_log_tick
from ....rng import seeded_rng
from ....theory import ddpm_schedule
from ....theory.exact import diffusion_bound, targets
from ...cases import sample_mean
from ...claims import Number, double
from ...panels import create_panels
from ...sections.diffusion.figures import TIMES, draw_forward_process
from ...sections.diffusion.forward import PATH, mixture_terminal_kl, unscaled_betas
from .. import ExperimentResult
from .identities import continuous_betas, harmonic_betas, summable_betas

DRAWS = 20_000


def _compare_moments(k: int, x: Tensor, mean: float, variance: float) -> list[Number]:
    return [
        Number(f"mean of the draws, $t = {k}$", float(x.mean()), mean,
               5 * math.sqrt(variance / len(x))),
        sample_mean(f"variance of the draws, $t = {k}$", (x - mean).square(), variance),
    ]  # fmt: skip


def run_forward_process() -> ExperimentResult:
    target = targets.lesson_mixture()
    with seeded_rng(0):
        x = target.sample(DRAWS).double()
        states = [x, *diffusion_bound.forward_chain(x, PATH.betas)]
    means, variances = diffusion_bound.moment_recursion(
        PATH.betas, float(target.mean), float(target.covariance)
    )
    numbers, from_noise = [], {}
    for k in TIMES:
        noisy = target.diffuse(*PATH(double(k / 1000)[0]))
        from_noise[k] = diffusion_bound.divergence_from_noise(noisy)
        numbers += _compare_moments(k, states[k], float(means[k]), float(variances[k]))
    left = {k: float((states[k] < 0).double().mean()) for k in TIMES}
    kept = {k: float(means[k] / means[0]) for k in TIMES}
    discussion = [
        f"We draw {DRAWS:,} data from the lesson's mixture, take 1,000 steps of the chain one "
        "after the other, and draw over the histograms the density that P4.1 predicts: that of "
        "$\\sum_i w_i\\,\\mathcal N(\\sqrt{\\bar\\alpha_t}\\,m_i, \\bar\\alpha_t s_i^2 + 1 - "
        "\\bar\\alpha_t)$, with no fit. Means and variances agree within five standard errors at "
        "each of the five times.",
        f"Half-way through, at $t = 500$, {kept[500]:.2f} of the signal is left: the two modes "
        f"have merged (at $t = 250$, with {kept[250]:.2f}, they had not), and the distribution is "
        f"{from_noise[500]:.4f} nats from noise, against {from_noise[0]:.3f} at the start and "
        f"{from_noise[250]:.3f} at $t = 250$. At $t = 750$ it is {from_noise[750]:.1e}, at $t = "
        f"1000$ {from_noise[1000]:.1e}. The last quarter of the steps does little: the linear "
        "schedule spends it on what is noise already, which is why the cosine schedule was "
        "proposed.",
        f"The part of the mass left of 0 goes from {left[0]:.3f} to {left[1000]:.3f}: fresh "
        "noise forgets from which mode a data point came.",
    ]
    figures = {
        "forward_process": draw_forward_process(),
        "density_in_time": _draw_density_in_time(states),
    }
    return ExperimentResult(discussion, numbers, figures)


def _draw_density_in_time(states: list[Tensor]) -> Figure:
    """The density of x_t (shade, each column scaled to its largest value) and eight chains."""
    target, grid = targets.lesson_mixture(), torch.linspace(-4, 4, 200, dtype=torch.float64)
    times = torch.linspace(0, 1, 101, dtype=torch.float64)
    columns = [target.diffuse(*PATH(t)).log_prob(grid[:, None]).exp() for t in times]
    density = torch.stack([c / c.max() for c in columns], dim=1)
    figure, (axes,) = create_panels(1, 2.4)
    axes.pcolormesh(1000 * times, grid, density, cmap=DENSITY, rasterized=True, shading="gouraud")
    rows = states[0].flatten().argsort()[torch.linspace(600, 19_400, 8).long()]
    paths = torch.stack([s[rows, 0] for s in states])
    axes.plot(paths, color=INK, lw=0.5, alpha=0.7)
    axes.set(xlabel="t", ylabel="x", xlim=(0, 1000), ylim=(-4, 4))
    return figure


def run_long_chains() -> ExperimentResult:
    lengths = (30, 100, 300, 1000, 3000)
    kinds = {
        "the lesson's, unscaled": unscaled_betas,
        "β(t/T) / T": continuous_betas,
        "1 / 4t²": summable_betas,
        "1 / (t + 1)": harmonic_betas,
    }
    found = {
        name: [mixture_terminal_kl(betas(T)) for T in lengths] for name, betas in kinds.items()
    }
    _, scaled, finite, slow = found.values()
    one = float(ddpm_schedule.terminal_kl(double(1.0)[:, None], math.exp(-10.05)))
    what = "KL of $q(x_T)$ from noise in nats"
    numbers = [
        Number(f"{what}, $\\beta_t = \\beta(t/T)/T$: $T = 3000$ and 1000", scaled[4], scaled[3],
               0.1 * scaled[3]),
        Number(f"{what}, $\\beta_t = 1/4t^2$: $T = 3000$ and 1000", finite[4], finite[3],
               0.01 * finite[3]),
        Number(f"{what}, $\\beta_t = 1/(t+1)$, $T = 3000$ against 1000: it keeps falling", slow[4],
               0.5 * slow[3], 0, "<="),
    ]  # fmt: skip
    discussion = _describe_long_chains(found, one)
    return ExperimentResult(discussion, numbers, {"long_chains": _draw_long_chains(lengths, found)})


def _describe_long_chains(found: dict[str, list[float]], one: float) -> list[str]:
    lesson, scaled, finite, slow = found.values()
    return [
        "The divergence of $q(x_T)$ from noise, for the lesson's mixture, against the length of "
        "the chain and for four schedules.",
        f"The lesson's betas, the same ends for every $T$: $\\sum_t \\beta_t \\approx T/100$ grows "
        f"without bound, and the divergence falls from {lesson[1]:.3f} nats at $T = 100$ to "
        f"{lesson[3]:.1e} at $T = 1000$ (and below what quadrature resolves at 3,000). But short "
        f"chains with these betas do not end in noise at all: {lesson[0]:.2f} nats at $T = 30$.",
        "A continuous schedule in ever smaller steps, which is what $T \\to \\infty$ means for a "
        "diffusion: the sum tends to $\\int\\beta = 10.05$, and the divergence to a constant, "
        f"{scaled[4]:.2e} nats ({scaled[3]:.2e} at $T = 1000$), with {one:.2e} for a data point at "
        "1. It is small because 10.05 is large, and no number of steps makes it smaller.",
        f"A summable schedule, $1/4t^2$: the divergence stays at {finite[4]:.2f} nats, because "
        "$2/\\pi$ of the variance of the signal never goes. The statement of the problem is false "
        "here.",
        f"A schedule that tends to 0 but cannot be summed, $1/(t+1)$: {slow[1]:.1e}, {slow[3]:.1e} "
        f"and {slow[4]:.1e} nats at $T = 100$, 1,000 and 3,000. So the hypothesis is about the "
        "sum: $x_T \\to \\mathcal N(0, I)$ exactly if $\\sum_t \\beta_t \\to \\infty$.",
    ]


def _draw_long_chains(lengths: tuple[int, ...], found: dict[str, list[float]]) -> Figure:
    """Nats of x_T from noise against the number of steps, for four schedules."""
    figure, (axes,) = create_panels(1, 2.4)
    for i, (name, values) in enumerate(found.items()):
        shown = [v if v > 1e-9 else np.nan for v in values]
        axes.plot(lengths, shown, MARKS[i], color=LINES[(0, 5, 2, 6)[i]], ls=DASHES[i], label=name)
    axes.axhline(5e-3, color=QUIET, lw=0.6)
    axes.annotate("what our tables allow", (3000, 5e-3), (0, 3), textcoords="offset points",
                  color=QUIET, ha="right")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="steps T", ylabel="nats from noise", ylim=(1e-8, 5))
    axes.xaxis.set_major_formatter(format_log_tick)
    axes.yaxis.set_major_formatter(format_log_tick)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="betas")
    return figure
