"""Sections 4.1 and 4.2: the distance, its linear programme, and its dual."""

import math

import numpy as np
import torch
from scipy.special import ndtr

from ....theory import transport
from ....theory.exact import duality
from ...claims import Claim, Evidence, Number, Verdict, numpy_generator


def _weighted_points(
    n: int, m: int, d: int = 2
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = numpy_generator()
    a, b = rng.random(n) + 0.1, rng.random(m) + 0.1
    return rng.standard_normal((n, d)), rng.standard_normal((m, d)) + 1, a / a.sum(), b / b.sum()


def _measure_primal_distance() -> Evidence:
    """One distance in three ways: by a linear programme, by an assignment, by quantiles."""
    x, y, _, _ = _weighted_points(12, 12)
    even = np.full(12, 1 / 12)
    plan = duality.solve_primal(duality.euclidean_distances(x, y), even, even)
    line = duality.solve_primal(duality.euclidean_distances(x[:, :1], y[:, :1]), even, even)
    return Evidence([
        Number("programme less assignment", plan.value - transport.exact_w1(x, y), 0, 1e-8),
        Number("on the line: programme less quantiles",
               line.value - transport.w1_1d(x[:, 0], y[:, 0]), 0, 1e-8),
        Number("largest error of the plan's marginals",
               float(np.abs(plan.plan.sum(1) - even).max()), 0, 1e-9),
        Number("least mass that is moved", float(plan.plan.min()), 0, 1e-12, ">="),
    ])  # fmt: skip


def _w1_to_origin(cdf: object, reach: float) -> float:
    """W1 of a symmetric distribution and the point 0, from 0 to a reach, doubled."""
    grid = np.concatenate([[0.0], np.geomspace(1e-4, reach, 200_001)])
    return 2 * transport.w1_of_cdfs(grid, cdf(grid), np.ones_like(grid))  # type: ignore[operator]


def _measure_mean_existence() -> Evidence:
    """The distance to a point of a distribution without a mean, and of one with."""
    cauchy = [_w1_to_origin(lambda x: 0.5 + np.arctan(x) / math.pi, r) for r in (1e3, 1e6)]
    normal = [_w1_to_origin(ndtr, r) for r in (1e1, 1e3)]
    return Evidence(
        [Number("$W_1$ of a Cauchy distribution and 0: integral to $10^6$ less that to $10^3$",
                cauchy[1] - cauchy[0], 0, 1e-3)],
        [
            Number("it grows by $\\frac 2\\pi \\log 10^3$", cauchy[1] - cauchy[0],
                   2 / math.pi * math.log(1e3), 1e-4),
            Number("the same for a normal distribution, to $10^3$ less that to 10",
                   normal[1] - normal[0], 0, 1e-6),
            Number("which is $\\mathbb{E}|x|$", normal[1], math.sqrt(2 / math.pi), 1e-6),
        ],
    )  # fmt: skip


def _measure_gaussian_distances() -> Evidence:
    """W1 and W2 of normal distributions against the integral of |F - G| and against quantiles."""
    grid = np.linspace(-25, 25, 100_001)
    numbers = []
    for m, s in ((0.0, 2.0), (1.0, 1.0), (3.0, 0.5)):
        area = transport.w1_of_cdfs(grid, ndtr(grid), ndtr((grid - m) / s))
        found = transport.gaussian_w1(0.0, 1.0, m, s)
        what = f"$W_1$ of $\\mathcal{{N}}(0, 1)$ and $\\mathcal{{N}}({m:g}, {s:g}^2)$"
        numbers.append(Number(what, found, area, 1e-6))
    one, four = np.eye(2), 4 * np.eye(2)
    w2 = transport.gaussian_w2(np.zeros(2), one, np.array([3.0, 4.0]), four)
    return Evidence(
        [*numbers, Number("$W_2$ of $\\mathcal{N}(0, I_2)$ and $\\mathcal{N}((3, 4), 4I_2)$", w2,
                          math.sqrt(27), 1e-9)]
    )  # fmt: skip


def _measure_strong_duality() -> Evidence:
    """Both dual programmes against the primal, and the slope of the critic that they find."""
    x, y, a, b = _weighted_points(14, 11)
    cost = duality.euclidean_distances(x, y)
    least = duality.solve_primal(cost, a, b).value
    prices, best = duality.solve_dual(cost, a, b), duality.kantorovich_rubinstein(x, y, a, b)
    every = np.concatenate([x, y])
    critic = np.concatenate([best.f, best.g])
    return Evidence([
        Number("least cost less best prices", least - prices.value, 0, 1e-8),
        Number("least cost less best gap of a 1-Lipschitz critic", least - best.value, 0, 1e-8),
        Number("steepest slope of that critic", duality.lipschitz_constant(every, critic), 1, 1e-8),
        Number("largest $f_i + g_j - c_{ij}$", float((prices.f[:, None] + prices.g - cost).max()),
               0, 1e-8, "<="),
    ])  # fmt: skip


def _measure_entropic_cost() -> Evidence:
    x, y, _, _ = _weighted_points(20, 20)
    cost, even = torch.from_numpy(duality.euclidean_distances(x, y)), np.full(20, 1 / 20)
    exact = duality.solve_primal(cost.numpy(), even, even).value
    paid = [
        float((transport.sinkhorn_plan(cost, e, steps=3000) * cost).sum())
        for e in (0.1, 0.03, 0.01)
    ]
    numbers = [
        Number(f"cost at temperature {e:g}, above $W_1$", c - exact, e * math.log(20), 1e-6, "<=")
        for e, c in zip((0.1, 0.03, 0.01), paid, strict=True)
    ]
    return Evidence([*numbers, Number("at 0.01 it is $W_1$ within", paid[-1], exact, 0.01)])


CLAIMS = [
    Claim(
        "4.1-transport",
        "$W_1$ is the least cost of moving one distribution onto the other.",
        Verdict.HOLDS,
        _measure_primal_distance,
        "theory.exact.duality.solve_primal",
        formula=r"W_1(P, Q) = \min_{\pi \in \Pi(P, Q)} \mathbb{E}_\pi \lVert x - y \rVert",
        covers="R29",
    ),
    Claim(
        "4.1-moments",
        "It is defined for any two distributions.",
        Verdict.ONLY_IF,
        _measure_mean_existence,
        "theory.transport.w1_of_cdfs",
        right="Both need finite first moments; otherwise it may be infinite.",
        covers="A44",
    ),
    Claim(
        "4.1-gaussians",
        "Between normal distributions both distances have closed forms: the mean of a folded "
        "normal, and Bures's formula.",
        Verdict.HOLDS,
        _measure_gaussian_distances,
        "theory.transport.gaussian_w1",
        formula=r"W_1 = \mathbb{E}\bigl|\mathcal{N}(m_1 - m_2, (s_1 - s_2)^2)\bigr|",
        covers="R30",
    ),
    Claim(
        "4.1-entropic",
        "Entropic plans, which are cheap to find, cost $W_1$ in the limit of temperature 0.",
        Verdict.HOLDS,
        _measure_entropic_cost,
        "theory.transport.sinkhorn_plan",
        formula=r"0 \le \langle \pi_\epsilon, c \rangle - W_1 \le \epsilon \log n",
        covers="R36",
    ),
    Claim(
        "4.2-duality",
        "$W_1$ is the largest gap that a 1-Lipschitz function can have between both distributions.",
        Verdict.HOLDS,
        _measure_strong_duality,
        "theory.exact.duality.kantorovich_rubinstein",
        formula=r"W_1(P, Q) = \max_{\lVert f \rVert_L \le 1} \mathbb{E}_P f - \mathbb{E}_Q f",
        covers="R29",
    ),
]
