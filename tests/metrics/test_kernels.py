"""Energy distance, MMD and KID against closed forms, and their estimators against each other."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pushforward.errors import DataError
from pushforward.metrics import kernels


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rbf_moment(d, variance, shift, h=1.0):
    """E exp(-|z|^2 / 2h^2) for z ~ N(shift, variance I) in d dimensions."""
    v = h**2 + variance
    return (h**2 / v) ** (d / 2) * math.exp(-(shift**2) / (2 * v))


def test_energy_distance_on_the_line_is_twice_the_integral_of_the_squared_gap(rng):
    """2 int (F - G)^2 of the two empirical distributions, which the biased estimate measures."""
    x, y = rng.standard_normal(60), rng.exponential(size=90)
    grid = np.sort(np.concatenate([x, y]))
    f, g = (np.searchsorted(np.sort(s), grid, side="right") / len(s) for s in (x, y))
    truth = 2 * np.sum(((f - g) ** 2)[:-1] * np.diff(grid))
    assert kernels.energy_distance(x, y, unbiased=False) == pytest.approx(truth, rel=1e-10)


def test_biased_and_unbiased_energy_differ_by_the_pairs_left_out(rng):
    x, y = rng.standard_normal((2, 40, 3))
    within = [cdist(s, s).sum() / (40 * 40 * 39) for s in (x, y)]  # 1/(n(n-1)) - 1/n^2
    gap = kernels.energy_distance(x, y, unbiased=False) - kernels.energy_distance(x, y)
    assert gap == pytest.approx(sum(within), rel=1e-10)


@pytest.mark.parametrize(("d", "shift", "scale"), [(1, 1.0, 1.0), (4, 0.5, 2.0)])
def test_mmd_of_gaussians_has_its_closed_form(rng, d, shift, scale):
    truth = (
        rbf_moment(d, 2, 0)
        + rbf_moment(d, 2 * scale**2, 0)
        - 2 * rbf_moment(d, 1 + scale**2, shift)
    )
    delta = np.eye(d)[0] * shift
    draws = rng.standard_normal((100, 2, 100, d))
    seen = np.array([kernels.mmd(x, scale * y + delta, width=1.0) for x, y in draws])
    assert abs(seen.mean() - truth) < 5 * seen.std() / math.sqrt(100)


@pytest.mark.parametrize("metric", [kernels.energy_distance, kernels.mmd, kernels.kid])
def test_unbiased_estimates_have_mean_zero_under_equal_laws(rng, metric):
    seen = np.array([metric(*rng.standard_normal((2, 50, 2))) for _ in range(150)])
    assert abs(seen.mean()) < 5 * seen.std() / math.sqrt(150)


def test_the_biased_mmd_is_off_by_the_share_of_the_diagonal(rng):
    """E of the V-statistic at equal distributions is (2/n)(1 - E k)."""
    n, truth = 50, 2 / 50 * (1 - rbf_moment(2, 2, 0))
    draws = rng.standard_normal((150, 2, n, 2))
    seen = np.array([kernels.mmd(x, y, width=1.0, unbiased=False) for x, y in draws])
    assert abs(seen.mean() - truth) < 5 * seen.std() / math.sqrt(150)


def test_five_widths_are_the_mean_of_five_kernels(rng):
    x, y = rng.standard_normal((2, 30, 2))
    each = [kernels.rbf_kernel(s * 1.3)(x, y) for s in kernels.SCALES]
    np.testing.assert_allclose(kernels.multiscale_rbf(1.3)(x, y), np.mean(each, axis=0), rtol=1e-12)


def test_kid_of_shifted_points_follows_from_moments():
    """One-dimensional point masses at a and b: (a^2+1)^3 + (b^2+1)^3 - 2 (ab+1)^3."""
    a, b = 2.0, -1.0
    truth = (a * a + 1) ** 3 + (b * b + 1) ** 3 - 2 * (a * b + 1) ** 3
    assert kernels.kid(np.full(5, a), np.full(7, b)) == pytest.approx(truth, rel=1e-12)


@pytest.mark.parametrize("metric", [kernels.energy_distance, kernels.mmd, kernels.kid])
@pytest.mark.parametrize("block", [7, 64, 1000])
def test_the_block_size_changes_nothing(rng, metric, block):
    x, y = rng.standard_normal((70, 3)) + 100, rng.standard_normal((50, 3)) + 101
    assert metric(x, y, block=block) == pytest.approx(metric(x, y), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("kind", [kernels.energy_replicates, kernels.mmd_replicates])
def test_free_replicates_equal_recomputed_ones(rng, kind):
    x, y = rng.standard_normal((2, 53, 2))
    value, left = kind(x, y, 10)
    parts = np.array_split(np.arange(53), 10)
    width = kernels.median_distance(x)
    for part, found in zip(parts, left[:, 0], strict=True):
        a, b = np.delete(x, part, 0), np.delete(y, part, 0)
        sums = [
            kernels.kernel_discrepancy(k, a, b, True, 64)
            for k in (kernels.negative_distance, kernels.multiscale_rbf(width))
        ]
        assert found == pytest.approx(sums[kind is kernels.mmd_replicates], rel=1e-9, abs=1e-12)
    assert kind(x, y, 0)[0] == pytest.approx(value, rel=1e-12)


def test_memory_stays_far_below_a_matrix_of_all_pairs(rng):
    """3,000 x 3,000 float64 numbers are 72 MB; the blocks need a hundredth of it."""
    x, y = rng.standard_normal((2, 3000, 2))
    tracemalloc.start()
    kernels.energy_distance(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_refusals_say_what_to_do():
    with pytest.raises(DataError, match="coincide"):
        kernels.mmd(np.zeros(10), np.ones(10))
    with pytest.raises(DataError, match="same columns"):
        kernels.mmd(np.zeros((10, 2)), np.ones((10, 3)))
    with pytest.raises(DataError, match="two rows"):
        kernels.energy_distance(np.zeros(1), np.ones(5))
