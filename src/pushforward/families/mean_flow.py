r"""MeanFlow (Geng et al., 2025): learn the flow's average velocity, and sample in one step.

On the linear path, :math:`z_t = (1 - t) x + t\varepsilon` has the conditional velocity
:math:`\varepsilon - x`, whose mean given :math:`z_t` is the flow's velocity v. The average of v
along the flow from r to t,

.. math:: u(z_t, r, t) = \frac{1}{t - r} \int_r^t v(z_\tau, \tau)\,d\tau
    = \frac{z_t - z_r}{t - r},

takes any step exactly, :math:`z_r = z_t - (t - r)\,u`. To differentiate :math:`(t - r) u` along the
flow gives the MeanFlow identity, which needs no integral:

.. math:: u = v - (t - r)\,\frac{du}{dt}, \qquad
    \frac{du}{dt} = v\cdot\nabla_z u + \partial_t u = \mathrm{jvp}(u;\, v, 0, 1).

The identity ties u to its own derivative, so what is known at short spans reaches long ones slowly.
Over an interval, :math:`r \le s < t`, the same statement is

.. math:: (t - r)\,u(z_t, r, t) = (t - s)\,\bar v + (s - r)\,u(z_s, r, s), \qquad
    z_s = z_t - (t - s)\,\bar v,

with :math:`\bar v` of one Heun step (compare Guo et al., 2025); it reaches the longest span in
about ``intervals`` steps. Where r < t, training regresses u on one of the two right-hand sides,
without gradient, with the network's own :math:`v = u(z_t, t, t)` (Boffi et al., 2025): it has none
of the variance of the conditional velocity, which the paper takes. At r = t, where v is learned,
this is flow matching.
"""

import math
from collections.abc import Callable
from typing import Annotated, Unpack

import torch
from torch import Tensor, nn
from torch.func import jvp

from ..diffusion import default_width, stratified_indices
from ..model import Event, GenerativeModel, Likelihood, Recipe
from ..networks.select import TimeNetworkOptions, adapt_recipe, build_time_network
from ..options import FRACTION, Choice
from ..shapes import Condition, Data, PerDatum, Scalar, Times, append_dims, sum_event
from ..theory.guidance import Guidance
from ..theory.paths import LinearPath
from ..theory.predictions import batch_posterior_means
from ..theory.sample_statistics import conditional_energy_distance

LEVELS = 8192  # of time in training
VALIDATED = 1024  # held-out rows that samples are compared with


def time_of_angle(u: Tensor) -> Tensor:
    r"""The time of the linear path at the angle :math:`\arctan(\sigma/\alpha) = u^2\pi/2`."""
    angle = math.pi / 2 * u.square()
    return angle.sin() / (angle.sin() + angle.cos())


Goals = tuple[Data, Data, PerDatum]  # the velocity v, what u is regressed on, a weight
Target = Callable[["MeanFlow", Data, Times, Times, Times, Condition], Goals]


def interval_target(
    model: "MeanFlow", z: Data, r: Times, s: Times, t: Times, c: Condition
) -> Goals:
    r"""One Heun step of the flow from t to s, and u over the rest.

    The weight :math:`(t - r)/(t - s)` makes the gradient that of `derivative_target` as s → t.
    """
    v, h = model.u(z, t, t, c), append_dims(t - s, z)
    v = (v + model.u(z - h * v, s, s, c)) / 2
    rest = model.u(z - h * v, r, s, c)
    share = (t - s) / (t - r)
    return v, torch.lerp(rest, v, append_dims(share, z)), 1 / share


def derivative_target(
    model: "MeanFlow", z: Data, r: Times, s: Times, t: Times, c: Condition
) -> Goals:
    r"""The paper's :math:`v - (t - r)\,du/dt`; s does not matter."""
    v, slope = model.velocity_and_derivative(z, r, t, c)
    return v, v - append_dims(t - r, z) * slope, torch.ones_like(t)


TARGETS: dict[str, Target] = {"interval": interval_target, "derivative": derivative_target}


class MeanFlow(GenerativeModel):
    r"""The average velocity of the linear path's flow.

    The net maps ``z, t, c, t - r`` to the shape of z. The part ``apart`` of a batch has r < t, the
    part ``whole`` of these r = 0; there u is regressed on ``target``, whose ``intervals`` are of
    equal steps in the root of the angle, with the adaptive weight
    :math:`(1 + \|v - u'\|^2 / d)^{-p}` of power p.
    """

    likelihood = Likelihood.NONE
    recipe = Recipe(steps=9000, batch=256, lr=2e-3, clip=10.0)
    steps = 1  # of the sampler

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        apart: float = 0.5,
        whole: float = 0.3,
        target: Target = interval_target,
        intervals: int = 16,
        power: float = 0.0,
        guidance: float = 1.0,
    ) -> None:
        super().__init__()
        self.net, self.event_shape, self.path = net, event_shape, LinearPath()
        self.apart, self.whole, self.intervals = apart, whole, intervals
        self.target, self.power, self.guidance = target, power, guidance

    @property
    def nfe(self) -> int:
        return self.steps

    def u(self, z: Data, r: Times, t: Times, c: Condition = None) -> Data:
        r"""The average velocity: that of standard normal data, plus the network in its units.

        .. math:: u = \frac{2(t + r - 1)}{s_t(s_t + s_r)} z - \frac{1}{s_t} F(z/s_t, t, t - r),
            \qquad s_t^2 = (1 - t)^2 + t^2

        At r = t it is the velocity of `flow_matching` with the same network.
        """
        s_t, s_r = self.path.scale(t), self.path.scale(r)
        gaussian = 2 * (t + r - 1) / (s_t * (s_t + s_r))
        scaled = z / append_dims(s_t, z)
        return append_dims(gaussian, z) * z - self.net(scaled, t, c, t - r) / append_dims(s_t, z)

    def velocity_and_derivative(
        self, z: Data, r: Times, t: Times, c: Condition = None
    ) -> tuple[Data, Data]:
        r"""The velocity :math:`v = u(z_t, t, t)`, and :math:`du/dt` along its flow."""
        v = self.u(z, t, t, c)
        tangents = v, torch.zeros_like(r), torch.ones_like(t)
        return v, jvp(lambda z, r, t: self.u(z, r, t, c), (z, r, t), tangents)[1]

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        (r, s, t), c, eps = self.draw_times(x), self.drop_condition(c), torch.randn_like(x)
        z, k = self.path.interpolate(x, eps, t), round(self.apart * len(x))
        u = self.u(z, r, t, c)
        with torch.no_grad():
            known = None if c is None else c[:k]
            v, goal, weight = self.target(self, z[:k], r[:k], s[:k], t[:k], known)
            weight = weight * self.adaptive_weight(v - goal)
        apart = weight * sum_event((u[:k] - goal).square())
        flow = u[k:] - self.target_velocity(x[k:], z[k:], t[k:], None if c is None else c[k:])
        return {"mean_flow": apart.sum() / len(x), "flow": sum_event(flow.square()).sum() / len(x)}

    def adaptive_weight(self, change: Data) -> PerDatum:
        """The adaptive weight: steep places would otherwise drown the others."""
        d = change[0].numel() if len(change) else 1
        return (1 + sum_event(change.square()) / d) ** -self.power

    def draw_times(self, x: Data) -> tuple[Tensor, Tensor, Tensor]:
        r""":math:`r \le s < t`, uniform in the root of the angle, in the first part, then r = t."""
        k, n = round(self.apart * len(x)), len(x)
        even = (stratified_indices(n, LEVELS)[torch.randperm(n)] + 0.5) / LEVELS
        later = even[:k]
        # less by more than rounding, and 0 for those of one step
        earlier = 0.999 * later * torch.rand(k) * (torch.rand(k) >= self.whole)
        between = torch.maximum(later - 1 / self.intervals, earlier)
        r, s, t = (torch.cat([time_of_angle(u), even[k:]]).to(x) for u in (earlier, between, later))
        return r, s, t

    def target_velocity(self, x: Data, z: Data, t: Times, c: Condition) -> Data:
        x, eps = batch_posterior_means(self.path, x, z, t, c)
        return self.guided_velocity(z, t, eps - x, c)

    def guided_velocity(self, z: Data, t: Times, v: Data, c: Condition) -> Data:
        r""":math:`\omega v + (1 - \omega)\,u(z_t, t, t, \varnothing)`; v if c is hidden."""
        if c is None or self.guidance == 1:
            return v
        with torch.no_grad():
            free = self.u(z, t, t, torch.zeros_like(c))
        known = append_dims(c.any(dim=1), v)
        return torch.where(known, torch.lerp(free, v, self.guidance), v)

    def validation(self, x: Data, c: Condition = None) -> Scalar:
        x, c = x[:VALIDATED], None if c is None else c[:VALIDATED]
        return conditional_energy_distance(x, self.sample(len(x), c), c)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        c: Condition = None,
        *,
        steps: int | None = None,
        guidance: Guidance | float = 1.0,
    ) -> Tensor:
        """Equal steps of the average velocity from noise to data.

        A guidance of 0 is unconditional, 1 conditional; others extrapolate the velocity, which is
        guidance as usual in many steps and only resembles it in few.
        """
        w = Guidance.of(guidance).check_scale_only(c is not None, type(self).__name__)
        z = self.noise(n, *self.event_shape)
        grid = self.path.grid(self.steps if steps is None else steps).to(z)
        for t, r in zip(grid[:-1], grid[1:]):
            u = self.u(z, r, t, c)
            if c is not None and w != 1:
                u = torch.lerp(self.u(z, r, t, torch.zeros_like(c)), u, w)
            z = z - (t - r) * u
        return z


def build(
    event: Event,
    *,
    apart: Annotated[float, FRACTION] = 0.5,
    whole: Annotated[float, FRACTION] = 0.3,
    target: Annotated[str, Choice(TARGETS)] = "interval",
    intervals: int = 16,
    power: float | None = None,
    guidance: float = 1.0,
    unconditional: Annotated[float, FRACTION] = 0.1,
    **network: Unpack[TimeNetworkOptions],
) -> MeanFlow:
    """Build the model.

    Arguments:
        apart: The part of a batch with r < t; the rest is flow matching.
        whole: The part of these with r = 0, the step that samples at once.
        target: What is regressed on where r < t: "interval", a step of the flow and the rest of
            the way, or "derivative", the paper's identity.
        intervals: Steps of "interval" from data to noise.
        power: Of the adaptive weight, 0 for none; by default 1 in more than 4 dimensions, where
            without it a few far data can make the learned flow run away.
        guidance: The scale of classifier-free guidance that is learned; 1 for none.
        unconditional: Condition dropout probability, for guidance.
    """
    Guidance(guidance).check(known=event.condition > 0)
    net = build_time_network(event, units=default_width(event.shape), spans=True, **network)
    model = MeanFlow(
        net,
        event.shape,
        apart=apart,
        whole=whole,
        target=TARGETS[target],
        intervals=intervals,
        power=float(math.prod(event.shape) > 4) if power is None else power,
        guidance=guidance,
    )
    model.unconditional, model.recipe = unconditional, adapt_recipe(net, model.recipe)
    return model
