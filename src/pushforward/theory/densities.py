r"""The density that a flow :math:`\dot x = v(x, t)` carries, by the divergence along it.

.. math:: \frac{d}{dt} \log p_t(x_t) = -\nabla\cdot v(x_t, t)

(Chen et al., 2018). The divergence is exact in few dimensions and Hutchinson's estimate in many.

The likelihood alone does not choose among the flows that carry one distribution to another. Two
regularisers choose a straight and even one, which few steps follow (RNODE, Finlay et al., 2020):

.. math:: K = \int_0^1 \|v(x_t, t)\|^2\,dt, \qquad J = \int_0^1 \|\nabla v(x_t, t)\|_F^2\,dt

The least kinetic energy is that of optimal transport (Benamou & Brenier, 2000). A network that is
rewarded for :math:`\int\nabla\cdot v\,dt` at the nodes of a fixed rule learns to bunch its
divergence there, and beats the entropy on paper. In `integrate_flow` every datum has random times
of its own, on which nothing can be gained: each integral is estimated without bias.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import OdeError
from ..shapes import Data, PerDatum, append_dims, sum_event
from .ddpm_schedule import hermite_cubic
from .ode import DormandPrince, Field, Integrator, final_state, rk4

EXACT_TRACE = 64  # dimensions up to which the divergence is exact unless probes are asked for


def _unit_vectors(x: Data) -> Tensor:
    """As probes, ``(d, 1, *event)``."""
    d = x[0].numel()
    return torch.eye(d, dtype=x.dtype, device=x.device).reshape(d, 1, *x.shape[1:])


def rademacher_probes(x: Data, count: int) -> Tensor:
    """Random signs, ``(count, batch, *event)``, of the least variance."""
    return torch.randint(0, 2, (count, *x.shape), device=x.device).to(x) * 2 - 1


def _vector_jacobian_products(
    y: Data, x: Data, probes: Tensor, create_graph: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    r"""Rows :math:`z^\top \nabla y` for some probes z at a time, ``(some, batch, *event)``, and z.

    One by one up to 8 probes, in batches of 16 above: for 64 unit vectors (3x64 network, batch 500,
    one thread) the loop takes 120 bare forwards, the batch 80, and forward mode 110.
    """
    batched = len(probes) > 8
    for z in probes.split(16 if batched else 1):
        seed = z.expand(-1, *x.shape) if batched else z[0].expand_as(x)
        graph = {"create_graph": create_graph, "retain_graph": True}
        (rows,) = torch.autograd.grad(y, x, seed, is_grads_batched=batched, **graph)
        yield rows.reshape(-1, *x.shape), z


def _enable_input_grad(x: Data) -> Data:
    return x if x.requires_grad else x.detach().requires_grad_()


def exact_divergence(
    v: Field, x: Data, t: Tensor, *, create_graph: bool = False
) -> tuple[Data, PerDatum]:
    r""":math:`v(x, t)` and its exact divergence :math:`\sum_i \partial_i v_i`, row by row."""
    with torch.enable_grad():
        x = _enable_input_grad(x)
        y, total = v(x, t), x.new_zeros(len(x))
        for rows, e in _vector_jacobian_products(y, x, _unit_vectors(x), create_graph):
            total = total + (rows * e).flatten(2).sum((0, 2))
    return y, total


def hutchinson_divergence(
    v: Field, x: Data, t: Tensor, probes: Tensor, *, create_graph: bool = False
) -> tuple[Data, Tensor]:
    r"""Hutchinson's :math:`z^\top \nabla v\, z` for each probe z, ``(batch, probes)``, beside v.

    Probes are Rademacher signs ``(probes, batch, *event)`` (Grathwohl et al., 2019).
    """
    with torch.enable_grad():
        x = _enable_input_grad(x)
        y = v(x, t)
        products = _vector_jacobian_products(y, x, probes, create_graph)
        return y, torch.cat([(rows * z).flatten(2).sum(2) for rows, z in products]).mT


class LogDensity(NamedTuple):
    """A log-density along a flow in nats, ``(batch,)``, and what it took."""

    value: Tensor
    standard_error: Tensor  # of the trace estimate, ``(batch,)``; 0 if it was exact
    nfe: int


def choose_probe_count(probes: int | None, event_shape: tuple[int, ...]) -> int:
    """As asked, or by the dimension; 0 where the trace is exact."""
    if probes is not None:
        return probes
    return 0 if math.prod(event_shape) <= EXACT_TRACE else 8


def integrate_with_divergence(
    v: Field,
    x: Data,
    times: Tensor,
    *,
    integrator: Integrator | None = None,
    probes: int | None = None,
    create_graph: bool = False,
    **limits: Any,
) -> tuple[Data, LogDensity]:
    r"""Carry ``x`` along the flow, and :math:`\int \nabla\cdot v(x_t, t)\,dt` with it.

    By default the trajectory takes adaptive steps without derivatives, and the divergence, which
    costs most, is integrated by Gauss's rule with three nodes inside each step. With an
    ``integrator`` it is one more variable of the state; only then is ``create_graph`` possible,
    so that asking for the graph alone takes `rk4`. ``limits`` are those of `DormandPrince`.
    """
    nfe, shape, d = 0, x.shape, math.prod(x.shape[1:])
    k = choose_probe_count(probes, shape[1:])
    signs = rademacher_probes(x, k)

    def both(z: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if k:
            return hutchinson_divergence(counted, z, t, signs, create_graph=create_graph)
        y, div = exact_divergence(counted, z, t, create_graph=create_graph)
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
        z, total = _integrate_trace(
            counted, x, times, lambda z, t: both(z, t)[1].detach(), **limits
        )
        trace = total.expand(len(x), max(k, 1))
    else:
        state = torch.cat([x.flatten(1), x.new_zeros(len(x), max(k, 1))], dim=1)
        state = final_state(integrator(augmented, state, times))
        z, trace = state[:, :d].reshape(shape), state[:, d:]
    _check_flow_finite(z, trace, times, nfe)
    return z, LogDensity(trace.mean(1), _trace_standard_error(trace, k), nfe)


@torch.no_grad()
def _integrate_trace(
    v: Field, x: Tensor, times: Tensor, trace: Field, **limits: Any
) -> tuple[Tensor, Tensor]:
    start, *ends = times.tolist()
    solver = DormandPrince(v, x, start, ends[-1], trace=trace, **limits)
    for end in ends:
        x = solver.advance(end)
    return x, solver.total


def _check_flow_finite(z: Tensor, trace: Tensor, times: Tensor, nfe: int) -> None:
    if not bool(trace.isfinite().all() and z.isfinite().all()):
        raise OdeError(
            f"the flow is not finite at t = {float(times[-1]):.6g} after {nfe} evaluations, "
            f"last step {float(times[-1] - times[-2]):.3g}; take more steps or an adaptive solver"
        )


def _trace_standard_error(trace: Tensor, probes: int) -> Tensor:
    """0 for an exact trace, unknown (NaN) from a single probe."""
    if probes > 1:
        return trace.std(1) / math.sqrt(probes)
    return trace.new_full((len(trace),), math.nan if probes else 0.0)


def flow_log_density(
    v: Field, x: Data, times: Tensor, base: Callable[[Tensor], Tensor], **options: Any
) -> LogDensity:
    r"""Instantaneous change of variables along increasing times (Chen et al., 2018).

    .. math:: \log p_0(x_0) = \log p_1(x_1) + \int_0^1 \nabla\cdot v(x_t, t)\,dt

    Options are ``rtol``, ``atol`` and ``max_nfe`` of the adaptive solver (1e-5, 1e-5, 10,000), or
    an ``integrator`` such as `rk4`, with ``create_graph`` to differentiate the result; and
    ``probes`` of Hutchinson's estimate, per datum: by default the trace is exact up to 64
    dimensions and takes 8 probes above; 0 makes it exact whatever the dimension.
    """
    z, (trace, error, nfe) = integrate_with_divergence(v, x, times, **options)
    return LogDensity(base(z) + trace, error, nfe)


def push_samples(
    v: Field, z: Data, times: Tensor, base: Callable[[Tensor], Tensor], **options: Any
) -> tuple[Data, LogDensity]:
    """Carry base samples along *decreasing* times to data, with their log-densities on arrival."""
    x, (trace, error, nfe) = integrate_with_divergence(v, z, times, **options)
    return x, LogDensity(base(z) - trace, error, nfe)


class FlowIntegrals(NamedTuple):
    """Estimates of the integrals on the way, one of each per datum."""

    x: Data  # the states at the last time
    trace: PerDatum  # of the divergence, in nats
    kinetic: PerDatum  # of the squared speed
    jacobian: PerDatum  # of the squared Frobenius norm of the Jacobian


def _regulariser_rates(
    v: Field, x: Data, t: Tensor, *, probes: int = 0
) -> tuple[PerDatum, PerDatum, PerDatum]:
    r""":math:`\nabla\cdot v, \|v\|^2` and :math:`\|\nabla v\|_F^2`, with their graph.

    The traces are sums over probes z of :math:`z^\top \nabla v\,z` and
    :math:`\|z^\top \nabla v\|^2`: exact over the unit vectors if ``probes`` is 0, otherwise means
    over random signs.
    """
    with torch.enable_grad():
        x = _enable_input_grad(x)
        y = v(x, t)
        trace = jacobian = x.new_zeros(len(x))
        signs = rademacher_probes(x, probes) if probes else _unit_vectors(x)
        for rows, z in _vector_jacobian_products(y, x, signs, True):
            trace = trace + (rows * z).flatten(2).sum((0, 2)) / (probes or 1)
            jacobian = jacobian + rows.square().flatten(2).sum((0, 2)) / (probes or 1)
        return trace, sum_event(y.square()), jacobian


def _hermite_states(v: Field, states: Tensor, times: Tensor, t: Tensor) -> Data:
    """Hermite's cubic through states and their slopes, of order 4 like `rk4`.

    States ``(len(times), n, *event)`` at increasing ``times`` give those at t, ``(k, n)``, as
    ``(k * n, *event)``.
    """
    i = (torch.searchsorted(times, t, right=True) - 1).clamp(0, len(times) - 2)
    rows = torch.arange(t.shape[1], device=t.device).expand_as(i)
    ends = torch.cat([states[i, rows].flatten(0, 1), states[i + 1, rows].flatten(0, 1)])
    slopes = v(ends, torch.cat([times[i].flatten(), times[i + 1].flatten()]))
    h = (times[i + 1] - times[i]).flatten()
    u = append_dims((t - times[i]).flatten() / h, ends)
    (p, q), (m, n) = ends.chunk(2), (slopes * append_dims(h.repeat(2), slopes)).chunk(2)
    return hermite_cubic(u, p, q, m, n)


def integrate_flow(
    v: Field,
    x: Data,
    times: Tensor,
    *,
    integrator: Integrator = rk4,
    nodes: int = 2,
    probes: int = 0,
) -> FlowIntegrals:
    """Carry data along a flow with everything that training needs to know, differentiably.

    The velocity takes a time for each datum, and several copies of the batch. ``nodes`` are random
    times per datum, one in each of as many equal parts; ``probes`` are random signs for the traces,
    exact if 0. A fixed-step integrator steps from each of ``times`` to the next.
    """
    n, times = len(x), times.to(x)
    start, span = times[0], times[-1] - times[0]
    states = torch.stack([x, *integrator(v, x, times)])
    part = torch.arange(nodes, device=x.device)[:, None]
    t = start + span * (part + x.new_empty(nodes, n).uniform_()) / nodes
    found = _regulariser_rates(v, _hermite_states(v, states, times, t), t.flatten(), probes=probes)
    trace, kinetic, jacobian = (span * z.view(nodes, n).mean(0) for z in found)
    _check_flow_finite(states[-1], trace, times, len(times) - 1)
    return FlowIntegrals(states[-1], trace, kinetic, jacobian)
