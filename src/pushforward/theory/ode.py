r"""Ordinary differential equations :math:`\dot x = v(x, t)` and the densities they transport.

An integrator is a function ``integrator(v, x, times)`` that yields the state at each of
``times[1:]``. Fixed steps follow a Butcher tableau; `adaptive` chooses its own steps in between.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import OdeError
from ..shapes import Data, PerDatum

Field = Callable[[Tensor, Tensor], Tensor]
Integrator = Callable[[Field, Tensor, Tensor], Iterator[Tensor]]

EXACT_TRACE = 64  # dimensions up to which the divergence is exact unless probes are asked for


def combine(x: Tensor, h: float, weights: list[float], k: list[Tensor]) -> Tensor:
    r""":math:`x + h \sum_j w_j k_j`."""
    for w, k_j in zip(weights, k, strict=True):
        if w:
            x = torch.add(x, k_j, alpha=h * w)
    return x


def runge_kutta(
    v: Field, x: Tensor, times: Tensor, *, a: list[list[float]], b: list[float]
) -> Iterator[Tensor]:
    """The explicit method with Butcher tableau (a, b); yields one state per time step."""
    nodes = times[:-1, None] + times.diff()[:, None] * times.new_tensor([sum(row) for row in a])
    for (t, s), stages in zip(pairwise(times.tolist()), nodes.to(x)):
        k: list[Tensor] = []
        for row, node in zip(a, stages):
            k.append(v(combine(x, s - t, row, k), node))
        x = combine(x, s - t, b, k)
        yield x


euler = partial(runge_kutta, a=[[]], b=[1.0])
midpoint = partial(runge_kutta, a=[[], [1 / 2]], b=[0.0, 1.0])
heun = partial(runge_kutta, a=[[], [1.0]], b=[1 / 2, 1 / 2])
rk4 = partial(
    runge_kutta,
    a=[[], [1 / 2], [0.0, 1 / 2], [0.0, 0.0, 1.0]],
    b=[1 / 6, 1 / 3, 1 / 3, 1 / 6],
)

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

    Arguments:
        v: The field.
        x: The state at ``t``.
        t: Where to start.
        end: Where it goes, for the size of the first step.
        rtol: Tolerance relative to each entry.
        atol: Absolute tolerance.
        max_nfe: The most evaluations.
        trace: What to integrate along the trajectory, a function of state and time.
    """

    def __init__(
        self,
        v: Field,
        x: Tensor,
        t: float,
        end: float,
        *,
        rtol: float,
        atol: float,
        max_nfe: int,
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

    def size(self, e: Tensor, x: Tensor) -> float:
        """The largest entry of an error in units of the tolerance, over all data of the batch."""
        if not e.numel():
            return 0.0
        scale = torch.maximum(self.x.abs(), x.abs()).mul(self.rtol).add(self.atol)
        return float((e / scale).detach().abs().max())

    def first_step(self, end: float) -> float:
        """Hairer, Nørsett & Wanner (1993), II.4: the step that a low-order method would take."""
        d0, d1 = self.size(self.x, self.x), self.size(self.k, self.x)
        h = min(0.01 * d0 / d1 if min(d0, d1) > 1e-5 else 1e-6, abs(end - self.t))
        h = math.copysign(h, end - self.t)
        x = torch.add(self.x, self.k, alpha=h)
        d2 = self.size(self.field(x, self.t + h) - self.k, x) / abs(h)
        steepest = max(d1, d2)
        grow = (0.01 / steepest) ** 0.2 if steepest > 1e-15 else 1e-3
        return math.copysign(min(100 * abs(h), grow), end - self.t) if math.isfinite(d2) else h

    def advance(self, end: float) -> Tensor:
        """Integrate to ``end`` and return the state there."""
        while self.t != end:
            h = end - self.t if abs(self.h) >= abs(end - self.t) * (1 - 1e-9) else self.h
            x, k, error = self.trial(h)
            ratio = self.size(error, x)
            gain, excess = self.gauss(h, k) if self.trace and ratio <= 1 else (0.0, 0.0)
            if ratio <= 1 and excess <= 1:
                self.t, self.x, self.k = end if h == end - self.t else self.t + h, x, k[-1]
                self.total = self.total + gain
            elif self.t + 1e-2 * h == self.t or abs(h) < 1e-14:
                self.h = h
                raise self.error("the step became too small (a singular or discontinuous field?)")
            self.h = h * min(grow(ratio, 5), grow(excess, 7))
        return self.x

    def trial(self, h: float) -> tuple[Tensor, list[Tensor], Tensor]:
        """The fifth-order state after a step, the slopes on the way, and the error estimate."""
        k = [self.k]
        for row, c in zip(DOPRI_A, DOPRI_C):
            x = combine(self.x, h, row, k)
            k.append(self.field(x, self.t + c * h))
        return x, k, combine(torch.zeros_like(x), h, DOPRI_E, [z.detach() for z in k])

    def gauss(self, h: float, k: list[Tensor]) -> tuple[Tensor, float]:
        r"""The integral of the trace over a step, and its error in units of the tolerance.

        If the second difference D of the integrand is to its size S as the square of the step to
        that of its scale, the rule of order 6 errs by :math:`S(D/S)^3`. On :math:`\int_1^r dt/t`,
        the hard part of a density from small noise, this is right within a factor 2.5 to r = 6.
        """
        a, b, c = (
            self.trace(combine(self.x, h, w, k), self.x.new_tensor(self.t + u * h))  # type: ignore[misc]
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


def grow(ratio: float, order: int) -> float:
    """The factor for the next step after an error in units of the tolerance."""
    if not math.isfinite(ratio):
        return 0.1
    return min(max(0.9 * ratio ** (-1 / order), 0.2), 5.0) if ratio > 0 else 5.0


def adaptive(
    v: Field,
    x: Tensor,
    times: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
) -> Iterator[Tensor]:
    """Dormand & Prince's 5(4) pair; every entry of every datum meets the tolerance at each step.

    Raises:
        OdeError: If a value is not finite, the step underflows, or ``max_nfe`` evaluations are
            not enough.
    """
    start, *ends = times.tolist()
    if ends:
        solver = DormandPrince(v, x, start, ends[-1], rtol=rtol, atol=atol, max_nfe=max_nfe)
        for end in ends:
            yield solver.advance(end)


def last(states: Iterator[Tensor]) -> Tensor:
    """The final state of a trajectory."""
    return deque(states, maxlen=1).pop()


def divergence(
    v: Field, x: Data, t: Tensor, *, create_graph: bool = False
) -> tuple[Data, PerDatum]:
    r""":math:`v(x, t)` and its exact divergence :math:`\sum_i \partial_i v_i`.

    One forward, then the rows of the Jacobian by reverse mode: one by one up to 8 dimensions, in
    batches of 16 above. In multiples of the bare forward (3x64 network, batch 500, one thread) the
    loop takes 5, 11, 120 at d = 2, 8, 64, the batch 6, 11, 80, and forward mode 12, 29, 110.
    """
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        y = v(x, t)
        d, total = x[0].numel(), x.new_zeros(len(x))
        basis = torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, 1, *x.shape[1:])
        for e in basis.split(1 if d <= 8 else 16):
            (rows,) = torch.autograd.grad(
                y,
                x,
                e.expand(-1, *x.shape) if d > 8 else e[0].expand_as(x),
                create_graph=create_graph,
                retain_graph=True,
                is_grads_batched=d > 8,
            )
            total = total + (rows.reshape(-1, *x.shape) * e).flatten(2).sum((0, 2))
    return y, total


def estimated_divergence(
    v: Field, x: Data, t: Tensor, probes: Tensor, *, create_graph: bool = False
) -> tuple[Data, Tensor]:
    r"""Hutchinson's :math:`z^\top \nabla v\, z` for each probe z (Grathwohl et al., 2019).

    Probes are Rademacher signs with shape ``(probes, batch, *event)``; the estimates have shape
    ``(batch, probes)``.
    """
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        y = v(x, t)
        rows = [
            torch.autograd.grad(y, x, z, create_graph=create_graph, retain_graph=True)[0] * z
            for z in probes
        ]
    return y, torch.stack([row.flatten(1).sum(1) for row in rows], dim=1)


class LogDensity(NamedTuple):
    """A log-density along a flow.

    Arguments:
        value: Nats, with shape ``(batch,)``.
        standard_error: Of the trace estimate in nats, with shape ``(batch,)``; 0 if it was exact.
        nfe: Evaluations of the field.
    """

    value: Tensor
    standard_error: Tensor
    nfe: int


def transport(
    v: Field,
    x: Data,
    times: Tensor,
    *,
    integrator: Integrator | None = None,
    probes: int | None = None,
    create_graph: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
) -> tuple[Data, LogDensity]:
    r"""Carry ``x`` along the flow, and :math:`\int \nabla\cdot v(x_t, t)\,dt` with it.

    By default the trajectory takes adaptive steps without derivatives, and the divergence, which
    costs most, is integrated by Gauss's rule with three nodes inside each step. With an
    ``integrator`` it is one more variable of the state; only then is ``create_graph`` possible,
    so that asking for the graph alone takes `rk4`.
    """
    nfe, shape, d = 0, x.shape, math.prod(x.shape[1:])
    k = probes if probes is not None else 0 if d <= EXACT_TRACE else 8
    signs = torch.randint(0, 2, (k, *shape), device=x.device).to(x) * 2 - 1

    def both(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if k:
            return estimated_divergence(counted, z, t, signs, create_graph=create_graph)
        y, div = divergence(counted, z, t, create_graph=create_graph)
        return y, div[:, None]

    def counted(z: Tensor, t: Tensor) -> Tensor:
        nonlocal nfe
        nfe += 1
        return v(z, t)

    def augmented(state: Tensor, t: Tensor) -> Tensor:
        y, div = both(state[:, :d].reshape(shape), t)
        state = torch.cat([y.flatten(1), div], dim=1)
        return state if create_graph else state.detach()

    integrator = rk4 if create_graph and integrator is None else integrator
    if integrator is None:
        limits = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
        z, total = along(counted, x, times, lambda z, t: both(z, t)[1].detach(), **limits)
        trace = total.expand(len(x), max(k, 1))
    else:
        state = torch.cat([x.flatten(1), x.new_zeros(len(x), max(k, 1))], dim=1)
        state = last(integrator(augmented, state, times))
        z, trace = state[:, :d].reshape(shape), state[:, d:]
    check_finite(z, trace, times, nfe)
    return z, LogDensity(trace.mean(1), standard_error(trace, k), nfe)


@torch.no_grad()
def along(v: Field, x: Tensor, times: Tensor, trace: Field, **limits: Any) -> tuple[Tensor, Tensor]:
    """The state at the last time, and the integral of ``trace`` along the way."""
    start, *ends = times.tolist()
    solver = DormandPrince(v, x, start, ends[-1], trace=trace, **limits)
    for end in ends:
        x = solver.advance(end)
    return x, solver.total


def check_finite(z: Tensor, trace: Tensor, times: Tensor, nfe: int) -> None:
    """Raise OdeError where fixed steps have run into a value that is not finite."""
    if not bool(trace.isfinite().all() and z.isfinite().all()):
        raise OdeError(
            f"the flow is not finite at t = {float(times[-1]):.6g} after {nfe} evaluations, "
            f"last step {float(times[-1] - times[-2]):.3g}; take more steps or an adaptive solver"
        )


def standard_error(trace: Tensor, probes: int) -> Tensor:
    """Of the mean over probes: 0 for an exact trace, unknown (NaN) from a single probe."""
    if probes > 1:
        return trace.std(1) / math.sqrt(probes)
    return trace.new_full((len(trace),), math.nan if probes else 0.0)


def log_density(
    v: Field, x: Data, times: Tensor, base: Callable[[Tensor], Tensor], **options: Any
) -> LogDensity:
    r"""Instantaneous change of variables (Chen et al., 2018).

    .. math:: \log p_0(x_0) = \log p_1(x_1) + \int_0^1 \nabla\cdot v(x_t, t)\,dt

    Arguments:
        v: The velocity.
        x: Data.
        times: Increasing times from data to base.
        base: The log-density at the last time.
        options: ``rtol``, ``atol`` and ``max_nfe`` of the adaptive solver (1e-5, 1e-5, 10,000), or
            an ``integrator`` such as `rk4`, with ``create_graph`` to differentiate the result;
            ``probes`` of Hutchinson's estimate, per datum: by default the trace is exact up to 64
            dimensions and takes 8 probes above; 0 makes it exact whatever the dimension.

    Raises:
        OdeError: If a value is not finite or the tolerance is out of reach.
    """
    z, (trace, error, nfe) = transport(v, x, times, **options)
    return LogDensity(base(z) + trace, error, nfe)


def push(
    v: Field, z: Data, times: Tensor, base: Callable[[Tensor], Tensor], **options: Any
) -> tuple[Data, LogDensity]:
    """Carry base samples along *decreasing* times to data, with their log-densities on arrival."""
    x, (trace, error, nfe) = transport(v, z, times, **options)
    return x, LogDensity(base(z) - trace, error, nfe)
