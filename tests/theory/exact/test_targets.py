"""The oracles themselves, against SciPy, autograd, quadrature and sampling."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from pushforward.errors import UsageError
from pushforward.theory import ddpm_schedule, paths
from pushforward.theory.exact.targets import (
    ExactDenoiser,
    Gaussian,
    GaussianMixture,
    gaussian_ring,
    gaussian_ring8,
    lesson_mixture,
)

PATHS = [
    paths.LinearPath(),
    paths.CosinePath(),
    paths.VariancePreservingPath(),
    paths.VarianceExplodingPath(),
    paths.EDMPath(),
    ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(100)),
]


def skewed() -> GaussianMixture:
    covariances = torch.tensor([[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.6]]])
    return GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[-1.5, 0.5], [1.0, -0.5]]), covariances
    )


def points(law, n=40):
    return (law.sample(n) * 1.3).double()


@pytest.mark.parametrize("law", [skewed(), gaussian_ring8(), lesson_mixture()])
def test_log_density_and_score_against_scipy_and_autograd(law):
    x = points(law).requires_grad_()
    parts = [
        math.log(w) + multivariate_normal.logpdf(x.detach().numpy(), m.numpy(), S.numpy())
        for w, m, S in zip(law.weights.tolist(), law.means, law.covariances)
    ]
    truth = torch.from_numpy(np.logaddexp.reduce(parts, axis=0))
    torch.testing.assert_close(law.log_prob(x).detach(), truth, rtol=1e-12, atol=1e-11)
    (score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    torch.testing.assert_close(law.score(x.detach()), score, rtol=1e-9, atol=1e-10)


def test_moments_and_entropy_of_the_lesson_mixture():
    law = lesson_mixture()
    assert float(law.mean) == pytest.approx(0.8) and float(law.covariance) == pytest.approx(3.778)
    assert law.entropy() == pytest.approx(1.5709637, abs=5e-8)


def test_entropies_of_known_laws():
    """Closed for a Gaussian; far modes add log k; N2 states the ring at radius 4 / 1.414."""
    covariance = torch.tensor([[2.0, 0.6], [0.6, 1.0]])
    law = Gaussian(torch.zeros(2), covariance)
    assert law.entropy() == pytest.approx(
        0.5 * math.log(torch.linalg.det(2 * math.pi * math.e * covariance))
    )
    far = gaussian_ring(4, radius=100.0, scale=0.5).entropy()
    assert far == pytest.approx(math.log(4) + math.log(2 * math.pi * math.e * 0.25), abs=1e-8)
    assert gaussian_ring(8, 4 / 1.414, 0.5 / 1.414).entropy() == pytest.approx(2.8319, abs=5e-5)
    with pytest.raises(UsageError, match="two dimensions"):
        GaussianMixture(torch.ones(2), torch.zeros(2, 3), torch.ones(2)).entropy()


def test_samples_have_the_moments_of_the_law():
    law, n = skewed(), 100_000
    x = law.sample(n).double()
    error = (law.covariance.diagonal() / n).sqrt()
    assert ((x.mean(0) - law.mean).abs() < 5 * error).all()
    # Var of a product of bounded-kurtosis variables is at most 3 v_i v_j here
    bound = 5 * (3 * law.covariance.diagonal()[:, None] * law.covariance.diagonal() / n).sqrt()
    assert ((x.T.cov() - law.covariance).abs() < bound).all()


@pytest.mark.parametrize("path", PATHS, ids=lambda p: type(p).__name__)
def test_exact_denoiser_gives_the_score_of_the_diffused_law(path):
    law, t = skewed(), torch.tensor(0.4, dtype=torch.float64)
    denoiser, x = ExactDenoiser(law, path), points(law).requires_grad_()
    (score,) = torch.autograd.grad(law.diffuse(*path(t)).log_prob(x).sum(), x)
    torch.testing.assert_close(denoiser.score(x.detach(), t), score, rtol=1e-9, atol=1e-9)
    estimate = denoiser(x.detach(), t)
    torch.testing.assert_close(path.interpolate(estimate.x, estimate.eps, t), x.detach())


def test_posterior_mean_by_quadrature():
    """E[x | x_t] weighs x by p(x) N(x_t | alpha x, sigma^2), summed on a fine grid."""
    law, path = lesson_mixture(), paths.VariancePreservingPath()
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None]
    for t in torch.tensor([0.05, 0.3, 0.9], dtype=torch.float64):
        alpha, sigma = path(t)
        x_t = torch.tensor([[-1.0], [0.2], [2.5]], dtype=torch.float64)
        weight = (law.log_prob(x) - ((x_t - alpha * x.T) / sigma) ** 2 / 2).softmax(1)
        torch.testing.assert_close(
            ExactDenoiser(law, path)(x_t, t).x, weight @ x, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("path", PATHS[:4], ids=lambda p: type(p).__name__)
def test_continuity_equation(path):
    """D1: the density at a fixed point changes by -div u - u . score."""
    law, x = skewed(), points(skewed(), 10)
    denoiser, t, h = ExactDenoiser(law, path), torch.tensor(0.4321, dtype=torch.float64), 1e-5
    before, after = (law.diffuse(*path(t + s)).log_prob(x) for s in (-h, h))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: denoiser.velocity(z[None], t)[0]))(x)
    flow = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    flow = flow + (denoiser.velocity(x, t) * denoiser.score(x, t)).sum(1)
    torch.testing.assert_close((after - before) / (2 * h), -flow, rtol=1e-7, atol=1e-7)


def test_a_time_for_each_datum_equals_one_at_a_time():
    law, path = skewed(), paths.CosinePath()
    x, t, denoiser = points(law, 5), torch.rand(5).double(), ExactDenoiser(law, path)
    both = denoiser(x, t)
    for i in range(5):
        one = denoiser(x[i : i + 1], t[i])
        torch.testing.assert_close(both.x[i : i + 1], one.x)
        torch.testing.assert_close(both.eps[i : i + 1], one.eps)


def test_the_condition_of_a_component_is_that_component_alone():
    law, path, t = skewed(), paths.LinearPath(), torch.tensor(0.3).double()
    x, denoiser = points(law, 6), ExactDenoiser(law, path)
    c = torch.tensor([1.0, 0.0, 1.0]).double().expand(6, 3)
    alone = ExactDenoiser(Gaussian(law.means[1], law.covariances[1]), path)
    torch.testing.assert_close(denoiser(x, t, c).x, alone(x, t).x)
    for silent in (torch.zeros_like(c), torch.tensor([1.0, 0, 0]).double().expand(6, 3)):
        torch.testing.assert_close(denoiser(x, t, silent).x, denoiser(x, t).x)


def test_conditional_law_is_joint_over_marginal():
    """log p(a | b) = log p(a, b) - log p(b), in three dimensions with full covariances."""
    root = torch.randn(3, 3, 3).double()
    covariances = root @ root.mT + 0.3 * torch.eye(3).double()
    law = GaussianMixture(torch.tensor([0.2, 0.3, 0.5]), torch.randn(3, 3), covariances)
    marginal = GaussianMixture(law.weights, law.means[:, [1]], covariances[:, 1:2, 1:2])
    value, rest = torch.tensor([0.4]).double(), torch.randn(8, 2).double()
    joint = torch.stack([rest[:, 0], value.expand(8), rest[:, 1]], dim=1)
    truth = law.log_prob(joint) - marginal.log_prob(value[None])
    torch.testing.assert_close(law.condition_on([1], value).log_prob(rest), truth)


def test_improper_mixtures_are_refused():
    with pytest.raises(UsageError, match="definite"):
        GaussianMixture(torch.ones(1), torch.zeros(1, 2), -torch.eye(2)[None])
