r"""Langevin dynamics: sampling with nothing but a score."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..shapes import Condition
from .denoisers import Denoiser
from .predictions import Estimate
from .steps import plan, without_graph


def langevin(
    denoise: Callable[[Tensor], Estimate], x: Tensor, sigma: float, count: int, snr: float
) -> Tensor:
    r"""Unadjusted Langevin steps at one level of noise.

    .. math:: x \gets x + \tfrac h2 \nabla\log p_t(x) + \sqrt h\, z, \qquad h = 4 (r\sigma_t)^2

    For noise in every direction this is the step of Song et al. (2021), whose
    :math:`h = 4(r\|z\|/\|\nabla\log p_t\|)^2` would tie each datum to the rest of its batch.
    """
    for _ in range(count):
        drift = denoise(x).eps  # minus sigma times the score
        x = torch.add(x, drift, alpha=-2 * snr**2 * sigma)
        x = torch.add(x, torch.randn_like(x), alpha=2 * snr * sigma)
    return x


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
    for step in plan(denoiser, x, times, c):
        x = step.ddim(step.now(x), eta=1.0)
        if step.sigma_s:
            x = langevin(step.ahead, x, step.sigma_s, corrections, snr)
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
    for step in plan(denoiser, x, times, c):
        x = langevin(step.now, x, step.sigma_t, corrections, snr)
        if step.sigma_s == 0:
            x = step.ddim(step.now(x))
        elif step.alpha_t:
            x = step.alpha_s / step.alpha_t * x
        yield x
