"""Exact moments of samplers on Gaussian data against the samplers themselves (D2, D8)."""

import math

import pytest
import torch

from pushforward.theory import ddpm_schedule, langevin, paths, samplers
from pushforward.theory.exact import dynamics
from pushforward.theory.exact.dynamics import Moments
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian
from pushforward.theory.ode import final_state

DATA = Moments(0.8, 2.25)


@pytest.fixture(autouse=True)
def double(float64):
    """All moments are checked in float64."""


def denoiser(path, data=DATA):
    target = Gaussian(torch.tensor([data.mean]), torch.tensor([[data.variance]]))
    return ExactDenoiser(target, path)


def agree(x, exact):
    """Mean and variance within 5 standard errors."""
    n, v = len(x), exact.variance
    assert float(x.mean()) == pytest.approx(exact.mean, abs=5 * math.sqrt(v / n))
    assert float(x.var()) == pytest.approx(v, rel=5 * math.sqrt(2 / n))


def test_affine_steps_are_composed():
    slope, shift, noise = (
        torch.tensor([0.5, 2.0]),
        torch.tensor([1.0, -1.0]),
        torch.tensor([3.0, 4.0]),
    )
    got = dynamics.propagate_moments(Moments(2.0, 8.0), slope, shift, noise)
    assert got == Moments(2 * (0.5 * 2 + 1) - 1, 4 * (0.25 * 8 + 3) + 4)


@pytest.mark.parametrize("v, published", [(1.0, 1.4885), (0.0, 1.4500)])
def test_ancestral_sampling_on_the_table(v, published):
    """D2: data N(0.8, 1.5^2), T = 100."""
    path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(100))
    exact = dynamics.ancestral_moments(path, path.chain(), DATA, v)
    assert math.sqrt(exact.variance) == pytest.approx(published, abs=5e-5)
    x = samplers.ddpm(denoiser(path), torch.randn(50_000, 1), path.chain(), variance=v)
    agree(final_state(x), exact)


def test_ancestral_sampling_on_another_path_and_in_few_steps():
    path = paths.EDMPath(10.0, 0.05)
    times = path.grid(6)
    x = samplers.ddpm(denoiser(path), 10 * torch.randn(50_000, 1), times, variance=0.3)
    agree(final_state(x), dynamics.ancestral_moments(path, times, DATA, 0.3))


def test_noise_keeps_its_distribution_and_a_point_is_reached():
    """The last step adds no noise: beta_1 is missing from the variance of standard normal data."""
    path = ddpm_schedule.DDPMPath(ddpm_schedule.cosine_betas(40))
    grid = path.chain()
    assert dynamics.ancestral_moments(
        path, grid[:-1], Moments(0, 1), 1.0
    ).variance == pytest.approx(1, 1e-12)
    assert dynamics.ancestral_moments(path, grid, Moments(0, 1), 1.0).variance == pytest.approx(
        1 - float(path.beta(1)), 1e-12
    )
    mean, variance = dynamics.ancestral_moments(path, grid, Moments(0.7, 0.0), 0.0)
    assert mean == pytest.approx(0.7, 1e-12) and variance == pytest.approx(0, abs=1e-15)


def test_the_table_backwards_with_the_whole_score_is_ddpm():
    path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(60))
    exact = dynamics.ancestral_moments(path, path.chain(), DATA, 1.0)
    assert dynamics.reverse_chain_moments(path, DATA) == pytest.approx(exact, rel=1e-10)


def test_half_the_score_belongs_to_the_flow_and_to_langevin():
    """Only g = 1, w = (1 + n) / 2 tends to the data's variance; errors fall as 1 / T."""
    data, kept = Moments(0.0, 0.25), {"weight": 0.5, "noise": 0.0}
    errors = []
    for T in (500, 1000):
        path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(T))
        errors.append([
            dynamics.reverse_chain_moments(path, data, **options).variance - 0.25
            for options in ({}, kept, {"weight": 0.5}, {"growth": 0.0, "weight": 0.5})
        ])  # fmt: skip
    (full, flow, half, pure), (full_2, flow_2, half_2, pure_2) = errors
    assert full / full_2 > 1.8 and flow / flow_2 > 1.8
    assert half_2 + 0.25 == pytest.approx(3.165, abs=2e-3)  # A62
    assert pure_2 + 0.25 == pytest.approx(0.464, abs=1e-3) and abs(pure / pure_2) < 1.2


@pytest.mark.parametrize(
    "path", [paths.CosinePath(), paths.VariancePreservingPath(), paths.EDMPath()]
)
def test_ddim_shrinks_by_cosines(path):
    times, data = path.grid(7), Moments(0.0, 0.36)
    got = final_state(samplers.ddim(denoiser(path, data), torch.ones(1, 1), times))
    assert dynamics.ddim_factor(path, times, 0.6) == pytest.approx(float(got), rel=1e-10)


def test_equal_angles_shrink_least():
    """cos(pi / 2N)^N for unit data from pure noise: .8835 at 10 steps, .9756 at 50."""
    for steps, published in ((10, 0.8835), (50, 0.9756)):
        even = dynamics.ddim_factor(paths.CosinePath(), torch.linspace(1, 0, steps + 1), 1.0)
        assert even == pytest.approx(published, abs=5e-5)
        bent = dynamics.ddim_factor(paths.CosinePath(), torch.linspace(1, 0, steps + 1) ** 1.2, 1.0)
        assert bent < even


@pytest.mark.parametrize("path", [paths.GeometricPath(5.0, 0.1), paths.VariancePreservingPath()])
def test_langevin_steps_at_levels_of_noise_have_the_moments_of_their_recursions(path):
    times = path.grid(8)
    start = float(path.scale(times[0])) * torch.randn(50_000, 1)
    for run, moments in (
        (langevin.annealed_langevin, dynamics.annealed_langevin_moments),
        (langevin.predictor_corrector, dynamics.predictor_corrector_moments),
    ):
        states = run(denoiser(path), start, times, corrections=3, snr=0.4)
        agree(final_state(states), moments(path, times, DATA, 3, 0.4))
