r"""Drawing some entries of a datum given the others, :math:`x^U \sim p(x^U \mid x^K)`, and editing.

A model of the joint distribution answers every such question: mixtures in closed form, a path by a
particle filter along its reverse process or, where entries are many, by matching moments, any other
density by importance resampling, and a model that can only be sampled by a kernel on known entries.
Whole data are edited through noise: how far to go, and the way between two latents.
"""

import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Normal

from ..errors import NumericalError
from ..shapes import Condition, Data, PerDatum, append_dims, sum_event
from .denoisers import Denoiser, without_graph
from .paths import Path
from .predictions import PosteriorMeans
from .samplers import SamplerStep, plan_steps

FEW = 10  # effective particles below which a user is warned
BETWEEN = 0.5  # the variance of a reverse step, halfway between its two limits


def _forward_trajectory(x: Data, steps: list[SamplerStep]) -> list[Tensor]:
    states = []
    for step in reversed(steps):
        kept = step.alpha_t / step.alpha_s
        spread = math.sqrt(max(step.sigma_t**2 - (kept * step.sigma_s) ** 2, 0.0))
        x = torch.add(kept * x, torch.randn_like(x), alpha=spread)
        states.append(x)
    return states[::-1]


@torch.no_grad()
def particle_filter(
    denoiser: Denoiser,
    n: int,
    x: Tensor,
    known: Tensor,
    times: Tensor,
    c: Condition = None,
    *,
    particles: int = 0,
) -> Tensor:
    r"""``n`` draws of the unknown entries by a particle filter (Trippe et al., 2023).

    One trajectory of the known entries is drawn by the forward process, whose noise is independent
    of the rest. Given it, the reverse process of the unknown ones is a state-space model:

    .. math:: w \gets w\, p_\theta(x_s^K \mid x_t), \qquad x_s^U \sim p_\theta(x_s^U \mid x_t)

    with systematic resampling when the effective sample size falls below half. Exact as the
    particles and the steps grow; NFE is 1 a step.

    ``x`` is a datum whose ``known`` entries count, both ``(*event,)``; of conditions the first row
    does. Of at least so many ``particles`` n are returned, equally weighted.
    """
    x, draws, n = torch.where(known, x, 0.0), n, max(n, particles)
    c = None if c is None else c[:1].expand(n, -1)
    steps = plan_steps(denoiser, x[None], times, c)
    paths = [*_forward_trajectory(x[None], steps), x[None]]
    x_t = denoiser.path.scale(times[0]).to(x) * torch.randn(n, *x.shape).to(x)
    x_t, log_w = torch.where(known, paths[0], x_t), x.new_zeros(n)
    least = float(n)
    for step, x_s in zip(steps, paths[1:]):
        mean, size = step.ancestral(step.estimate_at_t(x_t), BETWEEN)
        if size:
            log_w = log_w - sum_event(torch.where(known, x_s - mean, 0.0).square()) / (2 * size**2)
        x_t = torch.where(known, x_s, mean + size * torch.randn_like(mean))
        size = effective_sample_size(log_w)
        least = min(least, size)
        if math.isnan(size):  # no particle has a weight
            raise NumericalError(
                "no draw fits what is given: it lies too far from the data the model was fitted to"
            )
        if size < n / 2 or step is steps[-1]:
            x_t, log_w = systematic_resample(x_t, log_w, n), torch.zeros_like(log_w)
    if least < min(FEW, n / 10):
        warnings.warn(
            f"at one step only {least:.0f} of {n} particles fit what is given: take the draws as "
            "rough, or draw with more particles and steps",
            stacklevel=2,
        )
    return x_t[:draws]


@without_graph
def moment_matching(
    denoiser: Denoiser,
    n: int,
    x: Tensor,
    known: Tensor,
    times: Tensor,
    c: Condition = None,
    *,
    rounds: int = 3,
) -> Iterator[Tensor]:
    r"""The states of ``n`` reverse processes, each given the known entries (Rozet et al., 2024).

    A step takes its posterior mean given :math:`x^K` as well, as if x given :math:`x_t` were normal
    with the moments that a denoiser knows, its mean and its covariance
    :math:`C = \frac{\sigma_t^2}{\alpha_t}\,\partial\hat x/\partial x_t`:

    .. math:: \mathbb E[x^U \mid x_t, x^K] \approx \hat x^U + C^{UK} (C^{KK})^{-1} (x^K - \hat x^K)

    The inverse is applied by `conjugate_residuals`. Exact for normal data, as rounds and steps
    grow; for others the last steps are nearly so, since x is then nearly normal given :math:`x_t`,
    but the first may choose among modes in other proportions. NFE is 1 a step, and ``rounds + 1``
    products with the Jacobian, each about as dear. The draws are independent.
    """
    steps = plan_steps(denoiser, x[None], times, c)
    x_t = denoiser.path.scale(times[0]).to(x) * torch.randn(n, *x.shape).to(x)
    for step in steps:
        mean, size = step.ancestral(estimate_given_known(step, x_t, x, known, rounds), BETWEEN)
        x_t = mean + size * torch.randn_like(mean)
        yield x_t


def estimate_given_known(
    step: SamplerStep, x_t: Data, x: Tensor, known: Tensor, rounds: int
) -> PosteriorMeans:
    with torch.enable_grad():
        noisy = x_t.detach().requires_grad_()
        guess = step.estimate_at_t(noisy).x
    mean = guess.detach()
    if step.alpha_t:
        scale = step.sigma_t**2 / step.alpha_t

        def covariance(w: Data) -> Data:
            return scale * torch.autograd.grad(guess, noisy, w, retain_graph=True)[0]

        gap = torch.where(known, x - mean, 0.0)
        w = conjugate_residuals(lambda w: torch.where(known, covariance(w), 0.0), gap, rounds)
        mean = mean + covariance(w)
    mean = torch.where(known, x, mean)
    return PosteriorMeans(mean, (x_t.detach() - step.alpha_t * mean) / step.sigma_t)


def conjugate_residuals(a: Callable[[Data], Data], b: Data, rounds: int) -> Data:
    r""":math:`A v = b` for each datum, with the least :math:`\|b - Av\|` in a few products with A.

    By generalised conjugate residuals (Eisenstat, Elman & Schultz, 1983): a network's Jacobian is
    neither symmetric nor positive, so that conjugate gradients could make the residual grow.
    """
    v, r = torch.zeros_like(b), b
    past: list[tuple[Data, Data]] = []  # directions, and their images, which are orthogonal
    for _ in range(rounds):
        p, image = r, a(r)
        for q, there in past:
            w = _projection_coefficient(image, there)
            p, image = p - w * q, image - w * there
        past.append((p, image))
        w = _projection_coefficient(r, image)
        v, r = v + w * p, r - w * image
    return v


def _projection_coefficient(x: Data, of: Data) -> Tensor:
    r""":math:`x^\top y / y^\top y` of each datum, ready to multiply data; 0 where y is 0."""
    norm = sum_event(of.square()).clamp(min=torch.finfo(of.dtype).tiny)
    return append_dims(sum_event(x * of) / norm, x)


def effective_sample_size(log_w: Tensor) -> float:
    r"""Kish's effective sample size :math:`(\sum_i w_i)^2 / \sum_i w_i^2`."""
    w = (log_w - log_w.max()).double().exp()
    return float(w.sum().square() / w.square().sum())


def systematic_resample(x: Data, log_w: PerDatum, n: int) -> Tensor:
    r"""``n`` rows, drawn with weights :math:`w_i`, on a systematic grid (Kitagawa, 1996)."""
    edges = (log_w - log_w.logsumexp(0)).double().exp().cumsum(0)
    u = (torch.arange(n, device=x.device) + torch.rand(1, device=x.device)) / n
    index = torch.searchsorted(edges / edges[-1], u.double()).clamp(max=len(x) - 1)
    return x[index[torch.randperm(n, device=x.device)]]


def importance_resample(
    proposals: Data, log_p: Callable[[Data], PerDatum], log_q: Callable[[Data], PerDatum], n: int
) -> tuple[Tensor, float]:
    r"""Importance resampling (Rubin, 1987): ``n`` of the proposals with :math:`w = p(x) / q(x)`.

    The proposals share their known entries and come from :math:`q(x^U \mid x^K)`; since
    :math:`q(x^K)` is the same for all, the joint densities suffice. Returned with the effective
    sample size.
    """
    log_w = (log_p(proposals) - log_q(proposals)).nan_to_num(nan=-math.inf)
    return systematic_resample(proposals, log_w, n), effective_sample_size(log_w)


def kernel_resample(
    draws: Data, x: Tensor, known: Tensor, n: int, least: float
) -> tuple[Tensor, float, float]:
    r"""``n`` draws with weights :math:`e^{-\|x_i^K - x^K\|^2 / 2h^2}`, then :math:`x^K` put in.

    The smallest bandwidth h is taken whose effective sample size is at least ``least``: for models
    that can be sampled only (approximate Bayesian computation; Beaumont et al., 2002). Returned are
    the draws, h in standard deviations, and the effective sample size.
    """
    scale = draws.std(0).clamp(min=1e-12)
    distance = sum_event(torch.where(known, (draws - x) / scale, 0.0).square())
    low, high = -12.0, 6.0  # log h; the effective size grows with it
    for _ in range(40):
        middle = (low + high) / 2
        enough = effective_sample_size(-distance / (2 * math.exp(2 * middle))) >= least
        low, high = (low, middle) if enough else (middle, high)
    log_w = -distance / (2 * math.exp(2 * high))
    found = torch.where(known, x, systematic_resample(draws, log_w, n))
    return found, math.exp(high), effective_sample_size(log_w)


def impute_by_gibbs(
    posterior: Callable[[Tensor], Normal],
    log_weight: Callable[[Normal, Tensor, Tensor], Tensor],
    draw: Callable[[Tensor], Tensor],
    rows: Tensor,
    known: Tensor,
    *,
    sweeps: int,
) -> Tensor:
    r"""Metropolis within Gibbs for models with latents (Mattei & Frellsen, 2018), a chain a row.

    .. math:: z' \sim q(z \mid x) \text{ accepted with } \min\Big(1,
        \frac{p(x, z')\,q(z \mid x)}{p(x, z)\,q(z' \mid x)}\Big), \qquad x^U \sim p(x^U \mid z)

    leaves :math:`p(z, x^U \mid x^K)` as it is, for known entries K and unknown ones U. In the first
    quarter all proposals are taken (Rezende et al., 2014), so that chains come to where data are.

    ``posterior`` is :math:`q(z \mid x)` of rows, ``draw`` a sample of :math:`p(x \mid z)` for each
    latent, ``log_weight`` :math:`\log p(x, z) - \log q(z \mid x)` of latents ``(2, n, latent)`` and
    rows. Chains begin at ``rows``, ``(n, *event)``.
    """
    x, z = rows, posterior(rows).sample()
    for sweep in range(sweeps):
        q = posterior(x)
        both = torch.stack([z, q.sample()])
        old, new = log_weight(q, both, x)
        taken = (torch.rand_like(new).log() < new - old) | (sweep < sweeps // 4)
        z = torch.where(taken[:, None], both[1], z)
        x = torch.where(known, rows, draw(z))
    return x


STRAIGHT = 1e-4  # of an angle, or of what it lacks to pi: there the great circle is a line


def time_at_strength(path: Path, strength: float) -> Tensor:
    r"""The time at which a path has lost so much: :math:`\sigma_t/\alpha_t = \tan(\pi s/2)`.

    On every path the same strength s leaves the same signal beside the same noise, as time t = s of
    the cosine path does; s = 1/2 leaves equal variances. s = 1 is the end of the path.
    """
    end = torch.tensor(path.t_max, dtype=torch.float64)
    if strength == 1:
        return end
    ratio = torch.tensor(math.tan(math.pi * strength / 2), dtype=torch.float64)
    return path.inverse(ratio).minimum(end)


def times_from_strength(path: Path, strength: float, grid: Tensor) -> Tensor:
    """The times from a strength down to data: its own, and those of a sampler's grid below it.

    Only the last, 0, is left where the strength is too small for any noise on the path.
    """
    t = time_at_strength(path, strength)
    if strength == 0 or t <= path.t_min < path.t_max:
        return grid[-1:]
    return torch.cat([t[None], grid[grid < t]])


def slerp(a: Data, b: Data, w: float) -> Data:
    r"""The way from a to b on the great circle (Shoemake, 1985), each entry of a batch on its own.

    .. math:: \frac{\sin((1 - w)\theta)\,a + \sin(w\theta)\,b}{\sin\theta}, \qquad
        \cos\theta = \frac{a^\top b}{\|a\|\,\|b\|}

    Points of one length stay at that length, which is about :math:`\sqrt d` for normal noise,
    while the middle of the line has :math:`\sqrt{d/2}`. Where the points lie on one line with 0, as
    they always do in one dimension, there is no great circle between them and the line is taken.
    """
    one, other = (z / append_dims(event_norm(z).clamp(min=1e-12), z) for z in (a, b))
    # accurate at both ends, where an inverse cosine is not
    angle = append_dims(2 * torch.atan2(event_norm(one - other), event_norm(one + other)), a)
    line = (angle < STRAIGHT) | (angle > math.pi - STRAIGHT)
    size = torch.where(line, 1.0, angle.sin())
    circle = (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / size
    return torch.where(line, torch.lerp(a, b, w), circle)


def event_norm(x: Data) -> PerDatum:
    return sum_event(x.square()).sqrt()
