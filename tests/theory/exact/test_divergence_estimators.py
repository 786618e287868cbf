"""Estimates of divergences from samples of distributions whose divergence is known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from pushforward.errors import DataError
from pushforward.theory.exact import divergence_estimators as est


def pair(n, d, shift, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), rng.standard_normal((n, d)) + shift


@pytest.mark.parametrize(("d", "shift"), [(1, 0.0), (1, 1.0), (2, 0.7)])
def test_neighbours_estimate_kl_of_near_gaussians(d, shift):
    """KL = d shift^2 / 2, on 2,000 rows of each, 20 times: 5 standard errors and a bias of 0.03."""
    seen = np.array([est.neighbour_kl(*pair(2000, d, shift, s)) for s in range(20)])
    bar = 5 * seen.std() / math.sqrt(20) + 0.03
    assert abs(seen.mean() - d * shift**2 / 2) < bar


def test_neighbours_see_far_distributions_too_near():
    """KL = 18 between N(0, 1) and N(6, 1): few of y lie where x does, so the estimate is low."""
    assert 0 < est.neighbour_kl(*pair(1000, 1, 6.0, 0)) < 17


def test_neighbours_do_not_mind_unequal_numbers_or_units():
    x, y = pair(1500, 2, 0.5, 1)
    half = est.neighbour_kl(x, y[:700])
    assert half == pytest.approx(est.neighbour_kl(7 * x, 7 * y[:700]), abs=1e-9)
    # the spread of one estimate is about 0.06
    assert half == pytest.approx(0.25, abs=0.3)


def test_neighbours_refuse_rows_that_coincide_and_too_few():
    x, y = pair(100, 1, 0.0, 0)
    with pytest.raises(DataError, match="coincide"):
        est.neighbour_kl(np.repeat(x, 10, 0), y)
    with pytest.raises(DataError, match="more than 5"):
        est.neighbour_kl(x[:5], y)


@pytest.mark.parametrize("m", [4000, 1000])
def test_the_fitted_logit_of_gaussians_is_their_log_ratio(m):
    """log N(x; 0, 1) - log N(x; 1, 4) on 4,000 and m rows, out of fold: within 0.3 for most."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4000, 1)), 2 * rng.standard_normal((m, 1)) + 1
    real, fake = est.fit_ratio_logit(x, y)
    assert real.shape == (4000,) and fake.shape == (m,)
    truth = norm.logpdf(x[:, 0]) - norm.logpdf(x[:, 0], 1, 2)
    assert np.median(np.abs(real - truth)) < 0.1


def logits(theta, n=100_000):
    """Optimal logits of N(0, 1) and N(theta, 1) on data and on samples."""
    x, y = torch.randn(n, dtype=torch.float64), torch.randn(n, dtype=torch.float64) + theta
    return -theta * x + theta**2 / 2, -theta * y + theta**2 / 2


def test_at_the_optimal_logit_all_bounds_are_the_divergence():
    """KL = theta^2 / 2 and TV = 2 Phi(theta / 2) - 1; 5 standard errors of 100,000 rows."""
    theta, n = 1.0, 100_000
    real, fake = logits(theta, n)
    bar = 5 * (real.std() + fake.exp().std()).item() / math.sqrt(n)
    for found in (
        est.plug_in_kl(real),
        est.donsker_varadhan(real, fake),
        est.variational_kl(real, fake),
    ):
        assert found.item() == pytest.approx(theta**2 / 2, abs=bar)
    tv = 2 * norm.cdf(theta / 2) - 1
    assert est.variation_bound(real, fake).item() == pytest.approx(tv, abs=5 / math.sqrt(2 * n))


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_at_another_logit_the_bounds_are_lower_and_the_plug_in_is_none(factor):
    """f = factor times the optimum, in closed form for Gaussians at theta = 1."""
    real, fake = (factor * f for f in logits(1.0, 400_000))
    assert est.donsker_varadhan(real, fake) < 0.5
    assert est.variational_kl(real, fake) < 0.5
    assert (est.plug_in_kl(real) < 0.5) == (factor < 1)
    # E_p f - log E_q e^f with f normal: factor / 2 - (factor^2 - factor) / 2
    exact = factor / 2 - (factor**2 - factor) / 2
    assert est.donsker_varadhan(real, fake).item() == pytest.approx(exact, abs=0.02)


def test_donsker_varadhan_cannot_see_more_than_the_log_of_the_number_of_samples():
    """KL = 50 at theta = 10, where all but nothing of E_q e^f is in a tail: too high by far."""
    real, fake = logits(10.0, 1000)
    assert est.donsker_varadhan(real, fake) > 60
