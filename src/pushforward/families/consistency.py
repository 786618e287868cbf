r"""Consistency model (Song et al., 2023): learn where the flow ends; sample in one or two steps.

The probability flow carries every :math:`x_t` along one curve to the data. A consistency function
f maps each point of a curve to its end, so that along a curve f is constant. Training asks that of
neighbouring points, at times :math:`r < t` of a grid,

.. math:: L(\theta) = \mathbb E\,\frac{1}{t - r}\,
    d\bigl(f_\theta(x_t, t),\; f_{\theta^-}(x_r, r)\bigr), \qquad f(x, t_\min) = x,

where :math:`\theta^-` has no gradient. The boundary condition is built in by
:math:`f = c_{skip} x_t + c_{out} F_\theta`; without it a constant f would have no loss.

The point :math:`x_r` is a Heun step of a flow away from :math:`x_t`. In distillation the flow is
a teacher's. From scratch it is learned beside f, by flow matching, with the same network (compare
Kim et al., 2024). Or the two points share datum and noise (the first papers): right to first order
in :math:`t - r` alone, so that it takes many intervals, over which errors add up.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from ..diffusion import Diffusion, stratified_indices
from ..errors import UsageError
from ..model import Event, GenerativeModel, Likelihood, Loss, Recipe
from ..networks.select import TimeNetworkOptions, adapt_recipe, build_time_network
from ..options import FRACTION, Choice, Range
from ..shapes import Condition, Data, PerDatum, Scalar, Times, append_dims, sum_event
from ..theory import consistency as theory
from ..theory import ode, paths, predictions
from ..theory.consistency import HeunTeacher, discretisation_times
from ..theory.denoisers import NetworkDenoiser
from ..theory.guidance import Guidance, GuidedDenoiser
from ..theory.paths import Path
from ..theory.predictions import batch_posterior_means
from ..theory.sample_statistics import conditional_energy_distance

PATHS: dict[str, Path] = {
    "cosine": paths.CosinePath(),
    "linear": paths.LinearPath(t_max=160 / 161),
    "edm": paths.EDMPath(),
}
LEVELS = 8192  # of time in flow matching
VALIDATED = 1024  # held-out rows that samples are compared with


def pseudo_huber(y: Data, target: Data, c: float) -> PerDatum:
    r""":math:`\sqrt{\|y - y'\|^2 + c^2} - c` per datum (Song & Dhariwal, 2024)."""
    square = sum_event((y - target).square())
    return square / (torch.sqrt(square + c * c) + c)


VELOCITY = predictions.edm_prediction(1.0)  # minus the rate of x_t along the angle
INTERVALS = Range(high=10_000)  # the steps of each take memory before any number is stored


class _ConsistencyPair(NamedTuple):
    x: Data
    eps: Data
    x_t: Data  # the points that they make
    k: Tensor  # the levels of these points
    j: Tensor  # the levels of the second points, before them
    intervals: int  # how many levels there are
    c: Condition


def flow_step(model: "ConsistencyModel", at: _ConsistencyPair) -> Data:
    own = NetworkDenoiser(_ZeroSpanNetwork(model.net), model.path, VELOCITY)
    flow = model.teacher or HeunTeacher(own, model.path)
    return flow.step(at.x_t, at.k, at.j, at.intervals, at.c)


def shared_noise_step(model: "ConsistencyModel", at: _ConsistencyPair) -> Data:
    """The same datum and noise at the earlier time (Song et al., 2023, algorithm 3)."""
    r = discretisation_times(model.path, at.intervals).to(at.x)[at.j]
    return model.path.interpolate(at.x, at.eps, r)


Point = Callable[["ConsistencyModel", _ConsistencyPair], Data]
POINTS: dict[str, Point] = {"flow": flow_step, "noise": shared_noise_step}


class _ZeroSpanNetwork(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Data, t: Times, c: Condition = None) -> Data:
        return self.net(x, t, c, torch.zeros_like(t))


class Curriculum(NamedTuple):
    first: int = 8
    last: int = 16
    growth: float = 0.5

    def intervals(self, progress: float) -> int:
        stages = math.log2(self.last / self.first) + 1
        stage = int(min(progress / self.growth, 1.0) * stages) if self.growth else stages
        return min(int(self.first * 2**stage), self.last)


class ConsistencyModel(GenerativeModel):
    r"""A consistency function of a Gaussian path.

    The net maps ``x, t, c, span`` to the velocity over no span, and to F over all of t. The weights
    :math:`\theta^-` are an average with the decay ``target``, or the weights themselves if it is 0.
    """

    likelihood = Likelihood.NONE
    recipe = Recipe(steps=9000, batch=256, lr=2e-3, clip=10.0)
    levels_per_interval = 16  # the sampler stops anywhere
    steps = 2  # of the sampler

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        path: Path,
        point: Point = flow_step,
        curriculum: Curriculum = Curriculum(),  # noqa: B008 immutable
        huber: float = 0.3,
        target: float = 0.0,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.event_shape, self.path, self.point = net, event_shape, path, point
        self.curriculum, self.huber = curriculum, huber * math.prod(event_shape) ** 0.5
        self.target, self.guidance = target, guidance
        self.average = copy.deepcopy(net).requires_grad_(False) if target else None
        self.teacher: HeunTeacher | None = None

    @property
    def nfe(self) -> int:
        return self.steps

    def f(self, x_t: Data, t: Times, c: Condition = None, net: nn.Module | None = None) -> Data:
        r""":math:`f(x_t, t) = c_{skip}(t)\,x_t + c_{out}(t)\,F(x_t/s_t, t)` (`boundary_scales`)."""
        skip, out = (append_dims(z, x_t) for z in theory.boundary_scales(self.path, t))
        scaled, clock = x_t / append_dims(self.path.scale(t), x_t), self.path.network_time(t)
        return skip * x_t + out * (net or self.net)(scaled, clock, c, clock)

    def distil(self, teacher: GenerativeModel) -> None:
        if not isinstance(teacher, Diffusion):
            raise UsageError(
                "a consistency model is distilled from a diffusion or a flow on a Gaussian path: "
                "ddpm, edm or flow_matching"
            )
        self.teacher = HeunTeacher(GuidedDenoiser(teacher.denoiser, self.guidance), self.path)
        self.point = flow_step

    @property
    def intervals(self) -> int:
        return self.curriculum.intervals(self.progress)

    @property
    def learns_flow(self) -> bool:
        return self.point is flow_step and self.teacher is None

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        """The distance of f at two times of a curve; half of the batch is for the flow."""
        c, n = self.drop_condition(c), len(x) // 2 if self.learns_flow else len(x)
        terms = {"consistency": self.consistency_error(x[:n], None if c is None else c[:n])}
        if self.learns_flow:
            terms["flow"] = self.flow_matching_error(x[n:], None if c is None else c[n:])
        return {name: term.sum() / max(n, 1) for name, term in terms.items()}

    def consistency_error(self, x: Data, c: Condition) -> PerDatum:
        intervals, eps = self.levels_per_interval * self.intervals, torch.randn_like(x)
        k = stratified_indices(len(x), intervals).to(x.device) + 1
        j = (k - self.levels_per_interval).clamp(min=0)
        grid = discretisation_times(self.path, intervals).to(x)
        r, t = grid[j], grid[k]
        x_t = self.path.interpolate(x, eps, t)
        with torch.no_grad():
            x_r = self.point(self, _ConsistencyPair(x, eps, x_t, k, j, intervals, c))
            end = self.f(x_r, r, c, self.average)
        return 2 * self.huber * pseudo_huber(self.f(x_t, t, c), end, self.huber) / (t - r)

    def flow_matching_error(self, x: Data, c: Condition) -> PerDatum:
        """The error of flow matching, at times that are even in angle, unlike the levels."""
        even = (stratified_indices(len(x), LEVELS).to(x) + 1) / LEVELS
        t = discretisation_times(self.path, LEVELS).to(x)[(LEVELS * even.sqrt()).long()]
        eps, s = torch.randn_like(x), append_dims(self.path.scale(t), x)
        x_t = self.path.interpolate(x, eps, t)
        v = _ZeroSpanNetwork(self.net)(x_t / s, self.path.network_time(t), c)
        means = batch_posterior_means(self.path, x, x_t, t, c)
        goal = predictions.prediction_target(self.path, VELOCITY, *means, t)
        return sum_event((v - goal).square())

    def prepare(self, x: Data, c: Condition = None) -> None:
        if self.guidance != 1 and self.teacher is None:
            what = f"guidance={self.guidance:g} in training is that of a teacher"
            raise UsageError(f"{what}, and there is none: give teacher=RUN, or guide samples")

    def objectives(self) -> Iterator[tuple[str, Loss]]:
        yield "model", self.loss
        if self.average is not None:
            with torch.no_grad():
                for a, p in zip(self.average.parameters(), self.net.parameters(), strict=True):
                    a.lerp_(p, 1 - self.target)

    def validation(self, x: Data, c: Condition = None) -> Scalar:
        """The energy distance of samples; the loss itself can be small for a poor model."""
        x, c = x[:VALIDATED], None if c is None else c[:VALIDATED]
        return conditional_energy_distance(x, self.sample(len(x), c), c)

    def sample(
        self,
        n: int,
        c: Condition = None,
        *,
        steps: int | None = None,
        guidance: Guidance | float = 1.0,
    ) -> Tensor:
        """Multistep consistency sampling; each step evaluates the network once.

        A guidance of 0 is unconditional, 1 conditional; others extrapolate between both ends.
        """
        w = Guidance.of(guidance).check_scale_only(c is not None, type(self).__name__)
        times = theory.equal_angle_times(self.path, self.steps if steps is None else steps)
        eps = self.noise(n, *self.event_shape)
        x = self.path.scale(times[0]).to(eps) * eps

        def f(x_t: Data, t: Tensor) -> Data:
            if c is None or w == 1:
                return self.f(x_t, t, c)
            return torch.lerp(self.f(x_t, t, torch.zeros_like(c)), self.f(x_t, t, c), w)

        return ode.final_state(theory.sample_multistep(f, self.path, x, times))


def build(
    event: Event,
    *,
    path: Annotated[str, Choice(PATHS)] = "cosine",
    point: Annotated[str | None, Choice(POINTS)] = None,
    first: Annotated[int, INTERVALS] = 8,
    last: Annotated[int | None, INTERVALS] = None,
    growth: Annotated[float, FRACTION] = 0.5,
    huber: float = 0.3,
    target: float = 0.0,
    guidance: float = 1.0,
    unconditional: Annotated[float, FRACTION] = 0.1,
    **network: Unpack[TimeNetworkOptions],
) -> ConsistencyModel:
    """Build the model.

    Arguments:
        path: "cosine", "linear" or "edm".
        point: The second point of a curve: a step of the "flow" that is learned beside, by default
            in up to 4 dimensions, or of a teacher's; or the first point's datum and "noise".
        first: Intervals from data to noise when training begins; they double until ``last``.
        last: Intervals at the end, by default 16 for "flow", 32 for "noise"; more have less bias.
        growth: The part of training in which they grow.
        huber: Where the distance turns from squared to linear, in units of sqrt(d).
        target: The decay of an average of the weights that gives the targets, 0 for the weights.
        guidance: The scale of classifier-free guidance of the teacher in distillation.
        unconditional: Condition dropout probability.
    """
    few = math.prod(event.shape) <= 4
    point = point or ("flow" if few else "noise")
    if last is None:
        last = max(first, 16 if point == "flow" else 32)
    if last < first:
        raise UsageError(f"last is {last}; it must be at least first, {first}")
    if not 0 <= target < 1:
        raise UsageError(f"target is {target}; a decay is from 0 to 1, 1 excluded")
    if not huber > 0:
        raise UsageError(f"huber is {huber}; it must be positive")
    Guidance(guidance).check(known=event.condition > 0)
    # wider ones learn less in the minute that a comparison gives
    net = build_time_network(event, units=128, spans=True, **network)
    model = ConsistencyModel(
        net,
        event.shape,
        path=PATHS[path],
        point=POINTS[point],
        curriculum=Curriculum(first, last, growth),
        huber=huber,
        target=target,
        guidance=guidance,
    )
    model.steps = 2 if few else 1  # a second is worse beyond
    model.unconditional, model.recipe = unconditional, adapt_recipe(net, model.recipe)
    return model
