r"""What samplers share: the steps of a grid, with all that depends on time computed once."""

import math
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..shapes import Condition
from .denoisers import Denoiser
from .predictions import PosteriorMeans

Sampler = Callable[..., Iterator[Tensor]]


def without_graph(sampler: Sampler) -> Sampler:
    """Run a sampler without gradients, which stay as they are for whoever takes its states."""

    @wraps(sampler)
    def run(*args: Any, **options: Any) -> Iterator[Tensor]:
        states = sampler(*args, **options)
        while True:
            with torch.no_grad():
                state = next(states, None)
            if state is None:
                return
            yield state

    return run


class SamplerStep(NamedTuple):
    """One step of a grid, from t to s: the denoiser at both ends, and the scales as numbers."""

    estimate_at_t: Callable[[Tensor], PosteriorMeans]
    estimate_at_s: Callable[[Tensor], PosteriorMeans]
    t: float
    s: float
    alpha_t: float
    alpha_s: float
    sigma_t: float
    sigma_s: float

    @property
    def is_boundary(self) -> bool:
        """Whether the step starts without signal or ends without noise."""
        return self.alpha_t == 0 or self.sigma_s == 0

    def ddim(self, estimate: PosteriorMeans, eta: float = 0.0) -> Tensor:
        r""":math:`\alpha_s \hat x + \sigma_s(\sqrt{1-\tau}\,\hat\varepsilon + \sqrt\tau\,z)`.

        The part :math:`\tau = \eta^2(1 - \alpha_t^2\sigma_s^2 / \alpha_s^2\sigma_t^2)` of the noise
        is drawn anew.
        """
        kept = (self.alpha_t * self.sigma_s / (self.alpha_s * self.sigma_t)) ** 2
        tau = eta**2 * (1 - kept)
        scale = self.sigma_s * math.sqrt(1 - tau)
        x = torch.add(self.alpha_s * estimate.x, estimate.eps, alpha=scale)
        if tau and self.sigma_s:
            x = torch.add(x, torch.randn_like(x), alpha=self.sigma_s * math.sqrt(tau))
        return x

    def ancestral(
        self, estimate: PosteriorMeans, variance: float | Tensor = 0.0
    ) -> tuple[Tensor, float | Tensor]:
        r"""The mean :math:`\tilde\mu_s(x_t, \hat x)` of the reverse step, and its deviation.

        The latter is :math:`\beta^{v/2}\tilde\beta^{(1-v)/2}` as in `samplers.ddpm`, v `variance`,
        and 0 in the step that ends at data.
        """
        ratio = self.alpha_t / self.alpha_s * self.sigma_s / self.sigma_t
        # mu-tilde in terms of both posterior means: alpha_s x + sigma_s ratio eps
        mean = torch.add(self.alpha_s * estimate.x, estimate.eps, alpha=self.sigma_s * ratio)
        deviation = math.sqrt(max(1 - ratio**2, 0.0)) if self.sigma_s else 0.0
        return mean, self.sigma_t**variance * self.sigma_s ** (1 - variance) * deviation


def plan_steps(denoiser: Denoiser, x: Tensor, times: Tensor, c: Condition) -> list[SamplerStep]:
    """The steps of a grid, its times rounded to the precision of the data first."""
    times = times.to(x)
    exact = times.cpu().double()
    functions = denoiser.estimates(times, c)
    columns = [functions, exact.tolist(), *(z.tolist() for z in denoiser.path(exact))]
    ends = [end for column in columns for end in (column[:-1], column[1:])]
    return [SamplerStep(*row) for row in zip(*ends)]
