"""Claims of 5.1 and of the code of 5.3: the chain that adds noise, and its end."""

import math
from collections.abc import Callable

import torch

from ....theory import ddpm_schedule, transport
from ....theory.exact import diffusion_bound, targets
from ...claims import Claim, Evidence, Number, Verdict, double, raises_error

PATH = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(1000))


def count_failures(*attempts: Callable[[], object]) -> int:
    return sum(raises_error(attempt) for attempt in attempts)


def unscaled_betas(steps: int) -> torch.Tensor:
    """The lesson's betas: the same ends for any number of steps."""
    return torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)


def _measure_forward_marginals() -> Evidence:
    k = torch.arange(1, 1001)
    means, variances = diffusion_bound.moment_recursion(PATH.betas, 3.0, 0.0)
    mean = (means[1:] - 3 * PATH.alpha_bar(k).sqrt()).abs().max()
    variance = (variances[1:] - (1 - PATH.alpha_bar(k))).abs().max()
    return Evidence([
        Number("largest error of the mean of $x_t$ at $x_0 = 3$", float(mean), 0, 1e-12),
        Number("largest error of the variance", float(variance), 0, 1e-12),
    ])  # fmt: skip


def _measure_batched_times() -> Evidence:
    k = torch.tensor([1, 250, 1000])
    x, eps = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    table = PATH.alpha_bar(torch.arange(1, 1001)).sqrt().numpy()
    got = PATH.interpolate(x, eps, k / 1000)
    alpha_bar = torch.stack([(1 - PATH.betas[:i]).prod() for i in k.tolist()]).float()
    a, s = (z.view(3, 1, 1, 1) for z in (alpha_bar.sqrt(), (1 - alpha_bar).sqrt()))
    error = (got - (a * x + s * eps)).abs().max()
    return Evidence(
        [Number("errors raised for a vector of $t$", count_failures(lambda: table[k - 1] * x), 0)],
        [Number("largest error of images with a $t$ each", float(error), 0, 1e-5)],
    )


def _measure_table_precision() -> Evidence:
    x, k = torch.randn(4, 2), torch.tensor([1, 2, 3, 4])
    naive = PATH.alpha_bar(k).sqrt()[:, None] * x
    rounded = 1 - (1 - PATH.betas.float()).cumprod(0)
    truth = float(PATH.betas[0])
    ours = float(PATH.sigma(torch.tensor(1 / 1000)).double()) ** 2
    size = PATH.interpolate(x, x, k / 1000).element_size()
    return Evidence(
        [
            Number("bytes of an entry of $x_t$ for float32 data", naive.element_size(), 4),
            Number("relative error of $1 - \\bar\\alpha_1$ from float32 tables",
                   abs(float(rounded[0]) / truth - 1), 0, 1e-6),
        ],
        [
            Number("bytes of an entry, cast at use", size, 4),
            Number("relative error, cast at use", abs(ours / truth - 1), 0, 1e-6),
        ],
    )  # fmt: skip


def _measure_noise_index() -> Evidence:
    lesson = float((1 - (1 - PATH.betas).cumprod(0)).sqrt()[0])
    zero, one = PATH.sigma(double(0.0, 1 / 1000)).tolist()
    wrong = [lambda k=k: PATH.alpha_bar(k) for k in (0, -1, 1001)]
    return Evidence(
        [Number("deviation of the noise at $t = 0$", lesson, 0, 1e-6)],
        [
            Number("deviation of the noise at $k = 0$, ours", zero, 0, 1e-12),
            Number("deviation at $k = 1$", one, math.sqrt(1e-4), 1e-9),
            Number("errors raised for $k = 0, -1, 1001$", count_failures(*wrong), 3),
        ],
    )


def _measure_three_points() -> Evidence:
    target = targets.lesson_mixture()
    exact = PATH.interpolate(target.sample(200_000).double(), *_noise_and_time(200_000, 0.25))
    few, many = (
        PATH.interpolate(target.sample(n).double(), *_noise_and_time(n, 0.25)).numpy()
        for n in (3, 20_000)
    )
    distance = [transport.w1_1d(x, exact.numpy()) for x in (few, many)]
    return Evidence(
        [Number("$W_1$ of three points to the distribution of $x_{250}$", distance[0], 0, 0.06)],
        [Number("$W_1$ of 20,000 points", distance[1], 0, 0.06)],
    )


def _noise_and_time(n: int, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 1, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)


def mixture_terminal_kl(betas: torch.Tensor) -> float:
    mean, variance = diffusion_bound.moment_recursion(betas, 1.0, 0.0)
    terminal = targets.lesson_mixture().diffuse(mean[-1], variance[-1].sqrt())
    return diffusion_bound.divergence_from_noise(terminal)


def _measure_terminal_kl() -> Evidence:
    bar = "$\\mathrm{KL}(q(x_T) \\| \\mathcal N(0, 1))$ in nats, "
    left = [
        Number(f"{bar} $T = {T}$", mixture_terminal_kl(unscaled_betas(T)), 0, 5e-3)
        for T in (50, 100, 200)
    ]
    right = [Number(f"{bar} $T = 1000$", mixture_terminal_kl(unscaled_betas(1000)), 0, 5e-3)]
    for name, betas in (
        ("rescaled", ddpm_schedule.linear_betas),
        ("cosine", ddpm_schedule.cosine_betas),
    ):
        right += [Number(f"{bar} {name}, $T = {T}$", mixture_terminal_kl(betas(T)), 0, 5e-3)
                  for T in (50, 200)]  # fmt: skip
    refused = count_failures(
        *(lambda T=T: ddpm_schedule.DDPMPath(unscaled_betas(T)) for T in (50, 100, 200))
    )
    one = float(ddpm_schedule.terminal_kl(double(1.0)[:, None], float(PATH.alpha_bar(1000))))
    right += [
        Number("tables that leave signal and are refused", refused, 3),
        Number("$\\bar\\alpha_{1000}$", float(PATH.alpha_bar(1000)), 4.0358297e-5, 1e-11),
        Number("KL of $q(x_T | x_0 = 1)$, nats", one, 4.0358297e-5**2 / 4 + 4.0358297e-5 / 2, 1e-8),
    ]
    return Evidence(left, right)


def _measure_continuous_limit() -> Evidence:
    T = 4000
    k = torch.arange(1, T + 1, dtype=torch.float64)
    flow = (0.1 + 19.9 * (k - 0.5) / T) / T  # the continuous schedule, whose integral is 10.05
    kept = {
        name: float(diffusion_bound.moment_recursion(betas, 1.0, 0.0)[0][-1]) ** 2
        for name, betas in (("flow", flow), ("square", 1 / (4 * k**2)), ("harmonic", 1 / (k + 1)))
    }
    finite = "$\\bar\\alpha_T$ of $\\beta_k = \\beta(k/T)/T$, $T = 4000$"
    wallis = "$\\bar\\alpha_T$ of $\\beta_k = 1/4k^2$"
    exact = math.exp(-10.05)
    return Evidence(
        [Number(finite, kept["flow"], 0, 1e-6), Number(wallis, kept["square"], 0, 1e-2)],
        [
            Number(f"{finite}, against $e^{{-\\int\\beta}}$", kept["flow"], exact, 0.05 * exact),
            Number(f"{wallis}, against Wallis' $2/\\pi$", kept["square"], 2 / math.pi, 1e-4),
            Number(
                "$\\bar\\alpha_T$ of $\\beta_k = 1/(k+1)$", kept["harmonic"], 1 / (T + 1), 1e-12
            ),
        ],
    )


CLAIMS = [
    Claim(
        "5.1-closed-form",
        "The chain has the closed form $q(x_t | x_0) = "
        "\\mathcal N(\\sqrt{\\bar\\alpha_t}\\,x_0, (1 - \\bar\\alpha_t) I)$.",
        Verdict.HOLDS,
        _measure_forward_marginals,
        "theory.exact.diffusion_bound.moment_recursion",
        formula="m_k = \\sqrt{1 - \\beta_k}\\,m_{k-1}, \\quad V_k = (1 - \\beta_k) V_{k-1} + "
        "\\beta_k",
        covers="R39",
    ),
    Claim(
        "5.1-terminal",
        "With $\\beta$ from $10^{-4}$ to $0.02$ the chain ends in noise, whatever `timesteps` is.",
        Verdict.ONLY_IF,
        _measure_terminal_kl,
        "theory.exact.diffusion_bound.divergence_from_noise",
        right="$T \\approx 1000$. For other lengths $\\beta$ must be multiplied by $1000/T$, or "
        "the cosine schedule taken; a table with $\\bar\\alpha_T > 0.01$ is refused.",
        covers="A49 R37 R44",
    ),
    Claim(
        "5.1-limit",
        "$x_T$ tends to $\\mathcal N(0, I)$ as $T \\to \\infty$.",
        Verdict.ONLY_IF,
        _measure_continuous_limit,
        "theory.exact.diffusion_bound.moment_recursion",
        right="$\\sum_t \\beta_t \\to \\infty$, which is $\\bar\\alpha_T \\to 0$. With "
        "$\\beta_t = \\beta(t/T)/T$ the sum tends to an integral, and signal stays.",
        formula="\\bar\\alpha_T \\to 0 \\iff \\sum_t \\beta_t = \\infty",
        covers="A50 A80 R44",
    ),
    Claim(
        "5.3-batch",
        "`q_sample` adds the noise of step $t$ to data, as training needs it: a $t$ for each "
        "data point.",
        Verdict.ONLY_IF,
        _measure_batched_times,
        "theory.paths.Path.interpolate",
        right="$t$ is one Python integer: NumPy tables cannot be indexed by a tensor and "
        "multiplied with one. Ours take a time for each data point, of any shape.",
        covers="A45 R38",
    ),
    Claim(
        "5.3-precision",
        "Tables computed by NumPy in float64 fit data in float32.",
        Verdict.ONLY_IF,
        _measure_table_precision,
        "theory.ddpm_schedule.DDPMPath.integral",
        right="they are cast when they are used. As tensors they turn $x_t$ into float64, which a "
        "network in float32 refuses, and computed in float32 they lose four digits near $t = 1$.",
        covers="A46",
    ),
    Claim(
        "5.3-index",
        "In the code, $t = 0$ is the data, as in the formulas.",
        Verdict.WRONG,
        _measure_noise_index,
        "theory.ddpm_schedule.DDPMPath.integral",
        right="Its index 0 is the formulas' $t = 1$ and has noise of deviation 0.01, and $-1$ is "
        "silently $T$. Ours runs from 1 to $T$, 0 is data, and other indices are refused.",
        covers="A47",
    ),
    Claim(
        "5.3-three-points",
        "The histogram of three data with 20 bins shows the distribution of $x_t$.",
        Verdict.WRONG,
        _measure_three_points,
        "theory.transport.w1_1d",
        right="It takes thousands of draws, and the exact density drawn over them.",
        covers="A48",
    ),
]
