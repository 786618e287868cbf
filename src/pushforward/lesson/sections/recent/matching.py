"""Claims of 6.2: what flow matching learns, the least loss, and how fast it samples."""

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from ....theory import couplings, ode, paths, predictions, samplers
from ....theory.exact import dynamics
from ....theory.exact.targets import ExactDenoiser, Gaussian, GaussianMixture, lesson_mixture
from ... import snippets
from ...cases import gauss_legendre
from ...claims import Claim, Evidence, Number, Verdict, double

LINEAR = paths.LinearPath()
MEAN, SCALE = 0.8, 1.5  # of the data on the line
DATA = Gaussian(double(MEAN), torch.full((1, 1), SCALE**2, dtype=torch.float64))
ENDS = double(0.0, 1.0)[:, None]  # two points determine an affine map
PLANE = GaussianMixture(double(0.4, 0.6), torch.tensor([[-1.0, 0.5], [1.5, 0.0]]),
                        double(0.5, 0.8))  # fmt: skip


def gauss_hermite_pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of data and noise with weights: Gauss and Hermite's rule, exact for polynomials."""
    z, w = np.polynomial.hermite_e.hermegauss(12)
    pairs = torch.as_tensor(np.stack(np.meshgrid(z, z), -1).reshape(-1, 2))
    weight = torch.as_tensor(np.outer(w, w).ravel() / w.sum() ** 2)
    return MEAN + SCALE * pairs[:, :1], pairs[:, 1:], weight


def _affine_slope(states: Tensor) -> float:
    """Of an affine map of the line, from where it sends 0 and 1."""
    return float(states[1] - states[0])


def _measure_matching_target() -> Evidence:
    """The least loss by quadrature, and the field by Bayes' rule on a grid."""
    t, w = gauss_legendre(60)
    zero = torch.zeros(len(t), 1, dtype=torch.float64)
    least = float((w * dynamics.residual_variance(DATA, LINEAR, zero, t)).sum())
    target, grid = lesson_mixture(), torch.linspace(-9, 9, 6001, dtype=torch.float64)[:, None]
    x_t, s = 0.3, double(0.4)  # in the library's time, from data to noise
    weight = (target.log_prob(grid) - (x_t - 0.6 * grid[:, 0]).square() / (2 * 0.4**2)).exp()
    rate = (x_t - grid[:, 0]) / 0.4  # of a pair that passes through x_t
    mean = float((weight * rate).sum() / weight.sum())
    field = float(ExactDenoiser(target, LINEAR).velocity(double(x_t)[:, None], s))
    what = r"least loss for data $\mathcal N(m, 1.5^2)$"
    return Evidence(
        [Number(what, least, 0)],
        [
            Number(what, least, dynamics.gaussian_floor(SCALE), 1e-9),
            Number(r"field at a point less $\mathbb E[x_1 - x_0 \mid x_t]$", field - mean, 0, 1e-9),
        ],
    )


def _measure_matching_floor() -> Evidence:
    """The lesson's own example: noise to N((2, 0), I), with the exact field and with none."""
    mean, batches = torch.tensor([2.0, 0.0]), 40
    rows = torch.randn(2, batches, 1000, 2)
    fields = {
        "exact": lambda x, t: -dynamics.gaussian_velocity(LINEAR, mean, 1.0, x, 1 - t),
        "none": lambda x, t: torch.zeros_like(x),
    }
    losses = {
        name: torch.stack(
            [snippets.flow_matching_loss(v, a, b + mean) for a, b in zip(*rows)]
        ).double()
        for name, v in fields.items()
    }
    loss = {name: float(z.mean()) for name, z in losses.items()}
    bar = {name: 5 * float(z.std()) / batches**0.5 for name, z in losses.items()}
    least = 2 * dynamics.gaussian_floor(1.0)
    return Evidence(
        [Number("loss of the exact field", loss["exact"], 0, bar["exact"])],
        [
            Number(r"loss of the exact field: $\pi/2$ an entry", loss["exact"], least,
                   bar["exact"]),
            Number("loss of a field that is zero", loss["none"], 8, bar["none"]),
        ],
    )  # fmt: skip


def _measure_matching_gradients() -> Evidence:
    """A linear field regressed on pairs and on the exact field, by Gauss and Hermite's rule."""
    x, eps, weight = gauss_hermite_pairs()
    t = torch.tensor(0.35, dtype=torch.float64)
    x_t = LINEAR.interpolate(x, eps, t)
    conditional = predictions.prediction_target(LINEAR, predictions.velocity_prediction, x, eps, t)
    marginal = dynamics.gaussian_velocity(LINEAR, double(MEAN), SCALE, x_t, t)
    numbers = []
    for name, by in (("the slope", x_t), ("the offset", torch.ones_like(x_t))):
        cfm, fm = (
            float((weight[:, None] * 2 * (0.3 * x_t - 0.2 - y) * by).sum())
            for y in (conditional, marginal)
        )
        numbers.append(Number(f"gradient in {name} of a linear field", fm, cfm, 1e-10))
    return Evidence(numbers)


def _measure_straight_paths() -> Evidence:
    """Independent pairs cross; pairs in order of size do not."""
    target = ExactDenoiser(DATA, LINEAR)
    spread = {
        steps: _affine_slope(ode.final_state(samplers.euler(target, ENDS, LINEAR.grid(steps))))
        for steps in (1, 10)
    }
    n = 1000
    normal = Normal(double(0.0), double(1.0)).icdf((torch.arange(n).double() + 0.5) / n)[:, None]
    x, eps = couplings.exact_coupling(
        MEAN + SCALE * normal[torch.randperm(n)], normal[torch.randperm(n)]
    )
    moved = float((x - MEAN - SCALE * eps).abs().max())
    what = "deviation of what one Euler step makes of noise, data 1.5"
    ten = SCALE * dynamics.ddim_contraction(LINEAR, SCALE, LINEAR.grid(10))
    return Evidence(
        [Number(what, spread[1], SCALE)],
        [
            Number(what + ": all of it falls on the mean", spread[1], 0, 1e-12),
            Number(r"after ten steps: $s\prod_k \cos\Delta\phi_k$", spread[10], ten, 1e-12),
            Number("with pairs that are matched first, distance of each from the straight "
                   "flow of its noise", moved, 0, 1e-12),
        ],
    )  # fmt: skip


def _measure_sampling_speed() -> Evidence:
    """Ten evaluations on unit data, whose spread every method shrinks."""
    unit = Gaussian(double(MEAN), torch.ones(1, 1, dtype=torch.float64))
    cosine, vp = paths.CosinePath(t_max=1.0), paths.VariancePreservingPath()
    times = {"flow": LINEAR.grid(10), "cosine": torch.linspace(1, 0, 11, dtype=torch.float64)}
    flow, ddim = (
        ode.final_state(sampler(ExactDenoiser(unit, LINEAR), ENDS, times["flow"]))
        for sampler in (samplers.euler, samplers.ddim)
    )
    best = _affine_slope(
        ode.final_state(samplers.ddim(ExactDenoiser(unit, cosine), ENDS, times["cosine"]))
    )
    poor = dynamics.ddim_contraction(vp, 1.0, torch.linspace(1, 0, 11, dtype=torch.float64))
    ratio = "share of the deviation that ten evaluations keep"
    return Evidence(
        [Number(f"{ratio}, flow matching over DDIM on the cosine path", _affine_slope(flow) / best,
                1, 1e-6, ">=")],
        [
            Number("Euler steps of flow matching less DDIM's on the same path",
                   float((flow - ddim).abs().max()), 0, 1e-12),
            Number(f"{ratio}, flow matching", _affine_slope(flow),
                   dynamics.ddim_contraction(LINEAR, 1.0, times["flow"]), 1e-12),
            Number(f"{ratio}, DDIM on the cosine path", best, dynamics.least_contraction(10),
                   1e-12),
            Number(f"{ratio}, flow matching against DDIM on the linear betas in equal times",
                   _affine_slope(flow), poor, 0, ">="),
        ],
    )  # fmt: skip


def _measure_velocity_conversions() -> Evidence:
    """Score, data and noise from the field alone, and the likelihood of its flow."""
    denoiser, t = ExactDenoiser(PLANE, LINEAR), torch.tensor(0.35, dtype=torch.float64)
    x_t = torch.randn(40, 2, dtype=torch.float64)
    u = denoiser.velocity(x_t, t)

    def convert(goal: predictions.Prediction) -> Tensor:
        return predictions.convert_prediction(
            LINEAR, predictions.velocity_prediction, goal, x_t, u, t
        )

    lesson = -u  # the lesson's field, whose time 1 - t runs to data
    errors = {
        r"score, $(t u - x)/(1 - t)$": convert(predictions.score_prediction)
        - (0.65 * lesson - x_t) / 0.35,
        "score, that of the distribution of $x_t$": convert(predictions.score_prediction)
        - PLANE.diffuse(*LINEAR(t)).score(x_t),
        r"data, $x + (1 - t) u$": convert(predictions.data_prediction) - (x_t + 0.35 * lesson),
        r"noise, $x - t u$": convert(predictions.noise_prediction) - (x_t - 0.65 * lesson),
    }
    x = PLANE.sample(20).double()
    error = denoiser.log_density(x, rtol=1e-8, atol=1e-8).value - PLANE.log_prob(x)
    return Evidence([
        *(Number(f"largest error of the {k}", float(e.abs().max()), 0, 1e-10)
          for k, e in errors.items()),
        Number("largest error of the log-likelihood of its flow (nats)", float(error.abs().max()),
               0, 1e-5),
    ])  # fmt: skip


def _measure_path_ends() -> Evidence:
    """The variance at t = 1, on the lesson's path and on that of Lipman et al."""
    blurred, end = paths.BlurredPath(LINEAR, 0.1), torch.zeros((), dtype=torch.float64)
    found = [float((a * SCALE).square() + s.square()) for a, s in (LINEAR(end), blurred(end))]
    return Evidence([
        Number(r"variance of $x_1$ on the linear path", found[0], SCALE**2, 1e-12),
        Number(r"variance of $x_1$ with $\sigma_{\min} = 0.1$", found[1], SCALE**2 + 0.01, 1e-12),
    ])  # fmt: skip


def _measure_time_direction() -> Evidence:
    """The lesson's field integrated in its own time, and with the time of section 5."""
    field = lambda x, s: -dynamics.gaussian_velocity(LINEAR, double(MEAN), SCALE, x, 1 - s)  # noqa: E731
    grid, x = torch.linspace(0, 1, 201, dtype=torch.float64), double(-1.0)[:, None]
    right = float(ode.final_state(ode.rk4(field, x, grid)))
    wrong = float(ode.final_state(ode.rk4(lambda x, t: field(x, 1 - t), x, grid)))
    end = float(dynamics.gaussian_flow_map(LINEAR, double(MEAN), SCALE, x, ENDS[1, 0], ENDS[0, 0]))
    return Evidence(
        [Number("where the noise -1 ends if the field reads t as section 5 does", wrong, end,
                1e-3)],
        [Number("where it ends if t runs from noise to data", right, end, 1e-7)],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "6.2-target",
        r"Flow matching learns the field $u_t$ that equals $dx_t/dt$ along its pairs.",
        Verdict.WRONG,
        _measure_matching_target,
        "theory.exact.dynamics.residual_variance",
        right=r"$dx_t/dt = x_1 - x_0$ is the target of a regression, with $x_0 \sim \mathcal N(0, "
        r"I)$ independent of $x_1$ and $t \sim U[0, 1]$. Its minimiser is a conditional mean, and "
        r"the least loss is not zero.",
        formula=r"\min_\theta \mathbb E\,\lVert v_\theta(x_t, t) - (x_1 - x_0) \rVert^2,\qquad "
        r"v^*(x, t) = \mathbb E[x_1 - x_0 \mid x_t = x]",
        covers="A64 R55 R56",
    ),
    Claim(
        "6.2-floor",
        r"The loss is a distance from the right field.",
        Verdict.ONLY_IF,
        _measure_matching_floor,
        "lesson.snippets.flow_matching_loss",
        right=r"Up to a floor: $s\pi/2$ an entry for data of deviation $s$. In the lesson's "
        r"example a loss of $\pi$ is perfect, and only the excess says how good a field is.",
        formula=r"\int_0^1 \frac{s^2}{(1-t)^2 + t^2 s^2}\,dt = \frac{\pi}{2} s",
        covers="A65 R56",
    ),
    Claim(
        "6.2-gradients",
        r"Training needs no simulation: regression on $x_1 - x_0$ has the gradient of regression "
        r"on the field itself.",
        Verdict.HOLDS,
        _measure_matching_gradients,
        "theory.exact.dynamics.gaussian_velocity",
        formula=r"\nabla_\theta \mathbb E\,\lVert v_\theta - (x_1 - x_0) \rVert^2 "
        r"= \nabla_\theta \mathbb E\,\lVert v_\theta - u_t \rVert^2",
        covers="R55",
    ),
    Claim(
        "6.2-straight",
        r"Paths $x_t = (1 - t) x_0 + t x_1$ are straight, so that few steps sample.",
        Verdict.ONLY_IF,
        _measure_straight_paths,
        "theory.samplers.euler",
        right=r"The flow of independent pairs is curved, because pairs cross: one Euler step "
        r"returns the mean of the data. It is straight if pairs are matched by optimal transport.",
        formula=r"x_1 = m + s x_0 \text{ through } x_t = t m + \sqrt{(1-t)^2 + t^2 s^2}\,x_0",
        covers="A66 R55 R57",
    ),
    Claim(
        "6.2-faster",
        r"Flow matching samples faster than diffusion.",
        Verdict.WRONG,
        _measure_sampling_speed,
        "theory.samplers.ddim",
        right=r"Its Euler steps are DDIM's on the linear path. Which is faster depends on the "
        r"path, the grid and the solver; the cosine path's DDIM keeps more of the deviation.",
        formula=r"\prod_k \cos(\phi_{k+1} - \phi_k) \le \cos\Bigl(\frac{\pi}{2N}\Bigr)^N,\qquad "
        r"\phi = \arctan\frac{\sigma}{\alpha s}",
        covers="A66 R57",
    ),
    Claim(
        "6.2-conversions",
        r"The field $u_t$ is all there is to learn.",
        Verdict.HOLDS,
        _measure_velocity_conversions,
        "theory.predictions.convert_prediction",
        formula=r"\nabla \log p_t(x) = \frac{t\,u_t(x) - x}{1 - t},\qquad "
        r"\mathbb E[x_1 \mid x_t] = x + (1 - t)\,u_t,\qquad \mathbb E[x_0 \mid x_t] = x - t\,u_t",
        covers="R58",
    ),
    Claim(
        "6.2-ends",
        r"At $t = 1$ the interpolation is the data.",
        Verdict.HOLDS,
        _measure_path_ends,
        "theory.paths.BlurredPath.sigma",
        formula=r"\operatorname{Var} x_1 = s^2 + \sigma_{\min}^2",
        covers="R55",
    ),
    Claim(
        "6.2-time",
        r"$t$ is the time of the process, in section 5 and in section 6.",
        Verdict.ONLY_IF,
        _measure_time_direction,
        "theory.ode.rk4",
        right=r"In section 5 it runs from data to noise, in section 6 from noise to data. The "
        r"library has the first everywhere and turns the lesson's around once, $t \to 1 - t$.",
        covers="A06",
    ),
]
