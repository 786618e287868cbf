"""Integrators by their order and against closed forms."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from pushforward.theory import ode

METHODS = [(ode.euler, 1), (ode.midpoint, 2), (ode.heun, 2), (ode.rk4, 4)]
TIGHT = partial(ode.dormand_prince, rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def double(float64):
    """All of this file is about accuracy."""


def order(errors):
    """Slope of log2(error) against log2(step) for steps that halve."""
    return sum(math.log2(a / b) for a, b in pairwise(errors)) / (len(errors) - 1)


def unit(n=1):
    return torch.linspace(0, 1, n + 1)


@pytest.mark.parametrize("method, expected", METHODS)
def test_runge_kutta_order_on_a_linear_field(method, expected):
    A, x = torch.randn(4, 4) / 2, torch.randn(3, 4)
    exact = x @ torch.linalg.matrix_exp(A)
    errors = [
        (ode.final_state(method(lambda x, t: x @ A, x, unit(n))) - exact).norm().item()
        for n in (16, 32, 64)
    ]
    assert order(errors) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("method, expected", METHODS)
def test_runge_kutta_order_when_the_field_depends_on_time(method, expected):
    """x' = 3 t^2 x + cos t backwards and forwards: stage times count."""
    x = torch.ones(1, 1)

    def v(x, t):
        return 3 * t**2 * x

    for ends in ((0.0, 1.0), (1.0, 0.0)):
        exact = math.exp(ends[1] ** 3 - ends[0] ** 3)
        errors = [
            abs(ode.final_state(method(v, x, torch.linspace(*ends, n + 1))).item() - exact)
            for n in (32, 64, 128)
        ]
        assert order(errors) == pytest.approx(expected, abs=0.25)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_adaptive_error_follows_the_tolerance(tolerance):
    """D9: x' = x - x^3 has x = x0 e^t / sqrt(1 + x0^2 (e^2t - 1)); errors add over ~10 steps."""
    x = torch.linspace(-3, 3, 13)[:, None]
    states = list(
        ode.dormand_prince(lambda x, t: x - x**3, x, unit(3), rtol=tolerance, atol=tolerance)
    )
    assert len(states) == 3
    for t, state in zip(unit(3)[1:], states):
        exact = x * t.exp() / torch.sqrt(1 + x**2 * ((2 * t).exp() - 1))
        assert (state - exact).abs().max() < 10 * tolerance


def test_adaptive_steps_are_as_many_as_scipys():
    """The same pair in SciPy's RK45, within a factor 1.5 of its evaluations at equal tolerance."""
    from scipy.integrate import solve_ivp

    calls = 0

    def v(x, t):
        nonlocal calls
        calls += 1
        return torch.stack([x[:, 1], (1 - x[:, 0] ** 2) * x[:, 1] * 3 - x[:, 0]], dim=1)

    got = ode.final_state(TIGHT(v, torch.tensor([[2.0, 0.0]]), torch.tensor([0.0, 5.0])))
    ours = calls
    truth = solve_ivp(
        lambda t, y: v(torch.tensor(y)[None], t)[0].numpy(),
        (0, 5),
        [2.0, 0.0],
        rtol=1e-10,
        atol=1e-10,
    )
    assert abs(got[0].numpy() - truth.y[:, -1]).max() < 1e-7
    assert ours < 1.5 * truth.nfev


def test_a_single_time_is_no_step():
    assert list(ode.dormand_prince(lambda x, t: x, torch.ones(1, 1), torch.zeros(1))) == []
