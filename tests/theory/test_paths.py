"""Each path against finite differences and the variance equation of its SDE."""

import math

import pytest
import torch

from pushforward.errors import UsageError
from pushforward.theory import paths
from pushforward.theory.ddpm_schedule import DDPMPath, cosine_betas, linear_betas

PATHS = {
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "vp": paths.VariancePreservingPath(),
    "ve": paths.VarianceExplodingPath(),
    "edm": paths.EDMPath(),
    "ddpm_linear": DDPMPath(linear_betas(1000)),
    "ddpm_cosine": DDPMPath(cosine_betas(1000)),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
TIMES = torch.linspace(0.0517, 0.9517, 10, dtype=torch.float64)  # off the nodes of the tables


def centred(f, t, h=1e-6):
    return (f(t + h) - f(t - h)) / (2 * h)


@every_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_path_starts_at_data_and_loses_signal(path, dtype):
    zero, t = torch.zeros((), dtype=dtype), torch.linspace(0.01, 0.99, 50, dtype=dtype)
    assert path.alpha(zero) == 1 and path.sigma(zero) == 0
    alpha, sigma = path(t)
    assert (torch.diff(sigma / alpha) > 0).all() and alpha.dtype == sigma.dtype == dtype


@every_path
def test_rates_match_finite_differences(path):
    # central differences err by h^2 = 1e-12 times a third derivative, and 1e-16 / h by rounding
    for rate, f in zip(path.rates(TIMES), (path.alpha, path.sigma)):
        torch.testing.assert_close(rate, centred(f, TIMES), rtol=1e-6, atol=1e-7)


@every_path
def test_closed_rates_match_automatic_differentiation(path):
    if isinstance(path, DDPMPath):
        pytest.skip("the lookup of an interval has no forward-mode derivative")
    for rate, auto in zip(path.rates(TIMES), paths.Path.rates(path, TIMES)):
        torch.testing.assert_close(rate, auto, rtol=1e-12, atol=1e-12)


@every_path
def test_the_sde_has_the_variance_of_the_path(path):
    """d sigma^2 / dt = 2 f sigma^2 + g^2, the variance equation of a linear SDE."""
    growth = centred(lambda t: path.sigma(t) ** 2, TIMES)
    sde = 2 * path.drift(TIMES) * path.sigma(TIMES) ** 2 + path.diffusion(TIMES)
    # relative to sigma^2 of EDM, 6400, the differences lose ten digits of sixteen
    torch.testing.assert_close(
        sde, growth, rtol=1e-6, atol=1e-9 * float(path.sigma(TIMES).max()) ** 2
    )
    assert (path.diffusion(TIMES) > 0).all()


@every_path
def test_times_of_each_datum_act_on_their_datum(path):
    x, eps, t = torch.randn(5, 3, 4, 2), torch.randn(5, 3, 4, 2), torch.rand(5)
    one_by_one = torch.stack([path.alpha(s) * a + path.sigma(s) * b for a, b, s in zip(x, eps, t)])
    torch.testing.assert_close(path.interpolate(x, eps, t), one_by_one)


@every_path
@pytest.mark.parametrize("steps", [1, 2, 7, 500])
def test_a_grid_falls_from_noise_to_data(path, steps):
    times = path.grid(steps)
    assert len(times) == steps + 1 and times[0] == path.t_max and times[-1] == 0
    assert (times.diff() < 0).all()
    assert steps == 1 or not path.t_min or times[-2] == pytest.approx(path.t_min, rel=1e-12)


@every_path
def test_a_grid_needs_a_step(path):
    with pytest.raises(UsageError, match="at least 1"):
        path.grid(0)


@every_path
def test_inverse_finds_the_time_of_a_noise_ratio(path):
    t = TIMES.clamp(max=path.t_max)
    alpha, sigma = path(t)
    torch.testing.assert_close(path.inverse(sigma / alpha), t, rtol=1e-9, atol=1e-12)


@every_path
def test_the_last_level_is_noise(path):
    """Unit data at t_max: the signal is at most 1 % of the noise, its share of variance 1e-4."""
    alpha, sigma = path(torch.tensor(path.t_max, dtype=torch.float64))
    assert alpha <= 0.1001 * sigma  # VE with sigma_max = 10 is the least noisy


def test_edm_has_karras_levels():
    """Karras et al. (2022), eq. 5: 18 levels from 80 to 0.002."""
    path = paths.EDMPath()
    i = torch.arange(18, dtype=torch.float64)
    levels = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(path.sigma(path.grid(18))[:-1], levels)


def test_equal_angles_shrink_unit_normal_data_least():
    """DDIM on N(0, 1) multiplies by prod cos(dphi) in N steps: at best cos(pi / 2N)^N (D2)."""
    for path in (paths.VariancePreservingPath(), PATHS["ddpm_linear"]):
        alpha, sigma = path(path.grid(50))
        factor = torch.cos(torch.atan2(sigma, alpha).diff()).prod()
        assert factor > math.cos(math.pi / 100) ** 50 - 2e-3  # the last step is not of equal angle
        alpha, sigma = path(torch.linspace(1, 0, 51, dtype=torch.float64))
        assert factor > torch.cos(torch.atan2(sigma, alpha).diff()).prod()


@pytest.mark.parametrize("kind", [paths.EDMPath, paths.GeometricPath])
@pytest.mark.parametrize("least", [0.0, -1.0, 5.0, 7.0, math.nan])
def test_levels_of_noise_that_do_not_fall_are_refused(kind, least):
    with pytest.raises(UsageError, match="0 < sigma_min < sigma_max"):
        kind(sigma_max=5.0, sigma_min=least)
