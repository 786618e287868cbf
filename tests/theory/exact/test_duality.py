"""Kantorovich's programmes against POT, quantiles, and each other."""

import tracemalloc

import numpy as np
import ot
import pytest
from scipy.special import ndtr
from scipy.stats import wasserstein_distance

from pushforward.errors import UsageError
from pushforward.theory import transport
from pushforward.theory.exact import duality


@pytest.fixture
def weighted():
    rng = np.random.default_rng(0)
    a, b = rng.random(9) + 0.1, rng.random(7) + 0.1
    return rng.standard_normal((9, 2)), rng.standard_normal((7, 2)) + 1, a / a.sum(), b / b.sum()


@pytest.mark.parametrize("power", [1, 2])
def test_primal_and_dual_are_pot(weighted, power):
    x, y, a, b = weighted
    cost = duality.euclidean_distances(x, y) ** power
    truth = ot.emd2(a, b, cost)
    found, prices = duality.solve_primal(cost, a, b), duality.solve_dual(cost, a, b)
    assert found.value == pytest.approx(truth, rel=1e-9)
    assert prices.value == pytest.approx(truth, rel=1e-9)
    np.testing.assert_allclose(found.plan.sum(1), a, atol=1e-9)
    np.testing.assert_allclose(found.plan.sum(0), b, atol=1e-9)
    slack = cost - prices.f[:, None] - prices.g
    assert slack.min() > -1e-9
    # complementary slackness: mass moves only where the prices are tight
    assert (found.plan * slack).sum() == pytest.approx(0, abs=1e-9)


def test_one_potential_is_enough_for_a_distance(weighted):
    x, y, a, b = weighted
    best = duality.kantorovich_rubinstein(x, y, a, b)
    assert best.value == pytest.approx(ot.emd2(a, b, duality.euclidean_distances(x, y)), rel=1e-9)
    assert best.f @ a - best.g @ b == pytest.approx(best.value, rel=1e-9)
    points, f = np.concatenate([x, y]), np.concatenate([best.f, best.g])
    assert duality.lipschitz_constant(points, f) == pytest.approx(1, abs=1e-9)


def test_potentials_extend_to_the_plane_without_growing_steeper(weighted):
    x, y, a, b = weighted
    best = duality.kantorovich_rubinstein(x, y, a, b)
    points, f = np.concatenate([x, y]), np.concatenate([best.f, best.g])
    rows = 3 * np.random.default_rng(1).standard_normal((60, 2))
    np.testing.assert_allclose(duality.mcshane_extension(points, f, points), f, atol=1e-8)
    assert duality.lipschitz_constant(rows, duality.mcshane_extension(points, f, rows)) <= 1 + 1e-9


def test_programmes_on_the_line_are_the_area_between_distribution_functions():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 1)), rng.standard_normal((5, 1)) + 2
    a, b = np.full(8, 1 / 8), rng.dirichlet(np.ones(5))
    truth = wasserstein_distance(x[:, 0], y[:, 0], a, b)
    assert duality.solve_primal(duality.euclidean_distances(x, y), a, b).value == pytest.approx(
        truth, rel=1e-9
    )
    assert duality.kantorovich_rubinstein(x, y, a, b).value == pytest.approx(truth, rel=1e-9)


def test_slopes_are_those_of_a_known_function():
    points = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [0.0, 1.0]])
    assert duality.lipschitz_constant(points, np.array([0.0, 10.0, 10.0, 0.5])) == pytest.approx(
        9.5 / np.sqrt(18)
    )
    assert duality.lipschitz_constant(points[:1], np.zeros(1)) == 0


def test_the_critic_of_two_distributions_on_the_line_attains_their_distance():
    """E_P f - E_Q f = W1 by quadrature, for N(0, 1) and N(1, 2^2)."""
    grid = np.linspace(-15, 17, 64_001)
    F, G = ndtr(grid), ndtr((grid - 1) / 2)
    f = duality.line_critic(grid, F, G)
    gap = np.trapezoid(f * np.gradient(F - G, grid), grid)
    assert gap == pytest.approx(transport.gaussian_w1(0.0, 1.0, 1.0, 2.0), abs=1e-5)
    assert np.abs(np.diff(f)).max() <= grid[1] - grid[0] + 1e-12


@pytest.mark.parametrize(("a", "b"), [([0.5, 0.5], [1.0, 0.5]), ([1.5, -0.5], [0.5, 0.5])])
def test_masses_that_cannot_be_moved_are_refused(a, b):
    a, b, x = np.array(a), np.array(b), np.eye(2)
    for solve in (duality.solve_primal, duality.solve_dual):
        with pytest.raises(UsageError, match="masses"):
            solve(np.ones((2, 2)), a, b)
    with pytest.raises(UsageError, match="masses"):
        duality.kantorovich_rubinstein(x, x + 1, a, b)


def test_one_potential_takes_no_more_memory_than_all_pairs():
    """Of 60 and 60 points: a constraint a pair is 120 x 119 x 120 numbers if kept dense."""
    rng = np.random.default_rng(0)
    x, y, even = rng.standard_normal((60, 2)), rng.standard_normal((60, 2)) + 1, np.full(60, 1 / 60)
    duality.kantorovich_rubinstein(x[:1], y[:1], np.ones(1), np.ones(1))  # loads SciPy
    tracemalloc.start()
    best = duality.kantorovich_rubinstein(x, y, even, even)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert best.value == pytest.approx(transport.exact_w1(x, y), rel=1e-9)
    assert peak < 120 * 119 * 120 * 8 / 2
