"""Figures of section 3."""

import math

import numpy as np
import torch
from matplotlib.figure import Figure

from ....plots.style import DASHES, DATA, INK, LINES, QUIET, format_log_tick
from ....theory.exact import discriminator, divergences
from ...cases import gaussian_1d
from ...panels import create_panels
from . import distributions
from .discriminator import fit_affine_logit
from .distributions import shift_gradients, shifted_log_densities


def draw_optimal_discriminator() -> Figure:
    """Data N(0, 1), samples N(1.5, 1) and their best discriminator, the share of the data.

    The dashed curve is the logistic discriminator trained on 500 rows of each; dots mark the
    point of indifference at 0.75, where the densities cross.
    """
    figure, (ax,) = create_panels(1, 2.4)
    x = torch.linspace(-4, 5.5, 400, dtype=torch.float64)[:, None]
    log_p, log_q = distributions.DATA.log_prob(x), gaussian_1d(1.5).log_prob(x)
    rows = torch.randn(2, 500, dtype=torch.float64)
    (a, b), _ = fit_affine_logit(rows[0], rows[1] + 1.5)
    x = x[:, 0]
    ax.fill_between(x, log_p.exp(), color=DATA, alpha=0.18, lw=0)
    ax.plot(x, log_p.exp(), color=DATA)
    ax.plot(x, log_q.exp(), color=LINES[0], ls=DASHES[2])
    ax.plot(x, discriminator.optimal_logit(log_p, log_q).sigmoid(), color=INK, lw=1.5)
    ax.plot(x, (a * x + b).sigmoid(), color=LINES[5], ls=DASHES[1])
    ax.plot([0.75], [0.5], "o", color=INK, ms=4)
    ax.axhline(0.5, color=QUIET, lw=0.5)
    for at, text, ink in (
        ((-1.9, 0.16), "data", DATA),
        ((2.75, 0.24), "samples", LINES[0]),
        ((-3.9, 1.03), "best discriminator", INK),
        ((1.35, 0.56), "trained on 500 rows of each", LINES[5]),
    ):
        ax.text(*at, text, color=ink, ha="right" if text == "data" else "left")
    ax.set(xlabel="x", ylabel="density, probability of data", ylim=(0, 1.12), xlim=(-4, 5.5))
    return figure


def draw_generator_gradients() -> Figure:
    """Gradients of both generator losses when samples N(theta, 1) are theta away from the data.

    Left on a logarithmic scale, at the best discriminator: the saturating loss falls below 1e-5 at
    theta = 10 where the other is 10. Right: the divergences that they descend, in nats.
    """
    figure, (left, right) = create_panels(2, 2.5)
    theta = np.linspace(0.02, 10, 120)
    found = np.abs([shift_gradients(t) for t in theta])
    left.semilogy(theta, found[:, 1], color=LINES[5], ls=DASHES[1])
    left.semilogy(theta, found[:, 0], color=LINES[0])
    left.text(9.9, 3.2, "non-saturating", color=LINES[5], ha="right", va="top")
    left.text(6.4, 1.5e-4, "saturating", color=LINES[0], ha="right")
    left.set(xlabel="θ", ylabel="|gradient in θ|", ylim=(2e-6, 30), xlim=(0, 10))
    left.yaxis.set_major_formatter(format_log_tick)
    js = np.array([float(divergences.jensen_shannon(*shifted_log_densities(t))) for t in theta])
    right.plot(theta, theta**2 / 2, color=LINES[2], ls=DASHES[3])
    right.plot(theta, theta**2 / 2 - 2 * js, color=LINES[5], ls=DASHES[1])
    right.plot(theta, 2 * js, color=LINES[0])
    right.axhline(2 * math.log(2), color=QUIET, lw=0.5)
    right.text(0.1, 2 * math.log(2) + 0.06, "2 log 2", color=QUIET, va="bottom")
    right.text(6, 1.28, "2 JS", color=LINES[0], va="top", ha="right")
    right.text(2.65, 4.2, "KL(q‖p)", color=LINES[2], ha="right")
    right.text(3.5, 4.2, "KL(q‖p) − 2 JS", color=LINES[5], ha="left")
    right.set(xlabel="θ", ylabel="nats", ylim=(0, 5), xlim=(0, 6))
    return figure


def draw_dirac_trajectories() -> Figure:
    """The game of two points from (1, 0), 400 steps of size 0.1: sample theta and slope psi.

    Simultaneous steps spiral outwards, alternating ones circle, and with R1 of weight 0.5
    simultaneous steps come to rest at the equilibrium. Dots: start; crosses: end.
    """
    figure, panels = create_panels(3, 2.6, sharex=True, sharey=True)
    start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    games = (
        ("simultaneous", discriminator.simultaneous_step, 0.0),
        ("alternating", discriminator.alternating_step, 0.0),
        ("simultaneous with R1", discriminator.simultaneous_step, 0.5),
    )
    for ax, (name, step, penalty), ink in zip(panels, games, LINES[:3], strict=True):
        states = discriminator.play_game(step, start, 0.1, 400, penalty)
        ax.axhline(0, color=QUIET, lw=0.5)
        ax.axvline(0, color=QUIET, lw=0.5)
        ax.plot(*states.mT, color=ink, lw=0.9)
        ax.plot(*start, "o", color=INK, ms=4)
        ax.plot(*states[-1], "X", color=INK, ms=5)
        ax.set(title=name, xlabel="θ", aspect="equal", xlim=(-2.1, 2.1), ylim=(-2.1, 2.1))
    panels[0].set_ylabel("ψ")
    return figure


def draw_mode_drop() -> Figure:
    """What it costs in JS to leave out a separate mode of mass m: not little, unless m is.

    Marked: the lesson's left mode (0.117 nats), half of the mass (0.216), seven of eight modes
    (0.497); the straight line is its slope at nothing, m log 2 / 2.
    """
    figure, (ax,) = create_panels(1, 2.4)
    mass = np.linspace(0, 1, 201)
    cost = [discriminator.mode_drop_cost(m) for m in mass]
    ax.plot(mass, mass * math.log(2) / 2, color=QUIET, ls=DASHES[1])
    ax.plot(mass, cost, color=LINES[0], lw=1.5)
    ax.axhline(math.log(2), color=QUIET, lw=0.5)
    ax.text(0.01, math.log(2) - 0.01, "log 2: nothing is kept", color=QUIET, va="top")
    ax.text(0.72, 0.225, "m log 2 / 2", color=QUIET, va="top")
    for m, text in ((0.3, "lesson's left mode"), (0.5, "one of two"), (7 / 8, "seven of eight")):
        value = discriminator.mode_drop_cost(m)
        ax.plot([m], [value], "o", color=INK, ms=4)
        ax.annotate(
            f"{text}: {value:.3f}", (m, value), (-6, 5), textcoords="offset points", ha="right"
        )
    ax.set(xlabel="mass of the lost mode", ylabel="JS, nats", xlim=(0, 1.01), ylim=(0, 0.73))
    return figure
