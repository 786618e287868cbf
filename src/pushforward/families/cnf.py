r"""Continuous normalizing flow (Chen et al., 2018): an ODE fitted by its exact likelihood.

.. math:: \dot x = v_\theta(x, t, c), \qquad
    \log p(x_0 \mid c) = \log\mathcal N(x_1) + \int_0^1 \nabla\cdot v_\theta(x_t, t, c)\,dt

Training solves the ODE in a few steps and penalises speed and bending, so that few are enough
(RNODE, Finlay et al., 2020):

.. math:: L = \mathbb E\Big[-\log p(x) + \int_0^1 \lambda_K \|v\|^2
    + \lambda_J \|\nabla v\|_F^2\,dt\Big]

Scores come from an adaptive solver, never from the steps of training, on whose errors a network can
learn to gain. By how many nats the steps of training are too high is noted at each validation as
``solver_error``.

The data are whitened first (`networks.whitening`), and the network starts at zero: the flow begins
as the Gaussian fitted to the data, and learns what is not Gaussian about them.
"""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import OdeError
from ..model import Event, GenerativeModel, Likelihood, Recipe, count_evaluations
from ..networks.mlp import TimeMLP, zero_last_layer
from ..networks.whitening import Whitening
from ..options import LAYERS, Choice
from ..shapes import Condition, Data, PerDatum, Scalar, standard_normal_log_prob
from ..theory import densities, ode
from ..theory.densities import FlowIntegrals, LogDensity, integrate_flow
from ..theory.ode import Field, Integrator, adjoint_integrator, tolerance_error

INTEGRATORS: dict[str, Integrator] = {
    "rk4": ode.rk4,
    "heun": ode.heun,
    "midpoint": ode.midpoint,
    "euler": ode.euler,
    "adaptive": ode.dormand_prince,
}
BAR = 0.01  # nats by which two solvers may differ before a density is called uncertain


def _backprop_through_steps(integrator: Integrator, weights: Iterable[Tensor]) -> Integrator:
    """Differentiate the steps themselves, which keeps the graph of all of them."""
    return integrator


GRADIENTS: dict[str, Callable[[Integrator, Iterable[Tensor]], Integrator]] = {
    "direct": _backprop_through_steps,
    "adjoint": adjoint_integrator,
}


class _ScoredDensity(NamedTuple):
    value: Tensor
    standard_error: Tensor  # of Hutchinson's estimate, (batch,); 0 where the trace is exact
    solver_error: float  # nats by which some of them change when solved ten times as accurately
    nfe: int


class TrainingSolver(NamedTuple):
    integrator: Integrator = ode.rk4
    steps: int = 4
    gradient: Callable[[Integrator, Iterable[Tensor]], Integrator] = _backprop_through_steps
    nodes: int = 2  # random times at which the divergence of a sample is taken
    probes: int = 0  # of Hutchinson's estimate; 0 is exact


class CNF(GenerativeModel):
    """A flow in continuous time, from whitened data at t = 0 to standard normal noise at t = 1.

    ``net(x, t, c)`` is the velocity; ``kinetic`` and ``jacobian`` weigh the regularisers.
    """

    likelihood = Likelihood.ODE
    recipe = Recipe(steps=1400, batch=512, lr=5e-3, ema=0.99)

    def __init__(
        self,
        net: nn.Module,
        event_shape: tuple[int, ...],
        *,
        solver: TrainingSolver = TrainingSolver(),  # noqa: B008 immutable
        kinetic: float = 0.01,
        jacobian: float = 0.01,
    ) -> None:
        super().__init__()
        self.net, self.event_shape, self.whitening = net, event_shape, Whitening(event_shape)
        self.solver, self.kinetic, self.jacobian = solver, kinetic, jacobian

    def prepare(self, x: Data, c: Condition = None) -> None:
        self.whitening.fit(x)

    def field(self, c: Condition) -> Field:
        return lambda x, t: self.net(x, t, c if c is None else c.repeat(len(x) // len(c), 1))

    def loss(self, x: Data, c: Condition = None) -> dict[str, Scalar]:
        c = self.drop_condition(c)
        run = self.solver.gradient(self.solver.integrator, self.net.parameters())
        draws = {"nodes": self.solver.nodes, "probes": self.solver.probes}
        at = self.draw_times(x)
        z = integrate_flow(self.field(c), self.whitening(x), at, integrator=run, **draws)
        return {
            "nll": -self.log_density(z).mean(),
            "kinetic": self.kinetic * z.kinetic.mean(),
            "jacobian": self.jacobian * z.jacobian.mean(),
        }

    def draw_times(self, x: Data) -> Tensor:
        """Where the steps of training end: equal ones, shifted together by up to half a step."""
        steps, shift = self.solver.steps, torch.rand((), device=x.device) - 0.5
        inner = (torch.arange(1, steps, device=x.device) + shift) / steps
        return torch.cat([inner.new_zeros(1), inner, inner.new_ones(1)])

    def log_density(self, z: FlowIntegrals) -> PerDatum:
        return standard_normal_log_prob(z.x) + z.trace + self.whitening.log_det

    @torch.no_grad()
    def solver_bias(self, x: Data, c: Condition = None) -> Scalar:
        """By how many nats the solver's errors in training raise the mean log-density of data."""
        times, run = self.draw_times(x), self.solver.integrator
        z = integrate_flow(self.field(c), self.whitening(x), times, integrator=run, nodes=16)
        good = self.solve_log_density(x, c, torch.linspace(0, 1, 5), rtol=1e-3, atol=1e-3)
        return (self.log_density(z) - good.value).mean()

    def validation(self, x: Data, c: Condition = None) -> Scalar:
        x, c = x[:512], _first_conditions(c, 512)
        limits = {"rtol": 1e-3, "atol": 1e-3, "probes": None if x[0].numel() <= 8 else 8}
        try:
            found = self.solve_log_density(x, c, torch.linspace(0, 1, 3), **limits)
        except OdeError:
            return x.new_tensor(math.inf)
        return -found.value.mean()

    def diagnosis(self, x: Data, c: Condition = None) -> dict[str, float]:
        n = _audit_rows(x)
        try:
            return {"solver_error": float(self.solver_bias(x[:n], _first_conditions(c, n)))}
        except OdeError:
            return {"solver_error": math.inf}

    def solve_log_density(self, x: Data, c: Condition, times: Tensor, **options: Any) -> LogDensity:
        field, z = self.field(c), self.whitening(x)
        found = densities.flow_log_density(field, z, times, standard_normal_log_prob, **options)
        return found._replace(value=found.value + self.whitening.log_det)

    def score(
        self, x: Data, c: Condition = None, *, tolerance: float = 1e-5, probes: int | None = None
    ) -> _ScoredDensity:
        """Log-densities with their errors; `OdeError` if the solver cannot reach its tolerance.

        The probes are those of Hutchinson's estimate; None is exact up to 64 dimensions.
        """
        limits = {"rtol": tolerance, "atol": tolerance, "probes": probes}
        found = self.solve_log_density(x, c, torch.linspace(0, 1, 2), **limits)
        error = self.solver_error(x, c, tolerance, probes)
        return _ScoredDensity(found.value, found.standard_error, error, found.nfe)

    def solver_error(self, x: Data, c: Condition, tolerance: float, probes: int | None) -> float:
        """The most by which a few log-densities change at a tenth of the tolerance, in nats."""
        if not len(x):
            return 0.0
        i = torch.linspace(0, len(x) - 1, min(len(x), _audit_rows(x)), device=x.device).long()
        rows, few = x[i], None if c is None else c[i]

        def solve(times: Tensor, limit: float) -> Tensor:
            options = {"rtol": limit, "atol": limit, "probes": probes}
            return self.solve_log_density(rows, few, times, **options).value

        return tolerance_error(solve, rows, tolerance)

    def log_prob(
        self, x: Data, c: Condition = None, *, tolerance: float = 1e-5, probes: int | None = None
    ) -> PerDatum:
        """The log-densities of `score`, with a warning where two solvers differ by 0.01 nats."""
        return self.estimated(x, c, tolerance=tolerance, probes=probes)[0]

    def estimated(self, x: Data, c: Condition = None, **options: Any) -> tuple[PerDatum, PerDatum]:
        found = self.score(x, c, **options)
        if found.solver_error > BAR:
            warnings.warn(
                f"the solver's error is {found.solver_error:.2g} nats: lower tolerance, or fit "
                "again with larger kinetic and jacobian",
                stacklevel=2,
            )
        return found.value, found.standard_error

    @torch.no_grad()
    def encode(self, x: Data, c: Condition = None, *, tolerance: float = 1e-5) -> Data:
        return self.integrate(self.whitening(x), c, torch.tensor([0.0, 1.0]), tolerance)

    @torch.no_grad()
    def decode(self, z: Data, c: Condition = None, *, tolerance: float = 1e-5) -> Data:
        return self.whitening.inverse(self.integrate(z, c, torch.tensor([1.0, 0.0]), tolerance))

    def integrate(self, x: Data, c: Condition, times: Tensor, tolerance: float) -> Data:
        run = partial(ode.dormand_prince, rtol=tolerance, atol=tolerance)
        return ode.final_state(run(self.field(c), x, times))

    def sample(self, n: int, c: Condition = None, *, tolerance: float = 1e-5) -> Tensor:
        if not n:
            return self.noise(0, *self.event_shape)
        return self.decode(self.noise(n, *self.event_shape), c, tolerance=tolerance)

    @property
    def nfe(self) -> int:
        return count_evaluations(self.net, lambda: self.sample(64))


def _audit_rows(x: Data) -> int:
    """On how many rows to solve twice: the exact divergence costs as much as there are entries."""
    return max(8, min(64, 512 // max(x[0].numel(), 1)))


def _first_conditions(c: Condition, n: int) -> Condition:
    return None if c is None else c[:n]


def build(
    event: Event,
    *,
    width: int = 64,
    depth: Annotated[int, LAYERS] = 3,
    waves: int = 0,
    integrator: Annotated[str, Choice(INTEGRATORS)] = "rk4",
    solver_steps: int = 4,
    nodes: int = 2,
    gradient: Annotated[str, Choice(GRADIENTS)] = "direct",
    kinetic: float = 0.01,
    jacobian: float = 0.01,
    probes: int | None = None,
) -> CNF:
    """Build the model.

    Arguments:
        width: Units in each hidden layer.
        depth: Hidden layers.
        waves: Random Fourier features of the input; they sharpen the field and slow the solver.
        integrator: Of training: "rk4", "heun", "midpoint", "euler" or "adaptive".
        solver_steps: Its steps; "adaptive" chooses more in between.
        nodes: Random times at which the divergence of a sample is taken.
        gradient: "direct" differentiates the steps; "adjoint" solves a second ODE, in less memory.
        kinetic: The weight of the squared speed.
        jacobian: The weight of the squared Frobenius norm of the Jacobian.
        probes: Random signs for traces in training, 0 for exact ones; by default 1 above 8 entries.
    """
    shape, k = event.shape, event.condition
    net = TimeMLP(shape, k, width=width, depth=depth, waves=waves, frequencies=2)
    if probes is None:
        probes = 0 if math.prod(shape) <= 8 else 1
    run, differentiate = INTEGRATORS[integrator], GRADIENTS[gradient]
    solver = TrainingSolver(run, solver_steps, differentiate, nodes, probes)
    model = CNF(zero_last_layer(net), shape, solver=solver, kinetic=kinetic, jacobian=jacobian)
    model.recipe = model.recipe._replace(batch=min(model.recipe.batch, event.size or 512))
    return model
