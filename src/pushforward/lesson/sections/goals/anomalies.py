"""Claims on lesson 1.1: anomalies and what a density says of them."""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ....inference import anomaly
from ....inference.fitted_model import FittedModel
from ....rng import seeded_rng
from ....theory.exact import divergences, targets
from ....training.fit import fit
from ...claims import Claim, Evidence, Number, Verdict
from .distributions import HIGH, LOW, anomaly_grid


def _measure_mode_surprise() -> Evidence:
    target, n = targets.Gaussian(torch.zeros(100), torch.eye(100)), 4000
    log_p = target.log_prob(target.sample(n).double())
    mode = float(target.log_prob(torch.zeros(1, 100).double()))
    mean, deviation = float(log_p.mean()), float(log_p.std())
    expected = divergences.gaussian_surprise(100)
    above = (mode - mean) / deviation
    # of a mean and, by the delta method, of a deviation of nearly normal values
    error = 5 * math.sqrt((1 + above**2 / 2) / n)
    return Evidence(
        [Number("standard deviations by which the most probable point is surprising", above, 0.0,
                2.0)],
        [
            Number("the same, and $\\sqrt{d/2}$", above, math.sqrt(50), error),
            Number("log-density at the mode, nats", mode, expected.mode, 1e-9),
            Number("mean log-density of draws, nats", mean, expected.mean,
                   5 * deviation / math.sqrt(n)),
        ],
    )  # fmt: skip


def _mixture_auroc() -> float:
    """The AUROC of the example's own density against uniform anomalies, by quadrature."""
    log_p = targets.lesson_mixture().log_prob(anomaly_grid())
    return float(divergences.quadrature_auroc(-log_p, log_p.exp(), torch.ones_like(log_p)))


def _auroc_error(area: float, n: int) -> float:
    """Five standard errors of an AUROC from n data each (Hanley & McNeil, 1982)."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (n - 1) * (one + two - 2 * area**2)
    return 5 * math.sqrt(variance) / n


def _measure_low_density() -> Evidence:
    n, target, wide = (
        2000,
        targets.lesson_mixture(),
        targets.Gaussian(torch.zeros(100), torch.eye(100)),
    )
    labels = np.repeat([False, True], n)

    def area(score: Tensor) -> float:
        return anomaly.roc_auc(score.numpy(), labels)

    near = torch.cat([wide.sample(n), wide.sample(n) / 2]).double()
    log_p = wide.log_prob(near)
    spread = torch.cat([target.sample(n), LOW + (HIGH - LOW) * torch.rand(n, 1)]).double()
    exact, grid = _mixture_auroc(), target.log_prob(anomaly_grid())
    typical = (grid + target.entropy()).abs()
    other = divergences.quadrature_auroc(typical, grid.exp(), torch.ones_like(grid))
    return Evidence(
        [Number("AUROC of $-\\log p$ in 100 dimensions against draws shrunk by half", area(-log_p),
                0.5, 0.0, ">=")],
        [
            Number("AUROC of typicality there",
                   area((log_p - divergences.gaussian_surprise(100).mean).abs()), 1.0, 1e-3),
            Number("AUROC of $-\\log p$ of the example against uniform anomalies, and its integral",
                   area(-target.log_prob(spread)), exact, _auroc_error(exact, n)),
            Number("what typicality has there, at most as much", float(other), exact, 0.0, "<="),
        ],
    )  # fmt: skip


@cache
def _fit_detector() -> FittedModel:
    """A Gaussian mixture fitted to 4,000 draws of the example by EM."""
    with seeded_rng(5):
        x = targets.lesson_mixture().sample(4000).numpy()
    return fit(x, "gaussian_mixture", seed=0, progress=False, components=2)


def _measure_flagged_share() -> Evidence:
    """A mixture fitted by EM, which flags uniform data among ordinary ones."""
    n, rate, target = 4000, 0.05, targets.lesson_mixture()
    reference, ordinary = (target.sample(n).numpy() for _ in range(2))
    strange = LOW + (HIGH - LOW) * torch.rand(n, 1).numpy()
    found = _fit_detector().flag(
        np.concatenate([ordinary, strange]), rate=rate, reference=reference
    )
    labels, exact = np.repeat([False, True], n), _mixture_auroc()
    # the threshold is an order statistic of the reference, the share a mean: equal variances
    error = 5 * math.sqrt(2 * rate * (1 - rate) / n)
    return Evidence([
        Number("AUROC of the fitted density, and that of the exact one",
               anomaly.roc_auc(found.score, labels), exact, 0.01),
        Number("share of ordinary data that is flagged, at the rate 0.05",
               float(found.flagged[:n].mean()), rate, error),
    ])  # fmt: skip


CLAIMS = [
    Claim(
        "1.1-typical",
        "Density measures how ordinary a data point is.",
        Verdict.WRONG,
        _measure_mode_surprise,
        "theory.exact.targets.GaussianMixture.log_prob",
        right="In d dimensions the mode of a normal distribution lies $\\sqrt{d/2}$ standard "
        "deviations above the log-density that draws have: the most probable point is an anomaly.",
        formula="\\log p(0) - \\mathbb{E} \\log p(x) = \\frac{d}{2}, \\quad "
        "\\operatorname{sd} \\log p(x) = \\sqrt{d/2}",
        covers="A09",
    ),
    Claim(
        "1.1-anomaly",
        "Anomalies are detected as data of low density.",
        Verdict.ONLY_IF,
        _measure_low_density,
        "inference.anomaly.roc_auc",
        right="Only against anomalies spread evenly, in few dimensions: there $1/p(x)$ is the "
        "likelihood ratio and no score does better. Otherwise use typicality or a ratio of "
        "densities.",
        covers="A09 R5",
    ),
    Claim(
        "1.1-detector",
        "A fitted density detects anomalies as well as the exact one, at a rate that is chosen.",
        Verdict.HOLDS,
        _measure_flagged_share,
        "inference.fitted_model.FittedModel.flag",
        covers="R5",
    ),
]
