"""Figures of section 5."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ....plots.style import DASHES, DENSITY, FILL, INK, LINES, MARKS, QUIET, format_log_tick
from ....rng import seeded_rng
from ....theory import ddpm_schedule, langevin, ode, paths, predictions
from ....theory.exact import diffusion_bound, dynamics, targets
from ...cases import gaussian_1d
from ...claims import double
from ...panels import create_panels
from .forward import PATH
from .langevin import ula_variance

TIMES = (0, 250, 500, 750, 1000)


def _draw_density_histogram(
    axes: Axes, x: Tensor, target: targets.GaussianMixture, half: float = 4.5
) -> None:
    grid = torch.linspace(-half, half, 400, dtype=torch.float64)
    axes.hist(x.flatten().numpy(), bins=60, range=(-half, half), density=True, color=FILL)
    axes.plot(grid, target.log_prob(grid[:, None]).exp(), color=INK)
    axes.set(xlim=(-half, half), yticks=[], xticks=[-3, 0, 3])
    axes.spines["left"].set_visible(False)


def draw_forward_process() -> Figure:
    """The chain on the lesson's mixture: 20,000 draws after t steps (bars), and exact densities.

    The dashed curve is standard normal, from which the last is 1.3e-5 nats away.
    """
    target = targets.lesson_mixture()
    with seeded_rng(0):
        x = target.sample(20_000)
        states = [x, *diffusion_bound.forward_chain(x, PATH.betas)]
    figure, row = create_panels(len(TIMES), 1.7, sharey=True)
    for axes, k in zip(row, TIMES):
        _draw_density_histogram(axes, states[k], target.diffuse(*PATH(double(k / 1000)[0])))
        axes.set(title=f"t = {k}", xlabel="x")
    noise = gaussian_1d()
    grid = torch.linspace(-4.5, 4.5, 400, dtype=torch.float64)
    row[-1].plot(grid, noise.log_prob(grid[:, None]).exp(), color=LINES[1], ls=DASHES[1])
    return figure


def _draw_score_field() -> Figure:
    """Density (shade) and score (arrows, their length the root of its size) of a mixture of three.

    From left to right with noise of deviation 0.1, 0.6 and 1.5: near the data the field is strong
    and blind between the modes; with noise it points to all of them from everywhere.
    """
    weights, means = double(0.5, 0.3, 0.2), double(-1.2, -0.6, 1.4, -0.4, 0.1, 1.5).view(3, 2)
    target = targets.GaussianMixture(weights, means, double(0.35, 0.35, 0.35))
    figure, row = create_panels(3, 2.45, sharey=True)
    side, coarse = (torch.linspace(-3, 3, n, dtype=torch.float64) for n in (150, 15))
    fine, nodes = (torch.cartesian_prod(z, z) for z in (side, coarse))
    for axes, sigma in zip(row, (0.1, 0.6, 1.5)):
        noisy = target.diffuse(double(1.0)[0], double(sigma)[0])
        density, score = noisy.log_prob(fine).exp().view(150, 150).T, noisy.score(nodes)
        axes.pcolormesh(side, side, density, cmap=DENSITY, rasterized=True, shading="gouraud")
        arrows = score / score.norm(dim=1, keepdim=True).sqrt()
        axes.quiver(*nodes.T, *arrows.T, color=INK, width=0.006, alpha=0.8)
        axes.set(title=f"σ = {sigma}", aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    return figure


def _draw_ula_bias() -> Figure:
    """Langevin dynamics on a standard normal distribution, without and with a test of acceptance.

    Left: the variance after 100 steps of 20,000 chains (marks) and 1 / (1 - h/2), at which ULA
    settles; MALA keeps to 1. Right: how often MALA accepts, and its closed form.
    """
    steps, target = (0.05, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5), gaussian_1d()
    with seeded_rng(0):
        start = torch.randn(20_000, 1, dtype=torch.float64)
        plain = [
            float(ode.final_state(langevin.ula(target.score, start, h, 100)).var()) for h in steps
        ]
        runs = [list(langevin.mala(target.log_prob, target.score, start, h, 20)) for h in steps]
    figure, (left, right) = create_panels(2)
    h = np.linspace(0.01, 1.55, 80)
    left.plot(h, [ula_variance(float(z)) for z in h], color=LINES[0])
    left.plot(steps, plain, MARKS[0], color=LINES[0])
    left.axhline(1, color=QUIET, ls=DASHES[1])
    left.plot(steps, [float(run[-1][0].var()) for run in runs], MARKS[1], color=LINES[5])
    left.annotate("ULA", (1.25, 2.67), (-6, 2), textcoords="offset points", ha="right")
    left.annotate("MALA", (1.5, 1.0), (0, 6), textcoords="offset points", ha="right")
    left.set(xlabel="step h", ylabel="variance", ylim=(0.5, 4.5))
    right.plot(h, [dynamics.gaussian_acceptance(float(z)) for z in h], color=LINES[5])
    accepted = [float(torch.stack([chance for _, chance in run]).mean()) for run in runs]
    right.plot(steps, accepted, MARKS[1], color=LINES[5])
    right.set(xlabel="step h", ylabel="proposals that MALA accepts", ylim=(0.5, 1.02))
    return figure


def _draw_langevin_mixing() -> Figure:
    """Weights of modes under plain and annealed Langevin dynamics, 8,000 chains.

    Left: the weight of the left mode, 0.3 in the target, step by step of h = 0.01 from standard
    normal draws; few chains cross. Middle and right: draws after 500 steps, plain and through 50
    levels of noise, and the exact density.
    """
    target, n, path = targets.lesson_mixture(), 8000, paths.GeometricPath(10.0, 0.05)
    with seeded_rng(0):
        start = torch.randn(n, 1, dtype=torch.float64)
        plain = list(langevin.ula(target.score, start, 0.01, 500))
        denoiser = targets.ExactDenoiser(target, path)
        annealed = list(langevin.annealed_langevin(denoiser, 10 * start, path.grid(50), snr=0.3))
    weight = [float((x < 0).double().mean()) for x in plain]
    end = float((annealed[-1] < 0).double().mean())
    figure, (left, *rest) = create_panels(3, 2.0, width_ratios=[1.4, 1, 1])
    left.plot(np.arange(1, 501), weight, color=LINES[0])
    left.axhline(0.3, color=QUIET, ls=DASHES[1])
    left.plot([500], [end], MARKS[1], color=LINES[5], clip_on=False)
    left.annotate("plain", (250, weight[250]), (0, 5), textcoords="offset points")
    left.annotate("annealed", (500, end), (-6, 4), textcoords="offset points", ha="right")
    left.annotate("exact", (0, 0.3), (2, -9), textcoords="offset points", color=QUIET)
    left.set(xlabel="steps", ylabel="weight of the left mode", ylim=(0.2, 0.6), xlim=(0, 500))
    for axes, x, name in zip(rest, (plain[-1], annealed[-1]), ("plain", "annealed")):
        _draw_density_histogram(axes, x, target)
        axes.set(title=name, xlabel="x")
    return figure


def _draw_reverse_score() -> Figure:
    """The variance that 1,000 reverse steps reach, against that of the data, both exact.

    With the whole score, and with half of it and no noise (the probability flow), they reach the
    data's; with half of it and DDPM's noise, or by one Langevin step a level, they do not.
    """
    kinds = [
        ("β·score and noise: DDPM", {}),
        ("β/2·score, no noise: the flow", {"weight": 0.5, "noise": 0.0}),
        ("β/2·score and noise", {"weight": 0.5}),
        ("Langevin alone", {"weight": 0.5, "growth": 0.0}),
    ]
    variances = np.geomspace(0.05, 5, 16)
    figure, (axes,) = create_panels(1, 2.6)
    axes.plot(variances, variances, color=QUIET, lw=3, alpha=0.4)
    for i, (name, options) in enumerate(kinds):
        reached = [
            dynamics.reverse_chain_moments(
                PATH, dynamics.Moments(0.0, float(v)), **options
            ).variance
            for v in variances
        ]
        axes.plot(variances, reached, MARKS[i], color=LINES[i if i != 1 else 5], ls=DASHES[i],
                  markevery=3, label=name)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="variance of the data", ylabel="variance reached")
    axes.xaxis.set_major_formatter(format_log_tick)
    axes.yaxis.set_major_formatter(format_log_tick)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _draw_bound_weights() -> Figure:
    """What the bound weighs and what a step hides.

    Left: the weight of the noise's error in each of the 1,000 terms of the bound, for both
    variances; L_simple has the same for all. Right: how far the true reverse step of the lesson's
    mixture is from a Gaussian, and its limit for small steps.
    """
    k = torch.arange(2, 1001)
    figure, (left, right) = create_panels(2)
    for i, (v, name) in enumerate(((1.0, "Σ = β"), (0.0, "Σ = β̃"))):
        weight = (
            ddpm_schedule.bound_weight(predictions.noise_prediction, v)(PATH, k.double() / 1000)
            / 1000
        )
        left.plot(k, weight, color=LINES[5 * i], ls=DASHES[i], label=name)
    left.axhline(0.01, color=QUIET, ls=DASHES[2])
    left.annotate("L_simple, up to a factor", (330, 0.0115), color=QUIET)
    left.set(yscale="log", xlabel="k", ylabel="weight")
    left.yaxis.set_major_formatter(format_log_tick)
    left.legend()
    target, beta = targets.lesson_mixture(), np.geomspace(0.005, 0.9, 12)
    limit = diffusion_bound.reverse_gap_rate(target)
    gaps = [diffusion_bound.reverse_gap(target, float(b)) for b in beta]
    right.plot(beta, gaps, MARKS[0], color=LINES[0])
    small = beta[beta < 0.15]
    right.plot(small, limit * small**3, color=QUIET, ls=DASHES[1])
    right.annotate("slope 3", (small[3], limit * small[3] ** 3), (-6, 4),
                   textcoords="offset points", ha="right", color=QUIET)  # fmt: skip
    right.set(xscale="log", yscale="log", xlabel="β", ylabel="nats from a Gaussian")
    right.xaxis.set_major_formatter(format_log_tick)
    right.yaxis.set_major_formatter(format_log_tick)
    return figure


def _draw_beta_schedules() -> Figure:
    """What is left of the data, the square root of alpha-bar, along tables of 1,000 steps.

    The lesson's betas in 50, 100 and 200 steps without rescaling stop far from noise.
    """
    figure, (axes,) = create_panels(1)
    for i, (name, betas) in enumerate(
        (("linear", ddpm_schedule.linear_betas), ("cosine", ddpm_schedule.cosine_betas))
    ):
        means, _ = diffusion_bound.moment_recursion(betas(1000), 1.0, 0.0)
        axes.plot(np.arange(1001) / 1000, means, color=LINES[5 * i], ls=DASHES[i], label=name)
    for T in (50, 100, 200):
        means, _ = diffusion_bound.moment_recursion(
            torch.linspace(1e-4, 0.02, T, dtype=torch.float64), 1.0, 0.0
        )
        axes.plot(np.arange(T + 1) / T, means, color=QUIET, ls=DASHES[2])
        axes.annotate(f"T = {T}", (1, float(means[-1])), (3, -2), textcoords="offset points",
                      annotation_clip=False)  # fmt: skip
    axes.set(xlabel="k / T", ylabel="signal that is left", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return figure


FIGURES = {
    "forward_process": draw_forward_process,
    "schedules": _draw_beta_schedules,
    "bound_weights": _draw_bound_weights,
    "score_field": _draw_score_field,
    "ula_bias": _draw_ula_bias,
    "mixing": _draw_langevin_mixing,
    "reverse_score": _draw_reverse_score,
}
