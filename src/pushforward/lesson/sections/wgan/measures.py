"""Problem 5.4: metrics of two samples, by closed forms and beside their floor."""

import math

import numpy as np

from ....metrics import classifier, evaluation, kernels, neighbours, wasserstein
from ...claims import Claim, Evidence, Number, Verdict, numpy_generator


def _mean_with_error(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), 5 * float(np.std(values)) / math.sqrt(len(values))


def _measure_metric_values() -> Evidence:
    rng, rounds, n = numpy_generator(), 30, 400
    pairs = [(rng.standard_normal((n, 2)), 1 + rng.standard_normal((n, 2))) for _ in range(rounds)]
    rbf, e_rbf = _mean_with_error([kernels.mmd(x, y, width=1.0) for x, y in pairs])
    # E k(x, y) = (1 + 2 s^2)^{-d/2} exp(-|m|^2 / (2 (1 + 2 s^2))) at width and deviations one
    mmd = 2 / 3 * (1 - math.exp(-2 / 6))
    line, e_line = _mean_with_error([kernels.energy_distance(x[:, :1], y[:, :1]) for x, y in pairs])
    # E|N(m, 2)| is the mean of a folded normal
    distance = math.sqrt(4 / math.pi) * math.exp(-1 / 4) + math.erf(1 / 2)
    x = rng.standard_normal((1000, 3))
    shift = np.array([1.0, -2.0, 2.0])
    precision, recall = neighbours.prdc(x, x + 100)[:2]
    accuracy, _ = classifier.c2st(x[:500, :1], x[500:, :1] + 2)
    return Evidence([
        Number("squared MMD of a shift by $(1, 1)$", rbf, mmd, e_rbf),
        Number("energy distance of a shift by 1", line, 2 * distance - 4 / math.sqrt(math.pi),
               e_line),
        Number("$W_1$ of rows and themselves, 3 away", wasserstein.w1(x, x + shift), 3, 1e-9),
        Number("$W_2$ of the same", wasserstein.w2(x, x + shift), 3, 1e-9),
        Number("sliced $W_2$ of the same, squared",
               wasserstein.sliced_w2(x, x + shift, projections=129) ** 2, 3, 1e-9),
        Number("Fréchet distance of the same", wasserstein.frechet_distance(x, x + shift), 9, 1e-9),
        Number("precision and recall of separate sets", float(precision + recall), 0, 1e-12),
        Number("accuracy of telling Gaussians 2 deviations apart: $\\Phi(1)$", accuracy,
               0.8413 + 5 * math.sqrt(0.8413 * 0.1587 / 1000), 0, "<="),
    ])  # fmt: skip


def _measure_metric_floor() -> Evidence:
    """The library's evaluation of two samples of one distribution, beside its floor."""
    rng = numpy_generator()
    x, y = rng.standard_normal((2, 400, 2))
    found = evaluation.evaluate(x, y, metrics=["sliced_w2"], seed=0)["sliced_w2"]
    again = evaluation.evaluate(x, y, metrics=["sliced_w2"], seed=0)["sliced_w2"]
    return Evidence(
        [Number("sliced $W_2$ of two samples of one distribution", found.value, 0, 1e-3)],
        [
            Number("its floor, of two samples of real rows, over it", found.floor / found.value, 1,
                   0.5),
            Number("that floor, in standard deviations", found.floor, 0.3, 0, "<="),
            Number("the same again with the same seed", again.value - found.value, 0, 0),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "4.p5-metrics",
        "Metrics of two samples have the values that are known in closed form.",
        Verdict.HOLDS,
        _measure_metric_values,
        "metrics.kernels.mmd",
        covers="R64",
    ),
    Claim(
        "4.p5-baseline",
        "A metric is read against 0.",
        Verdict.WRONG,
        _measure_metric_floor,
        "theory.transport.sliced_w2_distance",
        right="Against its floor, the same metric of two sets of real rows of the same size.",
        covers="R64 A76",
    ),
]
