"""The linear VAE against torch's Gaussians, identities, autograd and LBFGS."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from pushforward.errors import UsageError
from pushforward.theory.bounds import importance_bound
from pushforward.theory.exact.evidence import LinearVAE, learned_variance, linear_vae_optimum

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def problem(d=5, latent=3, sigma=0.4, n=20):
    """A model, data from it, and an arbitrary posterior with correlations for each row."""
    torch.manual_seed(0)
    model = LinearVAE(torch.randn(d, latent).double(), torch.randn(d).double(), sigma)
    root = torch.randn(n, latent, latent).double() / 2
    covariance = root @ root.mT + 0.1 * torch.eye(latent)
    q = MultivariateNormal(torch.randn(n, latent).double(), covariance)
    return model, model.evidence().sample((n,)), q


def test_both_derivations_of_the_elbo_give_what_is_computed():
    """Jensen's inequality, Bayes' rule, and -(distortion + rate), for an arbitrary q."""
    model, x, q = problem()
    computed = model.elbo(x, q)
    torch.testing.assert_close(model.elbo_by_jensen(x, q), computed, **EXACT)
    torch.testing.assert_close(model.elbo_by_divergence(x, q), computed, **EXACT)
    assert (computed < model.evidence().log_prob(x)).all()


def test_a_deviation_is_kept_in_the_precision_of_the_weights():
    assert float(problem(sigma=0.7)[0].variance) == 0.7**2


def test_the_elbo_at_the_posterior_is_the_evidence():
    model, x, _ = problem()
    q = model.posterior(x)
    torch.testing.assert_close(model.elbo(x, q), model.evidence().log_prob(x), **EXACT)


def test_the_posterior_is_the_joint_conditioned():
    """x and z are jointly Gaussian: mean C' S^-1 (x - b), covariance I - C' S^-1 C, C = W."""
    model, x, _ = problem()
    gain = torch.linalg.solve(model.evidence().covariance_matrix, model.weight).mT
    q = model.posterior(x)
    torch.testing.assert_close(q.mean, (x - model.bias) @ gain.mT, rtol=1e-10, atol=1e-10)
    expected = torch.eye(3) - gain @ model.weight
    torch.testing.assert_close(q.covariance_matrix[0], expected, rtol=1e-10, atol=1e-10)


def test_every_log_weight_at_the_posterior_is_the_evidence():
    """log p(x, z) - log q(z | x) does not depend on z there: no gap, however few particles."""
    model, x, _ = problem()
    log_w = model.log_weights(x, model.posterior(x), 3)
    torch.testing.assert_close(log_w, model.evidence().log_prob(x).expand(3, -1), **EXACT)


def test_the_gap_is_the_divergence_from_the_posterior():
    """Sampled: log p(x) - E_q log w = KL(q || posterior), 100,000 draws, 5 standard errors."""
    model, x, q = problem(n=2)
    log_w = model.log_weights(x, q, 100_000)
    error = log_w.std(0) / math.sqrt(len(log_w))
    gap = model.evidence().log_prob(x) - log_w.mean(0)
    assert ((gap - model.gap(x, q)).abs() < 5 * error).all()


def test_independent_latents_lose_half_the_log_determinant_of_their_correlations():
    """Gap of the best factorised q: (sum log P_ii - log det P) / 2, the same for every row."""
    model, x, _ = problem()
    P = torch.eye(3) + model.weight.mT @ model.weight / model.variance
    expected = (P.diagonal().log().sum() - P.logdet()) / 2
    q = model.factorised(x)
    torch.testing.assert_close(model.gap(x, q), expected.expand(len(x)), **EXACT)
    worse = MultivariateNormal(q.mean + 0.01, q.covariance_matrix * 1.01)
    assert (model.gap(x, worse) > model.gap(x, q)).all()


@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
def test_the_best_posterior_with_beta_belongs_to_noise_scaled_by_beta(beta):
    """The value there is the closed form, and the gradient in (mu, Cholesky factor) vanishes."""
    model, x, _ = problem()
    best = model.posterior(x, beta)
    torch.testing.assert_close(model.elbo(x, best, beta), model.best_elbo(x, beta), **EXACT)
    mu, root = (v.clone().requires_grad_() for v in (best.mean, best.scale_tril))
    value = model.elbo(x, MultivariateNormal(mu, scale_tril=root.tril()), beta).sum()
    for gradient in torch.autograd.grad(value, [mu, root]):
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-10)


def test_only_beta_of_at_least_one_gives_a_bound():
    """The largest value over q: never above log p for beta >= 1, above it for data at beta < 1."""
    model, x, q = problem(n=1000)
    log_p = model.evidence().log_prob(x)
    for beta in (1.0, 1.5, 4.0, 20.0):
        assert (model.best_elbo(x, beta) <= log_p + 1e-10).all()
    assert (model.best_elbo(x, 0.25) > log_p).any()
    parts = model.distortion(x, model.posterior(x, 0.25)), model.rate(model.posterior(x, 0.25))
    assert (-sum(parts) <= log_p).all()  # without the weight it is a bound still


def test_importance_weighted_bounds_rise_to_the_exact_likelihood():
    """N4: PPCA, d = 16, k = 4, sigma = 0.3, the factorised posterior as q; 100 data.

    ELBO <= IWAE-5 <= IWAE-50 <= IWAE-5000 <= log p in the mean, the last up to 3 of its standard
    errors, and its gap below 0.02 nats.
    """
    torch.manual_seed(0)
    W = torch.as_tensor(np.random.default_rng(0).standard_normal((16, 4)))
    model = LinearVAE(W, torch.zeros(16).double(), 0.3)
    x = model.evidence().sample((100,))
    q, exact = model.factorised(x), model.evidence().log_prob(x)
    bounds = [importance_bound(model.log_weights(x, q, k)) for k in (5, 50, 5000)]
    assert all(a.mean() <= b.mean() for a, b in itertools.pairwise([model.elbo(x, q), *bounds]))
    gap = exact - bounds[-1]
    assert -3 * gap.std() / math.sqrt(len(x)) <= gap.mean() < 0.02


def test_the_gap_of_the_importance_bound_is_half_the_weights_variance_over_k():
    """E log p - L_K = Var(w / p(x)) / 2K + O(1/K^2), the variance by quadrature over one latent.

    The mean of w / p(x) is 1, so adding it less 1 to the gap leaves the mean and takes most of the
    noise. K = 200, 4,000 repeats, 5 standard errors, and 5% for the next order.
    """
    model, x, _ = problem(latent=1, n=1)
    p = model.posterior(x)
    q = MultivariateNormal(p.mean + 0.05, 1.5 * p.covariance_matrix)
    z = torch.linspace(-8, 8, 20_001).double()[:, None, None]
    variance = ((2 * p.log_prob(z) - q.log_prob(z)).exp().sum() * 16 / 20_000) - 1
    log_w = model.log_weights(x, q, 200 * 4000).view(200, 4000) - model.evidence().log_prob(x)
    gap = log_w.exp().mean(0) - 1 - importance_bound(log_w)
    expected, error = variance / 400, gap.std() / math.sqrt(4000)
    assert (gap.mean() - expected).abs() < 5 * error + 0.05 * expected
    assert error < 0.05 * expected


def minimise(objective, *parameters):
    """LBFGS to the end; the value there."""
    search = {"max_iter": 500, "tolerance_grad": 1e-10, "tolerance_change": 0}
    optimizer = torch.optim.LBFGS(parameters, line_search_fn="strong_wolfe", **search)

    def closure():
        optimizer.zero_grad()
        value = objective()
        value.backward()
        return value

    optimizer.step(closure)


SPECTRUM = torch.tensor([3.0, 1.4, 0.6, 0.2, 0.1]).double()


def trained(beta, latent, sigma=None):
    """A linear beta-VAE fitted by LBFGS to data whose covariance has the spectrum exactly."""
    torch.manual_seed(3)
    axes = torch.linalg.qr(torch.randn(5, 5).double())[0]
    x = math.sqrt(5) * (axes * SPECTRUM.sqrt()).mT  # rows with mean square covariance S
    x = torch.cat([x, -x])
    W = (0.3 * torch.randn(5, latent).double()).requires_grad_()
    log_sigma = torch.tensor(math.log(sigma or 1.0)).double().requires_grad_(sigma is None)

    def objective():
        model = LinearVAE(W, torch.zeros(5).double(), log_sigma.exp())
        return -model.elbo(x, model.posterior(x, beta), beta).mean()

    minimise(objective, W, *[log_sigma] * (sigma is None))
    return LinearVAE(W.detach(), torch.zeros(5).double(), log_sigma.exp().detach()), x


@pytest.mark.parametrize("latent", [2, 4])
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.5])
def test_a_trained_linear_vae_fills_the_spectrum_with_water(beta, latent):
    """Singular values sqrt(lambda - beta s^2)_+, rate, reconstruction error and active units."""
    model, x = trained(beta, latent, sigma=0.6)
    expected = linear_vae_optimum(SPECTRUM, latent, 0.6, beta)
    q = model.posterior(x, beta)
    singular = torch.linalg.svdvals(model.weight)
    torch.testing.assert_close(singular, expected.singular, rtol=0, atol=1e-5)
    assert ((singular > 1e-3) == expected.active).all()
    assert (SPECTRUM[:latent] > beta * 0.36).tolist() == expected.active.tolist()
    torch.testing.assert_close(model.rate(q).mean(), expected.rate, rtol=1e-6, atol=1e-6)
    constant = 5 / 2 * math.log(2 * math.pi * 0.36)
    error = 2 * 0.36 * (model.distortion(x, q).mean() - constant)
    torch.testing.assert_close(error, expected.error, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])
def test_learned_noise_is_the_discarded_variance_over_the_degrees_left(beta):
    model, _ = trained(beta, 2)
    expected = float(learned_variance(SPECTRUM, 2, beta))
    assert float(model.variance) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(UsageError, match="less than d"):
        learned_variance(SPECTRUM, 2, 2.5)
