"""Flow matching against its closed forms (D10), by regression, quadrature and the samplers."""

import math

import pytest
import torch
from scipy.integrate import quad

from pushforward.theory import ode, paths, samplers
from pushforward.theory.exact import dynamics
from pushforward.theory.exact.targets import (
    ExactDenoiser,
    Gaussian,
    GaussianMixture,
    lesson_mixture,
)

PATHS = {
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "vp": paths.VariancePreservingPath(),
}


@pytest.fixture(autouse=True)
def double(float64):
    """All of this file is about identities."""


def round_gaussian(mean, scale):
    return Gaussian(torch.tensor(mean), scale**2 * torch.eye(len(mean)))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_gaussian_field_is_that_of_the_exact_denoiser(path):
    mean, x, t = [0.8, -1.0], torch.randn(30, 2), torch.rand(30) * 0.9 + 0.05
    exact = ExactDenoiser(round_gaussian(mean, 1.5), path).velocity(x, t)
    got = dynamics.gaussian_velocity(path, torch.tensor(mean), 1.5, x, t)
    torch.testing.assert_close(got, exact, rtol=1e-10, atol=1e-10)


def test_the_gaussian_field_is_the_regression_of_the_rate():
    """The slope of x1 - x0 on x_t among 400,000 pairs, within five standard errors."""
    m, s, t, n = 0.8, 1.5, 0.3, 400_000
    x1, x0 = m + s * torch.randn(n), torch.randn(n)
    x_t, y = (1 - t) * x1 + t * x0, x0 - x1
    slope = torch.cov(torch.stack([x_t, y]))[0, 1] / x_t.var()
    left = y - y.mean() - slope * (x_t - x_t.mean())
    error = left.std() / x_t.std() / n**0.5
    ends = torch.tensor([[0.0], [1.0]])
    low, high = dynamics.gaussian_velocity(
        paths.LinearPath(), torch.tensor([m]), s, ends, torch.tensor(t)
    )
    assert abs(float(high - low) - slope) < 5 * error
    torch.testing.assert_close(low[0], y.mean() - slope * x_t.mean(), rtol=0, atol=5 * float(error))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_residual_is_the_variance_by_quadrature(path):
    """Of x given x_t on the line, under Bayes' rule, for the lesson's mixture."""
    law, t = lesson_mixture(), torch.tensor(0.4)
    alpha, sigma = (float(z) for z in path(t))
    d_alpha, d_sigma = (float(z) for z in path.rates(t))
    grid = torch.linspace(-9, 9, 20_001)[:, None]
    for x_t in (-1.3, 0.2, 2.0):
        weight = (law.log_prob(grid) - (x_t - alpha * grid[:, 0]).square() / sigma**2 / 2).exp()
        rate = d_alpha * grid[:, 0] + d_sigma * (x_t - alpha * grid[:, 0]) / sigma
        mean = (weight * rate).sum() / weight.sum()
        expected = (weight * (rate - mean).square()).sum() / weight.sum()
        got = dynamics.residual_variance(law, path, torch.tensor([[x_t]]), t)
        torch.testing.assert_close(got[0], expected, rtol=1e-9, atol=0)


def test_the_residual_of_slanted_components_is_the_excess_of_the_loss():
    """Pythagoras: the loss of the exact field is the mean residual, within five standard errors."""
    covariances = torch.tensor([[[1.0, 0.7], [0.7, 0.8]], [[0.3, -0.1], [-0.1, 0.5]]])
    law = GaussianMixture(torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.0], [1.5, 1.0]]),
                          covariances)  # fmt: skip
    path, n = paths.LinearPath(), 200_000
    x, eps, t = law.sample(n), torch.randn(n, 2), torch.rand(n) * 0.98 + 0.01
    x_t = path.interpolate(x, eps, t)
    u = ExactDenoiser(law, path).velocity(x_t, t)
    gap = (u - (eps - x)).square().sum(1) - dynamics.residual_variance(law, path, x_t, t)
    assert abs(float(gap.mean())) < 5 * float(gap.std()) / n**0.5


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
def test_the_floor_of_gaussian_data_is_the_integral_of_the_residual(s):
    law, zero = round_gaussian([0.3], s), torch.zeros(1, 1)
    residual = lambda t: float(  # noqa: E731
        dynamics.residual_variance(law, paths.LinearPath(), zero, torch.tensor(t))
    )
    assert quad(residual, 1e-12, 1)[0] == pytest.approx(dynamics.gaussian_floor(s), abs=1e-8)


def test_the_field_error_of_a_shift_is_its_square():
    u = ExactDenoiser(lesson_mixture(), paths.LinearPath()).velocity
    got = dynamics.velocity_error(
        lambda x, t: u(x, t) + 0.3, u, torch.randn(50, 1), torch.rand(50) * 0.9 + 0.05
    )
    assert float(got) == pytest.approx(0.09, abs=1e-12)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("steps", [2, 7, 20])
def test_ddim_contracts_by_the_product_of_cosines(path, steps):
    """The slope of DDIM's map over that of the flow, D_s / D_t."""
    s, times = 1.5, torch.linspace(0.95, 0.02, steps + 1)
    denoiser = ExactDenoiser(round_gaussian([0.8], s), path)
    ends = ode.final_state(samplers.ddim(denoiser, torch.tensor([[0.0], [1.0]]), times))
    alpha, sigma = path(times)
    deviation = torch.hypot(alpha * s, sigma)
    ratio = float((ends[1] - ends[0]) / (deviation[-1] / deviation[0]))
    assert dynamics.ddim_contraction(path, s, times) == pytest.approx(ratio, abs=1e-12)


def test_equal_angles_contract_least():
    path = paths.CosinePath(t_max=1.0)
    assert dynamics.ddim_contraction(path, 1.0, torch.linspace(1, 0, 11)) == pytest.approx(
        dynamics.least_contraction(10), abs=1e-12
    )
    for grid in (torch.linspace(1, 0, 11) ** 2, torch.linspace(1, 0, 11).sqrt()):
        assert dynamics.ddim_contraction(path, 1.0, grid) < dynamics.least_contraction(10)
    assert dynamics.least_contraction(1) == pytest.approx(0, abs=1e-15)
    assert dynamics.least_contraction(50) == pytest.approx(math.exp(-(math.pi**2) / 400), abs=1e-4)
