"""Claims about quality and speed: solvers with exact fields, and metrics on points."""

import numpy as np
import torch
from torch import Tensor

from ....metrics import classifier, kernels, wasserstein
from ....shapes import Condition, Data, Times
from ....theory import ode, paths, samplers, transport
from ....theory.denoisers import Denoiser, Sampler
from ....theory.exact.targets import ExactDenoiser, Gaussian, GaussianMixture, gaussian_ring8
from ....theory.predictions import PosteriorMeans
from ...claims import Claim, Evidence, Number, Verdict, double

ROWS = 4000


def _exact_samples(target: GaussianMixture, n: int = ROWS) -> np.ndarray:
    return target.sample(n).double().numpy()


class _CountingDenoiser(Denoiser):
    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser, self.path, self.calls = denoiser, denoiser.path, 0

    def forward(self, x_t: Data, t: Times, c: Condition = None) -> PosteriorMeans:
        self.calls += 1
        return self.denoiser(x_t, t, c)


def sample_and_count(
    denoiser: Denoiser, sampler: Sampler, times: Tensor, n: int = ROWS
) -> tuple[np.ndarray, int]:
    """Samples, and the evaluations that each took."""
    counted = _CountingDenoiser(denoiser)
    noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    x = float(denoiser.path.scale(times[0])) * noise
    return ode.final_state(sampler(counted, x, times)).double().numpy(), counted.calls


def _measure_needed_evaluations() -> Evidence:
    target = gaussian_ring8()
    denoiser, real = ExactDenoiser(target, paths.VariancePreservingPath()), _exact_samples(target)
    bar = max(transport.sliced_w2_distance(real, _exact_samples(target)) for _ in range(5))
    needed, distance = 0, np.inf
    for steps in (8, 16, 32, 64):
        x, needed = sample_and_count(denoiser, samplers.dpmpp_2m, denoiser.path.grid(steps))
        distance = transport.sliced_w2_distance(real, x)
        if distance <= bar:
            break
    what = "evaluations that a diffusion with the exact field needs to look like data"
    return Evidence(
        [Number(what, needed, 100, 0, ">=")],
        [
            Number(what, needed, 50, 0, "<="),
            Number("its sliced W2 there, and the largest of two exact samples", distance, bar, 0,
                   "<="),
            Number("sliced W2 of two exact samples, radius 4", bar, 0.25, 0, "<="),
        ],
    )  # fmt: skip


def _measure_solver_evaluations() -> Evidence:
    """Ten steps of three methods on normal data, whose exact spread is known."""
    target = Gaussian(torch.zeros(2), 4 * torch.eye(2))
    field = _CountingDenoiser(ExactDenoiser(target, paths.LinearPath()))
    ends, grid = double(0.0, 1.0)[:, None].expand(2, 2), paths.LinearPath().grid(10)
    calls, error = {}, {}
    for name, solver in (("euler", ode.euler), ("heun", ode.heun), ("rk4", ode.rk4)):
        field.calls = 0
        x = ode.final_state(solver(field.velocity, ends, grid[:-1]))
        exact = torch.hypot(
            2 * paths.LinearPath().alpha(grid[-2]), paths.LinearPath().sigma(grid[-2])
        )
        calls[name], error[name] = field.calls, abs(float(x[1, 0] - x[0, 0] - exact))
    return Evidence(
        [
            Number("evaluations of nine steps, Heun", calls["heun"], 9, 0),
            Number("evaluations of nine steps, Runge and Kutta", calls["rk4"], 9, 0),
        ],
        [
            Number("evaluations of nine steps, Euler", calls["euler"], 9, 0),
            Number("evaluations of nine steps, Heun", calls["heun"], 18, 0),
            Number("evaluations of nine steps, Runge and Kutta", calls["rk4"], 36, 0),
            Number("error of Runge and Kutta's steps, over Euler's", error["rk4"] / error["euler"],
                   0.01, 0, "<="),
        ],
    )  # fmt: skip


def _measure_inception_metrics() -> Evidence:
    """Eight modes against the Gaussian of their moments, and against eight single points."""
    target = gaussian_ring8()
    blob = Gaussian(target.mean, target.covariance)
    real, same, other = _exact_samples(target), _exact_samples(target), _exact_samples(blob)
    d, sliced = wasserstein.frechet_distance(real, other), transport.sliced_w2_distance(real, other)
    least = transport.sliced_w2_distance(real, same)
    scores = {
        name: classifier.classifier_score(target.log_terms(torch.as_tensor(x)).softmax(1).numpy())
        for name, x in (("points", target.means.numpy()), ("data", real))
    }
    bar = 10 * 7 / ROWS * float(target.covariance[0, 0])  # ten times the mean under the null
    what = "Fréchet distance of coordinates, one Gaussian in place of eight modes"
    return Evidence(
        [
            Number(what, d, 1, 0, ">="),
            Number("Inception score of eight single points less that of the data",
                   scores["points"] - scores["data"], 0, 0, "<="),
        ],
        [
            Number(what, d, bar, 0, "<="),
            Number("sliced W2 of the two, over that of two exact samples", sliced / least, 5, 0,
                   ">="),
            Number("Inception score of eight single points, of at most 8", scores["points"], 8,
                   1e-3),
        ],
    )  # fmt: skip


def _measure_frechet_bias() -> Evidence:
    n, d, repeats = 500, 4, 40
    target = Gaussian(torch.zeros(d), torch.eye(d))
    found = np.array(
        [
            (wasserstein.frechet_distance(a, b), kernels.kid(a, b))
            for a, b in (
                (_exact_samples(target, n), _exact_samples(target, n)) for _ in range(repeats)
            )
        ]
    )
    mean, bar = found.mean(0), 5 * found.std(0, ddof=1) / repeats**0.5
    what = "mean Fréchet distance of two samples of 500 from N(0, I) in four dimensions"
    return Evidence(
        [Number(what, float(mean[0]), 0, float(bar[0]))],
        [
            Number(what, float(mean[0]), (2 * d + d * (d + 1) / 2) / n, float(bar[0])),
            Number("mean kernel distance of the same samples", float(mean[1]), 0, float(bar[1])),
        ],
    )


CLAIMS = [
    Claim(
        "6.3-hundreds",
        r"Diffusion models need hundreds of steps.",
        Verdict.WRONG,
        _measure_needed_evaluations,
        "theory.transport.sliced_w2_distance",
        right=r"With a good solver they need ten to fifty: with the exact field, "
        r"DPM-Solver++(2M) is as near to the data as another sample of them.",
        covers="A67",
    ),
    Claim(
        "6.2-evaluations",
        r"Sampling speed is the number of steps (practice problem 5).",
        Verdict.WRONG,
        _measure_solver_evaluations,
        "theory.ode.rk4",
        right=r"It is the number of evaluations of the network: one a step for Euler and DDIM, two "
        r"for Heun, four for Runge and Kutta.",
        covers="A77",
    ),
    Claim(
        "6.2-inception",
        r"FID and the Inception score compare samples of points (practice problem 5).",
        Verdict.WRONG,
        _measure_inception_metrics,
        "metrics.wasserstein.frechet_distance",
        right=r"There is no Inception network of points. On coordinates FID sees two moments and "
        r"no modes, and the score is highest for eight single points. Sliced W2, MMD, the energy "
        r"distance and likelihood see the difference.",
        covers="A75 R64",
    ),
    Claim(
        "6.2-bias",
        r"FID of a perfect model is zero.",
        Verdict.ONLY_IF,
        _measure_frechet_bias,
        "metrics.wasserstein.frechet_distance",
        right=r"Only in the limit: with $n$ samples it is biased. Distances are read beside that "
        r"of two exact samples of the same size; the kernel distance has no bias.",
        formula=r"\mathbb E\,\mathrm{FID} \approx \frac{2d + d(d+1)/2}{n}",
        covers="A76 R64",
    ),
]
