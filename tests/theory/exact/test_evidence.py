"""The bound on nodes against enumeration, the linear VAE's closed forms and torch's divergences."""

import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from pushforward.theory.exact import evidence
from pushforward.theory.exact.evidence import LinearVAE, linear_vae_optimum

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def discrete(n=6, k=5):
    """A random law of a discrete latent and of six values of x, and an arbitrary q for each x."""
    torch.manual_seed(0)
    prior = Categorical(torch.rand(k).double())
    likelihood = Categorical(torch.rand(k, n).double())  # of x, one row for each z
    joint = evidence.QuadratureJoint(likelihood.logits.mT, prior.logits)
    return joint, prior, likelihood, Categorical(torch.rand(n, k).double())


def test_the_evidence_of_a_discrete_latent_is_the_sum_over_its_values():
    joint, prior, likelihood, _ = discrete()
    p = prior.probs @ likelihood.probs
    torch.testing.assert_close(joint.log_evidence().exp(), p, **EXACT)
    assert float(p.sum()) == pytest.approx(1)
    both = likelihood.probs * prior.probs[:, None] / p  # of z, one column for each x
    torch.testing.assert_close(joint.log_posterior().exp(), both.mT, **EXACT)


def test_rate_and_gap_are_torchs_divergences():
    joint, prior, _, q = discrete()
    torch.testing.assert_close(joint.rate(q.logits), kl_divergence(q, prior), **EXACT)
    posterior = Categorical(logits=joint.log_posterior())
    torch.testing.assert_close(joint.gap(q.logits), kl_divergence(q, posterior), **EXACT)


def test_a_latent_that_q_rules_out_counts_for_nothing():
    """All mass on one value: the bound is the joint log-probability of it."""
    joint, *_ = discrete()
    log_q = torch.full((6, 5), -math.inf).double()
    log_q[:, 2] = 0
    expected = joint.log_likelihood[:, 2] + joint.log_prior[2]
    for bound in (joint.elbo_by_jensen, joint.elbo_by_divergence):
        torch.testing.assert_close(bound(log_q), expected, **EXACT)


@pytest.fixture
def linear():
    """A linear VAE with two latents, the same law at nodes, data, and a q with correlations."""
    torch.manual_seed(1)
    model = LinearVAE(torch.randn(3, 2).double(), torch.randn(3).double(), 0.7)
    z, log_weight = evidence.latent_quadrature(9.0, 181, dim=2)
    x = model.evidence().sample((4,))
    likelihood = MultivariateNormal(x[:, None], 0.49 * torch.eye(3).double())
    means = z @ model.weight.mT + model.bias
    joint = evidence.QuadratureJoint(
        likelihood.log_prob(means), model.prior.log_prob(z), log_weight
    )
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]]).double()
    q = MultivariateNormal(torch.randn(4, 2).double(), covariance)
    return model, x, joint, q, q.log_prob(z[:, None]).mT


def test_a_quadrature_over_two_latents_is_the_closed_form(linear):
    model, x, joint, q, log_q = linear
    near = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(joint.log_evidence(), model.evidence().log_prob(x), **near)
    torch.testing.assert_close(joint.distortion(log_q), model.distortion(x, q), **near)
    torch.testing.assert_close(joint.rate(log_q), model.rate(q), **near)
    torch.testing.assert_close(joint.gap(log_q), model.gap(x, q), **near)
    for bound in (joint.elbo_by_jensen, joint.elbo_by_divergence):
        torch.testing.assert_close(bound(log_q), model.elbo(x, q), **near)


@pytest.mark.parametrize("beta", [0.25, 1.0, 3.0])
def test_the_best_weighted_bound_is_that_of_the_linear_vae(linear, beta):
    model, x, joint, _, log_q = linear
    best = joint.best_bound(beta)
    torch.testing.assert_close(best, model.best_elbo(x, beta), rtol=1e-8, atol=1e-8)
    assert (-joint.distortion(log_q) - beta * joint.rate(log_q) <= best).all()


def test_the_best_weighted_bound_falls_as_the_weight_grows():
    joint, *_ = discrete()
    values = [joint.best_bound(beta) for beta in (0.1, 0.5, 1.0, 2.0, 10.0)]
    assert all((a > b).all() for a, b in itertools.pairwise(values))
    torch.testing.assert_close(values[2], joint.log_evidence(), **EXACT)


def test_the_trapezoidal_rule_integrates_a_normal_density():
    z, log_weight = evidence.latent_quadrature(9.0, 61, dim=2)
    log_p = Normal(0.3, 1.0).log_prob(z.double()).sum(1)
    assert float((log_p + log_weight).logsumexp(0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_water_filling_meets_shannons_bound_while_every_direction_is_kept(beta):
    """The entropy of a Gaussian is (d log 2 pi e + sum of log eigenvalues) / 2."""
    spectrum = torch.tensor([3.0, 1.4, 0.6]).double()
    entropy = (3 * math.log(2 * math.pi * math.e) + float(spectrum.log().sum())) / 2
    best = linear_vae_optimum(spectrum, 3, 0.6, beta)
    bound = evidence.shannon_bound(entropy, 3, best.error)
    torch.testing.assert_close(best.rate, bound, **EXACT)
    above = linear_vae_optimum(spectrum, 3, 0.6, 4.0)  # two directions are dropped
    assert above.rate > evidence.shannon_bound(entropy, 3, above.error) + 0.1
