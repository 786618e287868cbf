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

Where r < t, training regresses u on the right-hand side, without gradient, with the network's own
:math:`v = u(z_t, t, t)` (Boffi et al., 2025): it has none of the variance of the conditional
velocity, which the paper takes. At r = t, where v is learned, this is flow matching.
"""

import torch
from torch import Tensor, nn
from torch.func import jvp

from ..diffusion import stratified
from ..model import Event, GenerativeModel, Likelihood, Recipe, guides
from ..networks.mlp import TimeMLP
from ..shapes import Condition, Data, PerDatum, Scalar, Times, expand, sum_event
from ..theory.energy import energy_score
from ..theory.paths import Linear

LEVELS = 8192  # of time in training


class MeanFlow(GenerativeModel):
    r"""The average velocity of the linear path's flow.

    Arguments:
        net: Maps ``z, t, c, t - r`` to the shape of ``z``.
        event_shape: The shape of one datum.
        apart: The part of a batch with r < t.
        power: The power p of the adaptive weight
            :math:`(1 + \|(t - r)\,du/dt\|^2 / d)^{-p}`.
        guidance: The scale of classifier-free guidance that is learned.
        steps: Steps of the sampler by default.
        unconditional: How often the condition is hidden in training.
    """

    likelihood = Likelihood.NONE
    recipe = Recipe(steps=9000, batch=256, lr=2e-3, clip=10.0)

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        apart: float = 0.5,
        power: float = 0.5,
        guidance: float = 1.0,
        steps: int = 1,
        unconditional: float = 0.1,
    ) -> None:
        super().__init__()
        self.net, self.event_shape, self.path = net, event_shape, Linear()
        self.apart, self.power, self.guidance = apart, power, guidance
        self.steps, self.unconditional = steps, unconditional

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
        scaled = z / expand(s_t, z)
        return expand(gaussian, z) * z - self.net(scaled, t, c, t - r) / expand(s_t, z)

    def along(self, z: Data, r: Times, t: Times, c: Condition = None) -> tuple[Data, Data]:
        r"""The velocity :math:`v = u(z_t, t, t)`, and :math:`du/dt` along its flow; no gradient."""
        with torch.no_grad():
            v = self.u(z, t, t, c)
            tangents = v, torch.zeros_like(r), torch.ones_like(t)
            return v, jvp(lambda z, r, t: self.u(z, r, t, c), (z, r, t), tangents)[1]

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        """The error of the identity where r < t, and of flow matching where r = t."""
        (r, t), c, eps = self.times(x), self.hidden(c), torch.randn_like(x)
        z, k = self.path.interpolate(x, eps, t), round(self.apart * len(x))
        u = self.u(z, r, t, c)
        v, slope = self.along(z[:k], r[:k], t[:k], None if c is None else c[:k])
        slope = expand(t - r, x)[:k] * slope
        apart = self.weight(slope) * sum_event((u[:k] - (v - slope)).square())
        flow = (u - self.goal(z, t, eps - x, c))[k:]
        return {"mean_flow": apart.sum() / len(x), "flow": sum_event(flow.square()).sum() / len(x)}

    def weight(self, slope: Data) -> PerDatum:
        """The adaptive weight: steep places would otherwise drown the others."""
        d = slope[0].numel() if len(slope) else 1
        return (1 + sum_event(slope.square()) / d) ** -self.power

    def times(self, x: Data) -> tuple[Tensor, Tensor]:
        """The pairs of times, r < t in the first part of the batch and r = t in the rest."""
        k, n = round(self.apart * len(x)), len(x)
        t = (stratified(n, LEVELS)[torch.randperm(n)] + 0.5) / LEVELS
        r = torch.cat([torch.rand(k), t[k:]])
        return torch.minimum(r, t).to(x), torch.maximum(r, t).to(x)

    def goal(self, z: Data, t: Times, v: Data, c: Condition) -> Data:
        r"""The guided velocity :math:`\omega v + (1 - \omega)\,u(z_t, t, t, \varnothing)`.

        Where the condition is hidden, and with a scale of 1, it is v itself.
        """
        if c is None or self.guidance == 1:
            return v
        with torch.no_grad():
            free = self.u(z, t, t, torch.zeros_like(c))
        known = expand(c.any(dim=1), v)
        return torch.where(known, torch.lerp(free, v, self.guidance), v)

    def validation(self, x: Data, c: Condition = None) -> Scalar:
        """The energy score of samples."""
        return energy_score(x, self.sample(len(x), c), self.sample(len(x), c)).mean()

    @torch.no_grad()
    def sample(
        self, n: int, c: Condition = None, *, steps: int | None = None, guidance: float = 1.0
    ) -> Tensor:
        """Equal steps of the average velocity from noise to data.

        Arguments:
            n: How many.
            c: The condition of each.
            steps: How many; each evaluates the network once, twice under guidance.
            guidance: 0 for unconditional, 1 for conditional; others extrapolate the velocity, which
                is guidance as usual in many steps and only resembles it in few.
        """
        guided = guides(guidance, c is not None)
        z = self.noise(n, *self.event_shape)
        grid = self.path.grid(self.steps if steps is None else steps).to(z)
        for t, r in zip(grid[:-1], grid[1:]):
            u = self.u(z, r, t, c)
            if c is not None and guided:
                u = torch.lerp(self.u(z, r, t, torch.zeros_like(c)), u, guidance)
            z = z - (t - r) * u
        return z


def build(
    event: Event,
    *,
    width: int = 128,
    depth: int = 3,
    waves: int | None = None,
    apart: float = 0.5,
    power: float = 0.5,
    guidance: float = 1.0,
    unconditional: float = 0.1,
) -> MeanFlow:
    """Build the model.

    Arguments:
        event: What the data look like.
        width: Units in each hidden layer.
        depth: Hidden layers.
        waves: Random waves of the data as inputs; by default 64 in up to 4 dimensions.
        apart: The part of a batch with r < t; the rest is flow matching.
        power: Of the adaptive weight; 0 for none.
        guidance: The scale of classifier-free guidance that is learned; 1 for none.
        unconditional: How often the condition is hidden in training, for guidance.
    """
    guides(guidance, event.condition > 0)
    net = TimeMLP(
        event.shape,
        event.condition,
        width=width,
        depth=depth,
        waves=waves,
        spans=True,
    )
    return MeanFlow(
        net, event.shape, apart=apart, power=power, guidance=guidance, unconditional=unconditional
    )
