r"""Ordinary differential equations :math:`\dot x = v(x, t)`.

An integrator is a function ``integrator(v, x, times)`` that yields the state at each of
``times[1:]``. Fixed steps follow a Butcher tableau; `dormand_prince` chooses its own in between.

The adjoint method (Chen et al., 2018) gives the gradient of a solution by an ODE: for a loss L of
the states, :math:`a = \partial L/\partial x_t` and the gradient :math:`g` of the weights obey

.. math:: \dot a = -a^\top \partial_x v, \qquad \dot g = -a^\top \partial_\theta v

and are integrated backwards beside the state, which starts again from the stored one at each time.
Memory holds one state a time instead of the graph of every evaluation. The gradient is that of the
exact flow: it differs from the derivative of the discrete steps by the error of the integrator.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import OdeError
from ..rng import fork_rng

Field = Callable[[Tensor, Tensor], Tensor]
Integrator = Callable[[Field, Tensor, Tensor], Iterator[Tensor]]


def _combine_stages(x: Tensor, h: float, weights: list[float], k: list[Tensor]) -> Tensor:
    r""":math:`x + h \sum_j w_j k_j`."""
    for w, k_j in zip(weights, k, strict=True):
        if w:
            x = torch.add(x, k_j, alpha=h * w)
    return x


def _runge_kutta(
    v: Field, x: Tensor, times: Tensor, *, a: list[list[float]], b: list[float]
) -> Iterator[Tensor]:
    nodes = times[:-1, None] + times.diff()[:, None] * times.new_tensor([sum(row) for row in a])
    for (t, s), stages in zip(pairwise(times.tolist()), nodes.to(x)):
        k: list[Tensor] = []
        for row, node in zip(a, stages):
            k.append(v(_combine_stages(x, s - t, row, k), node))
        x = _combine_stages(x, s - t, b, k)
        yield x


euler = partial(_runge_kutta, a=[[]], b=[1.0])
midpoint = partial(_runge_kutta, a=[[], [1 / 2]], b=[0.0, 1.0])
heun = partial(_runge_kutta, a=[[], [1.0]], b=[1 / 2, 1 / 2])
RK4_A = [[], [1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0]]
rk4 = partial(_runge_kutta, a=RK4_A, b=[1 / 6, 1 / 3, 1 / 3, 1 / 6])

# Dormand & Prince (1980): the last row of A is the fifth-order solution, E its embedded error.
DOPRI_A = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]
DOPRI_C = [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0]
DOPRI_E = [71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]
# Shampine (1986): the weights of the slopes inside a step, as polynomials in its fraction.
DOPRI_P = [
    [1.0, -8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432],
    [0.0, 0.0, 0.0, 0.0],
    [0.0, 131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799],
    [0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072],
    [0.0, 127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632],
    [0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844],
    [0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423],
]
GAUSS = [0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5]  # the three nodes of the rule of order 6 on [0, 1]
INSIDE = [[sum(p * u ** (j + 1) for j, p in enumerate(row)) for row in DOPRI_P] for u in GAUSS]


class DormandPrince:
    """One adaptive integration: where it is, its slope, its next step, and a running integral.

    ``end``, where it goes, says how large the first step may be; ``trace`` is what to integrate
    along the trajectory, a function of state and time.
    """

    def __init__(
        self,
        v: Field,
        x: Tensor,
        t: float,
        end: float,
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_nfe: int = 10_000,
        trace: Field | None = None,
    ) -> None:
        self.v, self.rtol, self.atol, self.max_nfe, self.nfe = v, rtol, atol, max_nfe, 0
        self.x, self.t, self.h = x, t, 0.0
        self.trace, self.total = trace, x.new_zeros(())
        self.k = self.field(x, t)
        if not bool(self.k.isfinite().all()):
            raise self.error("the field is not finite")
        self.h = self.first_step(end)

    def field(self, x: Tensor, t: float) -> Tensor:
        if self.nfe >= self.max_nfe:
            raise self.error("too many evaluations (a stiff or discontinuous field?)")
        self.nfe += 1
        return self.v(x, x.new_tensor(t))

    def error(self, reason: str) -> OdeError:
        return OdeError(
            f"{reason} at t = {self.t:.6g} after {self.nfe} evaluations, last step {self.h:.3g}; "
            "loosen rtol and atol, raise max_nfe, or use a fixed-step solver"
        )

    def error_ratio(self, e: Tensor, x: Tensor) -> float:
        """Of the largest entry to the tolerance, over all data of the batch."""
        if not e.numel():
            return 0.0
        scale = torch.maximum(self.x.abs(), x.abs()).mul(self.rtol).add(self.atol)
        return float((e / scale).detach().abs().max())

    def first_step(self, end: float) -> float:
        """Hairer, Nørsett & Wanner (1993), II.4: the step that a low-order method would take."""
        d0, d1 = self.error_ratio(self.x, self.x), self.error_ratio(self.k, self.x)
        h = min(0.01 * d0 / d1 if min(d0, d1) > 1e-5 else 1e-6, abs(end - self.t))
        h = math.copysign(h, end - self.t)
        x = torch.add(self.x, self.k, alpha=h)
        d2 = self.error_ratio(self.field(x, self.t + h) - self.k, x) / abs(h)
        steepest = max(d1, d2)
        grow = (0.01 / steepest) ** 0.2 if steepest > 1e-15 else 1e-3
        return math.copysign(min(100 * abs(h), grow), end - self.t) if math.isfinite(d2) else h

    def advance(self, end: float) -> Tensor:
        while self.t != end:
            h = end - self.t if abs(self.h) >= abs(end - self.t) * (1 - 1e-9) else self.h
            x, k, error = self.trial_step(h)
            ratio = self.error_ratio(error, x)
            taken = self.trace and ratio <= 1
            gain, excess = self.integrate_trace_step(h, k) if taken else (0.0, 0.0)
            if ratio <= 1 and excess <= 1:
                self.t, self.x, self.k = end if h == end - self.t else self.t + h, x, k[-1]
                self.total = self.total + gain
            elif self.t + 1e-2 * h == self.t or abs(h) < 1e-14:
                self.h = h
                raise self.error("the step became too small (a singular or discontinuous field?)")
            self.h = h * min(_step_factor(ratio, 5), _step_factor(excess, 7))
        return self.x

    def trial_step(self, h: float) -> tuple[Tensor, list[Tensor], Tensor]:
        """The fifth-order state after a step, the slopes on the way, and the error estimate."""
        k = [self.k]
        for row, c in zip(DOPRI_A, DOPRI_C):
            x = _combine_stages(self.x, h, row, k)
            k.append(self.field(x, self.t + c * h))
        return x, k, _combine_stages(torch.zeros_like(x), h, DOPRI_E, [z.detach() for z in k])

    def integrate_trace_step(self, h: float, k: list[Tensor]) -> tuple[Tensor, float]:
        r"""The integral of the trace over a step, and its error in units of the tolerance.

        If the second difference D of the integrand is to its size S as the square of the step to
        that of its scale, the rule of order 6 errs by :math:`S(D/S)^3`. On :math:`\int_1^r dt/t`,
        the hard part of a density from small noise, this is right within a factor 2.5 to r = 6.
        """
        a, b, c = (
            self.trace(_combine_stages(self.x, h, w, k), self.x.new_tensor(self.t + u * h))  # type: ignore[misc]
            for u, w in zip(GAUSS, INSIDE)
        )
        self.nfe += len(GAUSS)
        value = (5 * a + 8 * b + 5 * c) * (h / 18)
        size = (5 * a.abs() + 8 * b.abs() + 5 * c.abs()) * (abs(h) / 18)
        size = torch.maximum(size, size.mean())  # an integrand that happens to cross 0 is not rough
        bend = (a - 2 * b + c).abs() * (5 * abs(h) / 18)
        error = bend * (bend / size.clamp(min=torch.finfo(size.dtype).tiny)).clamp(max=1).square()
        scale = self.atol + self.rtol * (self.total + value).abs()
        return value, float((error / scale).max()) if error.numel() else 0.0


def _step_factor(ratio: float, order: int) -> float:
    if not math.isfinite(ratio):
        return 0.1
    return min(max(0.9 * ratio ** (-1 / order), 0.2), 5.0) if ratio > 0 else 5.0


def dormand_prince(v: Field, x: Tensor, times: Tensor, **limits: Any) -> Iterator[Tensor]:
    """Dormand & Prince's 5(4) pair; every entry of every datum meets the tolerance at each step.

    Limits are ``rtol``, ``atol`` and ``max_nfe``, by default 1e-5, 1e-5 and 10,000 evaluations.

    Raises:
        OdeError: If a value is not finite, the step underflows, or the evaluations do not suffice.
    """
    start, *ends = times.tolist()
    if ends:
        solver = DormandPrince(v, x, start, ends[-1], **limits)
        for end in ends:
            yield solver.advance(end)


def final_state(states: Iterator[Tensor]) -> Tensor:
    return deque(states, maxlen=1).pop()


def adjoint_integrator(integrator: Integrator, weights: Iterable[Tensor]) -> Integrator:
    """The same integrator, of fixed or adaptive steps, with gradients by the adjoint method.

    ``weights`` is everything besides the state that the field depends on and that learns.
    """
    learning = tuple(w for w in weights if w.requires_grad)

    def integrate(v: Field, x: Tensor, times: Tensor) -> Iterator[Tensor]:
        yield from _AdjointFunction.apply(v, integrator, times, x, *learning)

    return integrate


class _AdjointFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, v: Field, integrator: Integrator, times: Tensor, x: Tensor, *weights: Tensor
    ) -> Tensor:
        states = torch.stack([x, *integrator(v, x, times)])
        ctx.v, ctx.integrator = v, integrator
        ctx.save_for_backward(times, states, *weights)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        times, states, *weights = ctx.saved_tensors
        sizes = [w.numel() for w in weights]
        back = _adjoint_field(ctx.v, states[0], weights)
        a, g = torch.zeros_like(states[0]).flatten(), states.new_zeros(sum(sizes))
        for i in reversed(range(len(slopes))):
            a = a + slopes[i].flatten()
            state = torch.cat([states[i + 1].flatten(), a, g])
            state = final_state(ctx.integrator(back, state, times[[i + 1, i]]))
            _, a, g = state.split([len(a), len(a), len(g)])
        parts = [part.view_as(w) for part, w in zip(g.split(sizes), weights, strict=True)]
        return None, None, None, a.view_as(states[0]), *parts


def _adjoint_field(v: Field, like: Tensor, weights: list[Tensor]) -> Field:
    """The field of state, adjoint and gradient in one vector; a state is shaped as ``like``."""
    size = like.numel()

    def field(state: Tensor, t: Tensor) -> Tensor:
        with torch.enable_grad():
            x = state[:size].view_as(like).detach().requires_grad_()
            y = v(x, t)
            a = state[size : 2 * size].view_as(like)
            rates = torch.autograd.grad(y, [x, *weights], -a, materialize_grads=True)
        return torch.cat([z.flatten() for z in (y.detach(), *rates)])

    return field


PARTS = 16  # of the time, at which the second solver stops in any case


def tolerance_error(
    solve: Callable[[Tensor, float], Tensor], like: Tensor, tolerance: float
) -> float:
    """The most by which values change at a tenth of the tolerance.

    ``solve`` gives them from the times at which it stops in any case, and a tolerance. The second
    solver also stops at equal parts of the time, so that it sees what the first may have stepped
    over. Both draw the same random numbers, on the device and in the precision of ``like``.
    """
    fine = max(tolerance / 10, 8 * torch.finfo(like.dtype).eps)
    values = []
    for limit, parts in ((tolerance, 1), (fine, PARTS)):
        with fork_rng(like.device):
            values.append(solve(torch.linspace(0, 1, parts + 1), limit))
    return float((values[0] - values[1]).abs().max())
