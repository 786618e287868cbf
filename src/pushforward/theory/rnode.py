r"""Flows fitted by likelihood, and kept easy to integrate (RNODE, Finlay et al., 2020).

The likelihood alone does not choose among the flows that carry one distribution to another. Two
regularisers choose a straight and even one, which few steps follow:

.. math:: K = \int_0^1 \|v(x_t, t)\|^2\,dt, \qquad J = \int_0^1 \|\nabla v(x_t, t)\|_F^2\,dt

The least kinetic energy is that of optimal transport (Benamou & Brenier, 2000), whose particles go
straight at constant speed.

A network that is rewarded for :math:`\int\nabla\cdot v\,dt` at the nodes of a fixed rule learns to
bunch its divergence there, and beats the entropy on paper. Here every datum has random times of its
own, on which nothing can be gained: each integral is estimated without bias along its trajectory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..shapes import Data, PerDatum, append_dims, sum_event
from .ddpm_schedule import hermite_cubic
from .densities import (
    check_flow_finite,
    enable_input_grad,
    rademacher_probes,
    unit_vectors,
    vector_jacobian_products,
)
from .ode import Field, Integrator, rk4


class FlowIntegrals(NamedTuple):
    """Where data arrive, and estimates of the integrals on the way, one of each per datum."""

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
        x = enable_input_grad(x)
        y = v(x, t)
        trace = jacobian = x.new_zeros(len(x))
        for rows, z in vector_jacobian_products(
            y, x, rademacher_probes(x, probes) if probes else unit_vectors(x), True
        ):
            trace = trace + (rows * z).flatten(2).sum((0, 2)) / (probes or 1)
            jacobian = jacobian + rows.square().flatten(2).sum((0, 2)) / (probes or 1)
        return trace, sum_event(y.square()), jacobian


def _hermite_states(v: Field, states: Tensor, times: Tensor, t: Tensor) -> Data:
    r"""Hermite's cubic through states and their slopes, of order 4 like `rk4`.

    Arguments:
        v: The velocity.
        states: At ``times``, ``(len(times), n, *event)``.
        times: Increasing.
        t: Times in between, ``(k, n)`` for n data.

    Returns:
        The states there, ``(k * n, *event)``.
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

    Arguments:
        v: The velocity; it takes a time for each datum, and several copies of the batch.
        x: Data.
        times: From where to where, with a step between neighbours if the integrator's are fixed.
        integrator: How, e.g. ``adjoint(rk4, weights)``.
        nodes: Random times per datum, one in each of as many equal parts.
        probes: Random signs for the traces; 0 is exact.

    Raises:
        OdeError: If a value is not finite.
    """
    n, times = len(x), times.to(x)
    start, span = times[0], times[-1] - times[0]
    states = torch.stack([x, *integrator(v, x, times)])
    part = torch.arange(nodes, device=x.device)[:, None]
    t = start + span * (part + x.new_empty(nodes, n).uniform_()) / nodes
    found = _regulariser_rates(v, _hermite_states(v, states, times, t), t.flatten(), probes=probes)
    trace, kinetic, jacobian = (span * z.view(nodes, n).mean(0) for z in found)
    check_flow_finite(states[-1], trace, times, len(times) - 1)
    return FlowIntegrals(states[-1], trace, kinetic, jacobian)
