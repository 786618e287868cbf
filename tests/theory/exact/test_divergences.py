"""Divergences against torch, SciPy, closed forms and each other."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr
from scipy.stats import norm
from torch.distributions import MultivariateNormal, kl_divergence

from pushforward.errors import UsageError
from pushforward.theory.exact import divergences as div
from pushforward.theory.exact.targets import Gaussian, GaussianMixture


def gaussian(mean, scale=1.0, d=1):
    return Gaussian(torch.full((d,), mean).double(), scale**2 * torch.eye(d).double())


def general(d, seed):
    rng = torch.Generator().manual_seed(seed)
    a = torch.randn(d, d, dtype=torch.float64, generator=rng) / 2
    return Gaussian(
        torch.randn(d, dtype=torch.float64, generator=rng), a @ a.mT + torch.eye(d).double()
    )


def on_line(p, q):
    x, weight = div.trapezoidal_grid([-40], [40], 16_001)
    return p.log_prob(x), q.log_prob(x), weight


def discrete(n=6):
    return torch.rand(2, n, dtype=torch.float64).log().log_softmax(1)


def test_sums_over_discrete_distributions_agree_with_scipy():
    log_p, log_q = discrete()
    p, q = log_p.exp().numpy(), log_q.exp().numpy()
    assert div.kl_divergence(log_p, log_q).item() == pytest.approx(rel_entr(p, q).sum(), rel=1e-12)
    js = jensenshannon(p, q) ** 2
    assert div.jensen_shannon(log_p, log_q).item() == pytest.approx(js, rel=1e-12)
    assert div.total_variation(log_p, log_q).item() == pytest.approx(abs(p - q).sum() / 2)
    chi = ((p - q) ** 2 / q).sum()
    assert div.chi_square(log_p, log_q).item() == pytest.approx(chi, rel=1e-12)
    half = -2 * math.log((p * q) ** 0.5 @ (p * 0 + 1))
    assert div.renyi_divergence(log_p, log_q, 0.5).item() == pytest.approx(half, rel=1e-12)


def test_distributions_without_common_support_are_as_far_as_possible():
    log_p, log_q = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64).log()
    assert div.jensen_shannon(log_p, log_q).item() == pytest.approx(math.log(2), rel=1e-12)
    assert div.total_variation(log_p, log_q).item() == pytest.approx(1)
    assert div.kl_divergence(log_p, log_q) == math.inf
    assert div.chi_square(log_p, log_q) == math.inf
    for order in (0.5, 2.0):
        assert div.renyi_divergence(log_p, log_q, order) == math.inf


def test_a_lost_mode_costs_in_one_direction_only():
    """Half of the mass is lost: KL(p || q) is infinite, the reverse log 2."""
    log_p, log_q = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).log()
    assert div.kl_divergence(log_p, log_q) == math.inf
    assert div.kl_divergence(log_q, log_p).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("seed", range(3))
def test_divergences_are_ordered_by_their_inequalities(seed):
    """Pinsker and its like: TV^2 <= KL/2, KL <= log(1 + chi2), JS <= TV log 2, Renyi grows."""
    torch.manual_seed(seed)
    log_p, log_q = discrete()
    tv, kl = div.total_variation(log_p, log_q), div.kl_divergence(log_p, log_q)
    assert tv**2 <= kl / 2
    assert kl <= div.chi_square(log_p, log_q).log1p()
    assert 0 <= div.jensen_shannon(log_p, log_q) <= tv * math.log(2)
    orders = [div.renyi_divergence(log_p, log_q, a).item() for a in (0.2, 0.5, 0.9, 1.1, 2.0, 10.0)]
    assert orders == sorted(orders)
    assert orders[2] < kl < orders[3]


def test_quadrature_of_two_gaussians_agrees_with_scipy():
    p, q = gaussian(0.0), gaussian(1.0, 1.5)
    log_p, log_q, weight = on_line(p, q)
    kl = quad(lambda x: norm.pdf(x) * (norm.logpdf(x) - norm.logpdf(x, 1, 1.5)), -12, 12)[0]
    tv = quad(lambda x: abs(norm.pdf(x) - norm.pdf(x, 1, 1.5)) / 2, -20, 20, limit=500)[0]
    assert div.kl_divergence(log_p, log_q, weight).item() == pytest.approx(kl, abs=1e-10)
    assert div.total_variation(log_p, log_q, weight).item() == pytest.approx(tv, abs=1e-5)


@pytest.mark.parametrize("d", [1, 2])
def test_closed_forms_of_gaussians_agree_with_quadrature(d):
    p, q = general(d, 1), general(d, 2)
    x, weight = div.trapezoidal_grid([-12] * d, [12] * d, 401)
    log_p, log_q = p.log_prob(x), q.log_prob(x)
    assert div.gaussian_kl(p, q) == pytest.approx(
        div.kl_divergence(log_p, log_q, weight).item(), rel=1e-9
    )
    for order in (0.3, 0.8, 1.2):
        expected = div.renyi_divergence(log_p, log_q, order, weight).item()
        assert div.gaussian_renyi(p, q, order) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("d", [1, 3, 10])
def test_kl_of_gaussians_is_that_of_torch(d):
    p, q = general(d, 3), general(d, 4)
    theirs = kl_divergence(
        *(MultivariateNormal(target.mean, covariance_matrix=target.covariance) for target in (p, q))
    )
    assert div.gaussian_kl(p, q) == pytest.approx(theirs.item(), rel=1e-10)
    assert div.gaussian_kl(p, p) == pytest.approx(0, abs=1e-10)
    assert div.gaussian_renyi(p, q, 1 + 1e-6) == pytest.approx(theirs.item(), rel=1e-4)


def test_chi_square_of_shifted_gaussians_and_of_tails_too_heavy():
    p, q = gaussian(0.0, d=2), gaussian(0.5, d=2)
    assert div.gaussian_chi_square(p, q) == pytest.approx(math.expm1(0.5), rel=1e-10)
    log_p, log_q, weight = on_line(gaussian(0.0), gaussian(0.5))
    found = div.chi_square(log_p, log_q, weight).item()
    assert found == pytest.approx(math.expm1(0.25), rel=1e-9)
    assert div.gaussian_chi_square(gaussian(0.0, 2.0), gaussian(0.0)) == math.inf


@pytest.mark.parametrize("theta", [0.0, 0.5, 3.0, 30.0])
def test_shifted_gaussians_depend_on_their_distance_alone(theta):
    """TV = 2 Phi(theta / 2) - 1; JS of the plane is that of the line."""
    p, q = gaussian(0.0), gaussian(theta)
    log_p, log_q, weight = on_line(p, q)
    tv = 2 * norm.cdf(theta / 2) - 1
    assert div.gaussian_total_variation(p, q) == pytest.approx(tv, abs=1e-12)
    js = div.jensen_shannon(log_p, log_q, weight).item()
    assert div.gaussian_jensen_shannon(p, q) == pytest.approx(js, abs=1e-10)
    A = torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    m = A @ torch.tensor([0.0, theta], dtype=torch.float64)
    bent = Gaussian(torch.zeros(2).double(), A @ A.mT), Gaussian(m, A @ A.mT)
    assert div.gaussian_jensen_shannon(*bent) == pytest.approx(js, abs=1e-10)


def test_js_of_mixtures_in_the_plane_adds_over_an_independent_coordinate():
    """Where only the first coordinate differs, the plane's JS is that of the line."""
    line = [GaussianMixture(torch.ones(2), torch.tensor([[-2.0], [m]]), torch.ones(2) * 0.7)
            for m in (1.0, 2.5)]  # fmt: skip
    plane = [
        GaussianMixture(
            target.weights, torch.cat([target.means, 0 * target.means], 1), torch.ones(2) * 0.7
        )
        for target in line
    ]
    x, weight = div.trapezoidal_grid([-7, -6], [8, 6], 201)
    there = div.jensen_shannon(*(target.log_prob(x) for target in plane), weight).item()
    assert there == pytest.approx(div.jensen_shannon(*on_line(*line)).item(), abs=1e-7)


def test_divergences_are_differentiable():
    """The slope of KL(N(0, 1) || N(m, 1)) in m is m."""
    m = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    x, weight = div.trapezoidal_grid([-12], [12])
    log_p, log_q = (-((x[:, 0] - v) ** 2) / 2 - math.log(2 * math.pi) / 2 for v in (0 * m, m))
    div.kl_divergence(log_p, log_q, weight).backward()
    assert m.grad.item() == pytest.approx(1.3, rel=1e-9)


@pytest.mark.parametrize(
    "divergence", [div.kl_divergence, div.jensen_shannon, div.total_variation, div.chi_square]
)
def test_where_neither_distribution_has_mass_the_gradient_is_zero(divergence):
    """Of the logits of both distributions, masked at a point: as if the point were not there."""
    given = torch.randn(2, 4, dtype=torch.float64)
    given[:, 1] = -math.inf
    slopes = []
    for kept in ([0, 1, 2, 3], [0, 2, 3]):
        logits = given[:, kept].requires_grad_()
        divergence(*logits.log_softmax(1)).backward()
        slopes.append(logits.grad)
    assert (slopes[0][:, 1] == 0).all()
    torch.testing.assert_close(slopes[0][:, [0, 2, 3]], slopes[1])


def test_where_one_distribution_has_no_mass_the_gradient_is_that_on_its_support():
    r""":math:`\partial_{l_i} KL = p_i (\log(p_i/q_i) - KL)`, and 0 where p_i is."""
    given = torch.tensor([0.3, -math.inf, -math.inf], dtype=torch.float64, requires_grad=True)
    log_p, log_q = given.log_softmax(0), torch.tensor([0.5, 0.25, 0.25]).double().log()
    div.kl_divergence(log_p, log_q).backward()
    assert given.grad.tolist() == [0, 0, 0]  # p is 1 at the first point
    wide = torch.tensor([0.3, 1.0, -math.inf], dtype=torch.float64, requires_grad=True)
    log_p = wide.log_softmax(0)
    found = div.kl_divergence(log_p, log_q)
    found.backward()
    p, gap = log_p.detach().exp(), (log_p - log_q).detach()
    expected = torch.where(p > 0, p * (gap - found.detach()), 0.0)
    torch.testing.assert_close(wide.grad, expected)


def test_misuse_is_refused():
    p, q = gaussian(0.0), gaussian(1.0, 2.0)
    x, weight = div.trapezoidal_grid([-1], [1])
    with pytest.raises(UsageError, match="mass"):
        div.kl_divergence(p.log_prob(x), q.log_prob(x), weight)
    with pytest.raises(UsageError, match="one or two dimensions"):
        div.trapezoidal_grid([0, 0, 0], [1, 1, 1])
    with pytest.raises(UsageError, match="order"):
        div.gaussian_renyi(p, q, 1.0)
    with pytest.raises(UsageError, match="two covariances"):
        div.gaussian_total_variation(p, q)
