"""Samplers on exact denoisers: published errors, orders of convergence, and exact laws."""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pushforward.errors import UsageError
from pushforward.theory import ddpm_schedule, ode, paths, predictions, samplers
from pushforward.theory.denoisers import Denoiser, NetworkDenoiser
from pushforward.theory.exact.targets import (
    ExactDenoiser,
    Gaussian,
    GaussianMixture,
    gaussian_ring8,
    lesson_mixture,
)
from pushforward.theory.predictions import PosteriorMeans

# Root mean square distances to the exact flow on ring8, from 80 z in 4,096 draws, at NFE
# 5, 10 or 11, 20 or 21, 40 or 41, 80 or 81, and 35 for Heun: recomputed by others from the papers.
PUBLISHED = {
    "ddim": [(5, 1.228), (10, 0.4267), (20, 0.1961), (40, 0.09489), (80, 0.04678)],
    "heun": [(3, 19.95), (6, 2.030), (11, 0.2470), (18, 0.0664), (21, 0.04555), (41, 0.009913)],
    "dpmpp_2m": [(5, 1.654), (10, 0.5714), (20, 0.07783), (40, 0.01514), (80, 0.003587)],
    "dpmpp_2s": [(3, 1.316), (6, 0.2488), (11, 0.07355), (21, 0.02396), (41, 0.007271)],
    "ipndm": [(5, 0.6404), (10, 0.0734), (20, 0.01679), (40, 0.002804), (80, 0.0007142)],
}


@pytest.fixture(autouse=True)
def double(float64):
    """All of this file is about accuracy."""


@cache
def ring_problem() -> tuple[Denoiser, Tensor, Tensor]:
    """Exact denoiser, start, and the flow's end from an adaptive solver at 1e-7."""
    denoiser = ExactDenoiser(gaussian_ring8(), paths.EDMPath())
    x = 80 * torch.from_numpy(np.random.default_rng(0).standard_normal((4096, 2)))
    ends = torch.tensor([1.0, denoiser.path.t_min])
    with torch.no_grad():
        low = ode.final_state(ode.dormand_prince(denoiser.velocity, x, ends, rtol=1e-7, atol=1e-7))
    step = torch.tensor([denoiser.path.t_min, 0.0])
    return denoiser, x, ode.final_state(samplers.ddim(denoiser, low, step))


class Counted(Denoiser):
    """A denoiser that counts its evaluations."""

    def __init__(self, denoiser):
        super().__init__()
        self.denoiser, self.path, self.nfe = denoiser, denoiser.path, 0

    def forward(self, x_t, t, c=None):
        self.nfe += 1
        return self.denoiser(x_t, t, c)


@pytest.mark.parametrize("name", PUBLISHED)
def test_errors_on_the_ring_are_the_published_ones(name):
    """N1, to 1 %, and no more evaluations than stated."""
    denoiser, x, exact = ring_problem()
    for steps, published in PUBLISHED[name]:
        counted = Counted(denoiser)
        got = ode.final_state(samplers.sampler_by_name(name)(counted, x, counted.path.grid(steps)))
        error = (got - exact).square().sum(1).mean().sqrt()
        assert float(error) == pytest.approx(published, rel=0.01), steps
        assert counted.nfe == (2 * steps - 1 if name in ("heun", "dpmpp_2s") else steps)


def gaussian_flow(path, t, s, x, mu, deviation):
    """D2: under the flow of N(mu, deviation^2) each x_t keeps its quantile."""

    def marginal(t):
        alpha, sigma = path(t)
        return alpha * mu, torch.sqrt((alpha * deviation) ** 2 + sigma**2)

    (m_t, d_t), (m_s, d_s) = marginal(t), marginal(s)
    return m_s + d_s * (x - m_t) / d_t


@pytest.mark.parametrize(
    "name, expected",
    [("ddim", 1), ("euler", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_2s", 2)],
)
@pytest.mark.parametrize(
    "path",
    [paths.LinearPath(), paths.VariancePreservingPath(), paths.VarianceExplodingPath()],
    ids=lambda p: type(p).__name__,
)
def test_order_of_convergence(name, expected, path):
    mu, deviation = torch.tensor([[0.5, -1.0]]), torch.tensor(0.6)
    denoiser = ExactDenoiser(Gaussian(mu[0], deviation**2 * torch.eye(2)), path)
    start, stop, x = torch.tensor(0.95), torch.tensor(0.2), torch.randn(20, 2)
    exact = gaussian_flow(path, start, stop, x, mu, deviation)
    coarse, fine = (
        float((ode.final_state(samplers.sampler_by_name(name)(denoiser, x, grid)) - exact).norm())
        for grid in (torch.linspace(0.95, 0.2, n + 1) for n in (64, 128))
    )
    assert math.log2(coarse / fine) == pytest.approx(expected, abs=0.25)


def test_each_order_of_ipndm_gains_on_the_one_before():
    """Orders 1 and 2 converge so; 3 and 4 start with one step of order 2, but err far less."""
    path, mu, deviation = paths.VarianceExplodingPath(rho=1.0), torch.zeros(1, 2), torch.tensor(3.0)
    denoiser = ExactDenoiser(Gaussian(mu[0], deviation**2 * torch.eye(2)), path)
    x = torch.randn(20, 2) * 10
    exact = gaussian_flow(path, torch.tensor(1.0), torch.tensor(0.05), x, mu, deviation)

    def error(order, n):
        grid = torch.linspace(1.0, 0.05, n + 1)
        return float(
            (ode.final_state(samplers.ipndm(denoiser, x, grid, order=order)) - exact).norm()
        )

    for order in (1, 2):
        assert math.log2(error(order, 64) / error(order, 128)) == pytest.approx(order, abs=0.1)
    errors = [error(order, 64) for order in (1, 2, 3, 4)]
    assert all(b < a / 4 for a, b in pairwise(errors))


def test_ipndm_refuses_other_orders():
    denoiser, x, _ = ring_problem()
    with pytest.raises(UsageError, match="1, 2, 3 or 4"):
        ode.final_state(samplers.ipndm(denoiser, x, denoiser.path.grid(3), order=5))


@pytest.mark.parametrize(
    "path", [paths.CosinePath(), paths.VariancePreservingPath(), paths.EDMPath()]
)
def test_ddim_on_a_gaussian_has_a_closed_form(path):
    """D2: the factor is the exact one times prod cos(dphi), phi = atan2(sigma, alpha s)."""
    deviation, x = 0.6, torch.randn(5, 1)
    denoiser = ExactDenoiser(Gaussian(torch.zeros(1), torch.tensor([[deviation**2]])), path)
    times = path.grid(7)
    alpha, sigma = path(times)
    size = torch.hypot(alpha * deviation, sigma)
    factor = size[-1] / size[0] * torch.atan2(sigma, alpha * deviation).diff().cos().prod()
    got = ode.final_state(samplers.ddim(denoiser, x, times))
    torch.testing.assert_close(got, factor * x, rtol=1e-10, atol=1e-12)


def test_euler_is_ddim_on_paths_straight_in_time():
    for path in (paths.LinearPath(), paths.EDMPath()):
        denoiser, x = (
            ExactDenoiser(gaussian_ring8(), path),
            torch.randn(50, 2) * path.scale(torch.ones(())),
        )
        a, b = (
            ode.final_state(f(denoiser, x, path.grid(9))) for f in (samplers.euler, samplers.ddim)
        )
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["euler", "ddim", "heun", "dpmpp_2m", "dpmpp_2s", "ipndm"])
def test_one_step_from_pure_noise_is_the_mean_of_the_data(name):
    """D10: at alpha = 0 the estimate is E x; no solver divides by the missing signal."""
    law = lesson_mixture()
    denoiser = ExactDenoiser(law, paths.LinearPath())
    x = ode.final_state(
        samplers.sampler_by_name(name)(denoiser, torch.randn(6, 1), torch.tensor([1.0, 0.0]))
    )
    torch.testing.assert_close(x, torch.full((6, 1), 0.8))


def test_ddpm_is_ddim_with_eta_one():
    path = ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(50))
    denoiser, x = ExactDenoiser(gaussian_ring8(), path), torch.randn(20, 2)
    runs = []
    for run in (samplers.ddpm, lambda *a: samplers.ddim(*a, eta=1.0)):
        torch.manual_seed(3)
        runs.append(ode.final_state(run(denoiser, x, path.grid(12))))
    torch.testing.assert_close(*runs)


def test_ancestral_step_is_the_posterior_of_the_table():
    """One step from k to k - 1 is mu-tilde plus the deviation of beta-tilde, at both ends too."""
    path, x_t = ddpm_schedule.DDPMPath(ddpm_schedule.cosine_betas(20)), torch.randn(100_000, 1)
    datum = torch.full_like(x_t, 0.7)

    class Known(Denoiser):
        def __init__(self):
            super().__init__()
            self.path = path

        def forward(self, x_t, t, c=None):
            alpha, sigma = self.path(t)
            return PosteriorMeans(datum, (x_t - alpha * datum) / sigma)

    for k in (1, 2, 10, 20):
        times = torch.tensor([k, k - 1]).double() / 20
        x = ode.final_state(samplers.ddpm(Known(), x_t, times))
        mean, variance = path.posterior(datum, x_t, k)
        assert float((x - mean).mean()) == pytest.approx(
            0, abs=5 * math.sqrt(float(variance) / 1e5)
        )
        assert float((x - mean).var()) == pytest.approx(float(variance), rel=5 * math.sqrt(2 / 1e5))


slow = pytest.mark.slow
LANGEVIN = {"annealed_langevin": {"corrections": 10, "snr": 0.4}}


@pytest.mark.parametrize("name", samplers.NAMES)
@pytest.mark.parametrize(
    "path",
    [
        paths.LinearPath(),  # the hardest: it starts at alpha = 0
        pytest.param(paths.CosinePath(), marks=slow),
        pytest.param(paths.VariancePreservingPath(), marks=slow),
        pytest.param(paths.VarianceExplodingPath(), marks=slow),
        pytest.param(paths.EDMPath(), marks=slow),
        pytest.param(ddpm_schedule.DDPMPath(ddpm_schedule.cosine_betas(100)), marks=slow),
    ],
    ids=lambda p: type(p).__name__,
)
def test_every_sampler_reaches_the_law_on_every_path(name, path):
    """RELIABILITY D8: mean, covariance and weights with an exact score, from the default grid.

    With n = 4,000 five standard errors of a mean are 0.09, of a covariance 0.07 and of a weight
    0.04; the samplers' own bias at 50 steps is allowed 0.03, 0.13 (10 %) and 0.04 on top.
    """
    covariances = torch.tensor([[[0.09, 0.04], [0.04, 0.16]], [[0.25, -0.1], [-0.1, 0.2]]])
    means = torch.tensor([[-1.3, 0.5], [0.9, -0.3]])
    law, n = GaussianMixture(torch.tensor([0.4, 0.6]), means, covariances), 4000
    denoiser, times = ExactDenoiser(law, path), path.grid(50)
    x = path.scale(times[0]) * torch.randn(n, 2)
    x = ode.final_state(
        samplers.sampler_by_name(name)(denoiser, x, times, **LANGEVIN.get(name, {}))
    )
    assert (x.mean(0) - law.mean).abs().max() < 0.12
    assert (x.T.cov() - law.covariance).abs().max() < 0.2
    assert float((law.log_terms(x).argmax(1) == 0).double().mean()) == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("name", samplers.NAMES)
def test_every_number_of_steps_works_and_yields_each(name, steps):
    for path in (
        paths.LinearPath(),
        paths.EDMPath(),
        ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(30)),
    ):
        denoiser = ExactDenoiser(gaussian_ring8(), path)
        x = path.scale(torch.ones(())) * torch.randn(3, 2)
        states = list(samplers.sampler_by_name(name)(denoiser, x, path.grid(steps)))
        assert len(states) == steps and all(s.isfinite().all() for s in states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", samplers.NAMES)
def test_states_keep_their_precision_and_carry_no_graph(name, dtype):
    net = Linearly().to(dtype)
    denoiser = NetworkDenoiser(net, paths.CosinePath(), predictions.v_prediction)
    x = ode.final_state(
        samplers.sampler_by_name(name)(
            denoiser, torch.randn(4, 2, 3).to(dtype), paths.CosinePath().grid(4)
        )
    )
    assert x.dtype == dtype and x.shape == (4, 2, 3) and not x.requires_grad


class Linearly(nn.Module):
    """A network with one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x, t, c=None):
        return self.weight * x


def test_reverse_sde_has_weak_order_one():
    """D2: the variance that Euler-Maruyama gives N(0, s^2) tends to the true one as 1 / steps."""
    path, s = paths.VariancePreservingPath(), 0.6

    def variance(n):
        times = torch.linspace(1, 0.05, n + 1)
        V = torch.ones(())
        for t, h in zip(times, times.diff()):
            alpha, sigma = path(t)
            D2 = (alpha * s) ** 2 + sigma**2
            f, g2 = path.drift(t), path.diffusion(t)
            V = (1 + h * (f + g2 / D2)) ** 2 * V - h * g2
        return float(V)

    alpha, sigma = path(torch.tensor(0.05))
    exact = float((alpha * s) ** 2 + sigma**2)
    assert math.log2((variance(200) - exact) / (variance(400) - exact)) == pytest.approx(
        1, abs=0.15
    )
    n, denoiser = 50_000, ExactDenoiser(Gaussian(torch.zeros(1), torch.tensor([[s * s]])), path)
    x = ode.final_state(
        samplers.euler_maruyama(denoiser, torch.randn(n, 1), torch.linspace(1, 0.05, 26))
    )
    assert float(x.var()) == pytest.approx(variance(25), rel=5 * math.sqrt(2 / n))


def test_names_find_their_samplers():
    assert {samplers.sampler_by_name(n).__name__ for n in samplers.NAMES} == set(samplers.NAMES)
    assert samplers.sampler_by_name("DPMpp-2M") is samplers.dpmpp_2m
    with pytest.raises(UsageError, match="ipndm"):
        samplers.sampler_by_name("euler2")
