"""Figures of lesson 2, also of practice problem 2: the captions are the docstrings."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from ....report import panels, style
from ....theory import bounds, linear_vae
from . import fits
from .bounds import fitted_to_five

LINE_BETAS = np.geomspace(0.2, 12, 60)
WIDE = (6.3, 2.4)


def sheet(count: int, size: tuple[float, float] = WIDE) -> tuple[Figure, list[Axes]]:
    """A figure of panels side by side."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, count)))


def training_curves() -> Figure:
    """Left: the two terms of a VAE with a Gaussian head on two modes in the plane, and their sum,
    minus the ELBO, which cannot fall below the entropy of the data (dotted). The weight of the KL
    term grows over the first half. Right: the KL term of the same network with the lesson's
    Bernoulli head on the same data scaled to the unit square: every latent collapses."""
    figure, (left, right) = sheet(2)
    curves, bare = fits.gaussian().curves, fits.bernoulli().curves
    steps = np.arange(1, len(curves["rate"]) + 1) * 10
    total = curves["distortion"] + curves["rate"]
    for k, (name, values) in enumerate(
        [("reconstruction", curves["distortion"]), ("KL", curves["rate"]), ("sum", total)]
    ):
        left.plot(steps, values, color=style.LINES[k], linestyle=style.DASHES[k], label=name)
    left.axhline(fits.two_modes().entropy(), color=style.INK, linewidth=0.8, linestyle=":")
    left.text(steps[-1], fits.two_modes().entropy() - 0.1, "entropy", ha="right", va="top")
    left.set(xlabel="step", ylabel="nats", ylim=(0, 5))
    left.legend(ncols=3, loc="upper right")
    right.plot(steps, curves["rate"], color=style.LINES[1], linestyle=style.DASHES[1])
    many = np.arange(1, len(bare["rate"]) + 1) * 10
    right.plot(many, bare["rate"], color=style.SECOND)
    right.text(many[-1], 0.08, "Bernoulli head", color=style.SECOND, ha="right")
    top = float(curves["rate"][-1])
    right.text(steps[-1], top * 0.9, "Gaussian head", ha="right", va="top")
    right.set(xlabel="step", ylabel="KL, nats", ylim=(0, None))
    return figure


def decoded_lattice(side: int = 13) -> Tensor:
    """What the quantiles of the prior decode to, ``(side, side, 2)``."""
    marks = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.01, 0.99, side))
    with torch.no_grad():
        return fits.gaussian().model.decode(torch.cartesian_prod(marks, marks)).view(side, side, 2)


def latent_space() -> Figure:
    """Left: data of both modes. Middle: where the encoder puts their means in the latent plane;
    circles at one and two deviations of the prior. Right: the decoder's mean at a grid of equally
    likely latents, over the exact density of the data: lines of the grid between the modes are what
    a continuous decoder must draw to join them."""
    figure, axes = sheet(3, (6.3, 2.3))
    x, law = fits.rows(), fits.two_modes()
    left = (law.log_terms(x.double()).argmax(1) == 0).numpy()
    with torch.no_grad():
        z = fits.gaussian().model.encode(x).numpy()
    where = panels.box(x.numpy())
    for ax, cloud in ((axes[0], x.numpy()), (axes[1], z)):
        for k, (rows, name) in enumerate(((left, "left mode"), (~left, "right mode"))):
            some = panels.thin(cloud[rows], 500)
            ax.scatter(*some.T, s=5, marker=style.MARKS[k], color=style.LINES[k], linewidths=0,
                       alpha=0.6, label=name, rasterized=True)  # fmt: skip
    panels.frame(axes[0], where, ("x1", "x2"))
    axes[0].legend(loc="lower center", markerscale=2, handletextpad=0, fontsize=6)
    for radius in (1, 2):
        axes[1].add_patch(Circle((0, 0), radius, fill=False, color=style.INK, linewidth=0.6))
    panels.frame(axes[1], panels.Box(np.full(2, -3.2), np.full(2, 3.2)), ("z1", "z2"))
    panels.frame(axes[2], where, ("x1", "x2"))
    sides = [torch.linspace(float(a), float(b), 120) for a, b in zip(where.low, where.high)]
    log_p = law.log_prob(torch.cartesian_prod(*sides).double()).view(120, 120).mT
    axes[2].contourf(*sides, log_p.exp(), levels=8, cmap=style.DENSITY)
    lattice = decoded_lattice()
    for line in [*lattice, *lattice.swapaxes(0, 1)]:
        axes[2].plot(*line.numpy().T, color=style.SECOND, linewidth=0.6)
    for ax, title in zip(axes, ("data", "posterior means", "decoded grid")):
        ax.set_title(title)
    return figure


def linear_point(beta: float) -> tuple[float, float]:
    """Rate in nats and mean squared error of a trained linear VAE on data of a known spectrum."""
    model, x = fits.filled(beta).model, fits.with_spectrum()
    with torch.no_grad():
        q = model.posterior(x)
        spread = q.variance @ fits.solved(model).weight.float().square().sum(0)
        error = (model.decode(q.mean) - x).square().sum(1) + spread
    return float(bounds.rate(q).mean()), float(error.mean())


def planar_point(beta: float) -> tuple[float, float]:
    """Rate and distortion, both in nats, of a VAE on fresh data of two modes."""
    model, x = fits.gaussian(beta).model, fits.rows(11)
    with torch.no_grad():
        q = model.posterior(x)
        terms = model.single(q, x, None)
    return float(terms["rate"]), float(terms["distortion"])


def beta_sweep() -> Figure:
    """Left: rate and squared error of linear VAEs with fixed noise, trained on Gaussian data with
    the eigenvalues 4, 2, 1 and 0.5 (marks), on the curve of reverse water-filling (line). Right:
    rate and distortion of VAEs on two modes; their sum is minus the ELBO, no less than the entropy
    of the data (dotted). The larger the weight, the fewer nats a latent may tell of its datum."""
    figure, (left, right) = sheet(2)
    filled = [linear_vae.optimum(fits.SPECTRUM, 4, fits.NOISE, b) for b in LINE_BETAS]
    left.plot([float(o.rate) for o in filled], [float(o.error) for o in filled], color=style.INK)
    entropy = fits.two_modes().entropy()
    rates = np.linspace(0, 4.5, 2)
    right.plot(rates, entropy - rates, color=style.INK, linestyle=":")
    for axes, point in ((left, linear_point), (right, planar_point)):
        for beta in fits.BETAS:
            rate, lost = point(beta)
            axes.plot(rate, lost, style.MARKS[0], color=style.MODEL)
            axes.annotate(f"{beta:g}", (rate, lost), (4, 4), textcoords="offset points")
        axes.set_xlabel("rate, nats")
    left.set(ylabel="squared error", title="linear data, by \u03b2")
    right.set(ylabel="distortion, nats", title="two modes, by \u03b2")
    right.text(0.3, entropy - 0.4, "rate + distortion = entropy", rotation_mode="anchor", va="top")
    return figure


def overfitting() -> Figure:
    """A linear VAE with four latents, its exact posterior and the best decoder for five data in ten
    dimensions, as its noise shrinks: the bound on the training data grows by three nats for each
    unit of log 1/sigma^2, the KL term with it, and held-out data become impossible."""
    figure, axes = sheet(1, (4.2, 2.4))
    scales = np.geomspace(0.03, 1, 30)
    found = np.array([fitted_to_five(float(s)) for s in scales])
    for k, (name, column) in enumerate((("training ELBO", 0), ("held-out log p", 1), ("KL", 2))):
        axes[0].plot(scales, found[:, column], color=style.LINES[k], linestyle=style.DASHES[k],
                     label=name)  # fmt: skip
    axes[0].set(xscale="log", ylim=(-80, 30), xlabel="deviation of the decoder", ylabel="nats")
    axes[0].xaxis.set_major_formatter(style.whole)
    axes[0].invert_xaxis()
    axes[0].legend(loc="lower left")
    return figure
