"""Fréchet distance against Gaussians in closed form, SciPy's square root and its bias formula."""

import time
import warnings

import numpy as np
import pytest
from scipy.linalg import sqrtm

from pushforward.errors import DataError
from pushforward.metrics import wasserstein
from pushforward.theory.transport import squared_bures_distance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def exact_moments(rng, n, mean, cov):
    """Rows whose sample mean and covariance are exactly the given ones."""
    z = rng.standard_normal((n, len(mean)))
    z -= z.mean(0)
    whiten = np.linalg.inv(np.linalg.cholesky(np.cov(z, rowvar=False))).T
    return z @ whiten @ np.linalg.cholesky(cov).T + mean


@pytest.mark.parametrize("d", [2, 16, 64])
def test_gaussians_in_closed_form(rng, d):
    """Covariances that commute: |m|^2 + sum (s_i - r_i)^2, to 1e-6 up to 64 dimensions."""
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    s, r, m = rng.uniform(0.5, 2, d), rng.uniform(0.5, 2, d), rng.standard_normal(d)
    x = exact_moments(rng, 20 * d, np.zeros(d), q * s**2 @ q.T)
    y = exact_moments(rng, 20 * d, m, q * r**2 @ q.T)
    truth = m @ m + np.sum((s - r) ** 2)
    assert wasserstein.frechet_distance(x, y) == pytest.approx(truth, rel=1e-6)
    assert wasserstein.frechet_distance(y, x) == pytest.approx(truth, rel=1e-6)


def test_general_covariances_agree_with_a_matrix_square_root(rng):
    x = rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5))
    y = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5)) + 1
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    truth = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * sqrtm(a @ b)).real
    assert wasserstein.frechet_distance(x, y) == pytest.approx(truth, rel=1e-8)


def test_a_set_is_at_distance_zero_from_itself_even_when_singular(rng):
    x = rng.standard_normal((700, 64))
    assert 0 <= wasserstein.frechet_distance(x, x) < 1e-6
    x[:, 5] = x[:, 6]  # a singular covariance
    x[:, 7] = 3.0
    assert 0 <= wasserstein.frechet_distance(x, x) < 1e-6


@pytest.mark.parametrize(("d", "value"), [(2, 0.014), (8, 0.104), (32, 1.184)])
def test_two_samples_of_one_law_differ_by_the_bias(rng, d, value):
    """(2d + d(d+1)/2)/n at n = 500, to first order in d/n (8 % is the next order at d = 32)."""
    assert value == pytest.approx((2 * d + d * (d + 1) / 2) / 500, rel=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = [wasserstein.frechet_distance(*rng.standard_normal((2, 500, d))) for _ in range(40)]
    assert abs(np.mean(seen) - value) < 5 * np.std(seen) / np.sqrt(40) + 0.08 * value * (d == 32)


def test_too_few_rows_are_refused_and_few_are_warned_of(rng):
    with pytest.raises(DataError, match="more than 8 rows on each side and has 8: .*kid"):
        wasserstein.frechet_distance(*rng.standard_normal((2, 8, 8)))
    with pytest.warns(UserWarning, match="fewer than 80"):
        wasserstein.frechet_distance(*rng.standard_normal((2, 79, 8)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wasserstein.frechet_distance(*rng.standard_normal((2, 80, 8)))


def covariances(rng, d):
    """Of two samples of 2 d rows, with the decaying spectrum that features have."""
    scales = np.arange(1, d + 1) ** -0.5
    x, y = rng.standard_normal((2, 2 * d, d)) * scales
    mix, _ = np.linalg.qr(rng.standard_normal((d, d)))
    return np.cov(x @ mix, rowvar=False), np.cov(1.2 * y @ mix + 0.1 * x, rowvar=False)


def test_the_distance_of_covariances_in_128_dimensions_is_that_of_a_matrix_square_root(rng):
    a, b = covariances(rng, 128)
    theirs = np.trace(a + b - 2 * sqrtm(a @ b)).real
    assert squared_bures_distance(a, b) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.slow
def test_is_five_times_faster_than_a_matrix_square_root_at_2048_and_equal(rng):
    """Processor time, so that a busy machine does not decide."""
    a, b = covariances(rng, 2048)
    start = time.process_time()
    ours = squared_bures_distance(a, b)
    middle = time.process_time()
    theirs = np.trace(a + b - 2 * sqrtm(a @ b)).real
    end = time.process_time()
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert end - middle > 5 * (middle - start)
