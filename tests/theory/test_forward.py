"""The forward process and the terms of its bound against independent truths (D6)."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch.distributions import Normal, kl_divergence

from pushforward.theory import ddpm_schedule, predictions
from pushforward.theory.ddpm_schedule import DDPMPath, cosine_betas, linear_betas
from pushforward.theory.exact import diffusion_bound
from pushforward.theory.exact.targets import Gaussian, GaussianMixture, lesson_mixture

PATH = DDPMPath(linear_betas(50))
ALL = torch.arange(1, 51)


@pytest.fixture(autouse=True)
def double(float64):
    """All identities are checked in float64."""


def line(mean, deviation):
    return Gaussian(torch.tensor([mean]), torch.tensor([[deviation**2]]))


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas])
def test_the_recursion_ends_in_the_closed_form(betas):
    """m sqrt(alpha-bar) and V alpha-bar + 1 - alpha-bar, for a datum and for a law."""
    for mean, variance in ((3.0, 0.0), (-1.0, 2.5)):
        means, variances = diffusion_bound.moment_recursion(betas(100), mean, variance)
        product = torch.cat([torch.ones(1), (1 - betas(100)).cumprod(0)])
        torch.testing.assert_close(means, product.sqrt() * mean, rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(
            variances, product * variance + 1 - product, rtol=1e-10, atol=1e-14
        )


def test_chains_have_the_moments_of_the_recursion():
    n, betas = 100_000, linear_betas(20)
    means, variances = diffusion_bound.moment_recursion(betas, 2.0, 0.0)
    states = list(diffusion_bound.forward_chain(torch.full((n, 1), 2.0), betas))
    assert len(states) == 20
    for k in (1, 10, 20):  # 5 standard errors
        x, v = states[k - 1], float(variances[k])
        assert float(x.mean()) == pytest.approx(float(means[k]), abs=5 * math.sqrt(v / n))
        assert float(x.var()) == pytest.approx(v, rel=5 * math.sqrt(2 / n))


@pytest.mark.parametrize("x, published", [(0.0, 4.072e-10), (1.0, 2.018e-5), (3.0, 1.816e-4)])
def test_terminal_divergence(x, published):
    """KL(q(x_T | x_0) || N(0, 1)) with alpha-bar_1000 = 4.0358e-5, in nats."""
    alpha_bar = float(DDPMPath(linear_betas(1000)).alpha_bar(1000))
    got = float(ddpm_schedule.terminal_kl(torch.tensor([[x]]), alpha_bar))
    assert got == pytest.approx(published, rel=1e-3)


def test_terminal_divergence_of_an_image_is_torchs():
    x, alpha_bar = torch.randn(3, 2, 4), 0.3
    q = Normal(math.sqrt(alpha_bar) * x, math.sqrt(1 - alpha_bar))
    exact = kl_divergence(q, Normal(torch.zeros(()), torch.ones(()))).flatten(1).sum(1)
    torch.testing.assert_close(ddpm_schedule.terminal_kl(x, alpha_bar), exact)


def test_divergence_of_a_mixture_from_noise():
    law = lesson_mixture()

    def integrand(x):
        log_p = float(law.log_prob(torch.tensor([[x]])))
        return math.exp(log_p) * (log_p + x * x / 2 + math.log(2 * math.pi) / 2)

    exact = integrate.quad(integrand, -9, 9, epsabs=1e-11, limit=200)[0]
    assert diffusion_bound.divergence_from_noise(law) == pytest.approx(exact, abs=1e-9)
    exact = kl_divergence(Normal(torch.tensor(0.5), torch.tensor(2.0)), Normal(0.0, 1.0))
    assert diffusion_bound.divergence_from_noise(line(0.5, 2.0)) == pytest.approx(
        float(exact), abs=1e-12
    )


@pytest.mark.parametrize("v", [0.0, 0.4, 1.0])
def test_the_terms_add_up_to_the_ratio_of_joint_laws(v):
    """On every path and for every model, right or wrong, in more than one dimension too."""
    x = torch.randn(5, 2, 3)
    states = [x, *diffusion_bound.forward_chain(x, PATH.betas)]

    def wrong(x_t, k):
        return torch.tanh(x_t) - 0.1 * k / 50, PATH.variance(k, v).expand_as(x_t)

    terms = diffusion_bound.bound_terms(PATH, states, wrong)
    assert terms.shape == (51, 5)
    torch.testing.assert_close(
        terms.sum(0), diffusion_bound.path_log_ratio(PATH, states, wrong), rtol=1e-11, atol=1e-9
    )


def test_the_ratio_is_that_of_torchs_distributions():
    path, x = DDPMPath(linear_betas(3)), torch.randn(4, 1)
    states = [x, *diffusion_bound.forward_chain(x, path.betas)]
    exact = -Normal(0.0, 1.0).log_prob(states[3])
    for k in (1, 2, 3):
        beta = float(path.betas[k - 1])
        exact += Normal(math.sqrt(1 - beta) * states[k - 1], math.sqrt(beta)).log_prob(states[k])
        exact -= Normal(0.5 * states[k], 0.7).log_prob(states[k - 1])
    got = diffusion_bound.path_log_ratio(
        path, states, lambda x, k: (x / 2, torch.full_like(x, 0.49))
    )
    torch.testing.assert_close(got, exact[:, 0])


@pytest.mark.parametrize("v", [0.0, 1.0, None])
def test_the_expected_bound_is_the_mean_of_its_terms(v):
    """Of whole paths of Gaussian data with the best means; 5 standard errors of every term."""
    law, n = line(0.8, 1.5), 20_000
    floor = diffusion_bound.noise_error_floors(PATH, law)
    variance = diffusion_bound.best_variance(PATH, floor, 1) if v is None else PATH.variance(ALL, v)
    exact = diffusion_bound.expected_bound(PATH, floor, 0.64 + 2.25, 1, variance)

    def best(x_t, k):
        alpha_bar = PATH.alpha_bar(k)
        gain = alpha_bar.sqrt() * 2.25 / (alpha_bar * 2.25 + 1 - alpha_bar)
        x = 0.8 + gain * (x_t - alpha_bar.sqrt() * 0.8)
        return PATH.posterior(x, x_t, k)[0], variance[k - 1].expand_as(x_t)

    x = 0.8 + 1.5 * torch.randn(n, 1)
    terms = diffusion_bound.bound_terms(
        PATH, [x, *diffusion_bound.forward_chain(x, PATH.betas)], best
    )
    error = 5 * terms.std(1) / math.sqrt(n)
    assert ((terms.mean(1) - exact).abs() <= error + 1e-12).all()


@pytest.mark.parametrize("s", [0.5, 1.0, 2.0])
def test_the_best_variance_loses_what_the_chain_keeps(s):
    """On N(0, s^2) every true reverse step is Gaussian: KL(q(x_T) || N) is all that is lost."""
    law = line(0.0, s)
    floor = diffusion_bound.noise_error_floors(PATH, law)
    best = diffusion_bound.best_variance(PATH, floor, 1)
    lost = diffusion_bound.expected_bound(PATH, floor, s * s, 1, best).sum() - law.entropy()
    end = law.diffuse(PATH.alpha_bar(50).sqrt(), (1 - PATH.alpha_bar(50)).sqrt())
    assert float(lost) == pytest.approx(diffusion_bound.divergence_from_noise(end), abs=1e-11)
    for v in (0.0, 0.5, 1.0):
        other = diffusion_bound.expected_bound(PATH, floor, s * s, 1, PATH.variance(ALL, v)).sum()
        assert float(other) - law.entropy() > float(lost) - 1e-12
    if s == 1:
        torch.testing.assert_close(best, PATH.betas, rtol=1e-9, atol=0)


def test_a_bound_in_several_dimensions_is_the_sum_of_its_entries():
    two = Gaussian(torch.zeros(2), torch.tensor([[0.25, 0.0], [0.0, 0.25]]))
    bounds = []
    for law, d in ((line(0.0, 0.5), 1), (two, 2)):
        floor = diffusion_bound.noise_error_floors(PATH, law)
        bounds.append(
            diffusion_bound.expected_bound(PATH, floor, 0.25 * d, d, PATH.variance(ALL, 1.0))
        )
    torch.testing.assert_close(bounds[1], 2 * bounds[0])


@pytest.mark.parametrize("T", [1000, 1_000_000])
def test_the_small_variance_costs_half_of_eulers_constant(T):
    """A55, nats per dimension on N(0, 1): each true step has variance beta where beta-tilde stands.

    The divergence of N(0, beta) from N(0, beta-tilde) is (r - 1 - log r) / 2, r their ratio, about
    k / (k - 1) where beta hardly changes: the sum over k tends to gamma / 2 = .2886.
    """
    path, k = DDPMPath(linear_betas(T)), torch.arange(1, T + 1)
    floor = diffusion_bound.noise_error_floors(path, line(0.0, 1.0))
    lost = float(diffusion_bound.expected_bound(path, floor, 1.0, 1, path.variance(k, 0.0)).sum())
    lost -= line(0.0, 1.0).entropy()
    one_minus = -torch.expm1(torch.log1p(-path.betas).cumsum(0))
    r = one_minus[1:] / one_minus[:-1]
    assert lost == pytest.approx(float((r - 1 - r.log()).sum() / 2), rel=1e-6)
    if T == 1_000_000:
        assert lost == pytest.approx(0.5772156649 / 2, abs=1e-3)


def test_the_noise_error_by_quadrature_is_the_closed_form():
    """One component twice is no longer one component: the other branch must agree."""
    one = line(0.5, 0.8)
    twice = GaussianMixture(torch.ones(2), torch.full((2, 1), 0.5), torch.full((2,), 0.8))
    alpha, sigma = PATH(torch.tensor([0.02, 0.3, 0.9]))
    exact = alpha**2 * 0.64 / (alpha**2 * 0.64 + sigma**2)
    for law in (one, twice):
        torch.testing.assert_close(
            diffusion_bound.expected_noise_error(law, alpha, sigma), exact, rtol=1e-10, atol=1e-12
        )


def test_the_noise_error_is_the_error_of_the_best_guess():
    """Of draws from the lesson's mixture; 5 standard errors."""
    law, n = lesson_mixture(), 200_000
    alpha, sigma = torch.tensor([0.8]), torch.tensor([0.6])
    x, eps = law.sample(n), torch.randn(n, 1)
    guess = -sigma * law.diffuse(alpha[0], sigma[0]).score(alpha * x + sigma * eps)
    square = (eps - guess).square()
    error = 5 * float(square.std()) / math.sqrt(n)
    assert float(square.mean()) == pytest.approx(
        float(diffusion_bound.expected_noise_error(law, alpha, sigma)), abs=error
    )


@pytest.mark.parametrize("s, published", [(0.5, 0.1730), (1.0, 0.2755), (2.0, 0.3954)])
def test_least_simple_loss_of_a_thousand_steps(s, published):
    floor = diffusion_bound.noise_error_floors(DDPMPath(linear_betas(1000)), line(0.0, s)).mean()
    assert float(floor) == pytest.approx(published, abs=1.1e-4)


def test_entropy_from_denoising_errors_alone():
    """I-MMSE on the lesson's mixture, one Gaussian, and a mixture in the plane."""
    assert diffusion_bound.entropy_from_denoising(lesson_mixture()) == pytest.approx(
        1.5709637, abs=1e-7
    )
    assert diffusion_bound.entropy_from_denoising(line(1.0, 3.0)) == pytest.approx(
        math.log(3) + 0.5 * math.log(2 * math.pi * math.e), abs=1e-10
    )


def test_weights_are_differences_of_signal_to_noise():
    """The mean over k of the weighted loss is the sum of the terms: T times (SNR - SNR) / 2."""
    k = torch.arange(2, 51)
    snr = (lambda a: a / (1 - a))(PATH.alpha_bar(ALL))
    data, noise = (
        ddpm_schedule.bound_weight(p, 0.0)(PATH, k / 50) / 50
        for p in (predictions.data_prediction, predictions.noise_prediction)
    )
    torch.testing.assert_close(data, (snr[:-1] - snr[1:]) / 2, rtol=1e-9, atol=0)
    torch.testing.assert_close(noise, (snr[:-1] / snr[1:] - 1) / 2, rtol=1e-9, atol=0)


@pytest.mark.parametrize("beta", [0.02, 0.2, 0.9])
def test_the_true_reverse_step_is_as_far_from_a_gaussian_as_quadrature_says(beta):
    """KL of the posterior of x given y from the Gaussian of its moments, on a grid of both."""
    law, x = lesson_mixture(), np.linspace(-7, 8, 6001)
    log_p = law.log_prob(torch.tensor(x)[:, None]).numpy()
    y = np.linspace(-8, 8, 801)
    log_joint = log_p - (y[:, None] - math.sqrt(1 - beta) * x) ** 2 / (2 * beta)
    log_joint -= math.log(2 * math.pi * beta) / 2
    dx, dy = x[1] - x[0], y[1] - y[0]
    p_y = np.exp(log_joint).sum(1) * dx
    posterior = np.exp(log_joint) / p_y[:, None]
    mean = (posterior * x).sum(1) * dx
    variance = (posterior * (x - mean[:, None]) ** 2).sum(1) * dx
    inside = np.where(posterior > 0, posterior * np.log(np.maximum(posterior, 1e-300)), 0)
    kl = (np.log(2 * np.pi * np.e * variance) / 2) + inside.sum(1) * dx
    exact = float((p_y * kl).sum() * dy)
    assert diffusion_bound.reverse_gap(law, beta) == pytest.approx(exact, abs=1e-8)


def test_the_reverse_step_of_gaussians_is_gaussian():
    assert diffusion_bound.reverse_gap(line(0.3, 1.5), 0.7) == pytest.approx(0, abs=1e-10)
    assert diffusion_bound.reverse_gap_rate(line(0.3, 1.5)) == pytest.approx(0, abs=1e-20)


def test_small_steps_cost_a_cube_with_the_coefficient_of_the_third_derivative():
    """Against quadrature with differences of log p, and as the limit of the divergence itself."""
    law = lesson_mixture()
    h, x = 1e-3, torch.arange(-7, 8, 1e-3)
    log_p = [law.log_prob((x + i * h)[:, None]) for i in (-2, -1, 0, 1, 2)]
    third = (log_p[4] - 2 * log_p[3] + 2 * log_p[1] - log_p[0]) / (2 * h**3)
    exact = float((log_p[2].exp() * third.square()).sum()) * 1e-3 / 12
    assert diffusion_bound.reverse_gap_rate(law) == pytest.approx(exact, rel=1e-3)
    wide = GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 0.8]))
    beta = 0.01
    rate = [diffusion_bound.reverse_gap(wide, b) / b**3 for b in (beta, beta / 2)]
    assert 2 * rate[1] - rate[0] == pytest.approx(diffusion_bound.reverse_gap_rate(wide), rel=0.01)


def test_fisher_information_of_a_gaussian_is_its_precision():
    assert diffusion_bound.fisher_information(line(0.2, 0.5)) == pytest.approx(4, rel=1e-10)
