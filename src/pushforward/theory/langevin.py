r"""Langevin dynamics: sampling with nothing but a score.

.. math:: x \gets x + h\,\nabla\log p(x) + \sqrt{2h}\,z, \qquad z \sim \mathcal N(0, I)

Without a test of acceptance (ULA) the distribution that the chain settles at is not p but one that
differs by O(h), and from :math:`h = 2/L` on, L the largest curvature of :math:`-\log p`, the chain
diverges. With the test (MALA) the distribution is right. Either mixes slowly between separate
modes; annealing the level of noise is the remedy (Song & Ermon, 2019).
"""

import math
from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor

from ..errors import NumericalError, UsageError
from ..shapes import Condition, Data, PerDatum, append_dims, sum_event
from .denoisers import Denoiser, plan_steps, without_graph
from .ode import final_state
from .predictions import PosteriorMeans

Score = Callable[[Data], Data]


def ula(score: Score, x: Data, h: float, steps: int) -> Iterator[Data]:
    """The unadjusted chain, one state a step (Roberts & Tweedie, 1996)."""
    for _ in range(steps):
        x = torch.add(x, score(x), alpha=h)
        x = torch.add(x, torch.randn_like(x), alpha=math.sqrt(2 * h))
        if not bool(x.isfinite().all()):
            remedy = "take one well below 2/L, L the largest curvature of -log p"
            raise NumericalError(f"Langevin dynamics diverged with the step h = {h:.3g}; {remedy}")
        yield x


def mala(
    log_prob: Callable[[Data], PerDatum], score: Score, x: Data, h: float, steps: int
) -> Iterator[tuple[Data, PerDatum]]:
    r"""The chain whose steps are proposals (Besag, 1994): states, and chances of acceptance.

    .. math:: \min\Big\{1, \frac{p(y)\,q(x \mid y)}{p(x)\,q(y \mid x)}\Big\}, \qquad
        q(y \mid x) = \mathcal N(y \mid x + h\nabla\log p(x), 2hI)

    ``log_prob`` may lack a constant. In many dimensions the best step accepts 0.574 of proposals.
    """
    value, slope = log_prob(x), score(x)
    for _ in range(steps):
        noise = torch.randn_like(x)
        y = x + h * slope + math.sqrt(2 * h) * noise
        value_y, slope_y = log_prob(y), score(y)
        back = sum_event((x - y - h * slope_y).square()) / (4 * h)
        ratio = value_y - value + sum_event(noise.square()) / 2 - back
        chance = ratio.nan_to_num(-math.inf).clamp(max=0).exp()
        taken = torch.rand_like(chance) < chance
        x, slope = (torch.where(append_dims(taken, x), *z) for z in ((y, x), (slope_y, slope)))
        value = torch.where(taken, value_y, value)
        yield x, chance


def score_curvature(score: Score, x: Data, iterations: int = 30) -> PerDatum:
    r"""The largest singular value of the score's Jacobian J at each datum, by power iteration.

    It approaches :math:`L = \|\nabla^2\log p(x)\|` from below. The score is evaluated once:
    :math:`J^\top u` is a derivative of it, and :math:`Jv` one of :math:`J^\top u` by u.
    """
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        u = torch.zeros_like(x, requires_grad=True)
        slope = score(x)
        (back,) = torch.autograd.grad(slope, x, u, create_graph=True)
        v, size = torch.randn_like(x), x.new_zeros(len(x))
        for _ in range(iterations):
            length = sum_event(v.square()).sqrt().clamp(min=torch.finfo(x.dtype).tiny)
            (forward,) = torch.autograd.grad(back, u, v / append_dims(length, x), retain_graph=True)
            size = sum_event(forward.square()).sqrt()
            (v,) = torch.autograd.grad(slope, x, forward, retain_graph=True)
    return size.detach()


def stable_step(score: Score, x: Data, h: float | None = None) -> float:
    """The step ``h`` if it is below the limit 2/L of stability; by default half of that limit.

    L is the largest `score_curvature` of the data ``x``, where the chains are or are to go.
    """
    limit = 2 / float(score_curvature(score, x).max().clamp(min=1e-12))
    if h is not None and not 0 < h < limit:
        raise UsageError(
            f"the step h = {h:.3g} of Langevin dynamics must be below 2/L = {limit:.3g}, "
            f"L = {2 / limit:.3g} the largest curvature of -log p; from there on it diverges"
        )
    return limit / 2 if h is None else h


def langevin_correction(
    denoise: Callable[[Tensor], PosteriorMeans], x: Tensor, sigma: float, count: int, snr: float
) -> Tensor:
    r"""Steps of ULA at one level of noise, :math:`h = 2(r\sigma_t)^2` (Song et al., 2021).

    The paper's :math:`h = 2(r\|z\|/\|\nabla\log p_t\|)^2`, which is this for noise in every
    direction, would tie each datum to the rest of its batch. The curvature at this level is up to
    :math:`L = 1/\sigma_t^2`, so that the limit 2/L is ``snr`` = r = 1.
    """
    if not 0 < snr < 1:
        raise UsageError(
            f"snr is {snr}; it must lie between 0 and 1, where the step h = 2 (snr sigma)^2 of "
            "Langevin dynamics reaches its limit of stability 2/L = 2 sigma^2"
        )
    states = ula(lambda x: denoise(x).eps / -sigma, x, 2 * (snr * sigma) ** 2, count)
    return final_state(chain([x], states))


@without_graph
def predictor_corrector(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    c: Condition = None,
    *,
    corrections: int = 1,
    snr: float = 0.16,
) -> Iterator[Tensor]:
    """An ancestral step, then Langevin steps there, NFE 1 + corrections (Song et al., 2021)."""
    for step in plan_steps(denoiser, x, times, c):
        x = step.ddim(step.estimate_at_t(x), eta=1.0)
        if step.sigma_s:
            x = langevin_correction(step.estimate_at_s, x, step.sigma_s, corrections, snr)
        yield x


@without_graph
def annealed_langevin(
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    c: Condition = None,
    *,
    corrections: int = 10,
    snr: float = 0.16,
) -> Iterator[Tensor]:
    """Langevin dynamics at each level of noise, then one denoising step (Song & Ermon, 2019).

    Between levels x / alpha is kept, which on the path of the paper, alpha = 1, is x. NFE is
    ``corrections`` a step, and 1 more at the end.
    """
    for step in plan_steps(denoiser, x, times, c):
        x = langevin_correction(step.estimate_at_t, x, step.sigma_t, corrections, snr)
        if step.sigma_s == 0:
            x = step.ddim(step.estimate_at_t(x))
        elif step.alpha_t:
            x = step.alpha_s / step.alpha_t * x
        yield x
