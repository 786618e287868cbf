"""Bounds and gradients against torch's divergences, autograd and moments of a Gaussian."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from pushforward.theory.bounds import (
    active_units,
    importance_bound,
    kl_to_prior,
    pathwise_gradient,
    reparametrise_doubly,
    score_function_gradient,
)

MU, SIGMA = torch.tensor([1.5]).double(), torch.tensor([0.7]).double()
ESTIMATORS = {
    pathwise_gradient: 4 * SIGMA**2,
    score_function_gradient: MU**4 / SIGMA**2 + 14 * MU**2 + 15 * SIGMA**2,
}


def test_the_rate_is_torchs_divergence():
    q = Normal(torch.randn(7, 3).double(), torch.rand(7, 3).double() + 0.1)
    expected = kl_divergence(q, Normal(q.mean * 0, q.scale * 0 + 1)).sum(1)
    torch.testing.assert_close(kl_to_prior(q), expected, rtol=1e-12, atol=1e-12)


def test_the_importance_bound_is_the_logarithm_of_a_mean_and_not_the_mean_of_logarithms():
    w = torch.rand(5, 3).double()
    torch.testing.assert_close(importance_bound(w.log()).exp(), w.mean(0), rtol=1e-12, atol=0)
    assert (importance_bound(w.log()) >= w.log().mean(0)).all()  # Jensen


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_gradients_of_an_expectation_have_its_derivative_and_the_variance_stated(estimate):
    r"""f = z^2: the derivative in mu of mu^2 + s^2 is 2 mu; the variances are 4 s^2 and
    mu^4/s^2 + 14 mu^2 + 15 s^2. 400,000 draws, 5 standard errors, that of the variance from the
    draws' fourth moment."""
    torch.manual_seed(0)
    n, variance = 400_000, ESTIMATORS[estimate]
    g = estimate(torch.square, MU, SIGMA, torch.randn(n).double())
    assert (g.mean() - 2 * MU).abs() < 5 * g.std() / math.sqrt(n)
    squares = (g - 2 * MU).square()
    assert (squares.mean() - variance).abs() < 5 * squares.std() / math.sqrt(n)


def gradients(beta, doubly, k=4, n=100_000):
    """Of n bounds on log p(x = 1.2) in (mu, log sigma), where p(x | z) = N(z^2 / 2, 1)."""
    parameters = torch.tensor([[0.4], [-0.3]]).double().expand(2, n).clone().requires_grad_()
    mu, sigma = parameters[0][:, None], parameters[1][:, None].exp()
    z = mu + sigma * torch.randn(k, n, 1).double()
    q = Normal(mu.detach(), sigma.detach()) if doubly else Normal(mu, sigma)
    log_ratio = Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)
    log_w = (Normal(z.square() / 2, 1.0).log_prob(torch.tensor(1.2)) + beta * log_ratio)[..., 0]
    if doubly:
        reparametrise_doubly(z, log_w, beta)
    importance_bound(log_w).sum().backward()
    return parameters.grad


@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("k", [1, 4])
def test_the_doubly_reparametrised_gradient_has_the_mean_of_the_plain_one(beta, k):
    """Also in a warm-up, beta < 1. 100,000 draws each, 5 standard errors of the difference."""
    torch.manual_seed(1)
    plain, doubly = gradients(beta, False, k), gradients(beta, True, k)
    error = ((plain.var(1) + doubly.var(1)) / plain.shape[1]).sqrt()
    assert ((plain - doubly).mean(1).abs() < 5 * error).all()
    assert (error < 0.05 * plain.mean(1).abs().max()).all()  # the power to see a wrong factor


def test_the_doubly_reparametrised_gradient_keeps_its_signal_as_particles_grow():
    """Plain: signal over noise falls as 1/sqrt(K); doubly reparametrised: it rises as sqrt(K).

    From 4 to 64 particles these are factors of 1/4 and 4; bars at 1/2 and 2.
    """
    torch.manual_seed(2)

    def ratio(doubly, k):
        g = gradients(1.0, doubly, k, 20_000)[0]
        return (g.mean() / g.std()).abs()

    assert ratio(False, 64) < ratio(False, 4) / 2
    assert ratio(True, 64) > 2 * ratio(True, 4)


def test_units_are_active_if_their_means_vary_by_more_than_a_tenth_of_a_deviation():
    mu = torch.tensor([[0.0, 0.099, 0.101, 3.0], [0.0, -0.099, -0.101, 3.0]]).repeat(50, 1)
    assert active_units(mu).tolist() == [False, False, True, False]
    assert not active_units(mu[:1]).any()
