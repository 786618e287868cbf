"""Claims of 5.5: what Langevin dynamics settles at, how fast, and what it has to do with DDPM."""

import math

import torch

from ....theory import langevin, ode, paths
from ....theory.exact import dynamics, targets
from ...cases import gaussian_1d
from ...claims import Claim, Evidence, Number, Verdict, double
from .forward import PATH, count_failures

ONE = torch.ones(1, 1, dtype=torch.float64)


def ula_variance(h: float) -> float:
    return float(dynamics.gaussian_ula(ONE, h, 5000, ONE[0], ONE)[1])


def _measure_ula_transient() -> Evidence:
    n, k, start, numbers = 50_000, 5, 3.0, []
    for h in (0.1, 0.5):
        mean, variance = (1 - h) ** k * start, (1 - (1 - h) ** (2 * k)) / (1 - h / 2)
        exact = dynamics.gaussian_ula(ONE, h, k, start * ONE[0], 0 * ONE)
        x = ode.final_state(langevin.ula(lambda x: -x, torch.full((n, 1), start).double(), h, k))
        error = math.sqrt(variance / n), variance * math.sqrt(2 / n)
        numbers += [
            Number(f"mean after 5 steps from 3, $h = {h}$", float(exact[0]), mean, 1e-12),
            Number(f"variance after 5 steps, $h = {h}$", float(exact[1]), variance, 1e-12),
            Number(f"mean of 50,000 chains, $h = {h}$", float(x.mean()), mean, 5 * error[0]),
            Number(f"variance of 50,000 chains, $h = {h}$", float(x.var()), variance, 5 * error[1]),
        ]
    return Evidence(numbers)


def _measure_ula_bias() -> Evidence:
    small = dynamics.gaussian_bias(ONE, 0.01)
    return Evidence(
        [Number(f"variance on $\\mathcal N(0, 1)$, $h = {h}$", ula_variance(h), 1, 1e-3)
         for h in (0.1, 0.5, 1.0)],
        [
            *(Number(f"variance, $h = {h}$, against $1/(1-h/2)$", ula_variance(h), 1 / (1 - h / 2),
                     1e-9) for h in (0.1, 0.5, 1.0)),
            Number("nats from the target over $h^2/16$, $h = 0.01$", small * 16e4, 1, 0.01),
        ],
    )  # fmt: skip


def _measure_mala_acceptance() -> Evidence:
    target, n = gaussian_1d(0.0, 1.0), 20_000
    x = torch.randn(n, 1, dtype=torch.float64)
    states = list(langevin.mala(target.log_prob, target.score, x, 1.0, 4))
    chances = torch.stack([chance for _, chance in states])
    error = float(chances.std()) / math.sqrt(n)  # as if the four steps were one: an upper bound
    exact = dynamics.gaussian_acceptance(1.0)
    return Evidence([
        Number("acceptance at $h = 1$, $1 - \\frac2\\pi\\arcsin\\frac13$", exact,
               1 - 2 / math.pi * math.asin(1 / 3), 1e-12),
        Number("acceptance in 80,000 steps", float(chances.mean()), exact, 5 * error),
        Number("variance of the chains, where ULA has 2", float(states[-1][0].var()), 1,
               5 * math.sqrt(2 / n)),
    ])  # fmt: skip


def _measure_step_limit() -> Evidence:
    covariance = double(1.0, 0.3, 0.3, 0.5).view(2, 2)
    target = targets.Gaussian(double(0.0, 0.0), covariance)
    bound = 2 * float(torch.linalg.eigvalsh(covariance).min())
    start, spread = double(1.0, 1.0), torch.eye(2, dtype=torch.float64)

    def final_offset(h: float) -> float:
        return float(dynamics.gaussian_ula(covariance, h, 1000, start, spread)[0].norm())

    x = torch.randn(20, 2, dtype=torch.float64)
    refused = count_failures(lambda: langevin.stable_step(target.score, x, 1.01 * bound))
    what = "offset of the mean after 1,000 steps of $h = "
    return Evidence(
        [Number(f"{what}1.02 \\cdot 2/L$", final_offset(1.02 * bound), 0, 1e-3)],
        [
            Number(f"{what}0.98 \\cdot 2/L$", final_offset(0.98 * bound), 0, 1e-3),
            Number("the step that is chosen, half the limit", langevin.stable_step(target.score, x),
                   bound / 2, 1e-3),
            Number("steps beyond the limit that are refused", refused, 1),
        ],
    )  # fmt: skip


def _measure_mode_mixing() -> Evidence:
    target, n = targets.lesson_mixture(), 4000
    start = torch.randn(n, 1, dtype=torch.float64)
    plain = ode.final_state(langevin.ula(target.score, start, 0.01, 500))
    path = paths.GeometricPath(10.0, 0.05)
    annealed = ode.final_state(
        langevin.annealed_langevin(
            targets.ExactDenoiser(target, path), 10 * start, path.grid(50), snr=0.3
        )
    )
    left = [float((x < 0).double().mean()) for x in (plain, annealed)]
    error, what = math.sqrt(0.21 / n), "weight of the left mode, "
    return Evidence(
        [Number(f"{what}500 steps of $h = 0.01$ from noise", left[0], 0.3, 5 * error)],
        [
            Number(f"{what}500 steps over 50 levels of noise", left[1], 0.3, 5 * error + 0.02),
            Number("mean of the draws", float(annealed.mean()), 0.8,
                   5 * math.sqrt(3.778 / n) + 0.08),
        ],
    )  # fmt: skip


def _measure_annealed_chains() -> Evidence:
    """Chains against the recursions, alone and behind ancestral steps."""
    path, n, data = paths.GeometricPath(5.0, 0.1), 20_000, dynamics.Moments(0.5, 0.36)
    times, denoiser = path.grid(8), targets.ExactDenoiser(gaussian_1d(0.5, 0.6), path)
    start = float(path.scale(times[0])) * torch.randn(n, 1, dtype=torch.float64)
    numbers = []
    for run, moments in (
        (langevin.annealed_langevin, dynamics.annealed_langevin_moments),
        (langevin.predictor_corrector, dynamics.predictor_corrector_moments),
    ):
        exact = moments(path, times, data, 3, 0.4)
        x = ode.final_state(run(denoiser, start, times, corrections=3, snr=0.4))
        name, error = run.__name__, math.sqrt(exact.variance / n)
        deviation = exact.variance * math.sqrt(2 / n)
        numbers += [
            Number(f"mean of 20,000 chains, {name}", float(x.mean()), exact.mean, 5 * error),
            Number(f"their variance, {name}", float(x.var()), exact.variance, 5 * deviation),
        ]
    return Evidence(numbers)


def _measure_reverse_langevin() -> Evidence:
    data = dynamics.Moments(0.0, 0.25)
    reached = {
        "pure": dynamics.reverse_chain_moments(PATH, data, growth=0.0, weight=0.5),
        "half": dynamics.reverse_chain_moments(PATH, data, weight=0.5),
        "full": dynamics.reverse_chain_moments(PATH, data),
        "flow": dynamics.reverse_chain_moments(PATH, data, weight=0.5, noise=0.0),
    }
    full = dynamics.ancestral_moments(PATH, PATH.chain(), data, 1.0).variance
    what = "variance reached for data with 0.25, "
    return Evidence(
        [
            Number(f"{what}one Langevin step a level", reached["pure"].variance, 0.25, 0.01),
            Number(f"{what}reverse steps with Langevin's $\\frac\\beta2\\nabla\\log p$",
                   reached["half"].variance, 0.25, 0.01),
        ],
        [
            Number(f"{what}reverse steps with $\\beta\\nabla\\log p$", reached["full"].variance,
                   0.25, 0.01),
            Number("the same by DDPM's own step", full, reached["full"].variance, 1e-9),
            Number(f"{what}$\\frac\\beta2\\nabla\\log p$ and no noise, the flow",
                   reached["flow"].variance, 0.25, 0.015),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "5.5-transient",
        "The iteration moves a distribution towards $p$; on $\\mathcal N(0, 1)$ it is known after "
        "every step.",
        Verdict.HOLDS,
        _measure_ula_transient,
        "theory.exact.dynamics.gaussian_ula",
        formula="m_k = (1-h)^k m_0, \\qquad V_k = \\frac{1 - (1-h)^{2k}}{1 - h/2}",
        covers="R52",
    ),
    Claim(
        "5.5-bias",
        "Iterating $x \\gets x + h\\,\\nabla\\log p(x) + \\sqrt{2h}\\,z$ draws from $p$.",
        Verdict.ONLY_IF,
        _measure_ula_bias,
        "theory.exact.dynamics.gaussian_ula",
        right="$h \\to 0$. At a fixed step it settles at another distribution, $\\Sigma_h = "
        "\\Sigma(I - h\\Sigma^{-1}/2)^{-1}$ for Gaussians; a test of acceptance (MALA) removes the "
        "bias.",
        covers="A60 R52",
    ),
    Claim(
        "5.5-mala",
        "With a test of acceptance the distribution is $p$ at every step size (not in the lesson).",
        Verdict.HOLDS,
        _measure_mala_acceptance,
        "theory.exact.dynamics.gaussian_acceptance",
        formula="\\mathbb E\\min(1, r) = 1 - "
        "\\frac2\\pi\\arcsin\\sqrt{\\frac{h^3}{(h+2)(h^2-2h+4)}}",
        covers="A60 R52",
    ),
    Claim(
        "5.5-limit",
        "The iteration converges for every step size.",
        Verdict.ONLY_IF,
        _measure_step_limit,
        "theory.langevin.stable_step",
        right="$h < 2/L$, $L$ the largest curvature of $-\\log p$; beyond it diverges, and the "
        "step is refused.",
        covers="A60 R53",
    ),
    Claim(
        "5.5-mixing",
        "Langevin dynamics finds the modes of $p$ with their weights.",
        Verdict.ONLY_IF,
        _measure_mode_mixing,
        "theory.langevin.annealed_langevin",
        right="chains cross between modes, which takes exponentially long where they are far "
        "apart. Levels of noise, from large to small, let them cross first.",
        covers="A61 R52",
    ),
    Claim(
        "5.5-annealed",
        "Over levels of noise, alone or as corrector of ancestral steps, the distribution that it "
        "reaches follows a recursion.",
        Verdict.HOLDS,
        _measure_annealed_chains,
        "theory.exact.dynamics._corrector_moments",
        covers="R52",
    ),
    Claim(
        "5.5-reverse",
        "The reverse process of diffusion models is discretised Langevin dynamics.",
        Verdict.WRONG,
        _measure_reverse_langevin,
        "theory.exact.dynamics.reverse_chain_moments",
        right="A reverse step is one of the probability flow, with $\\frac\\beta2\\nabla\\log p$, "
        "and one of Langevin dynamics, with $\\frac\\beta2\\nabla\\log p$ and the noise. Langevin "
        "alone leaves a distribution where it is: it is the corrector.",
        formula="\\beta_t\\nabla\\log p_t = \\underbrace{\\tfrac12\\beta_t\\nabla\\log p_t}_{flow} "
        "+ \\underbrace{\\tfrac12\\beta_t\\nabla\\log p_t}_{Langevin}",
        covers="A62",
    ),
]
