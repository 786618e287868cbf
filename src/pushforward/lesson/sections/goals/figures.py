"""Figures of lesson 1: the captions are the docstrings."""

import torch
from matplotlib.figure import Figure

from ....model import Likelihood
from ....report import style
from ....theory import detection, targets
from .paradigms import KINDS, capabilities


def data_distribution() -> Figure:
    """The lesson's example: 5,000 samples as bars, which are not the distribution, and its exact
    density as a line; the labels are the exact masses of the two components."""
    law = targets.lesson_mixture()
    torch.manual_seed(0)
    x = law.sample(5000)[:, 0].numpy()
    figure = Figure(figsize=(5.2, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(x, bins=60, density=True, color=style.FILL, label="5,000 samples")
    grid = torch.linspace(-4.5, 5, 600).double()
    density = law.log_prob(grid[:, None]).exp()
    axes.plot(grid, density, color=style.INK, label="exact density")
    for weight, mean in zip(law.weights.tolist(), law.means[:, 0].tolist()):
        top = float(law.log_prob(torch.tensor([[mean]]).double()).exp())
        axes.text(mean, top + 0.01, f"{weight:g}", ha="center", va="bottom")
    axes.set(xlabel="x", ylabel="density", xlim=(-4.5, 5), ylim=(0, 0.48))
    axes.legend(loc="upper left")
    return figure


def typicality() -> Figure:
    """The log-density of 4,000 draws of a standard normal law in 1, 10 and 100 dimensions, in
    standard deviations from its mean, and that of the law's mode (mark): the more dimensions, the
    more surprising the most probable point."""
    figure = Figure(figsize=(6.3, 2.1), layout="constrained")
    torch.manual_seed(0)
    for axes, d in zip(figure.subplots(1, 3, sharex=True), (1, 10, 100)):
        law, exact = targets.Gaussian(torch.zeros(d), torch.eye(d)), detection.surprise(d)
        log_p = law.log_prob(law.sample(4000).double())
        axes.hist((log_p - exact.mean) / exact.deviation, bins=40, density=True, color=style.FILL)
        mode = (exact.mode - exact.mean) / exact.deviation
        axes.plot(mode, 0.02, "v", color=style.SECOND, clip_on=False)
        axes.text(mode, 0.08, "mode", ha="center", color=style.SECOND)
        axes.set(title=f"{d} dimension{'s' if d > 1 else ''}", yticks=[], xlim=(-5, 8))
        axes.spines["left"].set_visible(False)
    figure.supxlabel("log p(x), in standard deviations from its mean", fontsize=7.5)
    return figure


def detection_curve() -> Figure:
    """Anomalies among the lesson's example: the exact density, whose level sets are the best
    regions against uniform anomalies, and the receiver operating characteristic of three scores,
    all by quadrature; the numbers are areas under the curves."""
    figure = Figure(figsize=(6.3, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    grid = torch.linspace(-6, 6, 4001).double()
    law = targets.lesson_mixture()
    log_p = law.log_prob(grid[:, None])
    p, q = log_p.exp(), torch.ones_like(log_p)
    left.plot(grid, p, color=style.INK)
    level = float(torch.quantile(log_p, 1 - 0.4).exp())
    left.fill_between(grid, 0, p, where=(p > level).numpy(), color=style.FILL)
    left.set(xlabel="x", ylabel="density", ylim=(0, None))
    scores = {
        "low density": -log_p,
        "typicality": (log_p + law.entropy()).abs(),
        "distance from the mean": (grid - law.mean).abs(),
    }
    for k, (name, score) in enumerate(scores.items()):
        order = score.argsort(descending=True)
        area = float(detection.auroc(score, p, q))
        right.plot(
            (p[order] / p.sum()).cumsum(0), (q[order] / q.sum()).cumsum(0),
            color=style.LINES[k], linestyle=style.DASHES[k], label=f"{name}, {area:.3f}",
        )  # fmt: skip
    right.set(xlabel="ordinary data flagged", ylabel="anomalies flagged", ylim=(0, 1.02))
    right.legend(loc="lower right")
    return figure


def capability_table() -> Figure:
    """Every family of the library, from its code: the kind of its log-density, evaluations of its
    network for one draw by default, and who learns. Rows marked by a dot are regressions on a
    Gaussian path, the lesson's "diffusion models"."""
    rows = capabilities()
    figure = Figure(figsize=(6.3, 0.19 * len(rows) + 0.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.2, -1.6))
    axes.set_axis_off()
    columns = (0.02, 0.34, 0.76, 0.88)
    titles = ("family", "log-density", "evaluations", "players")
    for left, title in zip(columns, titles):
        axes.text(left, -1, title, va="center", weight="bold")
    axes.axhline(-0.5, color=style.QUIET, linewidth=0.6)
    for k, row in enumerate(rows):
        quiet = style.QUIET if row.density is Likelihood.NONE else style.INK
        cells = (row.name, KINDS[row.density], f"{row.evaluations}", f"{row.players}")
        for left, cell in zip(columns, cells):
            axes.text(left, k, cell, va="center", color=quiet)
        if row.diffusion:
            axes.plot(0.005, k, "o", color=style.MODEL, markersize=2.5)
    return figure
