"""Figures of lesson 2, also of practice problem 2: the captions are the docstrings."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from ....plots import drawing, style
from ....theory import bounds
from ....theory.exact import evidence
from ...panels import create_panels
from . import fits
from .bounds import fit_five_points

LINE_BETAS = np.geomspace(0.2, 12, 60)


def draw_training_curves() -> Figure:
    """The two terms of a VAE on two modes in the plane as it learns.

    Left: with a Gaussian head and learned scales; their sum, minus the ELBO, ends above the entropy
    of the data (dotted). The weight of the KL term grows over the first half. Right: the KL term
    again, and that of the same network with the lesson's Bernoulli head on the same data scaled to
    the unit square, where every latent collapses.
    """
    figure, (left, right) = create_panels(2, 2.4)
    curves, bare = fits.fit_gaussian_vae().curves, fits.fit_bernoulli_vae().curves
    steps, entropy = np.arange(1, len(curves["rate"]) + 1) * 10, fits.two_mode_mixture().entropy()
    total = curves["distortion"] + curves["rate"]
    named = {"reconstruction": curves["distortion"], "KL": curves["rate"], "sum": total}
    for k, (name, values) in enumerate(named.items()):
        left.plot(steps, values, color=style.LINES[k], linestyle=style.DASHES[k], label=name)
    left.axhline(entropy, color=style.INK, linewidth=0.8, linestyle=":")
    left.text(steps[-1], entropy - 0.2, "entropy", ha="right", va="top")
    left.set(xlabel="step", ylabel="nats", ylim=(-4, 9))
    left.legend(ncols=3, loc="upper right")
    right.plot(steps, curves["rate"], color=style.LINES[1], linestyle=style.DASHES[1])
    many = np.arange(1, len(bare["rate"]) + 1) * 10
    right.plot(many, bare["rate"], color=style.SECOND)
    right.text(many[-1], 0.12, "Bernoulli head", color=style.SECOND, ha="right")
    right.text(steps[-1], float(curves["rate"][-1]) - 0.2, "Gaussian head", ha="right", va="top")
    right.set(xlabel="step", ylabel="KL, nats", ylim=(0, None))
    return figure


def decode_lattice(side: int = 13) -> Tensor:
    """What the quantiles of the prior decode to, ``(side, side, 2)``."""
    marks = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.01, 0.99, side))
    with torch.no_grad():
        return (
            fits.fit_gaussian_vae()
            .model.decode(torch.cartesian_prod(marks, marks))
            .view(side, side, 2)
        )


def _draw_latent_clouds(axes: list[Axes]) -> None:
    """Data, and the means of their posteriors, by mode."""
    x, target = (
        torch.from_numpy(drawing.evenly_spaced_rows(fits.two_mode_rows().numpy(), 1000)),
        fits.two_mode_mixture(),
    )
    left = (target.log_terms(x.double()).argmax(1) == 0).numpy()
    with torch.no_grad():
        z = fits.fit_gaussian_vae().model.encode(x).numpy()
    for ax, cloud in zip(axes, (x.numpy(), z)):
        for k, (some, name) in enumerate(((left, "left mode"), (~left, "right mode"))):
            first, second = cloud[some].T
            ax.scatter(first, second, s=5, c=style.LINES[k], marker=style.MARKS[k], label=name,
                       alpha=0.6, linewidths=0, rasterized=True)  # fmt: skip
    axes[0].legend(loc="lower center", markerscale=2, handletextpad=0, fontsize=6)
    for radius in (1, 2):
        axes[1].add_patch(Circle((0, 0), radius, fill=False, color=style.INK, linewidth=0.6))
    drawing.frame_axes(axes[1], drawing.AxesLimits(np.full(2, -3.2), np.full(2, 3.2)), ("z1", "z2"))


def draw_latent_space() -> Figure:
    """What a VAE with two latents has learned of two modes.

    Left: data. Middle: the means of their posteriors in the latent plane; circles at one and two
    deviations of the prior. Right: what a grid of equally likely latents decodes to, over the exact
    density of the data. A continuous decoder must draw the lines that join the modes.
    """
    figure, axes = create_panels(3, 2.3)
    _draw_latent_clouds(axes)
    target, where = fits.two_mode_mixture(), drawing.data_limits(fits.two_mode_rows().numpy())
    sides = [torch.linspace(float(a), float(b), 120) for a, b in zip(where.low, where.high)]
    log_p = target.log_prob(torch.cartesian_prod(*sides).double())
    density = log_p.exp().view(120, 120).mT.numpy()
    levels = np.linspace(0.02, 1, 8) * density.max()
    axes[2].contourf(*sides, density, levels=levels, cmap=style.DENSITY)
    lattice = decode_lattice(9)
    for line in [*lattice, *lattice.swapaxes(0, 1)]:
        axes[2].plot(*line.numpy().T, color=style.SECOND, linewidth=0.5)
    for ax in (axes[0], axes[2]):
        drawing.frame_axes(ax, where, ("x1", "x2"))
    for ax, title in zip(axes, ("data", "posterior means", "decoded grid")):
        ax.set_title(title)
    return figure


def linear_rate_error(beta: float) -> tuple[float, float]:
    """Rate in nats and mean squared error of a trained linear VAE on data of a known spectrum."""
    model, x = fits.fit_linear_vae(beta).model, fits.spectrum_data()
    with torch.no_grad():
        q = model.posterior(x)
        spread = q.variance @ fits.closed_form_vae(model).weight.float().square().sum(0)
        error = (model.decode(q.mean) - x).square().sum(1) + spread
    return float(bounds.kl_to_prior(q).mean()), float(error.mean())


def planar_rate_error(beta: float) -> tuple[float, float]:
    """Rate in nats and mean squared error of a VAE on fresh data of two modes."""
    model, x = fits.fit_beta_vae(beta).model, fits.two_mode_rows(11)
    with torch.no_grad():
        q = model.posterior(x)
        error = (model.decode(q.sample()) - x).square().sum(1)
    return float(bounds.kl_to_prior(q).mean()), float(error.mean())


def draw_beta_sweep() -> Figure:
    """Rate and squared error of VAEs with fixed noise, by the weight of the KL term.

    Left: linear ones (marks) on Gaussian data with the eigenvalues 4, 2, 1 and 0.5, on the curve of
    reverse water-filling. Right: perceptrons on two modes, above Shannon's bound, below which no
    code of these data lies. The larger the weight, the fewer nats the latents carry.
    """
    figure, (left, right) = create_panels(2, 2.4)
    filled = [evidence.linear_vae_optimum(fits.SPECTRUM, 4, fits.NOISE, b) for b in LINE_BETAS]
    left.plot([float(o.rate) for o in filled], [float(o.error) for o in filled], color=style.INK)
    errors = torch.logspace(-1.3, 0.6, 60, dtype=torch.float64)
    rates = evidence.shannon_bound(fits.two_mode_mixture().entropy(), 2, errors)
    right.plot(rates[rates > 0], errors[rates > 0], color=style.INK)
    for axes, point in ((left, linear_rate_error), (right, planar_rate_error)):
        for beta in fits.BETAS:
            rate, error = point(beta)
            axes.plot(rate, error, style.MARKS[0], color=style.MODEL)
            axes.annotate(f"{beta:g}", (rate, error), (4, 4), textcoords="offset points")
        axes.set(xlabel="rate, nats", ylabel="squared error")
    right.set_ylim(0, 1.6)
    left.set_title("linear data, by \u03b2: water-filling")
    right.set_title("two modes, by \u03b2: Shannon's bound")
    return figure


def draw_vae_overfitting() -> Figure:
    """What the KL term does not prevent: five data in ten dimensions memorised.

    A linear VAE with four latents, its exact posterior and the best decoder, as its noise shrinks.
    The bound on the training data grows by three nats for each unit of log 1/sigma, times two, the
    KL term grows with it, and held-out data become impossible.
    """
    figure, (axes,) = create_panels(1, 2.4, width=4.2)
    scales = np.geomspace(0.03, 1, 30)
    data = torch.randn(2005, 10, dtype=torch.float64)
    found = np.array([fit_five_points(data, float(s)) for s in scales])
    for k, name in enumerate(("training ELBO", "held-out log p", "KL")):
        axes.plot(scales, found[:, k], color=style.LINES[k], linestyle=style.DASHES[k],
                     label=name)  # fmt: skip
    axes.set(xscale="log", ylim=(-80, 30), xlabel="deviation of the decoder", ylabel="nats")
    axes.xaxis.set_major_formatter(style.format_log_tick)
    axes.invert_xaxis()
    axes.legend(loc="lower left")
    return figure
