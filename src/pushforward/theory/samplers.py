r"""Samplers: generators that carry noise :math:`x_1` to data :math:`x_0`, one yield per step.

Each has the signature ``sampler(denoiser, x, times, c, **options) -> Iterator[Tensor]`` with
decreasing ``times``, as `Path.grid` makes them. Take the last state for a sample, all of them for
a trajectory. NFE is the number of network evaluations a step; the scales of all steps are computed
once, as Python numbers, so that a step costs little more than its network.

The solvers of the probability flow work on :math:`x/\alpha` against :math:`\sigma/\alpha`, where
the flow is :math:`d(x/\alpha) = \hat\varepsilon\,d(\sigma/\alpha)`. A step that starts at
:math:`\alpha = 0` or ends at :math:`\sigma = 0` is the DDIM step, which is exact in those limits.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..errors import UsageError
from ..shapes import Condition
from .denoisers import Denoiser, Sampler, SamplerStep, plan_steps, without_graph
from .langevin import annealed_langevin, predictor_corrector

Variance = float | Callable[[Tensor, Tensor, Condition], Tensor]


@without_graph
def ddim(
    denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None, *, eta: float = 0.0
) -> Iterator[Tensor]:
    r"""Non-Markovian ancestral sampling, NFE 1; :math:`\eta = 1` is DDPM (Song et al., 2021).

    .. math:: x_s = \alpha_s \hat x + \sigma_s(\sqrt{1-\tau}\,\hat\varepsilon + \sqrt\tau\,z),\quad
        \tau = \eta^2\Big(1 - \frac{\alpha_t^2\sigma_s^2}{\alpha_s^2\sigma_t^2}\Big)
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta is {eta}; it must lie between 0 (no noise) and 1 (DDPM)")
    for step in plan_steps(denoiser, x, times, c):
        x = step.ddim(step.estimate_at_t(x), eta)
        yield x


@without_graph
def ddpm(
    denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None, *, variance: Variance = 0.0
) -> Iterator[Tensor]:
    r"""Ancestral sampling, NFE 1 (Ho et al., 2020).

    .. math:: x_s = \tilde\mu_s(x_t, \hat x) + \beta^{v/2}\,\tilde\beta^{(1-v)/2} z, \qquad
        \beta = \sigma_t^2 - \tfrac{\alpha_t^2}{\alpha_s^2}\sigma_s^2, \quad
        \tilde\beta = \tfrac{\sigma_s^2}{\sigma_t^2}\beta

    ``variance`` is v: 0 is exact for data at one point, 1 for standard normal data; in between as
    in Nichol & Dhariwal (2021), a number or a function of (x_t, t, c), for each entry of a datum.
    No noise is added in the step that ends at data.
    """
    for step in plan_steps(denoiser, x, times, c):
        estimate = step.estimate_at_t(x)
        v = variance(x, x.new_tensor(step.t), c) if callable(variance) else variance
        x, size = step.ancestral(estimate, v)
        if step.sigma_s:
            x = x + size * torch.randn_like(x)
        yield x


@without_graph
def euler(denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None) -> Iterator[Tensor]:
    r"""Euler steps of the probability flow in t, NFE 1: :math:`x_s = x_t + (s - t)\,u_t(x_t)`.

    On paths that are straight in t (`Linear`, `EDM`) this is DDIM.
    """
    times = times.to(x)
    for velocity, h in zip(denoiser.velocities(times, c), times.double().diff().tolist()):
        x = torch.add(x, velocity(x), alpha=h)
        yield x


@without_graph
def heun(denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None) -> Iterator[Tensor]:
    """Second-order steps, NFE 2 and 1 for the last one (Karras et al., 2022, algorithm 1)."""
    for step in plan_steps(denoiser, x, times, c):
        estimate = step.estimate_at_t(x)
        x = step.ddim(estimate)
        if not step.is_boundary:
            ahead = step.estimate_at_s(x).eps
            h = step.sigma_s - step.alpha_s * step.sigma_t / step.alpha_t
            x = torch.add(x, ahead - estimate.eps, alpha=h / 2)
        yield x


def _exponential_step(step: SamplerStep, x_t: Tensor, x: Tensor) -> Tensor:
    shrink = step.sigma_s / step.sigma_t
    return shrink * x_t + (step.alpha_s - step.alpha_t * shrink) * x


def _log_snr(alpha: float, sigma: float) -> float:
    if alpha == 0:
        return -math.inf
    return math.log(alpha / sigma) if sigma else math.inf


@without_graph
def dpmpp_2m(denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None) -> Iterator[Tensor]:
    r"""DPM-Solver++(2M), NFE 1 (Lu et al., 2022).

    Two steps in :math:`\lambda = \log(\alpha/\sigma)`, whose latest data estimates are
    extrapolated to the middle of the step; the first and the last step are DDIM's.
    """
    before, h_before = None, 0.0
    for step in plan_steps(denoiser, x, times, c):
        now = step.estimate_at_t(x).x
        h = _log_snr(step.alpha_s, step.sigma_s) - _log_snr(step.alpha_t, step.sigma_t)
        if before is None or step.is_boundary or math.isinf(h_before):
            x = _exponential_step(step, x, now)
        else:
            x = _exponential_step(step, x, torch.lerp(now, before, -h / (2 * h_before)))
        before, h_before = now, h
        yield x


@without_graph
def dpmpp_2s(denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None) -> Iterator[Tensor]:
    r"""DPM-Solver++(2S), the midpoint of each step in :math:`\lambda`, NFE 2, 1 for the last."""
    path, times = denoiser.path, times.to(x)
    alpha, sigma = path(times.cpu().double())
    ratio = sigma / alpha
    middles = torch.stack([times[:-1], path.inverse((ratio[1:] * ratio[:-1]).sqrt()).to(x)], dim=1)
    halves = plan_steps(denoiser, x, torch.cat([middles.flatten(), times[-1:]]), c)[::2]
    for step, half in zip(plan_steps(denoiser, x, times, c), halves):
        now = step.estimate_at_t(x).x
        if not step.is_boundary:
            now = half.estimate_at_s(_exponential_step(half, x, now)).x
        x = _exponential_step(step, x, now)
        yield x


# Adams & Bashforth's weights for equal steps, newest slope first
ADAMS = [[1.0], [3 / 2, -1 / 2], [23 / 12, -16 / 12, 5 / 12], [55 / 24, -59 / 24, 37 / 24, -9 / 24]]


@without_graph
def ipndm(
    denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None, *, order: int = 4
) -> Iterator[Tensor]:
    r"""Adams-Bashforth up to order 4 with orders 1, 2, 3 to start, NFE 1 (Zhang & Chen, 2023).

    .. math:: \frac{x_s}{\alpha_s} = \frac{x_t}{\alpha_t} + h \sum_j w_j \hat\varepsilon_j, \qquad
        h = \frac{\sigma_s}{\alpha_s} - \frac{\sigma_t}{\alpha_t}

    The weights are those of equal steps on every grid. On the default grids and exact denoisers
    the weights of unequal steps, formally better, do worse at 10 and 20 evaluations.
    """
    if order not in range(1, 5):
        raise UsageError(f"the order of ipndm is 1, 2, 3 or 4, not {order}")
    past: deque[Tensor] = deque(maxlen=order)
    for step in plan_steps(denoiser, x, times, c):
        estimate = step.estimate_at_t(x)
        if step.alpha_t == 0:  # x / alpha is infinite
            x = step.ddim(estimate)
        else:
            past.appendleft(estimate.eps)
            h = step.sigma_s - step.alpha_s * step.sigma_t / step.alpha_t
            x = step.alpha_s / step.alpha_t * x
            for w, eps in zip(ADAMS[len(past) - 1], past):
                x = torch.add(x, eps, alpha=h * w)
        yield x


@without_graph
def euler_maruyama(
    denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition = None
) -> Iterator[Tensor]:
    r"""The reverse SDE, NFE 1 (Song et al., 2021).

    .. math:: dx = [u_t + \tfrac{g_t^2}{2\sigma_t}\hat\varepsilon]\,dt + g_t\,d\bar w
        = [f_t x - g_t^2 \nabla\log p_t]\,dt + g_t\,d\bar w

    The SDE is singular at :math:`\alpha = 0` and needs no noise at data: both steps are DDIM's.
    """
    path = denoiser.path
    for step in plan_steps(denoiser, x, times, c):
        estimate = step.estimate_at_t(x)
        if step.is_boundary:
            x = step.ddim(estimate)
        else:
            t, h = torch.tensor(step.t, dtype=torch.float64), step.s - step.t
            f, g2 = float(path.drift(t)), float(path.diffusion(t))
            x = (1 + f * h) * x + (g2 * h / step.sigma_t) * estimate.eps
            x = x + math.sqrt(-g2 * h) * torch.randn_like(x)
        yield x


SAMPLERS: tuple[Sampler, ...] = (ddpm, ddim, euler, heun, dpmpp_2m, dpmpp_2s, ipndm)
SAMPLERS += (euler_maruyama, predictor_corrector, annealed_langevin)
NAMES: tuple[str, ...] = tuple(sampler.__name__ for sampler in SAMPLERS)


def sampler_by_name(name: str) -> Sampler:
    """The sampler that a user names (``dpmpp-2m`` is `dpmpp_2m`)."""
    key = name.replace("-", "_").lower()
    if key not in NAMES:
        raise UsageError(f"no sampler is called {name!r}; choose from {', '.join(NAMES)}")
    return SAMPLERS[NAMES.index(key)]
