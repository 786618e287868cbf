"""Problem 5.4: what FID and the Inception score can and cannot say of points, and what does."""

import math

import numpy as np

from ....metrics import classifier, evaluation, frechet, kernels, neighbours, wasserstein
from ....theory import targets
from ...claims import Claim, Evidence, Number, Verdict

ROWS = 500


def posterior(rows: np.ndarray, law: targets.GaussianMixture) -> np.ndarray:
    """The exact probability of each mode of a mixture."""
    import torch

    return law.log_terms(torch.from_numpy(rows)).softmax(1).numpy()


def inception() -> Evidence:
    """Scores of eight single points and of a ring, with the exact classifier of its modes."""
    law = targets.ring8()
    collapsed = np.repeat(law.means.numpy(), 250, axis=0)
    truth = law.sample(20_000).double().numpy()
    points, data = (classifier.classifier_score(posterior(r, law)) for r in (collapsed, truth))
    alike = targets.Gaussian(law.mean, law.covariance).sample(5000).double().numpy()
    seen = frechet.frechet_distance(truth[:5000], alike)
    floor = float(law.covariance[0, 0]) * 7 / 5000  # of two samples of one law
    energy = kernels.energy_distance(truth[:1000], alike[:1000])
    return Evidence(
        [
            Number("score of eight points less that of the data", points - data, 0, 0, "<="),
            Number(
                "Fréchet distance of the ring to a Gaussian of its moments",
                seen,
                10 * floor,
                0,
                ">=",
            ),
        ],
        [
            Number("score of eight points: the most possible", points, 8, 1e-2),
            Number("score of the data", data, 8, 0, "<="),
            Number("the same, which two samples of one law would have", seen, 5 * floor, 0, "<="),
            Number("energy distance of the ring to that Gaussian", energy, 0.01, 0, ">="),
        ],
    )


def frechet_bias() -> Evidence:
    """The Fréchet distance and KID of two samples of one law."""
    rng, rounds = np.random.default_rng(0), 200
    lesson, right = [], []
    for d in (2, 8):
        pairs = [rng.standard_normal((2, ROWS, d)) for _ in range(rounds)]
        seen = np.array([frechet.frechet_distance(x, y) for x, y in pairs])
        error = float(seen.std() / math.sqrt(rounds))
        what = f"mean Fréchet distance of two samples of {ROWS} in {d} dimensions"
        lesson.append(Number(what, float(seen.mean()), 0, 5 * error))
        bias = (2 * d + d * (d + 1) / 2) / ROWS
        right.append(Number(what, float(seen.mean()), bias, 5 * error))
    kid = np.array([kernels.kid(*rng.standard_normal((2, 200, 2))) for _ in range(rounds)])
    error = float(kid.std() / math.sqrt(rounds))
    return Evidence(lesson, [*right, Number("mean KID", float(kid.mean()), 0, 5 * error)])


def with_error(values: list[float]) -> tuple[float, float]:
    """The mean of independent values and five standard errors."""
    return float(np.mean(values)), 5 * float(np.std(values)) / math.sqrt(len(values))


def closed_forms() -> Evidence:
    """Metrics of samples of laws for which their value is known."""
    rng, rounds, n = np.random.default_rng(0), 30, 400
    pairs = [(rng.standard_normal((n, 2)), 1 + rng.standard_normal((n, 2))) for _ in range(rounds)]
    rbf, e_rbf = with_error([kernels.mmd(x, y, width=1.0) for x, y in pairs])
    # E k(x, y) = (1 + 2 s^2)^{-d/2} exp(-|m|^2 / (2 (1 + 2 s^2))) at width and deviations one
    mmd = 2 / 3 * (1 - math.exp(-2 / 6))
    line, e_line = with_error([kernels.energy_distance(x[:, :1], y[:, :1]) for x, y in pairs])
    # E|N(m, 2)| is the mean of a folded normal
    apart = math.sqrt(4 / math.pi) * math.exp(-1 / 4) + math.erf(1 / 2)
    x = rng.standard_normal((1000, 3))
    shift = np.array([1.0, -2.0, 2.0])
    precision, recall = neighbours.prdc(x, x + 100)[:2]
    accuracy, _ = classifier.c2st(x[:500, :1], x[500:, :1] + 2)
    return Evidence(
        [
            Number("squared MMD of a shift by $(1, 1)$", rbf, mmd, e_rbf),
            Number("energy distance of a shift by 1", line, 2 * apart - 4 / math.sqrt(math.pi),
                   e_line),
            Number("$W_1$ of rows and themselves, 3 away", wasserstein.w1(x, x + shift), 3, 1e-9),
            Number("$W_2$ of the same", wasserstein.w2(x, x + shift), 3, 1e-9),
            Number("sliced $W_2$ of the same, squared", wasserstein.sliced_w2(
                x, x + shift, projections=129) ** 2, 3, 1e-9),
            Number("Fréchet distance of the same", frechet.frechet_distance(x, x + shift), 9, 1e-9),
            Number("precision and recall of separate sets", float(precision + recall), 0, 1e-12),
            Number("accuracy of telling laws 2 deviations apart: $\\Phi(1)$",
                   accuracy, 0.8413 + 5 * math.sqrt(0.8413 * 0.1587 / 1000), 0, "<="),
        ]
    )  # fmt: skip


def baseline() -> Evidence:
    """The library's evaluation of two samples of one law, beside its floor."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 400, 2))
    found = evaluation.evaluate(x, y, metrics=["sliced_w2"], seed=0)["sliced_w2"]
    again = evaluation.evaluate(x, y, metrics=["sliced_w2"], seed=0)["sliced_w2"]
    return Evidence(
        [Number("sliced $W_2$ of two samples of one law", found.value, 0, 1e-3)],
        [
            Number("its floor, of two samples of real rows, over it", found.floor / found.value,
                   1, 0.5),
            Number("that floor, in standard deviations", found.floor, 0.3, 0, "<="),
            Number("the same again with the same seed", again.value - found.value, 0, 0),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "4.p5-inception",
        "FID and the Inception score compare the quality of samples of points in the plane.",
        Verdict.WRONG,
        inception,
        "metrics.classifier.classifier_score",
        right="Eight single points score at least as much as the data, which the Inception score "
        "never sees; with the points themselves as features the Fréchet distance sees two moments. "
        "MMD, energy and sliced Wasserstein distances, likelihood, precision and recall do.",
        covers="A75 R64",
    ),
    Claim(
        "4.p5-frechet-bias",
        "The Fréchet distance of samples is 0 once both laws agree.",
        Verdict.WRONG,
        frechet_bias,
        "metrics.frechet.frechet_distance",
        right="It has a bias of $(2d + d(d + 1)/2)/n$ on whitened features: fix $n$ and print the "
        "same for two real samples. KID has none.",
        formula=r"\mathbb{E}\,\mathrm{FD} \approx \frac{1}{n}\Bigl(2d + \frac{d(d + 1)}{2}\Bigr)",
        covers="A76 R64",
    ),
    Claim(
        "4.p5-metrics",
        "Metrics of two samples have the values that are known in closed form.",
        Verdict.HOLDS,
        closed_forms,
        "metrics.kernels.mmd",
        covers="R64",
    ),
    Claim(
        "4.p5-baseline",
        "A metric is read against 0.",
        Verdict.WRONG,
        baseline,
        "theory.transport.sliced_w2",
        right="Against its floor, the same metric of two sets of real rows of the same size.",
        covers="R64 A76",
    ),
]
