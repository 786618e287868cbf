"""Densities along flows: linear and cubic ones in closed form, integrals, and fields gone bad."""

import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from pushforward.errors import NumericalError, OdeError
from pushforward.shapes import standard_normal_log_prob
from pushforward.theory import densities, ode

TIGHT = partial(ode.dormand_prince, rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def double(float64):
    """All of this file is about accuracy."""


def unit(n=1):
    return torch.linspace(0, 1, n + 1)


def network(d, width=16):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(d + 1, width), nn.Tanh(), nn.Linear(width, d))
    return lambda x, t: net(torch.cat([x, t.expand(len(x), 1)], dim=1))


@pytest.mark.parametrize("d", [1, 2, 8, 9, 33])
def test_divergence_is_the_trace_of_the_jacobian(d):
    """Both ways of taking rows, and a batch of them that is not full."""
    v, x, t = network(d), torch.randn(4, d), torch.tensor(0.3)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: v(z[None], t)[0]))(x)
    value, div = densities.exact_divergence(v, x, t)
    torch.testing.assert_close(div, jacobian.diagonal(dim1=1, dim2=2).sum(1))
    torch.testing.assert_close(value, v(x, t))


def test_divergence_of_an_image_field():
    conv = nn.Conv2d(2, 2, 3, padding=1)
    x = torch.randn(3, 2, 4, 4)
    _, div = densities.exact_divergence(lambda x, t: conv(x).tanh(), x, torch.tensor(0.0))
    flat = torch.func.vmap(
        torch.func.jacrev(lambda z: conv(z.reshape(1, 2, 4, 4)).tanh().flatten())
    )(x.flatten(1))
    torch.testing.assert_close(div, flat.diagonal(dim1=1, dim2=2).sum(1))


WAYS = {
    "gauss": {"rtol": 1e-10, "atol": 1e-10},
    "adaptive": {"integrator": TIGHT},
    "rk4": {"integrator": ode.rk4},
}


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_log_density_of_a_linear_flow(options):
    """D9: under x' = Ax the density at x is N(x e^A) with log-determinant tr A."""
    A, x = torch.randn(3, 3) / 3, torch.randn(5, 3)
    got = densities.flow_log_density(
        lambda x, t: x @ A, x, unit(64), standard_normal_log_prob, **options
    )
    exact = standard_normal_log_prob(x @ torch.linalg.matrix_exp(A)) + A.trace()
    # 64 steps of order 4 err by about (1/64)^4 = 6e-8 times a fifth derivative below 1
    torch.testing.assert_close(got.value, exact, rtol=0, atol=1e-8)
    assert got.nfe > 0 and (got.standard_error == 0).all()


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_log_density_of_a_cubic_flow(options):
    """D9: x' = x - x^3 has log-determinant t - 1.5 log q, q = 1 + x0^2 (e^2t - 1)."""
    x = torch.linspace(-2, 2, 9)[:, None]
    got = densities.flow_log_density(
        lambda x, t: x - x**3, x, unit(256), standard_normal_log_prob, **options
    )
    q = 1 + x[:, 0] ** 2 * (math.exp(2) - 1)
    exact = standard_normal_log_prob(x * math.e / q[:, None].sqrt()) + 1 - 1.5 * q.log()
    torch.testing.assert_close(got.value, exact, rtol=0, atol=1e-7)


def test_gauss_tolerance_is_kept_where_the_trajectory_is_straight():
    """x' = x / t: straight lines, so only the quadrature of 1/t limits the steps from 1e-4 to 1."""
    x, times = torch.randn(6, 3), torch.tensor([1e-4, 1.0])
    for tolerance in (1e-3, 1e-6):
        got = densities.flow_log_density(
            lambda x, t: x / t,
            1e-4 * x,
            times,
            standard_normal_log_prob,
            rtol=tolerance,
            atol=tolerance,
        )
        exact = standard_normal_log_prob(x) + 3 * math.log(1e4)
        # 28 nats: the relative tolerance allows 3e-2 and 3e-5 a step, for some ten steps
        assert (got.value - exact).abs().max() < 300 * tolerance


def test_the_density_of_a_network_flow_integrates_to_one():
    side = torch.linspace(-9, 9, 121)
    grid = torch.cartesian_prod(side, side)
    log_p = densities.flow_log_density(
        network(2), grid, unit(), standard_normal_log_prob, rtol=1e-6, atol=1e-6
    ).value
    assert float(log_p.exp().sum() * (side[1] - side[0]) ** 2) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("options", WAYS.values(), ids=WAYS)
def test_pushed_samples_carry_the_density_that_scoring_gives(options):
    v, z = network(2), torch.randn(20, 2)
    x, pushed = densities.push_samples(v, z, unit(64).flip(0), standard_normal_log_prob, **options)
    scored = densities.flow_log_density(v, x, unit(64), standard_normal_log_prob, **options)
    torch.testing.assert_close(pushed.value, scored.value, rtol=0, atol=1e-6)


def test_hutchinson_is_within_three_standard_errors_of_the_exact_trace():
    """Probes are the default above 64 dimensions; 3 SE fail for 0.3 %: of 60 data, at most 4."""
    v, x = network(70, width=32), torch.randn(60, 70)
    exact = densities.flow_log_density(v, x, unit(), standard_normal_log_prob, probes=0).value
    got = densities.flow_log_density(v, x, unit(), standard_normal_log_prob, probes=64)
    z = (got.value - exact) / got.standard_error
    assert (z.abs() > 3).sum() <= 4 and z.abs().mean() < 1.2
    assert z.mean().abs() < 4 / math.sqrt(60)  # unbiased
    default = densities.flow_log_density(v, x, unit(), standard_normal_log_prob)
    assert (default.standard_error > 0).all() and not torch.equal(default.value, exact)


def test_standard_error_falls_as_the_root_of_the_probes():
    v, x = network(20), torch.randn(200, 20)
    few, many = (
        densities.flow_log_density(
            v, x, unit(8), standard_normal_log_prob, integrator=ode.heun, probes=k
        )
        for k in (16, 64)
    )
    ratio = few.standard_error.mean() / many.standard_error.mean()
    assert ratio == pytest.approx(2, rel=0.15)  # 200 sample deviations: about 2 % each


def test_gradient_of_a_density_by_finite_differences():
    """create_graph: the derivative with respect to a weight, which training a CNF needs."""
    x, weight = torch.randn(6, 2), torch.tensor(0.7, requires_grad=True)

    def loss(w):
        v = network(2)
        return densities.flow_log_density(
            lambda x, t: w * v(x, t),
            x,
            unit(8),
            standard_normal_log_prob,
            integrator=ode.rk4,
            create_graph=True,
        ).value.mean()

    (gradient,) = torch.autograd.grad(loss(weight), weight)
    h = 1e-5
    slope = (loss(weight.detach() + h) - loss(weight.detach() - h)) / (2 * h)
    torch.testing.assert_close(gradient, slope, rtol=1e-7, atol=1e-9)


def test_equal_accuracy_takes_a_tenth_of_eulers_divergences():
    """N7: 1e-4 nats with fewer evaluations than 100, at which Euler is 100 times less accurate."""
    v, x = network(2), torch.randn(50, 2)
    exact = densities.flow_log_density(
        v, x, unit(), standard_normal_log_prob, rtol=1e-11, atol=1e-11
    ).value
    got = densities.flow_log_density(v, x, unit(), standard_normal_log_prob, rtol=1e-5, atol=1e-5)
    euler = densities.flow_log_density(
        v, x, unit(100), standard_normal_log_prob, integrator=ode.euler
    )
    assert got.nfe < 100 and (got.value - exact).abs().max() < 1e-4
    assert (euler.value - exact).abs().max() > 100 * (got.value - exact).abs().max()


BAD = {
    "nan": "lambda x, t: x * math.nan",
    "inf": "lambda x, t: x * math.inf",
    "nan_later": "lambda x, t: x * (t - 0.5).clamp(min=0).sqrt() / (t >= 0.5)",
    "nan_for_one_datum": "lambda x, t: torch.where(torch.arange(8)[:, None] == 3, math.nan, x)",
    "blow_up": "lambda x, t: 10 * x.square() + 10",
    "exponential": "lambda x, t: x.exp() * 1e3 + x**3",
    "stiff": "lambda x, t: -1e6 * (x - torch.sin(50 * t))",
    "jumps": "lambda x, t: torch.sign(torch.sin(1e5 * t)) * 1e3 + 0 * x",
    "pole": "lambda x, t: x / (t - 0.371)",
    "negative_root": "lambda x, t: -1 - x.abs() + torch.sqrt(1 - 2 * t)",
    "noise": "lambda x, t: torch.randn_like(x) * 100 + 0 * x",
    "slow": "lambda x, t: 1e5 * torch.stack([x[:, 1], -x[:, 0]], dim=1)",
}
SCRIPT = """
import math, sys, time, torch
from pushforward.errors import OdeError
from pushforward.shapes import standard_normal_log_prob
from pushforward.theory import densities, ode
torch.manual_seed(0)
x, times = torch.randn(8, 2), torch.tensor([0.0, 1.0])
for name, text in eval(sys.stdin.read()).items():
    start = time.monotonic()
    try:
        f, base = eval(text), standard_normal_log_prob
        value = densities.flow_log_density(f, x, times, base, max_nfe=1000).value
        print(name, "finite" if value.isfinite().all() else "SILENT", "")
    except OdeError as e:
        print(name, "error", str(e))
    if time.monotonic() - start > 20:
        print(name, "LATE", "")
"""


def check(lines):
    assert len(lines) == len(BAD)
    for line in lines:
        name, verdict, text = line.split(" ", 2)
        assert verdict == "error", line
        assert " at t = " in text and "evaluations, last step" in text and len(text) < 300


def test_bad_fields_raise_by_name():
    """D9: twelve fields that no explicit solver can follow; never a NaN, a hang or an assertion."""
    x, lines = torch.randn(8, 2), []
    for name, text in BAD.items():
        with pytest.raises(OdeError) as caught:
            densities.flow_log_density(
                eval(text), x, unit(), standard_normal_log_prob, max_nfe=1000
            )
        assert isinstance(caught.value, NumericalError)
        lines.append(f"{name} error {caught.value}")
    check(lines)


def test_bad_fields_raise_when_assertions_are_off():
    done = subprocess.run(
        [sys.executable, "-O", "-c", SCRIPT],
        input=repr(BAD),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    check(done.stdout.strip().splitlines())


@pytest.mark.parametrize(
    "name", ["nan", "inf", "nan_later", "nan_for_one_datum", "blow_up", "exponential"]
)
def test_fixed_steps_never_return_a_silent_nan(name):
    with pytest.raises(OdeError, match="not finite at t = 1 after 64 evaluations"):
        densities.flow_log_density(
            eval(BAD[name]),
            torch.randn(8, 2),
            unit(16),
            standard_normal_log_prob,
            integrator=ode.rk4,
        )
