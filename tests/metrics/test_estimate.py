"""Intervals cover what they say, likelihoods have their units."""

import math

import numpy as np
import pytest

from pushforward.metrics import estimate, kernels, neighbours, wasserstein


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def coverage(replicate, rng, truth, shift=0.0, trials=200, n=100, d=2):
    hits = 0
    for _ in range(trials):
        x, y = rng.standard_normal((2, n, d)) + np.array([0, shift])[:, None, None]
        value, left = replicate(x, y, estimate.GROUPS)
        low, high = estimate.jackknife_interval(value, left)
        hits += low[0] <= truth <= high[0]
    return hits / trials


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kernels.energy_replicates, kernels.mmd_replicates])
def test_intervals_of_degenerate_u_statistics_cover_zero_under_equal_laws(rng, kind):
    """At least 95 % by design; 200 trials have a standard error of 1.5 %, bar four of them."""
    assert coverage(kind, rng, 0.0) >= 0.95 - 0.06


def test_intervals_cover_a_difference_that_is_there(rng):
    """N(0,1) against N(1,1) on the line: 2 E|N(1,2)| - 2 E|N(0,2)| is the energy distance."""
    moved = 2 / math.sqrt(math.pi) * math.exp(-1 / 4) + math.erf(1 / 2)
    truth = 2 * moved - 2 * 2 / math.sqrt(math.pi)
    found = coverage(kernels.energy_replicates, rng, truth, shift=1.0, trials=50, d=1)
    assert found >= 0.95 - 0.13  # four standard errors of 50 trials


@pytest.mark.parametrize(
    "statistic",
    [
        lambda x, y: wasserstein.sliced_w2(x, y, projections=8),
        lambda x, y: neighbours.precision(x, y),
        wasserstein.gaussian_fit_distance,
    ],
)
def test_intervals_cover_the_mean_at_their_sample_size(rng, statistic):
    """Bias included: the truth is the mean over 400 fresh pairs of samples of 100 rows."""
    truth = np.mean([statistic(*rng.standard_normal((2, 100, 2))) for _ in range(400)])
    assert coverage(estimate.jackknife_replicates(statistic), rng, truth, trials=100) >= 0.95 - 0.09


def test_the_jackknife_of_a_mean_is_its_standard_error(rng):
    """With groups of one row: s/sqrt(n - 1), so a half-width of t_{n-1} times that."""
    x = rng.standard_normal((30, 1))
    value, left = estimate.jackknife_replicates(lambda a, b: float(a.mean()))(x, x, 30)
    low, high = estimate.jackknife_interval(value, left)
    from scipy.stats import t

    assert (high - low)[0] / 2 == pytest.approx(t(29).ppf(0.975) * x.std(ddof=1) / math.sqrt(29))
    assert value[0] == pytest.approx(x.mean())


def test_an_estimate_prints_its_floor():
    text = str(estimate.MetricEstimate(0.5, 0.25, 0.75, 0.125))
    assert text == "0.5 [0.25, 0.75], floor 0.125"
    assert "floor" not in str(estimate.MetricEstimate(0.5, 0.25, 0.75, math.nan))


def test_held_out_likelihood_of_the_true_density_is_the_entropy(rng):
    x = rng.standard_normal(4000)
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    found = estimate.nll(-(x**2) / 2 - math.log(2 * math.pi) / 2, entropy=entropy)
    se = math.sqrt(0.5 / 4000)  # Var x^2/2 = 1/2
    assert abs(found.value - entropy) < 5 * se
    assert found.high - found.low == pytest.approx(2 * 1.96 * se, rel=0.15)
    assert (found.floor, found.unit, found.better) == (entropy, "nats", "lower")


def test_uniform_bytes_cost_eight_bits_an_entry():
    found = estimate.bits_per_dim(np.full(50, -12 * math.log(256)), 12)
    assert found[:3] == pytest.approx((8, 8, 8), rel=1e-12)
    assert (found.unit, found.n) == ("bits/dim", 50)
