"""Figures of lesson 1: the captions are the docstrings."""

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ....model import Likelihood
from ....plots import style
from ....theory.exact import divergences, targets
from ...panels import create_panels
from .paradigms import KINDS, family_capabilities


def draw_data_distribution() -> Figure:
    """The lesson's example: 5,000 samples, and the distribution that they are drawn from.

    Bars: the samples, which are not the distribution. Line: its exact density. Labels: the weights
    of the two components.
    """
    target = targets.lesson_mixture()
    x = target.sample(5000)[:, 0].numpy()
    figure, (axes,) = create_panels(1, 2.4, width=5.2)
    axes.hist(x, bins=60, density=True, color=style.FILL, label="5,000 samples")
    grid = torch.linspace(-4.5, 5, 600).double()
    density = target.log_prob(grid[:, None]).exp()
    axes.plot(grid, density, color=style.INK, label="exact density")
    for weight, mean in zip(target.weights.tolist(), target.means[:, 0].tolist()):
        top = float(target.log_prob(torch.tensor([[mean]]).double()).exp())
        axes.text(mean, top + 0.01, f"{weight:g}", ha="center", va="bottom")
    axes.set(xlabel="x", ylabel="density", xlim=(-4.5, 5), ylim=(0, 0.48))
    axes.legend(loc="upper left")
    return figure


def draw_typicality() -> Figure:
    """The most probable point of a normal distribution is ordinary in one dimension only.

    The log-density of 4,000 draws in 1, 10 and 100 dimensions, in standard deviations from its
    mean, and that of the mode (mark), the square root of d/2 above it.
    """
    figure, row = create_panels(3, 2.1, sharex=True)
    for axes, d in zip(row, (1, 10, 100)):
        target = targets.Gaussian(torch.zeros(d), torch.eye(d))
        exact = divergences.gaussian_surprise(d)
        log_p = target.log_prob(target.sample(4000).double())
        axes.hist((log_p - exact.mean) / exact.deviation, bins=40, density=True, color=style.FILL)
        mode = (exact.mode - exact.mean) / exact.deviation
        where: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "color": style.SECOND}
        axes.plot(mode, 0.03, "v", clip_on=False, **where)
        axes.text(mode + 0.5, 0.07, "mode", ha="left" if d < 100 else "right", **where)
        axes.set(title=f"{d} dimension{'s' if d > 1 else ''}", yticks=[], xlim=(-5, 8.5))
        axes.set_xticks([-4, 0, 4, 8])
        axes.spines["left"].set_visible(False)
    figure.supxlabel("log p(x), in standard deviations from its mean", fontsize=7.5)
    return figure


def draw_detection_curve() -> Figure:
    """How well anomalies spread evenly can be detected beside the lesson's example, by quadrature.

    Left: the exact density; shaded where a threshold on it calls a data point ordinary. Right: the
    receiver operating characteristic of three scores, with the areas under them. No score has more
    than the density, which here is the likelihood ratio.
    """
    figure, (left, right) = create_panels(2, 2.4)
    grid, target = torch.linspace(-6, 6, 4001, dtype=torch.float64), targets.lesson_mixture()
    log_p = target.log_prob(grid[:, None])
    p, q = log_p.exp(), torch.ones_like(log_p)
    left.plot(grid, p, color=style.INK)
    level = float(torch.quantile(log_p, 0.6).exp())
    left.fill_between(grid, 0, p, where=(p > level).numpy(), color=style.FILL)
    left.axhline(level, color=style.QUIET, linewidth=0.6)
    left.text(-6, level + 0.005, "threshold", color=style.QUIET)
    left.set(xlabel="x", ylabel="density", ylim=(0, None))
    scores = {
        "low density": -log_p,
        "typicality": (log_p + target.entropy()).abs(),
        "distance from the mean": (grid - target.mean).abs(),
    }
    for k, (name, score) in enumerate(scores.items()):
        area = float(divergences.quadrature_auroc(score, p, q))
        right.plot(*_roc_curve(score, p, q), color=style.LINES[k], linestyle=style.DASHES[k],
                   label=f"{name}, {area:.3f}")  # fmt: skip
    right.set(xlabel="ordinary data flagged", ylabel="anomalies flagged", ylim=(0, 1.02))
    right.legend(loc="lower right")
    return figure


def _roc_curve(score: Tensor, p: Tensor, q: Tensor) -> list[Tensor]:
    """Shares of two distributions with masses p and q that score above every threshold."""
    order = score.argsort(descending=True)
    return [(mass[order] / mass.sum()).cumsum(0) for mass in (p, q)]


def draw_capability_table() -> Figure:
    """What every family of the library can do, asked of its code.

    The kind of its log-density; evaluations of its network for one draw with the defaults (an
    autoregressive one works entry by entry and is counted once); how many networks play. Rows with
    a dot are regressions on a Gaussian path, the lesson's "diffusion models"; grey ones have no
    density.
    """
    rows = family_capabilities()
    figure, (axes,) = create_panels(1, 0.19 * len(rows) + 0.4, width=5.6)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.2, -1.6))
    axes.set_axis_off()
    columns = dict(
        zip((0.03, 0.36, 0.66, 0.87), ("family", "log-density", "evaluations", "players"))
    )
    for left, title in columns.items():
        axes.text(left, -1, title, va="center", weight="bold")
    axes.axhline(-0.5, color=style.QUIET, linewidth=0.6)
    for k, row in enumerate(rows):
        colour = style.QUIET if row.density is Likelihood.NONE else style.INK
        cells = (row.name, KINDS[row.density], f"{row.evaluations}", f"{row.players}")
        for left, cell in zip(columns, cells):
            axes.text(left, k, cell, va="center", color=colour)
        if row.diffusion:
            axes.plot(0.01, k, "o", color=style.MODEL, markersize=2.5)
    return figure
