"""MeanFlow against the average velocity of Gaussian data, which is known (D11)."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pushforward import families
from pushforward.data.builtin import datasets
from pushforward.families.mean_flow import (
    MeanFlow,
    derivative_target,
    interval_target,
    time_of_angle,
)
from pushforward.metrics.wasserstein import sliced_w2
from pushforward.model import Event
from pushforward.shapes import append_dims
from pushforward.theory import ode, paths, samplers
from pushforward.theory.exact.dynamics import gaussian_flow_map
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian, lesson_mixture
from pushforward.training.fit import fit

MEAN, S = torch.tensor([0.8, -0.4], dtype=torch.float64), 0.6
EXACT = ExactDenoiser(Gaussian(MEAN, torch.eye(2, dtype=torch.float64) * S**2), paths.LinearPath())


class Given(MeanFlow):
    """The exact average velocity of N(m, s^2 I)."""

    def __init__(self, **options):
        super().__init__(nn.Linear(1, 1), (2,), **options)

    def u(self, z, r, t, c=None):
        """Where r = t, the velocity: the mean of noise less datum, by regression on z."""
        alpha, sigma = 1 - append_dims(t, z), append_dims(t, z)
        rate = (sigma - alpha * S**2) / (alpha**2 * S**2 + sigma**2)
        v = rate * (z - alpha * MEAN) - MEAN
        span = append_dims(t - r, z)
        apart = (z - gaussian_flow_map(self.path, MEAN, S, z, t, r)) / torch.where(
            span > 0, span, 1
        )
        return torch.where(span > 0, apart, v)


def states(n=30):
    r, t = torch.sort(torch.rand(2, n), dim=0).values
    return torch.randn(n, 2), r, t


def test_the_average_velocity_is_the_mean_of_the_velocity_along_the_flow(float64):
    """By Gauss and Legendre's rule on the exact curve."""
    z, r, t = states()
    nodes, weights = np.polynomial.legendre.leggauss(40)
    total = torch.zeros_like(z)
    for node, weight in zip(nodes, weights, strict=True):
        tau = r + (t - r) * (node + 1) / 2
        on_curve = gaussian_flow_map(paths.LinearPath(), MEAN, S, z, t, tau)
        total += weight / 2 * EXACT.velocity(on_curve, tau)
    torch.testing.assert_close(Given().u(z, r, t), total, rtol=0, atol=1e-9)


def test_the_exact_field_satisfies_the_identity(float64):
    """The model's own derivative: u + (t - r) du/dt is the exact velocity, for every r."""
    model, (z, r, t) = Given(), states()
    v, slope = model.velocity_and_derivative(z, r, t)
    torch.testing.assert_close(v, EXACT.velocity(z, t), rtol=0, atol=1e-9)
    implied = model.u(z, r, t) + (t - r)[:, None] * slope
    torch.testing.assert_close(implied, v, rtol=0, atol=1e-9)


def test_the_goal_over_an_interval_is_the_exact_field_to_the_order_of_a_heun_step(float64):
    """An error of order three in the step, here of the displacement (t - r) u."""
    model, (z, r, t), errors = Given(), states(), []
    for part in (0.2, 0.1, 0.05):
        v, goal, weight = interval_target(model, z, r, t - part * (t - r), t, None)
        errors.append(float((goal - model.u(z, r, t)).norm()))
        torch.testing.assert_close(weight, torch.full_like(t, 1 / part))
    for coarse, fine in zip(errors, errors[1:]):
        assert math.log2(coarse / fine) == pytest.approx(3, abs=0.3)


def test_over_short_intervals_the_gradient_is_that_of_the_identity(float64):
    """A network's: the weighted error of one goal tends to the error of the other."""
    model = families.build("mean_flow", Event((2,)), width=16, waves=8)
    z, r, t = states()
    u = model.u(z, r, t)
    _, goal, weight = interval_target(model, z, r, t - 1e-5 * (t - r), t, None)
    _, expected, _ = derivative_target(model, z, r, t, t, None)
    torch.testing.assert_close(weight[:, None] * (u - goal), u - expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("apart", [0.0, 0.5, 1.0])
def test_the_exact_field_has_no_loss_where_r_is_less_and_the_floor_where_it_is_t(float64, apart):
    r""":math:`\mathbb E \mathrm{Var}(\varepsilon - x \mid z_t) = s\pi/2` a dimension (D10).

    Each datum under a condition of its own: the mean over a batch is below that floor.
    """
    model, c = Given(apart=apart, target=derivative_target), torch.arange(1.0, 401)[:, None]
    model.unconditional = 0.0
    terms = [model.loss(MEAN + S * torch.randn(400, 2), c) for _ in range(100)]
    assert max(float(each["mean_flow"]) for each in terms) < 1e-20
    flow = torch.stack([each["flow"] for each in terms])
    expected, error = (1 - apart) * S * math.pi, float(flow.std()) / 100**0.5
    assert float(flow.mean()) == pytest.approx(expected, abs=5 * error + 1e-12)
    pooled = torch.stack([model.loss(MEAN + S * torch.randn(400, 2))["flow"] for _ in range(20)])
    assert float(pooled.mean()) <= 0.2 * expected


def test_the_derivative_is_that_of_finite_differences(float64):
    """Along the curve: of u(z + h v, r, t + h), for a network with waves and conditions."""
    model = families.build("mean_flow", Event((2,), 3), width=16, waves=8)
    (z, r, t), c, h = states(), torch.randn(30, 3), 1e-5
    v = model.u(z, t, t, c)
    ahead, behind = (model.u(z + k * v, r, t + k, c) for k in (h, -h))
    expected = (ahead - behind) / (2 * h)
    torch.testing.assert_close(
        model.velocity_and_derivative(z, r, t, c)[1], expected, rtol=1e-6, atol=1e-6
    )


def test_at_equal_times_it_is_flow_matching_with_the_same_network(float64):
    flow = families.build("flow_matching", Event((2,)), width=16)
    model = families.build("mean_flow", Event((2,)), width=16)
    model.net.load_state_dict(flow.denoiser.net.state_dict(), strict=False)
    nn.init.zeros_(model.net.span.weight)
    z, _, t = states()
    torch.testing.assert_close(model.u(z, t, t), flow.denoiser.velocity(z, t))


def test_an_untrained_network_of_zeros_is_the_flow_of_standard_normal_data(float64):
    model, (z, r, t) = families.build("mean_flow", Event((2,)), width=8), states()
    for p in list(model.net.layers.parameters())[-2:]:
        nn.init.zeros_(p)
    end = z - (t - r)[:, None] * model.u(z, r, t)
    zero = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(end, gaussian_flow_map(paths.LinearPath(), zero, 1.0, z, t, r))


@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_field_gives_the_exact_law_in_any_number_of_steps(float64, steps):
    n = 20_000
    x = Given().double().sample(n, steps=steps)
    z = ((x - MEAN) / S).double()
    assert (z.mean(0).abs() * n**0.5 < 4.5).all()
    assert ((z.var(0) - 1).abs() * (n / 2) ** 0.5 < 4.5).all()


def test_flow_matching_in_one_step_collapses_to_the_mean(float64):
    """At t = 1 noise says nothing of the datum: the velocity is the noise less the mean."""
    law, path = lesson_mixture(), paths.LinearPath()
    eps = torch.randn(50, 1)
    end = ode.final_state(samplers.euler(ExactDenoiser(law, path), eps, path.grid(1)))
    torch.testing.assert_close(end, law.mean.expand(50, 1), rtol=0, atol=1e-12)


def test_learned_guidance_aims_at_the_extrapolated_velocity(float64):
    model = families.build("mean_flow", Event((2,), 3), width=8, guidance=3.0)
    (z, _, t), v = states(), torch.randn(30, 2)
    c = torch.cat([torch.zeros(15, 3), torch.rand(15, 3)])
    got = model.guided_velocity(z, t, v, c)
    free = model.u(z, t, t)
    torch.testing.assert_close(got[:15], v[:15])
    torch.testing.assert_close(got[15:], (3 * v - 2 * free)[15:])


def test_the_adaptive_weight_is_one_where_the_velocity_is_constant_and_falls_with_its_change():
    model = families.build("mean_flow", Event((2,)), width=8, power=0.5)
    change = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(model.adaptive_weight(change), torch.tensor([1.0, 13.5**-0.5]))


def test_times_are_ordered_and_apart_and_whole_as_often_as_asked():
    options = {"width": 8, "apart": 0.25, "whole": 0.5}
    model, x = families.build("mean_flow", Event((2,)), **options), torch.zeros(4000, 2)
    r, s, t = model.draw_times(x)
    assert (r <= s).all() and (s < t)[:1000].all() and torch.equal(r[1000:], t[1000:])
    assert float(r.min()) >= 0 and float(t.max()) <= 1
    whole = float((r[:1000] == 0).float().mean())
    assert whole == pytest.approx(0.5, abs=5 * (0.25 / 1000) ** 0.5)


def test_times_are_at_squares_of_the_angle(float64):
    u = torch.linspace(0, 0.99, 7)
    alpha, sigma = paths.LinearPath()(time_of_angle(u))
    torch.testing.assert_close(torch.atan2(sigma, alpha), math.pi / 2 * u**2)


@pytest.mark.parametrize("steps", [1, 4])
def test_nfe_is_the_number_of_calls_of_the_network(steps):
    model, calls = families.build("mean_flow", Event((2,)), width=8), []
    model.net.register_forward_hook(lambda *_: calls.append(1))
    model.sample(3, steps=steps)
    assert len(calls) == steps
    model.sample(3)
    assert len(calls) == steps + model.nfe


@pytest.mark.slow
@pytest.mark.parametrize("name", ["8gaussians", "moons"])
def test_one_step_is_better_than_a_gaussian_and_a_few_are_better_still(name):
    sample, n = datasets.load(name).sample, 10_000
    model, gaussian = (fit(name, f, progress=False) for f in ("mean_flow", "gaussian"))

    def distance(model, **options):
        pairs = [(sample(n, 90 + k), model.draw(n, seed=k, **options)) for k in range(4)]
        return np.mean([sliced_w2(*pair) for pair in pairs])

    one, four, reference = distance(model, steps=1), distance(model, steps=4), distance(gaussian)
    assert one < 0.7 * reference
    assert four < 0.4 * reference and four < one
