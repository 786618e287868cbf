"""Gradients by the adjoint method: those of the steps themselves, and of finite differences."""

from functools import partial

import pytest
import torch
from torch import nn

from pushforward.shapes import standard_normal_log_prob
from pushforward.theory import densities, ode
from pushforward.theory.densities import integrate_flow
from pushforward.theory.ode import adjoint_integrator

TIGHT = partial(ode.dormand_prince, rtol=1e-9, atol=1e-9)
WAYS = {"rk4": (ode.rk4, 24), "adaptive": (TIGHT, 1)}


@pytest.fixture(autouse=True)
def double(float64):
    """All of this file is about accuracy."""


def network(width=8):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))
    return net, lambda x, t: net(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))


@pytest.mark.parametrize(("integrator", "steps"), WAYS.values(), ids=WAYS)
def test_adjoint_gradients_are_those_of_the_steps(integrator, steps):
    """D9: to 1e-6, for the weights and the starting point, of a loss of all states."""
    net, v = network()
    x, times = torch.randn(4, 2, requires_grad=True), torch.linspace(0, 1, steps + 1)

    def gradients(run):
        loss = sum((k + 1) * state.square().sum() for k, state in enumerate(run(v, x, times)))
        return torch.autograd.grad(loss / steps, [x, *net.parameters()])

    for a, b in zip(
        gradients(integrator), gradients(adjoint_integrator(integrator, net.parameters()))
    ):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_adjoint_gradient_of_a_linear_flow_has_its_closed_form():
    """For x' = w x and L = sum x_1 the gradients are e^w and w's is sum x e^w."""
    w, x = torch.tensor(0.7, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    (state,) = adjoint_integrator(TIGHT, [w])(lambda x, t: w * x, x, torch.tensor([0.0, 1.0]))
    slope_x, slope_w = torch.autograd.grad(state.sum(), [x, w])
    torch.testing.assert_close(slope_x, torch.full_like(x, 0.7).exp(), rtol=1e-8, atol=0)
    torch.testing.assert_close(slope_w, (x * w.exp()).sum().detach())


@pytest.mark.parametrize(("integrator", "steps"), [(ode.rk4, 24), (TIGHT, 1)])
def test_adjoint_gradient_of_a_likelihood_is_that_of_finite_differences(integrator, steps):
    """The divergence's own derivative is a second one of the network."""
    net, v = network()
    weights, x, times = list(net.parameters()), torch.randn(6, 2), torch.linspace(0, 1, steps + 1)

    def loss(run):
        torch.manual_seed(0)  # the same random times for all
        z = integrate_flow(v, x, times, integrator=run)
        return -(standard_normal_log_prob(z.x) + z.trace - z.kinetic - z.jacobian).mean()

    found = torch.autograd.grad(loss(adjoint_integrator(integrator, weights)), weights)
    direct = torch.autograd.grad(loss(integrator), weights)
    h, i = 1e-5, (3, 1)
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weights[0][i] += sign * h
            values.append(float(loss(TIGHT)))
            weights[0][i] -= sign * h
    slope = (values[0] - values[1]) / (2 * h)
    assert float(found[0][i]) == pytest.approx(slope, abs=1e-6)
    for a, b in zip(found, direct):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_the_adjoint_keeps_no_graph_of_the_steps():
    net, v = network()
    calls = []

    def watched(x, t):
        calls.append(torch.is_grad_enabled())
        return v(x, t)

    states = list(
        adjoint_integrator(ode.rk4, net.parameters())(watched, torch.randn(3, 2), torch.ones(9))
    )
    assert not any(calls) and len(calls) == 32 and states[-1].requires_grad


@pytest.mark.parametrize("probes", [0, 100])
def test_charges_of_a_linear_flow(probes):
    """x' = x A: trace A and |A|_F^2 at every time, and the speed from the exponential."""
    A, x = torch.randn(3, 3) / 2, torch.randn(4, 3)
    got = integrate_flow(lambda x, t: x @ A, x, torch.linspace(0, 1, 17), nodes=64, probes=probes)
    nodes = torch.linspace(0, 1, 501)
    speed = torch.stack([(x @ torch.linalg.matrix_exp(t * A) @ A).square().sum(1) for t in nodes])
    torch.testing.assert_close(got.x, x @ torch.linalg.matrix_exp(A), rtol=0, atol=1e-5)
    # a random point in each of 64 parts: the slope over one part, over the root of 12 * 64
    error = speed.diff(dim=0).abs().amax(0) * 500 / 64 / (12 * 64) ** 0.5
    assert ((got.kinetic - torch.trapezoid(speed, nodes, dim=0)).abs() < 5 * error).all()
    for found, S in ((got.trace, (A + A.T) / 2), (got.jacobian, A @ A.T)):
        off = S - S.diagonal().diag()  # random signs have Var z'Sz = 2 |off|^2
        error = float((2 * off.square().sum() / (64 * probes)).sqrt()) if probes else 1e-10
        assert (found - S.trace()).abs().max() < 5 * error


def test_a_journey_carries_the_density_of_the_flow():
    """Its divergence at 4,096 random times, one in each part: an error of about 1e-5."""
    _, v = network()
    x = torch.randn(7, 2)
    z = integrate_flow(v, x, torch.linspace(0, 1, 33), nodes=4096)
    exact = densities.flow_log_density(
        v, x, torch.tensor([0.0, 1.0]), standard_normal_log_prob, rtol=1e-10
    )
    torch.testing.assert_close(
        standard_normal_log_prob(z.x) + z.trace, exact.value, rtol=0, atol=1e-4
    )
