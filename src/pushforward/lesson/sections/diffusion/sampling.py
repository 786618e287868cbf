"""Claims on running diffusions backwards: samplers, density, guidance, training."""

import math
from functools import cache

import torch
from torch import Tensor

from ....rng import seeded_rng
from ....theory import guidance, ode, paths, samplers, transport
from ....theory.exact import dynamics, targets
from ....training.fit import fit
from ...cases import gaussian_1d
from ...claims import Claim, Evidence, Number, Verdict, double
from .reverse import SHORT


def _measure_ancestral_sampling() -> Evidence:
    n, data = 20_000, dynamics.Moments(0.8, 2.25)
    denoiser = targets.ExactDenoiser(gaussian_1d(0.8, 1.5), SHORT)
    numbers = []
    for v, name in ((1.0, "\\beta"), (0.0, "\\tilde\\beta")):
        noise = torch.randn(n, 1, dtype=torch.float64)
        x = ode.final_state(samplers.ddpm(denoiser, noise, SHORT.chain(), variance=v))
        exact = dynamics.ancestral_moments(SHORT, SHORT.chain(), data, v)
        what = f"of draws, $T = 100$, $\\Sigma = {name}$"
        numbers += [
            Number(f"mean {what}", float(x.mean()), exact.mean, 5 * math.sqrt(exact.variance / n)),
            Number(f"variance {what}", float(x.var()), exact.variance,
                   5 * exact.variance * math.sqrt(2 / n)),
        ]  # fmt: skip
    normal = dynamics.ancestral_moments(SHORT, SHORT.chain(), dynamics.Moments(0.0, 1.0), 1.0)
    point = dynamics.ancestral_moments(SHORT, SHORT.chain(), dynamics.Moments(0.7, 0.0), 0.0)
    numbers += [
        Number(
            "variance for $\\mathcal N(0, 1)$ data with $\\beta$: 1 less the noise that the last "
            "step leaves out",
            normal.variance,
            1 - float(SHORT.beta(1)),
            1e-12,
        ),
        Number("variance for one point with $\\tilde\\beta$", point.variance, 0, 1e-12),
        Number("mean for one point at 0.7", point.mean, 0.7, 1e-12),
    ]
    return Evidence(numbers)


def _measure_solver_orders() -> Evidence:
    path, x = paths.VariancePreservingPath(), torch.randn(50, 1, dtype=torch.float64)
    denoiser = targets.ExactDenoiser(gaussian_1d(0.5, 0.6), path)
    (a, b), (r, s) = (path(double(t)) for t in (0.95, 0.2))
    size = [torch.hypot(u * 0.6, v) for u, v in ((a, b), (r, s))]
    exact = r * 0.5 + size[1] / size[0] * (x - a * 0.5)

    def order(run: samplers.Sampler) -> float:
        coarse, fine = (
            float((ode.final_state(run(denoiser, x, grid)) - exact).norm())
            for grid in (torch.linspace(0.95, 0.2, n + 1, dtype=torch.float64) for n in (64, 128))
        )
        return math.log2(coarse / fine)

    times = path.grid(10)
    centred = targets.ExactDenoiser(gaussian_1d(0.0, 0.6), path)
    one = ode.final_state(samplers.ddim(centred, torch.ones(1, 1, dtype=torch.float64), times))
    expected = [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2)]
    return Evidence([
        Number("factor of DDIM in 10 steps on $\\mathcal N(0, 0.36)$, against its product of "
               "cosines", float(one), dynamics.ddim_factor(path, times, 0.6), 1e-9),
        *(
            Number(f"order of {name}", order(getattr(samplers, name)), p, 0.25)
            for name, p in expected
        ),
    ])  # fmt: skip


def _measure_flow_density() -> Evidence:
    target = targets.lesson_mixture()
    x = torch.linspace(-4, 4, 17, dtype=torch.float64)[:, None]
    denoiser = targets.ExactDenoiser(target, paths.LinearPath())
    got = denoiser.log_density(x, rtol=1e-9, atol=1e-9).value
    gap = float((got - target.log_prob(x)).abs().max())
    return Evidence([Number("largest error of $\\log p$ at 17 points, nats", gap, 0, 1e-6)])


def _measure_guided_score() -> Evidence:
    target, path, scale = targets.lesson_mixture(), paths.VariancePreservingPath(), 3.0
    t, x = double(0.3)[0], torch.linspace(-4, 4, 161, dtype=torch.float64)[:, None]
    denoiser = targets.ExactDenoiser(target, path)
    right = double(1.0, 0.0, 1.0).expand(len(x), 3)
    guided = guidance.GuidedDenoiser(denoiser, scale).score(x, t, right)
    free, conditional = denoiser.score(x, t), denoiser.score(x, t, right)
    tilted = targets.ExactDenoiser(_tilted_mixture(target, scale), path).score(x, t)
    slope = _class_gradient(target.diffuse(*path(t)), x)
    return Evidence(
        [
            Number(
                "largest difference between the guided score and that of $p(x)\\,p(k | x)^3$ with "
                "noise", float((guided - tilted).abs().max()), 0, 1e-3,
            ),
        ],
        [
            Number(
                "largest error of $\\nabla\\log p_t(x | k) = \\nabla\\log p_t + \\nabla\\log p_t(k "
                "| x)$", float((conditional - free - slope).abs().max()), 0, 1e-9,
            ),
            Number(
                "largest error of the guided score as $\\nabla\\log p_t + 3\\,\\nabla\\log p_t(k | "
                "x)$", float((guided - free - 3 * slope).abs().max()), 0, 1e-9,
            ),
        ],
    )  # fmt: skip


def _tilted_mixture(target: targets.GaussianMixture, power: float) -> targets.GaussianMixture:
    """p(x) p(k = 1 | x)^power as narrow components on the nodes of a quadrature."""
    (x, mass, log_p), *_ = target.nodes()
    weight = mass * (power * (target.log_terms(x)[:, 1] - log_p)).exp()
    kept = weight > 1e-300
    return targets.GaussianMixture(
        weight[kept], x[kept], torch.full((int(kept.sum()),), 1e-6, dtype=torch.float64)
    )


def _class_gradient(target: targets.GaussianMixture, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    chance = target.log_terms(x).log_softmax(1)[:, 1]
    return torch.autograd.grad(chance.sum(), x)[0]


@cache
@seeded_rng(0)
def _ddpm_samples() -> tuple[Tensor, Tensor]:
    """Draws of a small DDPM by ancestral sampling, and as many of the mixture it was fitted to."""
    target = targets.lesson_mixture()
    model = fit(
        target.sample(4000).numpy(), "ddpm", steps=500, seed=0, progress=False, width=64, chain=100,
        sampler="ddpm", sampler_steps=100,
    )  # fmt: skip
    return torch.as_tensor(model.sample(4000, seed=1)), target.sample(4000)


def _measure_ddpm_training() -> Evidence:
    x, exact = _ddpm_samples()
    grid = torch.linspace(-6, 7, 2001, dtype=torch.float64)[:, None]
    cdf = targets.lesson_mixture().log_prob(grid).exp().cumsum(0) * (grid[1] - grid[0])
    floor = transport.expected_w1(grid[:, 0].numpy(), cdf.clamp(0, 1).numpy(), 4000)
    distance = transport.w1_1d(x.double().numpy(), exact.double().numpy())
    left = float((x < 0).double().mean())
    return Evidence([
        Number("$W_1$ of 4,000 draws to 4,000 exact ones, whose own distance is " f"{floor:.3f}",
               distance, 0.2, 0, "<="),
        Number("weight of the left mode", left, 0.3, 0.06),
    ])  # fmt: skip


CLAIMS = [
    Claim(
        "5.2-ancestral",
        "Drawing $x_{t-1}$ from $p_\\theta(x_{t-1} | x_t)$ step by step gives data. The "
        "distribution that it gives on Gaussian data is known at every $T$.",
        Verdict.HOLDS,
        _measure_ancestral_sampling,
        "theory.exact.dynamics.ancestral_moments",
        covers="A55 R41 R46",
    ),
    Claim(
        "5.2-solvers",
        "The reverse process has an ordinary differential equation with the same marginals, which "
        "solvers of order 1 and 2 integrate (the lesson has no sampler).",
        Verdict.HOLDS,
        _measure_solver_orders,
        "theory.samplers.ddim",
        formula="x \\mapsto x\\,\\frac{D_0}{D_T}\\prod_k \\cos(\\varphi_k - \\varphi_{k+1}), "
        "\\quad \\varphi = \\arctan\\frac{\\sigma}{\\alpha s}",
        covers="R47",
    ),
    Claim(
        "5.2-density",
        "The same equation gives the density of the data exactly, by its divergence.",
        Verdict.HOLDS,
        _measure_flow_density,
        "theory.denoisers.Denoiser.log_density",
        formula="\\log p(x_0) = \\log p(x_T) + \\int_0^T \\nabla\\cdot u_t(x_t)\\,dt",
        covers="R48",
    ),
    Claim(
        "5.2-guidance",
        "Conditional generation (section 1.1) by classifier-free guidance at scale $w$ draws from "
        "$p(x)\\,p(k | x)^w$.",
        Verdict.WRONG,
        _measure_guided_score,
        "theory.guidance._combine_guidance",
        right="Its score is $\\nabla\\log p_t + w\\,\\nabla\\log p_t(k | x)$ at each $t$, and for "
        "$w \\ne 0, 1$ no distribution of data has these scores at all levels of noise.",
        covers="R6",
    ),
    Claim(
        "5.3-training",
        "Noise prediction trains a network from which ancestral sampling draws data.",
        Verdict.HOLDS,
        _measure_ddpm_training,
        "theory.transport.w1_1d",
        covers="R46",
    ),
]
