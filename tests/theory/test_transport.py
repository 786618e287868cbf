"""Optimal transport against closed forms, brute force and POT."""

import itertools
import math

import numpy as np
import ot
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import ndtr
from scipy.stats import foldnorm

from pushforward.theory import transport


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("n", "m"), [(7, 7), (6, 9), (5, 3), (12, 1)])
@pytest.mark.parametrize("p", [1, 2])
def test_quantiles_give_the_linear_programme_of_unequal_samples(rng, n, m, p):
    x, y = rng.standard_normal((n, 1)), rng.standard_normal((m, 1)) + 1
    truth = ot.emd2([], [], np.abs(x - y.T) ** p)
    assert transport.wasserstein_1d(x, y, p)[0] == pytest.approx(truth, rel=1e-12)


def test_w1_on_the_line_is_the_area_between_distribution_functions(rng):
    x, y = rng.standard_normal(50), rng.exponential(size=80)
    grid = np.sort(np.concatenate([x, y]))
    f, g = (np.searchsorted(np.sort(s), grid, side="right") / len(s) for s in (x, y))
    area = np.sum(np.abs(f - g)[:-1] * np.diff(grid))
    assert transport.w1_1d(x, y) == pytest.approx(area, rel=1e-12)


def test_a_shift_moves_every_distance_by_itself(rng):
    x, shift = rng.standard_normal((100, 3)), np.array([1.0, -2.0, 2.0])
    assert transport.exact_w1(x, x + shift) == pytest.approx(3, rel=1e-12)
    assert transport.exact_w2(x, x + shift) == pytest.approx(3, rel=1e-12)
    assert transport.w1_1d(x[:, 0], x[:, 0] + 5) == pytest.approx(5, rel=1e-12)
    assert transport.w2_1d(x[:, 0], x[:, 0] + 5) == pytest.approx(5, rel=1e-12)


@pytest.mark.parametrize("d", [2, 5, 64])
def test_assignment_distances_equal_pot(rng, d):
    x, y = rng.standard_normal((150, d)), 1.5 * rng.standard_normal((150, d)) + 0.5
    cost = np.linalg.norm(x[:, None] - y, axis=-1)
    assert transport.exact_w1(x, y) == pytest.approx(ot.emd2([], [], cost), rel=1e-9)
    assert transport.exact_w2(x, y) == pytest.approx(ot.emd2([], [], cost**2) ** 0.5, rel=1e-9)


def test_assignment_beats_every_permutation():
    cost = torch.rand(6, 6, dtype=torch.float64)
    found = cost[torch.arange(6), transport.optimal_assignment(cost)].sum()
    best = min(sum(cost[i, s[i]] for i in range(6)) for s in itertools.permutations(range(6)))
    torch.testing.assert_close(found, best)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_assignment_does_not_mind_the_unit_of_the_cost(scale):
    cost = torch.rand(40, 40, dtype=torch.float64)
    assert torch.equal(
        transport.optimal_assignment(scale * cost), transport.optimal_assignment(cost)
    )


@pytest.mark.parametrize("cost", [torch.zeros(5, 5), torch.ones(1, 1), torch.eye(4)])
def test_assignment_of_degenerate_costs_is_a_permutation(cost):
    order = transport.optimal_assignment(cost)
    assert order.sort().values.tolist() == list(range(len(cost)))


def test_slices_of_isotropic_gaussians_have_their_closed_form(rng):
    """SW2^2 = |m|^2/d + (s1 - s2)^2; standard error about 0.01 at 40,000 rows, bar 5 of them."""
    d, m, s = 3, np.array([1.0, 2.0, -2.0]), 1.7
    x, y = rng.standard_normal((40_000, d)), s * rng.standard_normal((40_000, d)) + m
    assert transport.sliced_w2_distance(x, y) ** 2 == pytest.approx(9 / d + (s - 1) ** 2, abs=0.05)


@pytest.mark.parametrize("d", [2, 3, 16])
def test_slices_of_a_shift_are_exact_over_whole_frames(rng, d):
    """Orthonormal frames integrate (theta . m)^2 exactly, so no directions are left to average."""
    x, m = rng.standard_normal((20, d)), rng.standard_normal(d)
    found = transport.sliced_w2_distance(x, x + m, projections=2 * d, rng=rng)
    assert found == pytest.approx(np.linalg.norm(m) / math.sqrt(d), rel=1e-10)


def test_slices_in_the_plane_equal_the_integral_over_angles(rng):
    x, y = rng.standard_normal((30, 2)), rng.standard_normal((45, 2)) * [2, 0.5]
    angle = (np.arange(20_000) + 0.5) * np.pi / 20_000
    fine = np.stack([np.cos(angle), np.sin(angle)])
    truth = transport.sliced_w2_distance(x, y, along=fine)
    # the integrand has kinks, so 128 equal steps leave an error of order 1/128^2
    assert transport.sliced_w2_distance(x, y, rng=rng) == pytest.approx(truth, rel=2e-3)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_directions_are_unit_and_isotropic(rng, d):
    theta = transport.random_directions(10_000 * d, d, rng)
    np.testing.assert_allclose(np.linalg.norm(theta, axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(theta @ theta.T / theta.shape[1], np.eye(d) / d, atol=1e-10)
    assert np.abs(theta.mean(1)).max() < (5 / math.sqrt(10_000) if d != 2 else 1)


def test_bures_agrees_with_matrix_square_roots(rng):
    a, b = (m @ m.T + np.eye(6) for m in rng.standard_normal((2, 6, 6)))
    root = sqrtm(a)
    truth = np.trace(a + b - 2 * sqrtm(root @ b @ root)).real
    assert transport.squared_bures_distance(a, b) == pytest.approx(truth, rel=1e-10)
    assert transport.squared_bures_distance(b, a) == pytest.approx(truth, rel=1e-10)


def test_bures_of_singular_covariances_adds_over_orthogonal_supports():
    a, b = np.diag([4.0, 0.0, 0.0]), np.diag([0.0, 9.0, 0.0])
    assert transport.squared_bures_distance(a, b) == pytest.approx(13, rel=1e-12)
    assert transport.squared_bures_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_gaussians_that_commute_are_apart_by_means_and_scales():
    m, s, r = np.array([3.0, 4.0]), np.diag([1.0, 4.0]), np.diag([4.0, 16.0])
    truth = math.sqrt(25 + 1 + 4)  # scales 1, 2 against 2, 4
    assert transport.gaussian_w2(np.zeros(2), s, m, r) == pytest.approx(truth, rel=1e-12)


def test_expected_w1_of_equal_laws_is_what_samples_show(rng):
    """2 / sqrt(pi n) int sqrt(F(1 - F)) for normals: 0.228, 0.114, 0.057 at 64, 256, 1,024."""
    grid = np.linspace(-12, 12, 20_001)
    for n, value in ((64, 0.228), (256, 0.114), (1024, 0.057)):
        assert transport.expected_w1(grid, ndtr(grid), n) == pytest.approx(value, abs=5e-4)
    draws = rng.standard_normal((2, 256, 4000))
    seen = transport.wasserstein_1d(*draws, 1)
    assert abs(seen.mean() - 0.114) < 5 * seen.std() / math.sqrt(4000) + 5e-4


def test_sinkhorn_plan_equals_pot():
    x, y = torch.randn(30, 2, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64) + 1
    cost = torch.cdist(x, y).square()
    plan = transport.sinkhorn_plan(cost, 0.5).numpy()
    truth = ot.sinkhorn([], [], cost.numpy(), 0.5, method="sinkhorn_log", stopThr=1e-12)
    np.testing.assert_allclose(plan, truth, atol=1e-9)


def test_sinkhorn_duals_have_the_value_of_their_plan():
    """Strong duality: mean f + mean g = <pi, c> + epsilon KL(pi | product)."""
    cost, epsilon = torch.rand(20, 25, dtype=torch.float64), 0.1
    f, g = transport.sinkhorn(cost, epsilon)
    plan = transport.sinkhorn_plan(cost, epsilon)
    kl = (plan * (plan * plan.numel()).log()).sum()
    torch.testing.assert_close(f.mean() + g.mean(), (plan * cost).sum() + epsilon * kl)
    torch.testing.assert_close(plan.sum(0), torch.full_like(g, 1 / 25))


def test_sinkhorn_divergence_runs_from_w2_to_the_distance_of_means():
    x, y = torch.randn(2, 24, 2, dtype=torch.float64) * torch.tensor([1.0, 2.0])[:, None, None]
    y = y + 1
    w2 = transport.exact_w2(x.numpy(), y.numpy()) ** 2
    cold = transport.sinkhorn_divergence(x, y, 0.01).item()
    hot = transport.sinkhorn_divergence(x, y, 1e5).item()
    # the entropy is worth at most epsilon log n in each term, and the halves add to one more
    assert cold == pytest.approx(w2, abs=2 * 0.01 * math.log(24))
    assert hot == pytest.approx((x.mean(0) - y.mean(0)).square().sum().item(), rel=1e-3)
    assert transport.sinkhorn_divergence(x, x, 0.3).item() == pytest.approx(0, abs=1e-12)


def test_sinkhorn_divergence_of_a_shift_has_the_gradient_of_half_a_square():
    """For y = x + m the divergence is |m|^2 at every temperature, with gradient -2m/n a row."""
    x = torch.randn(16, 2, dtype=torch.float64, requires_grad=True)
    m = torch.tensor([1.0, -3.0], dtype=torch.float64)
    value = transport.sinkhorn_divergence(x, x.detach() + m, 2.0)
    assert value.item() == pytest.approx(10, rel=1e-8)
    (slope,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(slope.sum(0), -2 * m, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("m", "s"), [(0.0, 2.0), (1.0, 1.0), (-3.0, 0.5), (2.0, 1.7)])
def test_w1_of_normal_laws_is_the_area_between_them_and_the_mean_of_a_folded_normal(m, s):
    grid = np.linspace(-40, 40, 160_001)
    area = transport.w1_of_cdfs(grid, ndtr(grid), ndtr((grid - m) / s))
    found = transport.gaussian_w1(0.0, 1.0, m, s)
    assert found == pytest.approx(area, abs=1e-6)
    if s != 1:
        assert found == pytest.approx(foldnorm.mean(abs(m / (s - 1)), scale=abs(s - 1)), rel=1e-10)
