"""Claims of 5.2 and 5.3: the way back, the bound, and what its simplification leaves out."""

import math

import torch
from torch import Tensor

from ....theory import ddpm_schedule, predictions
from ....theory.exact import diffusion_bound, dynamics, targets
from ...cases import gaussian_1d
from ...claims import Claim, Evidence, Number, Verdict, double
from .forward import PATH

SHORT = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(100))
EULER = 0.5772156649015329


def _measure_data_recovery() -> Evidence:
    target = targets.lesson_mixture()
    alpha, sigma = PATH(double(1.0))
    error = diffusion_bound.expected_noise_error(target, alpha, sigma) * (sigma / alpha).square()
    lost = float(error) / float(target.covariance)
    reached = dynamics.ancestral_moments(PATH, PATH.chain(), dynamics.Moments(0.8, 3.778), 1.0)
    what = "squared error of the best guess of $x_0$ from $x_T$, as a part of its variance"
    return Evidence(
        [Number(what, lost, 0, 0.01)],
        [
            Number(what, lost, 1, 1e-3),
            Number(
                "variance of a draw, for Gaussian data with 3.778", reached.variance, 3.778, 0.02
            ),
        ],
    )


def _measure_reverse_gap() -> Evidence:
    target = targets.lesson_mixture()
    gaps = {beta: diffusion_bound.reverse_gap(target, beta) for beta in (0.5, 0.02, 0.01, 0.005)}
    what = "$\\mathrm{KL}(q(x_{t-1} | x_t) \\| \\mathcal N)$ in nats, lesson's mixture, $\\beta$ = "
    order, rate = math.log2(gaps[0.01] / gaps[0.005]), diffusion_bound.reverse_gap_rate(target)
    extrapolated = 2 * gaps[0.005] / 0.005**3 - gaps[0.01] / 0.01**3
    exact = diffusion_bound.reverse_gap(gaussian_1d(0.8, 1.5), 0.9)
    return Evidence(
        [Number(f"{what} {beta}", gaps[beta], 0, 1e-7) for beta in (0.5, 0.02)],
        [
            Number("the same for Gaussian data, $\\beta = 0.9$", exact, 0, 1e-9),
            Number("order in $\\beta$, from 0.01 and 0.005", order, 3, 0.15),
            Number("its coefficient, extrapolated", extrapolated, rate, 0.05 * rate),
        ],
    )


def _measure_bound_sign() -> Evidence:
    target = targets.lesson_mixture()
    floor = diffusion_bound.noise_error_floors(SHORT, target)
    second = float(target.covariance + target.mean.square())
    variance = diffusion_bound.best_variance(SHORT, floor, 1)
    loss = float(diffusion_bound.expected_bound(SHORT, floor, second, 1, variance).sum())
    what = "$\\mathcal L$ in nats, best model, $T = 100$"
    entropy = target.entropy()
    return Evidence(
        [Number(f"{what}, a lower bound of $\\mathbb E \\log p$", loss, -entropy, 0, "<=")],
        [
            Number(f"{what}, an upper bound of $-\\mathbb E \\log p$", loss, entropy, 0, ">="),
            Number(f"{what}, not far above it", loss, entropy + 0.1, 0, "<="),
            Number("entropy from denoising errors alone",
                   diffusion_bound.entropy_from_denoising(target), entropy, 1e-7),
        ],
    )  # fmt: skip


def _measure_bound_terms() -> Evidence:
    x = targets.lesson_mixture().sample(50).double()
    states = [x, *diffusion_bound.forward_chain(x, SHORT.betas)]

    def wrong_model(x_t: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return 0.9 * x_t + 0.1 * torch.tanh(x_t), SHORT.variance(k, 0.3).expand_as(x_t)

    terms = diffusion_bound.bound_terms(SHORT, states, wrong_model).sum(0)
    gap = (terms - diffusion_bound.path_log_ratio(SHORT, states, wrong_model)).abs().max()
    return Evidence(
        [Number("largest difference on 50 paths of a wrong model, nats", float(gap), 0, 1e-7)]
    )


def _measure_step_posterior() -> Evidence:
    x, x_t, worst = double(-1.3), double(0.4), 0.0
    for k in (2, 500, 1000):
        a, before = 1 - PATH.beta(k), PATH.alpha_bar(k - 1)
        mean = torch.stack([before.sqrt() * x[0], (a * before).sqrt() * x[0]])
        cross, variance = a.sqrt() * (1 - before), 1 - a * before
        joint = torch.stack([torch.stack([1 - before, cross]), torch.stack([cross, variance])])
        exact = targets.Gaussian(mean, joint).condition_on([1], x_t)
        got, spread = PATH.posterior(x[:, None], x_t[:, None], k)
        worst = max(
            worst, float((got - exact.mean).abs()), float((spread - exact.covariance).abs())
        )
    return Evidence([
        Number("largest error against conditioning of the joint distribution", worst, 0, 1e-9),
        Number("$\\tilde\\beta_1$, whose logarithm is not finite",
               float(PATH.posterior(x, x_t, 1)[1]), 0, 1e-15),
    ])  # fmt: skip


def _measure_posterior_mean() -> Evidence:
    x_t, eps, k = torch.randn(2, 4).double(), torch.randn(2, 4).double(), torch.tensor([2, 700])
    beta, alpha_bar = PATH.beta(k)[:, None], PATH.alpha_bar(k)[:, None]
    x = predictions.solve_posterior_means(
        PATH, predictions.noise_prediction, x_t, eps, k.double() / 1000
    ).x
    got = PATH.posterior(x, x_t, k)[0]
    exact = (x_t - beta / (1 - alpha_bar).sqrt() * eps) / (1 - beta).sqrt()
    return Evidence([Number("largest difference", float((got - exact).abs().max()), 0, 1e-10)])


def _measure_variance_cost() -> Evidence:
    def cost(path: ddpm_schedule.DDPMPath, deviation: float, v: float | None) -> float:
        target = gaussian_1d(0.0, deviation)
        floor, k = diffusion_bound.noise_error_floors(path, target), torch.arange(1, path.steps + 1)
        variance = (
            diffusion_bound.best_variance(path, floor, 1) if v is None else path.variance(k, v)
        )
        terms = diffusion_bound.expected_bound(path, floor, deviation**2, 1, variance)
        return float(terms.sum()) - target.entropy()

    many = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1_000_000))
    end = gaussian_1d(0.0, 0.5).diffuse(*(z[0] for z in PATH(double(1.0))))
    what = "nats lost by $\\Sigma = "
    left = diffusion_bound.divergence_from_noise(end)
    return Evidence(
        [Number(f"{what}\\tilde\\beta$, data $\\mathcal N(0, 1)$, $T = 1000$", cost(PATH, 1.0, 0.0),
                0, 1e-3)],
        [
            Number(f"{what}\\tilde\\beta$ at $T = 10^6$, against $\\gamma/2$", cost(many, 1.0, 0.0),
                   EULER / 2, 1e-3),
            Number(f"{what}\\beta$, $T = 1000$", cost(PATH, 1.0, 1.0), 0, 1e-9),
            Number("nats lost by the best $\\Sigma$, data $\\mathcal N(0, 0.25)$: "
                   "$\\mathrm{KL}(q(x_T) \\| \\mathcal N)$", cost(PATH, 0.5, None), left, 1e-11),
        ],
    )  # fmt: skip


def _measure_simple_loss() -> Evidence:
    k = torch.tensor([1, 2, 500, 1000])
    t = k.double() / 1000
    large = ddpm_schedule.bound_weight(predictions.noise_prediction, 1.0)(PATH, t) / 1000
    small = ddpm_schedule.bound_weight(predictions.noise_prediction, 0.0)(PATH, t[1:]) / 1000
    data = ddpm_schedule.bound_weight(predictions.data_prediction, 0.0)(PATH, t[1:]) / 1000
    ratio = [PATH.alpha_bar(i) / (1 - PATH.alpha_bar(i)) for i in (k[1:] - 1, k[1:])]
    beta, alpha_bar = PATH.beta(k), PATH.alpha_bar(k)
    exact = beta / (2 * (1 - beta) * (1 - alpha_bar))
    floor = float(diffusion_bound.noise_error_floors(PATH, gaussian_1d(0.0, 1.0)).mean())
    snr = "largest relative error of the weight "
    return Evidence(
        [
            Number("weight of $t = 1$ in the bound over that of $t = 500$",
                   float(large[0] / large[2]), 1, 1e-6),
            Number("least $\\mathcal L_{simple}$, data $\\mathcal N(0, 1)$", floor, 0, 1e-3),
        ],
        [
            Number(f"{snr}$\\beta_t/(2\\alpha_t(1-\\bar\\alpha_t))$, $\\Sigma = \\beta$",
                   float((large / exact - 1).abs().max()), 0, 1e-9),
            Number(f"{snr}$(\\mathrm{{SNR}}_{{t-1}}/\\mathrm{{SNR}}_t - 1)/2$, "
                   "$\\Sigma = \\tilde\\beta$",
                   float((small / ((ratio[0] / ratio[1] - 1) / 2) - 1).abs().max()), 0, 1e-7),
            Number(f"{snr}$(\\mathrm{{SNR}}_{{t-1}} - \\mathrm{{SNR}}_t)/2$ of the data's error",
                   float((data / ((ratio[0] - ratio[1]) / 2) - 1).abs().max()), 0, 1e-7),
            Number("least $\\mathcal L_{simple}$, $\\frac1T\\sum_t \\bar\\alpha_t$", floor,
                   float(PATH.alpha_bar(torch.arange(1, 1001)).mean()), 1e-12),
        ],
    )  # fmt: skip


def _measure_prediction_conversions() -> Evidence:
    kinds = (
        predictions.data_prediction,
        predictions.noise_prediction,
        predictions.v_prediction,
        predictions.score_prediction,
    )
    x, eps, worst = torch.randn(5, 3).double(), torch.randn(5, 3).double(), 0.0
    t = double(0.1, 0.3, 0.5, 0.7, 0.9)
    x_t = PATH.interpolate(x, eps, t)
    for a in kinds:
        y = predictions.prediction_target(PATH, a, x, eps, t)
        for b in kinds:
            got = predictions.convert_prediction(PATH, a, b, x_t, y, t)
            exact = predictions.prediction_target(PATH, b, x, eps, t)
            worst = max(worst, float((got - exact).abs().max()))
    return Evidence([Number("largest error over all pairs of four predictions", worst, 0, 1e-9)])


CLAIMS = [
    Claim(
        "5.2-recover",
        "The reverse process recovers $x_0$ from $x_T$.",
        Verdict.WRONG,
        _measure_data_recovery,
        "theory.exact.diffusion_bound.expected_noise_error",
        right="$x_T$ hardly depends on $x_0$. The reverse process draws from $p(x_0 | x_T)$, which "
        "is all but the distribution of the data.",
        covers="A51",
    ),
    Claim(
        "5.2-gaussian",
        "For small $\\beta_t$ the reverse step is Gaussian too.",
        Verdict.ONLY_IF,
        _measure_reverse_gap,
        "theory.exact.diffusion_bound.reverse_gap",
        right="$\\beta_t \\to 0$, where the divergence from a Gaussian falls as $\\beta_t^3$, or "
        "the data are Gaussian, and then for every $\\beta_t$.",
        formula="\\mathbb E\\,\\mathrm{KL}(q(x_{t-1} | x_t) \\| \\mathcal N) \\approx "
        "\\frac{\\beta_t^3}{12}\\,\\mathbb E\\big[((\\log p)''')^2\\big]",
        covers="A52",
    ),
    Claim(
        "5.2-variance",
        "The reverse step has some variance $\\Sigma_\\theta$ (which the lesson leaves open).",
        Verdict.ONLY_IF,
        _measure_variance_cost,
        "theory.exact.diffusion_bound.expected_bound",
        right="it is chosen well: $\\beta_t$ costs nothing for standard normal data, where "
        "$\\tilde\\beta_t$ costs $\\gamma/2$ nats per dimension however many steps there are. The "
        "best is the mean of the true variances, and loses only $\\mathrm{KL}(q(x_T) \\| "
        "\\mathcal N)$.",
        formula="\\Sigma_t = \\tilde\\beta_t + \\frac{\\bar\\alpha_{t-1}\\beta_t^2}"
        "{(1-\\bar\\alpha_t)^2}\\,\\mathbb E\\operatorname{Var}(x_0 | x_t)",
        covers="A55 R41",
    ),
    Claim(
        "5.3-sign",
        "$\\mathcal L$ is the variational lower bound of $\\log p(x_0)$.",
        Verdict.WRONG,
        _measure_bound_sign,
        "theory.exact.diffusion_bound.expected_bound",
        right="It is the negative of one: $\\mathcal L = -\\mathrm{ELBO} \\ge -\\log p(x_0)$.",
        covers="A53 R43",
    ),
    Claim(
        "5.3-terms",
        "The bound splits into a divergence at the end, one at each step, and a reconstruction.",
        Verdict.HOLDS,
        _measure_bound_terms,
        "theory.exact.diffusion_bound.bound_terms",
        formula="\\log\\frac{q(x_{1:T} | x_0)}{p(x_{0:T})} = \\log\\frac{q(x_T | x_0)}{p(x_T)} + "
        "\\sum_{t=2}^T \\log\\frac{q(x_{t-1} | x_t, x_0)}{p(x_{t-1} | x_t)} - \\log p(x_0 | x_1)",
        covers="R43",
    ),
    Claim(
        "5.3-posterior",
        "$q(x_{t-1} | x_t, x_0)$ is Gaussian with the mean $\\tilde\\mu_t$ that is given, and "
        "$\\tilde\\beta_t = \\frac{1-\\bar\\alpha_{t-1}}{1-\\bar\\alpha_t}\\beta_t$, which the "
        "lesson does not define.",
        Verdict.HOLDS,
        _measure_step_posterior,
        "theory.ddpm_schedule.DDPMPath.posterior",
        covers="A54 R40",
    ),
    Claim(
        "5.3-mean",
        "Substituting $x_0 = (x_t - "
        "\\sqrt{1-\\bar\\alpha_t}\\,\\varepsilon)/\\sqrt{\\bar\\alpha_t}$ "
        "gives the mean of $p_\\theta$ (which the lesson does not write down).",
        Verdict.HOLDS,
        _measure_posterior_mean,
        "theory.ddpm_schedule.DDPMPath.posterior",
        formula="\\mu_\\theta = \\frac1{\\sqrt{\\alpha_t}}\\Big(x_t - "
        "\\frac{\\beta_t}{\\sqrt{1-\\bar\\alpha_t}}\\,\\varepsilon_\\theta\\Big)",
        covers="A55 R41",
    ),
    Claim(
        "5.3-simple",
        "The bound reduces to $\\mathcal L_{simple}$.",
        Verdict.WRONG,
        _measure_simple_loss,
        "theory.ddpm_schedule.data_gain",
        right="$\\mathcal L_{simple}$ drops the weights of the bound's terms, which differ by a "
        "factor of 90; it is another loss with the same minimum, and that minimum is not zero.",
        formula="L_{t-1} = \\frac{\\beta_t^2}{2\\Sigma_t\\alpha_t(1-\\bar\\alpha_t)}\\,"
        "\\mathbb E\\lVert\\varepsilon - \\varepsilon_\\theta\\rVert^2 + c_t",
        covers="A56 R43",
    ),
    Claim(
        "5.3-conversions",
        "Noise, data, $v$ and score are the same prediction in other coordinates.",
        Verdict.HOLDS,
        _measure_prediction_conversions,
        "theory.predictions.conversion_coefficients",
        covers="R42",
    ),
]
