"""Consistency functions against the flow itself, in closed form and integrated (D11)."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import kstest, norm

from pushforward.errors import UsageError
from pushforward.theory import ode, paths
from pushforward.theory.consistency import (
    HeunTeacher,
    boundary_scales,
    discretisation_times,
    equal_angle_times,
    sample_multistep,
)
from pushforward.theory.exact.dynamics import gaussian_flow_map, mixture_log_cdf, quantile_map
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian, lesson_mixture
from pushforward.theory.sample_statistics import conditional_energy_distance

PATHS = {
    "edm": paths.EDMPath(20.0, 0.01),
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "vp": paths.VariancePreservingPath(),
}


def flow(denoiser, x, t, s, steps):
    """Runge-Kutta steps of the exact velocity, even in the path's clock of small levels."""
    u = torch.linspace(float(t) ** (1 / 3), float(s) ** (1 / 3), steps + 1) ** 3
    for a, b in zip(u[:-1], u[1:]):
        h = b - a
        k1 = denoiser.velocity(x, a)
        k2 = denoiser.velocity(x + h / 2 * k1, a + h / 2)
        k3 = denoiser.velocity(x + h / 2 * k2, a + h / 2)
        k4 = denoiser.velocity(x + h * k3, b)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def ends(path):
    return torch.tensor(0.9 * path.t_max), torch.tensor(max(path.t_min, 1e-3))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_gaussian_map_is_the_flow(float64, path):
    (t, s), x = ends(path), torch.randn(20, 2)
    mean = torch.tensor([0.8, -1.0])
    exact = ExactDenoiser(Gaussian(mean, 0.25 * torch.eye(2)), path)
    expected = flow(exact, x, t, s, 60)
    torch.testing.assert_close(
        gaussian_flow_map(path, mean, 0.5, x, t, s), expected, rtol=0, atol=1e-6
    )


def test_the_gaussian_map_is_the_closed_form_of_the_papers(float64):
    r""":math:`m + \sqrt{(s^2+\epsilon^2)/(s^2+t^2)}(x - m)`, and the linear path's (D11)."""
    m, s, x = 0.8, 1.5, torch.randn(20, 1)
    mean = torch.tensor([m])
    ve = paths.EDMPath(80.0, 0.002)
    got = gaussian_flow_map(ve, mean, s, x, torch.tensor(3.0 / 80), torch.tensor(ve.t_min))
    expected = m + math.sqrt((s**2 + 0.002**2) / (s**2 + 3.0**2)) * (x - m)
    torch.testing.assert_close(got, expected)
    t = 0.7
    got = gaussian_flow_map(paths.LinearPath(), mean, s, x, torch.tensor(t), torch.tensor(0.0))
    expected = m + s * (x - (1 - t) * m) / math.sqrt(t**2 + (1 - t) ** 2 * s**2)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_on_the_line_the_flow_is_the_map_of_quantiles(float64, path):
    (t, s), law = ends(path), lesson_mixture()
    x = law.sample(50) * path.alpha(t) + torch.randn(50, 1) * path.sigma(t)
    expected = flow(ExactDenoiser(law, path), x, t, s, 80)
    torch.testing.assert_close(quantile_map(law, path, x, t, s), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.7])
def test_the_map_of_quantiles_is_exact_in_both_tails(float64, t):
    """Of normal data: the identity from t to t, the closed form to data, 40 deviations out."""
    law, path, mean = Gaussian(torch.tensor([0.3]), torch.eye(1)), paths.LinearPath(), 0.3
    times = torch.tensor([t, 0.0])
    x = torch.tensor([-40.0, -8.5, -1.0, 0.0, 1.0, 8.0, 8.5, 40.0])[:, None]
    expected = gaussian_flow_map(path, torch.tensor([mean]), 1.0, x, *times)
    torch.testing.assert_close(quantile_map(law, path, x, *times), expected, rtol=0, atol=1e-10)


def test_log_distributions_are_those_of_scipy_on_both_sides(float64):
    """Of a mixture, by log-sums of SciPy's normal tails."""
    law, x = lesson_mixture(), torch.linspace(-60, 60, 25)[:, None]
    z = ((x - law.means.mT) / law.variances.mT.sqrt()).numpy()
    for side, tail in ((1.0, norm.logcdf), (-1.0, norm.logsf)):
        expected = logsumexp(tail(z), 1, b=law.weights.numpy())
        got = mixture_log_cdf(law, x, side)[:, 0].numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_boundary_condition_is_exact(float64, path):
    skip, out = boundary_scales(path, torch.tensor([path.t_min]))
    assert float(out) == 0
    torch.testing.assert_close(skip * path.alpha(torch.tensor([path.t_min])), torch.ones(1))


def test_the_boundary_scales_are_those_of_song_on_sigmas_and_of_trigflow_on_angles(float64):
    path, sigma = paths.EDMPath(80.0, 0.002), torch.tensor([0.002, 0.01, 0.5, 3.0, 80.0])
    skip, out = boundary_scales(path, sigma / 80)
    torch.testing.assert_close(skip, 1 / ((sigma - 0.002) ** 2 + 1))
    torch.testing.assert_close(out, (sigma - 0.002) / (1 + sigma**2).sqrt())
    angle = torch.linspace(0, math.pi / 2, 9)
    skip, out = boundary_scales(paths.CosinePath(), angle * 2 / math.pi)
    torch.testing.assert_close(skip, angle.cos())
    torch.testing.assert_close(out, angle.sin())


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_networks_target_has_unit_variance_for_unit_data(float64, name):
    path, t = PATHS[name], torch.linspace(0.05, 0.95, 10)
    (alpha, sigma), (skip, out) = path(t), boundary_scales(path, t)
    variance = ((1 - skip * alpha) ** 2 + (skip * sigma) ** 2) / out**2
    torch.testing.assert_close(variance, torch.ones(10))


@pytest.mark.parametrize("name", ["linear", "vp", "edm"])
def test_a_teacher_of_any_path_steps_along_the_students_flow_with_second_order(float64, name):
    law, path = lesson_mixture(), paths.CosinePath(t_min=0.05, t_max=0.9)
    teacher = HeunTeacher(ExactDenoiser(law, PATHS[name]), path)
    x = law.sample(500) * path.alpha(torch.tensor(0.9)) + torch.randn(500, 1)
    expected = quantile_map(law, path, x, torch.tensor(0.9), torch.tensor(0.05))
    errors = []
    for count in (32, 64, 128):
        y = x
        for k in reversed(range(count)):
            y = teacher.step(y, torch.full((500,), k + 1), torch.full((500,), k), count)
        errors.append(float((y - expected).square().mean().sqrt()))
    for coarse, fine in zip(errors, errors[1:]):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.35)


@pytest.mark.parametrize("path", [PATHS["edm"], PATHS["cosine"]], ids=["edm", "cosine"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_multistep_sampling_keeps_the_law(float64, path, steps):
    r"""The exact f of the lesson's mixture: Kolmogorov's :math:`\sqrt n D < 1.95` (1 in 1000)."""
    law, n = lesson_mixture(), 20_000
    first, end = torch.tensor(path.t_max), torch.tensor(path.t_min)
    x = law.sample(n) * path.alpha(first) + path.sigma(first) * torch.randn(n, 1)
    f = lambda x, t: quantile_map(law, path, x, t, end)  # noqa: E731
    drawn = ode.final_state(sample_multistep(f, path, x, equal_angle_times(path, steps)))
    after = law.diffuse(torch.tensor(1.0), path.sigma(end))
    distance = kstest(
        drawn[:, 0].numpy(),
        lambda z: mixture_log_cdf(after, torch.as_tensor(z)[:, None])[:, 0].exp().numpy(),
    ).statistic
    assert distance * n**0.5 < 1.95


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps):
    with pytest.raises(UsageError, match="at least 1"):
        equal_angle_times(paths.LinearPath(), steps)


def test_stops_are_even_angles_and_levels_even_roots_of_angles(float64):
    angle = torch.atan2(*reversed(paths.LinearPath()(equal_angle_times(paths.LinearPath(), 4))))
    torch.testing.assert_close(angle, math.pi / 2 * torch.tensor([1.0, 0.75, 0.5, 0.25]))
    for path in PATHS.values():
        alpha, sigma = path(discretisation_times(path, 4))
        angle = torch.atan2(sigma, alpha)
        part = (angle - angle[0]) / (angle[-1] - angle[0])
        torch.testing.assert_close(part.sqrt(), torch.linspace(0, 1, 5), rtol=0, atol=1e-6)


@pytest.mark.parametrize("s", [0.17, 0.5, 1.0])
def test_sixteen_heun_steps_scale_normal_data_right_within_two_percent(float64, s):
    path, zero = paths.CosinePath(), torch.zeros(1)
    teacher = HeunTeacher(ExactDenoiser(Gaussian(zero, torch.eye(1) * s**2), path), path)
    x = one = torch.ones(1, 1)
    for k in reversed(range(16)):
        x = teacher.step(x, torch.tensor([k + 1]), torch.tensor([k]), 16)
    exact = gaussian_flow_map(path, zero, s, one, torch.tensor(path.t_max), torch.tensor(0.0))
    assert float(x / exact) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("mu", "s"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.5)])
def test_the_energy_distance_has_its_closed_form(float64, mu, s):
    r""":math:`E|x-y|` is the mean of a folded normal; a datum is its own pair once in n."""

    def folded(mean, scale):
        tail = math.erf(mean / scale / 2**0.5)
        return scale * (2 / math.pi) ** 0.5 * math.exp(-(mean**2) / scale**2 / 2) + mean * tail

    n, draws = 500, 40
    found = torch.stack(
        [
            conditional_energy_distance(torch.randn(n, 1), mu + s * torch.randn(n, 1))
            for _ in range(draws)
        ]
    )
    own = (folded(0.0, 2**0.5) + folded(0.0, s * 2**0.5)) * (1 - 1 / n)
    expected = 2 * folded(mu, math.hypot(1, s)) - own
    error = float(found.std()) / draws**0.5
    assert float(found.mean()) == pytest.approx(expected, abs=4.5 * error)


def test_the_energy_distance_sees_draws_under_the_wrong_condition(float64):
    r"""Both coins have the law of x; independent of c, they are :math:`(2 - \sqrt 2)/4` off."""
    c = torch.tensor([[0.0], [1.0], [0.0], [1.0]])
    free = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    assert float(conditional_energy_distance(c, free)) == pytest.approx(0, abs=1e-12)
    assert float(conditional_energy_distance(c, free, c)) == pytest.approx((2 - 2**0.5) / 4)
