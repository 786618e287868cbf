r"""Classifier-free guidance (Ho & Salimans, 2022), at some or all levels of noise.

.. math:: \hat x = (1 - w_t)\,\hat x(x_t, c_-) + w_t\,\hat x(x_t, c)

:math:`w_t` is the scale w where the noise level (`Path.level`) is in the interval, and 1, the
conditional model itself, elsewhere (Kynkaanniemi et al., 2024). w = 0 gives the model under
:math:`c_-`, w = 1 that under c, and w > 1 extrapolates; :math:`c_-` is the unknown condition, or a
negative one. The distribution sampled for :math:`w \ne 0, 1` is not :math:`p(x)\,p(c \mid x)^w`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor

from ..errors import UsageError
from ..options import Spelled
from ..shapes import Condition, Data, Times, append_dims
from .denoisers import Denoiser, Estimate
from .predictions import PosteriorMeans


@dataclass(frozen=True, eq=False)
class Guidance:
    """How far samples are moved towards their condition; a plain number is the scale alone.

    Arguments:
        scale: w.
        interval: The least and the largest noise level to guide at, 0 for data and 1 for noise;
            all when None, and none if both are alike.
        negative: :math:`c_-`, one for each sample or one for all, in place of the unknown one.
    """

    scale: float = 1.0
    interval: Sequence[float] | None = None
    negative: Condition = None

    def __post_init__(self) -> None:
        if self.interval is None:
            return
        ends = [v for v in self.interval if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(self.interval) != 2 or len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
            raise UsageError(
                f"guidance_interval is {str(self.interval)[:40]}; give two noise levels in order, "
                "from 0 (data) to 1 (noise), such as 0.2,0.8"
            )

    @classmethod
    def of(cls, value: "Guidance | float") -> "Guidance":
        return value if isinstance(value, Guidance) else cls(value)

    @property
    def active(self) -> bool:
        return self.scale != 1

    @property
    def details(self) -> list[str]:
        """What is given beside the scale, by the names that users know."""
        given = {"guidance_interval": self.interval, "negative": self.negative}
        return [name for name, value in given.items() if value is not None]

    def check(self, known: bool) -> "Guidance":
        """Itself, if it has sense where a condition is known or not."""
        for name in () if self.active else self.details:
            raise UsageError(f"{name} does nothing without guidance: give guidance=2, say, as well")
        if self.active and not known:
            raise UsageError(
                f"guidance={self.scale:g} needs a condition, and there is none: fit the model with "
                "one, or leave guidance out"
            )
        return self

    def check_scale_only(self, known: bool, owner: str) -> float:
        """The scale, for a model that has no path to guide on."""
        for name in self.details:
            raise UsageError(
                f"{owner} cannot honour the option {name!r}; it takes guidance, a scale, alone"
            )
        return self.check(known).scale

    def rows(self, selection: Any) -> "Guidance":
        return self if self.negative is None else replace(self, negative=self.negative[selection])

    def repeat(self, n: int) -> "Guidance":
        negative = None if self.negative is None else self.negative[:1].expand(n, -1)
        return replace(self, negative=negative)


# how a method that takes all of it annotates it: users write three options
GUIDANCE = ("guidance", "guidance_interval", "negative")  # what users call scale, interval, c_-
Guided = Annotated[Guidance | float, Spelled(GUIDANCE)]
_GridMaker = Callable[[Tensor, Tensor | None], list[Any]]


class GuidedDenoiser(Denoiser):
    def __init__(self, denoiser: Denoiser, guidance: Guidance | float) -> None:
        super().__init__()
        self.denoiser, self.path = denoiser, denoiser.path
        self.guidance = Guidance.of(guidance)
        self.scale, self.interval = self.guidance.scale, self.guidance.interval

    def is_guided(self, t: Tensor) -> Tensor:
        if self.interval is None:
            return torch.ones_like(t, dtype=torch.bool)
        low, high = self.interval
        level = self.path.level(t.double())
        return (low <= level) & (level <= high) & (low < high)

    def forward(self, x_t: Data, t: Times, c: Condition = None) -> PosteriorMeans:
        return self.guide(self.denoiser, x_t, t, c)

    def velocity(self, x_t: Data, t: Times, c: Condition = None) -> Data:
        """The same mixture of velocities: finite wherever theirs are."""
        return self.guide(self.denoiser.velocity, x_t, t, c)

    def estimates(self, times: Tensor, c: Condition = None) -> list[Estimate]:
        return self.guide_grid(self.denoiser.estimates, times, c)

    def velocities(self, times: Tensor, c: Condition = None) -> list[Callable[[Data], Data]]:
        return self.guide_grid(self.denoiser.velocities, times, c)

    def smooth_intervals(self, times: Tensor) -> list[tuple[Denoiser, Tensor]]:
        """Those outside of the interval and in it, where guidance is the same at all times."""
        if self.interval is None:
            return [(self, times)]
        everywhere = GuidedDenoiser(self.denoiser, replace(self.guidance, interval=None))
        start, end = times
        ratios = torch.tan(torch.tensor(self.interval, dtype=torch.float64) * math.pi / 2)
        cuts = self.path.inverse(ratios).to(times)
        cuts = cuts[(cuts > times.min()) & (cuts < times.max())]
        cuts = cuts.sort(descending=bool(start > end))[0]
        stops = torch.cat([start[None], cuts, end[None]])
        return [
            (everywhere if self.is_guided((a + b) / 2) else self.denoiser, torch.stack([a, b]))
            for a, b in pairwise(stops)
        ]

    def guide(self, function: Callable[..., Any], x_t: Data, t: Times, c: Condition) -> Any:
        """A function of ``(x_t, t, c)``, linear in the estimates."""
        if c is None or self.scale == 1:
            return function(x_t, t, c)
        if self.interval is None and self.scale == 0:
            return function(x_t, t, self.negative_condition(c))
        inside = self.is_guided(t)
        if self.interval is not None and not inside.any():
            return function(x_t, t, c)
        t = torch.cat([t, t]) if t.ndim else t  # one call of twice the batch
        both = function(torch.cat([x_t, x_t]), t, self.paired_conditions(c))
        if self.interval is None:
            return _combine_guidance(both, self.scale)
        w = append_dims(torch.where(inside, self.scale, 1.0).to(x_t), x_t)
        return _combine_guidance(both, w)

    def guide_grid(self, make: _GridMaker, times: Tensor, c: Condition) -> list[Any]:
        if c is None or self.scale == 1:
            return make(times, c)
        inside = self.is_guided(times)
        plain = iter([] if inside.all() else make(times[~inside], c))
        guided = iter(self.extrapolate_grid(make, times[inside], c) if inside.any() else [])
        return [next(guided if within else plain) for within in inside.tolist()]

    def extrapolate_grid(self, make: _GridMaker, times: Tensor, c: Tensor) -> list[Any]:
        if self.scale == 0:
            return make(times, self.negative_condition(c))
        pairs, w = make(times, self.paired_conditions(c)), self.scale
        return [lambda x, f=f: _combine_guidance(f(torch.cat([x, x])), w) for f in pairs]  # type: ignore[misc]

    def negative_condition(self, c: Tensor) -> Tensor:
        negative = self.guidance.negative
        return torch.zeros_like(c) if negative is None else negative.to(c).expand_as(c)

    def paired_conditions(self, c: Tensor) -> Tensor:
        return torch.cat([self.negative_condition(c), c])


def _combine_guidance(both: Any, w: float | Tensor) -> Any:
    r""":math:`(1 - w)\,\hat x(c_-) + w\,\hat x(c)` of a batch of both halves, or of estimates."""
    if isinstance(both, PosteriorMeans):
        return PosteriorMeans(_combine_guidance(both.x, w), _combine_guidance(both.eps, w))
    negative, positive = both.chunk(2)
    return torch.lerp(negative, positive, w)
