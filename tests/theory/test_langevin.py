"""Langevin dynamics against its exact laws on Gaussians (D8)."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from pushforward.errors import NumericalError, UsageError
from pushforward.theory import paths, samplers
from pushforward.theory.exact.dynamics import (
    gaussian_acceptance,
    gaussian_bias,
    gaussian_ula,
)
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian, gaussian_ring, lesson_mixture
from pushforward.theory.langevin import langevin_correction, mala, score_curvature, stable_step, ula
from pushforward.theory.ode import final_state

COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def double(float64):
    """All laws are checked in float64."""


def normal(covariance):
    return Gaussian(torch.zeros(len(covariance)), covariance)


@pytest.mark.parametrize("h", [0.1, 0.5])
def test_the_transient_of_ula_is_exact(h):
    """N(0, 1): mean (1 - h)^k x_0 and variance (1 - (1 - h)^2k) / (1 - h / 2) after k steps."""
    n, k, start = 200_000, 5, 3.0
    x = final_state(ula(lambda x: -x, torch.full((n, 1), start), h, k))
    variance = (1 - (1 - h) ** (2 * k)) / (1 - h / 2)
    # 5 standard errors: sqrt(v / n) of a mean, v sqrt(2 / n) of a variance
    assert float(x.mean()) == pytest.approx((1 - h) ** k * start, abs=5 * math.sqrt(variance / n))
    assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))


def test_the_law_of_ula_is_that_of_its_recursion():
    """m <- A m and C <- A C A + 2 h I, one step at a time."""
    h, offset, spread = 0.3, torch.tensor([2.0, -1.0]), 3 * torch.eye(2)
    A, m, C = torch.eye(2) - h * torch.linalg.inv(COVARIANCE), offset, spread
    for k in range(8):
        got_m, got_C = gaussian_ula(COVARIANCE, h, k, offset, spread)
        torch.testing.assert_close(got_m, m, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got_C, C, rtol=1e-12, atol=1e-12)
        m, C = A @ m, A @ C @ A + 2 * h * torch.eye(2)


def test_ula_settles_at_the_solution_of_lyapunovs_equation():
    """Sigma_h = Sigma (I - h Sigma^-1 / 2)^-1 solves S = A S A + 2 h I."""
    for h in (0.01, 0.1, 0.4):
        A = torch.eye(2) - h * torch.linalg.inv(COVARIANCE)
        _, S = gaussian_ula(COVARIANCE, h, 100_000, torch.zeros(2), torch.eye(2))
        torch.testing.assert_close(S, A @ S @ A + 2 * h * torch.eye(2), rtol=1e-13, atol=1e-13)
    published = {0.1: 1.0526, 0.5: 1.3333, 1.0: 2.0}  # A60: 1 / (1 - h / 2)
    for h, variance in published.items():
        got = gaussian_ula(torch.eye(1), h, 1000, torch.zeros(1), torch.eye(1))[1]
        assert float(got) == pytest.approx(variance, abs=5e-5)


def test_the_bias_of_ula_in_nats():
    """KL(N(0, v) || N(0, 1)) = (v - 1 - log v) / 2 is h^2 / 16 to first order."""
    kls = []
    for h in (0.1, 0.05):
        v = float(gaussian_ula(torch.eye(1), h, 10_000, torch.zeros(1), torch.eye(1))[1])
        kls.append((v - 1 - math.log(v)) / 2)
        assert kls[-1] == pytest.approx(h**2 / 16, rel=0.1)
        assert gaussian_bias(torch.eye(1), h) == pytest.approx(kls[-1], rel=1e-9)
    assert math.log2(kls[0] / kls[1]) == pytest.approx(2, abs=0.1)


def test_the_bias_of_ula_is_the_divergence_of_the_laws():
    """Against torch's divergence of the two Gaussians, with correlation."""
    settled = gaussian_ula(COVARIANCE, 0.2, 5000, torch.zeros(2), torch.eye(2))[1]
    exact = kl_divergence(
        MultivariateNormal(torch.zeros(2), settled), MultivariateNormal(torch.zeros(2), COVARIANCE)
    )
    assert gaussian_bias(COVARIANCE, 0.2) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("side, settles", [(0.98, True), (1.02, False)])
def test_the_limit_of_stability_is_two_over_the_curvature(side, settles):
    L = float(torch.linalg.eigvalsh(torch.linalg.inv(COVARIANCE)).max())
    offset, _ = gaussian_ula(COVARIANCE, side * 2 / L, 500, torch.ones(2), torch.eye(2))
    assert (float(offset.norm()) < 1) is settles


def test_curvature_is_the_largest_eigenvalue_of_the_hessian():
    law, x = gaussian_ring(5), 3 * torch.randn(8, 2)
    hessians = torch.func.vmap(torch.func.jacrev(lambda x: law.score(x[None])[0]))(x)
    exact = torch.linalg.matrix_norm(hessians, 2)
    torch.testing.assert_close(score_curvature(law.score, x, 60), exact, rtol=0.01, atol=0)


def test_a_step_beyond_the_limit_is_refused_and_the_limit_named():
    law, x = normal(COVARIANCE), torch.randn(50, 2)
    limit = 2 * float(torch.linalg.eigvalsh(COVARIANCE).min())
    assert stable_step(law.score, x) == pytest.approx(limit / 2, rel=1e-3)
    assert stable_step(law.score, x, 0.9 * limit) == 0.9 * limit
    for h in (1.01 * limit, 0.0, -1.0):
        with pytest.raises(UsageError, match=f"2/L = {limit:.3g}") as caught:
            stable_step(law.score, x, h)
        assert len(str(caught.value)) < 300


def test_a_chain_that_leaves_the_numbers_says_so():
    with pytest.raises(NumericalError, match="h = 3"):
        final_state(ula(lambda x: -x, torch.ones(3, 1), 3.0, 2000))


@pytest.mark.parametrize("h", [0.2, 1.0, 1.7])
def test_the_acceptance_on_a_gaussian_is_an_integral(h):
    """The mean of min(1, ratio) over state and noise, the ratio from the proposals themselves."""
    side = np.linspace(-9, 9, 1801)
    weight = np.exp(-(side**2) / 2) / math.sqrt(2 * math.pi) * (side[1] - side[0])
    x, z = side[:, None], side[None]
    y = (1 - h) * x + math.sqrt(2 * h) * z

    def log_q(y, x):
        return -((y - (1 - h) * x) ** 2) / (4 * h)

    chance = np.minimum(0, (x**2 - y**2) / 2 + log_q(x, y) - log_q(y, x))
    integral = float((weight[:, None] * weight[None] * np.exp(chance)).sum())
    assert gaussian_acceptance(h) == pytest.approx(integral, abs=2e-5)


def test_mala_accepts_as_often_as_an_integral_says():
    """N(0, 1), h = 1: the mean of min(1, ratio) over state and noise is .78365 (A60)."""
    exact = gaussian_acceptance(1.0)
    assert exact == pytest.approx(0.78365, abs=5e-6)
    law, n, k = normal(torch.eye(1)), 100_000, 4
    states = list(mala(law.log_prob, law.score, torch.randn(n, 1), 1.0, k))
    chance = torch.stack([a for _, a in states])
    error = float(chance.std()) / math.sqrt(n)  # as if the k steps were one: an upper bound
    assert float(chance.mean()) == pytest.approx(exact, abs=5 * error)
    # ULA has twice the variance at this step; 5 standard errors
    assert float(states[-1][0].var()) == pytest.approx(1, abs=5 * math.sqrt(2 / n))


def test_mala_leaves_any_law_as_it_is_where_ula_does_not():
    """Started from the law itself: every moment stays; the bias of ULA at this step is seen."""
    law, n, h = lesson_mixture(), 20_000, 0.2
    x = law.sample(n)
    kept = final_state(x for x, _ in mala(law.log_prob, law.score, x, h, 30))
    moved = final_state(ula(law.score, x, h, 30))
    # the variance of the right mode, 0.49; 5 standard errors of a difference
    right = [float(s[s > 0.5].var()) for s in (x, kept, moved)]
    assert right[1] == pytest.approx(right[0], abs=5 * 0.49 * math.sqrt(4 / (0.7 * n)))
    assert right[2] > 1.1 * right[0]
    assert float((kept < 0).double().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / n))


def test_mala_works_on_images_and_ignores_a_constant_of_log_prob():
    x, runs, density = torch.randn(20, 2, 3), [], normal(torch.eye(6)).log_prob
    for constant in (0.0, 7.0):
        torch.manual_seed(1)
        steps = mala(lambda x, k=constant: k + density(x.flatten(1)), lambda x: -x, x, 0.3, 5)
        runs.append(final_state(x for x, _ in steps))
    torch.testing.assert_close(*runs)


def test_the_corrector_settles_at_the_variance_of_its_step():
    """On N(0, D^2) steps h = 2 (r sigma)^2 settle at the variance D^2 / (1 - h / 2 D^2)."""
    path, t, n = paths.VarianceExplodingPath(), torch.tensor(0.5), 50_000
    sigma, snr = float(path.sigma(t)), 0.5
    D2, h = 0.36 + sigma**2, 2 * (snr * sigma) ** 2
    (now,) = ExactDenoiser(normal(0.36 * torch.eye(1)), path).estimates(t[None])
    x = langevin_correction(now, torch.randn(n, 1) * math.sqrt(D2), sigma, 20, snr)
    assert float(x.var()) == pytest.approx(D2 / (1 - h / (2 * D2)), rel=5 * math.sqrt(2 / n))


def test_predictor_corrector_has_the_variance_of_its_recursion():
    path, s2, n, snr = paths.GeometricPath(5.0, 0.1), 0.36, 50_000, 0.3
    denoiser, times = ExactDenoiser(normal(s2 * torch.eye(1)), path), path.grid(12)
    V, levels = torch.full((1, 1), 25.0), path.sigma(times).tolist()
    for sigma, after in zip(levels[:-1], levels[1:]):
        D2, tau = s2 + sigma**2, 1 - (after / sigma) ** 2
        gain = s2 / D2 + after * math.sqrt(1 - tau) * sigma / D2
        V = gain**2 * V + after**2 * tau
        if after:
            law = torch.full((1, 1), s2 + after**2)
            _, V = gaussian_ula(law, 2 * (snr * after) ** 2, 1, torch.zeros(1), V)
    x = final_state(samplers.predictor_corrector(denoiser, 5 * torch.randn(n, 1), times, snr=snr))
    assert float(x.var()) == pytest.approx(float(V), rel=5 * math.sqrt(2 / n))


@pytest.mark.parametrize("name", ["annealed_langevin", "predictor_corrector"])
def test_a_corrector_beyond_its_limit_is_refused(name):
    """The noised law has curvature up to 1 / sigma^2: from snr = 1 on its chain diverges."""
    denoiser = ExactDenoiser(gaussian_ring(3), paths.EDMPath())
    for snr in (0.0, 1.0, 1.5):
        with pytest.raises(UsageError, match="limit of stability"):
            run = samplers.sampler_by_name(name)
            final_state(run(denoiser, torch.randn(3, 2), denoiser.path.grid(4), snr=snr))


@pytest.mark.slow
def test_annealing_finds_the_weights_that_plain_dynamics_does_not():
    """A61: from N(0, 1), 500 steps; the left mode has 0.3."""
    law, n = lesson_mixture(), 5_000
    x = final_state(ula(law.score, torch.randn(n, 1), 0.01, 300))
    assert float((x < 0).double().mean()) > 0.36
    path = paths.GeometricPath(10.0, 0.05)
    times = path.grid(50)
    x = 10 * torch.randn(n, 1)
    x = final_state(samplers.annealed_langevin(ExactDenoiser(law, path), x, times, snr=0.3))
    assert float((x < 0).double().mean()) == pytest.approx(0.3, abs=0.05)
