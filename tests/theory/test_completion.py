"""Draws of some entries given the others, against the exact conditional of a Gaussian mixture."""

import math

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from pushforward.errors import NumericalError
from pushforward.theory import completion, paths
from pushforward.theory.denoisers import plan_steps
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian, GaussianMixture

pytestmark = pytest.mark.usefixtures("float64")
N = 20_000
KNOWN = torch.tensor([True, False, False])
VALUE = torch.tensor([0.4, 0.0, 0.0], dtype=torch.float64)


def law() -> GaussianMixture:
    means = torch.tensor([[-1.0, 0.8, 0.5], [1.0, -0.8, -0.2]])
    covariances = torch.tensor(
        [
            [[0.5, 0.2, 0.1], [0.2, 0.3, 0.0], [0.1, 0.0, 0.2]],
            [[0.4, -0.2, 0.0], [-0.2, 0.3, 0.1], [0.0, 0.1, 0.3]],
        ]
    )
    return GaussianMixture(torch.tensor([0.4, 0.6]), means, covariances)


def assert_conditional(x, *, bias=0.0):
    """Means and second moments within five standard errors, and ``bias`` where a method has one."""
    exact = law().condition_on([0], VALUE[:1])
    assert (x[:, 0] == VALUE[0]).all()
    y = x[:, 1:]
    error = (y.mean(0) - exact.mean).abs()
    assert (error <= 5 * y.std(0) / math.sqrt(len(y)) + bias).all(), error
    products = (y[:, :, None] * y[:, None]).flatten(1)
    second = (exact.covariance + exact.mean[:, None] * exact.mean).flatten()
    error = (products.mean(0) - second).abs()
    assert (error <= 5 * products.std(0) / math.sqrt(len(y)) + bias).all(), error


@pytest.mark.parametrize(
    "path", [paths.LinearPath(), paths.EDMPath(10.0), paths.VariancePreservingPath()]
)
def test_the_particle_filter_draws_the_conditional(path):
    """Its bias falls with the steps; at 200 it is below 0.02, where deviations are 0.6."""
    denoiser = ExactDenoiser(law(), path)
    x = completion.particle_filter(denoiser, 8000, VALUE, KNOWN, path.grid(200))
    assert_conditional(x, bias=0.02)


def test_the_particle_filter_follows_a_condition():
    """Given the component, the conditional is that of the component alone."""
    path, c = paths.LinearPath(), torch.tensor([[1.0, 0.0, 1.0]]).expand(4000, 3)
    x = completion.particle_filter(
        ExactDenoiser(law(), path), 4000, VALUE, KNOWN, path.grid(100), c
    )
    own = GaussianMixture(torch.ones(1), law().means[1:], law().covariances[1:])
    exact = own.condition_on([0], VALUE[:1])
    error = (x[:, 1:].mean(0) - exact.mean).abs()
    assert (error < 5 * x[:, 1:].std(0) / 4000**0.5 + 0.02).all(), error


def test_importance_resampling_draws_the_conditional():
    proposal = GaussianMixture(torch.ones(1), torch.zeros(1, 3), torch.eye(3)[None])
    free = proposal.condition_on([0], VALUE[:1]).sample(20 * N)
    rows = torch.cat([VALUE[0].expand(len(free), 1), free], dim=1)
    x, size = completion.importance_resample(rows, law().log_prob, proposal.log_prob, N)
    assert size > 2 * N
    assert_conditional(x)


def test_the_nearest_draws_approach_the_conditional():
    x, bandwidth, size = completion.kernel_resample(law().sample(50 * N), VALUE, KNOWN, N, float(N))
    assert bandwidth < 0.05 and size >= N
    assert_conditional(x, bias=0.01)


def test_weights_are_kept_by_systematic_resampling():
    """Each row is drawn as often as its weight says, to within one."""
    log_w = torch.randn(50)
    drawn = completion.systematic_resample(torch.arange(50.0)[:, None], log_w, 1000)
    counts = torch.bincount(drawn[:, 0].long(), minlength=50)
    assert ((counts - 1000 * log_w.softmax(0)).abs() <= 1).all()


@pytest.mark.parametrize("k", [1, 7, 50])
def test_the_effective_size_of_k_equal_weights_is_k(k):
    log_w = torch.full((50,), -math.inf)
    log_w[:k] = 3.0
    assert completion.effective_sample_size(log_w) == pytest.approx(k)


def test_particles_of_which_none_has_a_weight_are_refused():
    """Squares of 1e200 overflow float64."""
    path = paths.LinearPath()
    with pytest.raises(NumericalError, match="no draw fits"):
        completion.particle_filter(
            ExactDenoiser(law(), path), 64, 1e200 * VALUE, KNOWN, path.grid(10)
        )


def test_particles_that_hardly_reach_what_is_given_are_announced():
    path = paths.LinearPath()
    with pytest.warns(UserWarning, match="of 64 particles fit"):
        completion.particle_filter(
            ExactDenoiser(law(), path), 64, 1e4 * VALUE, KNOWN, path.grid(50)
        )


PATHS = [paths.LinearPath(), paths.EDMPath(10.0), paths.VariancePreservingPath()]


def field(side=4, length=1.5, nugget=0.1):
    """The covariance of a smooth random picture, with a little noise in each pixel."""
    at = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float64)] * 2)
    near = torch.exp(-torch.cdist(at, at).square() / (2 * length**2))
    return near + nugget**2 * torch.eye(side**2, dtype=torch.float64)


def upper(side=4):
    """The upper half of a picture is known."""
    return torch.arange(side**2) < side**2 // 2


@pytest.mark.parametrize("path", PATHS)
def test_of_normal_data_the_informed_mean_is_that_of_the_joint_law(path):
    """Condition on x_t and the known entries together, by the formula of normal vectors."""
    law, known, t = Gaussian(torch.randn(16), field()), upper(), 0.4
    x, x_t = law.sample(1)[0], torch.randn(5, 16)
    (step,) = plan_steps(ExactDenoiser(law, path), x_t, torch.tensor([t, t / 2]), None)
    got = completion.estimate_given_known(step, x_t, x, known, rounds=8)
    alpha, sigma = path(torch.tensor(t))
    observe = torch.cat([alpha * torch.eye(16), torch.eye(16)[known]])
    noise = torch.diag(torch.cat([sigma.square().expand(16), torch.zeros(8)]))
    S, m = law.covariance, law.mean
    gain = S @ observe.mT @ torch.linalg.inv(observe @ S @ observe.mT + noise)
    seen = torch.cat([x_t, x[known].expand(5, -1)], dim=1)
    exact = m + (seen - m @ observe.mT) @ gain.mT
    assert torch.allclose(got.x, exact, atol=1e-6)
    assert torch.allclose(alpha * got.x + sigma * got.eps, x_t)


@pytest.mark.parametrize("path", PATHS)
def test_matching_moments_draws_the_conditional_of_normal_pictures(path):
    """The steps' bias is below a tenth of a deviation at 100 steps."""
    law, known, n = Gaussian(torch.zeros(16), field()), upper(), 800
    x = law.sample(1)[0]
    states = completion.moment_matching(
        ExactDenoiser(law, path), n, x, known, path.grid(100), rounds=8
    )
    *_, got = states
    exact = law.condition_on(known.nonzero()[:, 0].tolist(), x[known])
    assert (got[:, known] == x[known]).all()
    y, deviation = got[:, ~known], exact.covariance.diagonal().sqrt()
    error = (y.mean(0) - exact.mean).abs()
    assert (error < 5 * deviation / n**0.5 + 0.05 * deviation).all(), error / deviation
    ratio = y.var(0) / deviation.square()
    assert ((ratio - 1).abs() < 5 * (2 / n) ** 0.5 + 0.1).all(), ratio


def test_matching_moments_comes_near_the_conditional_of_a_mixture():
    """Where x given x_t is far from normal it is biased: by up to 0.1, where deviations are 0.6."""
    path = paths.LinearPath()
    *_, x = completion.moment_matching(
        ExactDenoiser(law(), path), 2000, VALUE, KNOWN, path.grid(100)
    )
    assert_conditional(x, bias=0.1)


@pytest.mark.parametrize("rounds", [1, 2, 3, 6])
def test_the_residual_is_the_least_that_so_many_products_allow(rounds):
    """The iterates of GMRES, by SciPy, for a matrix that is not symmetric."""
    a, b = torch.eye(6) * 2 + 0.5 * torch.randn(6, 6), torch.randn(1, 6)
    got = completion.conjugate_residuals(lambda w: w @ a.mT, b, rounds)
    exact, _ = scipy.sparse.linalg.gmres(
        a.numpy(), b[0].numpy(), restart=rounds, maxiter=1, rtol=1e-14
    )
    assert np.allclose(got[0].numpy(), exact, atol=1e-9)


def test_a_datum_without_a_gap_stays_where_it_is():
    b = torch.stack([torch.zeros(6), torch.randn(6)])
    got = completion.conjugate_residuals(lambda w: 2 * w, b, 3)
    assert torch.allclose(got, b / 2)
