"""Laws of one entry against torch's distributions, sums over all values, and their own draws."""

import math

import pytest
import torch
from torch.distributions import Categorical as TorchCategorical

from pushforward.errors import DataError, UsageError
from pushforward.networks.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLogistic,
    GaussianLikelihood,
    choose_likelihood,
)


@pytest.mark.parametrize("levels", [2, 5, 17, 256])
@pytest.mark.parametrize("kind", [BernoulliLikelihood, CategoricalLikelihood, DiscretisedLogistic])
def test_masses_of_the_levels_sum_to_one(kind, levels):
    """In float64; also for locations far outside and scales of a small part of a cell."""
    if kind is BernoulliLikelihood and levels != 2:
        pytest.skip("bits have two levels")
    head = kind(levels)
    h = torch.randn(1, 50, head.size, dtype=torch.float64) * 3
    x = torch.arange(levels, dtype=torch.float64)[:, None].expand(levels, 50)
    log_p = head.log_prob(h.expand(levels, -1, -1), x)
    torch.testing.assert_close(log_p.logsumexp(0).exp(), torch.ones(50).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "head", [BernoulliLikelihood(2), CategoricalLikelihood(5), DiscretisedLogistic(9)]
)
def test_draws_have_the_masses_and_the_mean_that_are_claimed(head):
    """40,000 draws of one entry; 5 standard errors each."""
    n = 40_000
    h = torch.randn(1, head.size).expand(n, -1)
    drawn, levels = head.sample(h), torch.arange(float(head.levels))
    p = head.log_prob(h[: head.levels], levels).exp()
    share = (drawn[:, None] == levels).double().mean(0)
    assert ((share - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-6).all()
    assert head.mean(h)[0].item() == pytest.approx((p * levels).sum().item(), abs=1e-5)


@pytest.mark.parametrize("location", [-1.2, -1.0, 0.0, 0.7, 1.0])
def test_the_mean_of_the_logistic_is_that_of_its_levels(location):
    """At the lowest of 256 levels with s = 10 the location is 0 and the mean about 7."""
    head = DiscretisedLogistic(256)
    h = torch.tensor([[location, -1.2], [location, 1.0]], dtype=torch.float64)
    levels = torch.arange(256, dtype=torch.float64)[:, None].expand(256, 2)
    exact = (head.log_prob(h.expand(256, 2, 2), levels).exp() * levels).sum(0)
    torch.testing.assert_close(head.mean(h), exact, rtol=0, atol=1e-9)


def test_bernoulli_and_categorical_masses_are_torchs():
    h, x = torch.randn(30, 5), torch.randint(5, (30,))
    expected = TorchCategorical(logits=h).log_prob(x)
    torch.testing.assert_close(CategoricalLikelihood(5).log_prob(h, x.float()), expected)
    bit = (x > 2).float()
    expected = torch.distributions.Bernoulli(logits=h[:, 0]).log_prob(bit)
    torch.testing.assert_close(BernoulliLikelihood(2).log_prob(h[:, :1], bit), expected)


def test_the_gaussian_floor_bounds_the_density():
    """At the mean, with the scale driven to its floor, the density is 1 / (sqrt(2 pi) floor)."""
    h = torch.tensor([[0.3, -100.0]])
    value = GaussianLikelihood(0.01).log_prob(h, torch.tensor([0.3])).exp().item()
    assert value == pytest.approx(1 / (math.sqrt(2 * math.pi) * 0.01), rel=1e-5)


@pytest.mark.parametrize(("name", "levels"), [("bernoulli", 0), ("bernoulli", 5), ("logistic", 0)])
def test_a_law_that_does_not_fit_the_data_is_refused(name, levels):
    with pytest.raises(UsageError, match="needs data of"):
        choose_likelihood(name, levels, 0.01)
    with pytest.raises(UsageError, match="choose from auto, gaussian"):
        choose_likelihood("poisson", levels, 0.01)


@pytest.mark.parametrize("bad", [2.0, -0.1, float("nan")])
def test_a_bernoulli_law_refuses_values_outside_the_unit_interval(bad):
    """Their cross-entropy falls without bound as the logit grows: 2 logit - softplus(logit)."""
    with pytest.raises(DataError, match="outside"):
        BernoulliLikelihood(2).log_prob(torch.zeros(3, 1), torch.tensor([0.0, 1.0, bad]))
