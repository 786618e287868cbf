"""Figures of section 4."""

import math

import numpy as np
from matplotlib.figure import Figure
from scipy.special import ndtr

from ....plots.style import DASHES, DATA, INK, LINES, QUIET, format_log_tick
from ....theory import transport
from ....theory.exact import discriminator, divergences, duality
from ...cases import gaussian_1d
from ...panels import create_panels


def draw_shift_distances() -> Figure:
    """Distances of a density and itself shifted by theta: W1 keeps its slope, JS and KL do not.

    Left: a point, whose JS is log 2 and whose KL is infinite at every theta but 0. Right: N(0, 1),
    whose JS flattens from theta = 4 on and whose KL is theta^2 / 2.
    """
    figure, (left, right) = create_panels(2, 2.4, sharey=True)
    theta = np.linspace(-6, 6, 97)
    for ax in (left, right):
        ax.plot(theta, np.abs(theta), color=LINES[0], lw=1.4)
        ax.set(xlabel="θ", ylim=(0, 4.3), xlim=(-6, 6))
    left.plot([-6, 6], [math.log(2)] * 2, color=LINES[5], ls=DASHES[1])
    left.plot([0], [math.log(2)], "o", mfc="white", mec=LINES[5], ms=4)
    left.plot([0], [0], "o", color=INK, ms=4)
    left.text(3.1, 3.4, "W1", color=LINES[0], ha="right")
    left.text(5.9, math.log(2) + 0.08, "JS = log 2", color=LINES[5], ha="right")
    left.text(0, 4.05, "KL = ∞ for θ ≠ 0", color=LINES[2], ha="center")
    js = [divergences.gaussian_jensen_shannon(gaussian_1d(), gaussian_1d(t)) for t in theta]
    right.plot(theta, theta**2 / 2, color=LINES[2], ls=DASHES[3])
    right.plot(theta, js, color=LINES[5], ls=DASHES[1])
    right.text(4.1, 3.7, "W1", color=LINES[0], ha="left", va="top")
    right.text(5.9, math.log(2) + 0.08, "JS", color=LINES[5], ha="right")
    right.text(2.2, 3.7, "KL", color=LINES[2], ha="right")
    left.set(title="points 0 and θ", ylabel="nats, or units of θ")
    right.set(title="N(0, 1) and N(θ, 1)")
    return figure


def draw_optimal_critic() -> Figure:
    """The critic that attains W1 between two distributions: slope one, with the sign of G - F.

    Top: densities of the data 0.3 N(-2, 0.5^2) + 0.7 N(2, 0.7^2) and of samples N(0.8, 1.94^2), the
    Gaussian of the same moments. Bottom: its critic; W1 is the difference of its means.
    """
    figure = Figure(figsize=(6.3, 3.0), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    x = np.linspace(-5, 6.5, 2301)
    scale = math.sqrt(3.778)

    def bell(m: float, s: float) -> np.ndarray:
        return np.exp(-(((x - m) / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))

    p = 0.3 * bell(-2, 0.5) + 0.7 * bell(2, 0.7)
    F = 0.3 * ndtr((x + 2) / 0.5) + 0.7 * ndtr((x - 2) / 0.7)
    G = ndtr((x - 0.8) / scale)
    f = duality.line_critic(x, F, G)
    top.fill_between(x, p, color=DATA, alpha=0.18, lw=0)
    top.plot(x, p, color=DATA)
    top.plot(x, bell(0.8, scale), color=LINES[0], ls=DASHES[1])
    top.text(2.8, 0.3, "data", color=DATA)
    top.text(-4.3, 0.05, "samples", color=LINES[0])
    top.set(ylabel="density", ylim=(0, None))
    bottom.plot(x, f, color=INK, lw=1.4)
    distance = transport.w1_of_cdfs(x, F, G)
    bottom.text(-4.9, f.max(), f"W1 = {distance:.3f}", va="top")
    bottom.set(xlabel="x", ylabel="critic", xlim=(-5, 6.5))
    return figure


def draw_critic_slopes() -> Figure:
    """Slopes of the best critics of two points at distance d on the line, and the gap they show.

    Left: with a penalty of weight 10 the slope is 1 + d / 20, or, on the wrong side, -1 + d / 20 up
    to d = 20. Right: the gap over the distance; clipping at 0.01 shows 0.01 or 0.014 of it,
    depending on the direction in the plane.
    """
    figure, (left, right) = create_panels(2, 2.4)
    d = np.linspace(0.05, 25, 100)
    best = [discriminator.penalised_optimum(v, 10.0) for v in d]
    wrong = [discriminator.spurious_slope(v, 10.0) for v in d]
    left.plot(d, [b.slope for b in best], color=LINES[0])
    left.plot(d, [math.nan if w is None else w for w in wrong], color=LINES[5], ls=DASHES[1])
    left.axhline(1, color=QUIET, lw=0.5)
    left.axhline(0, color=QUIET, lw=0.5)
    left.text(24, 1.05, "slope one: the gap is W1", color=QUIET, ha="right", va="bottom", size=6.5)
    left.text(11.5, 1.72, "best", color=LINES[0], ha="right")
    left.text(24.5, -0.78, "stable, of the wrong sign", color=LINES[5], ha="right")
    left.set(xlabel="distance d", ylabel="slope", xlim=(0, 25), ylim=(-1.15, 2.4))
    d = np.geomspace(0.05, 25, 60)
    for weight, ink, dash in ((0.1, LINES[2], DASHES[2]), (1.0, LINES[1], DASHES[1]),
                              (10.0, LINES[0], DASHES[0])):  # fmt: skip
        ratio = [discriminator.penalised_optimum(v, weight).gap / v for v in d]
        right.loglog(d, ratio, color=ink, ls=dash)
        right.text(25.5, ratio[-1], f"λ = {weight:g}", color=ink, va="center", clip_on=False)
    right.axhline(1, color=QUIET, lw=0.5)
    right.axhline(0.01, color=LINES[5], lw=1.1)
    right.axhline(0.01 * math.sqrt(2), color=LINES[5], lw=1.1, ls=DASHES[1])
    right.text(0.06, 0.02, "clipped at 0.01, in two directions", color=LINES[5])
    right.set(xlabel="distance d", ylabel="gap / W1", xlim=(0.05, 25))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(format_log_tick)
    return figure
