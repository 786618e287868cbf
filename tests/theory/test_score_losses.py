"""The losses of score matching against each other and against Gaussians (D7)."""

import math

import pytest
import torch

from pushforward.theory import score_matching as sm
from pushforward.theory.densities import rademacher_probes
from pushforward.theory.exact import divergences
from pushforward.theory.exact.targets import Gaussian, GaussianMixture

COVARIANCE = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)


@pytest.fixture(autouse=True)
def double(float64):
    """All identities are checked in float64."""


def mixture():
    means = torch.tensor([[-1.5, 0.5], [1.0, -0.5]])
    return GaussianMixture(torch.tensor([0.3, 0.7]), means, torch.stack([COVARIANCE, COVARIANCE]))


def models():
    """Scores that are wrong in different ways; the last is no gradient."""
    matrix, wave = torch.tensor([[-0.7, 0.4], [-0.2, -1.1]]), torch.tensor([0.8, -0.5])
    return [
        lambda x: -x,
        lambda x: -(x**3) + 0.5,
        lambda x: x @ matrix + torch.tanh(x @ wave)[:, None] * wave,
    ]


def grid(law, half=9.0, points=161):
    """Nodes and weights of the trapezoidal rule, which converges geometrically here."""
    side = torch.linspace(-half, half, points)
    x = torch.cartesian_prod(side, side)
    return x, law.log_prob(x).exp() * (side[1] - side[0]) ** 2


def test_implicit_is_explicit_without_a_constant():
    """ESM = ISM + E |score|^2 / 2 by quadrature, for models right and wrong."""
    law = mixture()
    x, weight = grid(law)
    constant = (weight * law.score(x).square().sum(1)).sum() / 2
    for score in models():
        esm = (weight * sm.explicit_score_matching(score, law.score, x)).sum()
        ism = (weight * sm.implicit_score_matching(score, x).detach()).sum()
        torch.testing.assert_close(esm, ism + constant, rtol=1e-9, atol=1e-9)


def test_steins_identity():
    """E[s . grad log p + div s] = 0: the step from the explicit loss to the implicit one."""
    law = mixture()
    x, weight = grid(law)
    for score in models():
        along = (score(x) * law.score(x)).sum(1)
        trace = sm.implicit_score_matching(score, x).detach() - score(x).square().sum(1) / 2
        assert float((weight * (along + trace)).sum()) == pytest.approx(0, abs=1e-9)


def test_denoising_is_explicit_on_the_blurred_law_up_to_a_constant():
    """DSM - ESM_sigma is the same for all models; on N(0, v) it is (1/s^2 - 1/(v + s^2)) / 2.

    Both are quadratic in x and eps for linear models, so a product rule with 3 nodes is exact.
    """
    v, sigma = 1.3, 0.7
    node, w = torch.tensor([-math.sqrt(3), 0, math.sqrt(3)]), torch.tensor([1.0, 4.0, 1.0]) / 6
    x, eps = torch.cartesian_prod(math.sqrt(v) * node, node).T[..., None]
    weight = torch.outer(w, w).flatten()
    law = Gaussian(torch.zeros(1), torch.tensor([[v + sigma**2]]))
    blurred = math.sqrt(v + sigma**2) * node[:, None]
    for slope, shift in [(-1.0, 0.0), (-0.3, 0.5), (0.4, -2.0), (-1 / (v + sigma**2), 0.0)]:

        def score(x, slope=slope, shift=shift):
            return slope * x + shift

        dsm = float((weight * sm.denoising_score_matching(score, x, eps, sigma)).sum())
        esm = float((w * sm.explicit_score_matching(score, law.score, blurred)).sum())
        constant = (1 / sigma**2 - 1 / (v + sigma**2)) / 2
        assert dsm == pytest.approx(esm + constant, rel=1e-12)
    assert esm == pytest.approx(0, abs=1e-12)  # the last model is the blurred score


def test_denoising_differs_by_the_same_constant_for_all_models_of_a_mixture():
    """The constant is that of the models' difference: -E[s . (score_sigma + eps / sigma)] = 0."""
    law, sigma = mixture(), 0.5
    blurred = law.diffuse(torch.tensor(1.0), torch.tensor(sigma))
    nodes, w = (torch.tensor(z) for z in hermite(12))
    eps = torch.cartesian_prod(nodes, nodes)
    noise = torch.outer(w, w).flatten()
    y, weight = grid(blurred, 10.0, 161)
    gaps = []
    for score in models():
        x, p = grid(law, 9.0, 101)
        dsm = 0.0
        for e, q in zip(eps, noise):
            dsm += float(
                q * (p * sm.denoising_score_matching(score, x, e.expand_as(x), sigma)).sum()
            )
        gaps.append(
            dsm - float((weight * sm.explicit_score_matching(score, blurred.score, y)).sum())
        )
    assert gaps[1] == pytest.approx(gaps[0], abs=1e-5) == gaps[2]


def hermite(n):
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, weights / math.sqrt(2 * math.pi)


def test_slices_in_all_directions_are_the_implicit_loss():
    """Averaged over directions whose second moments are I, exactly: sqrt(d) times an axis."""
    x, axes = torch.randn(50, 2), math.sqrt(2) * torch.eye(2)
    directions = axes[:, None].expand(2, 50, 2)
    for score in models():
        exact = sm.implicit_score_matching(score, x)
        for loss in (sm.sliced_score_matching, sm.reduced_sliced_matching):
            torch.testing.assert_close(loss(score, x, directions), exact)


@pytest.mark.parametrize("kind, variance", [("signs", "off"), ("normal", "all")])
def test_the_variance_of_hutchinsons_estimate(kind, variance):
    """2 sum_{i != j} S_ij^2 for signs, 2 |S|_F^2 for normal directions, S the symmetric part."""
    A, n = torch.randn(4, 4), 200_000
    S = (A + A.T) / 2
    exact = 2 * (S.square().sum() - (S.diagonal().square().sum() if variance == "off" else 0))
    x = torch.randn(n, 4)
    z = rademacher_probes(x, 1) if kind == "signs" else torch.randn(1, n, 4)
    estimate = (
        sm.reduced_sliced_matching(lambda x: x @ A.T, x, z).detach() - (x @ A.T).square().sum(1) / 2
    )
    # heavy tails: the fourth moment is taken from the sample itself
    square = (estimate - estimate.mean()).square()
    assert float(square.mean()) == pytest.approx(
        float(exact), abs=5 * float(square.std()) / math.sqrt(n)
    )
    assert float(estimate.mean()) == pytest.approx(
        float(A.trace()), abs=5 * math.sqrt(float(exact) / n)
    )


def test_the_reduced_form_has_less_variance():
    x = torch.randn(20_000, 2)
    z = torch.randn(1, 20_000, 2)
    for score in models():
        assert (
            sm.reduced_sliced_matching(score, x, z).var()
            < sm.sliced_score_matching(score, x, z).var()
        )


def test_fisher_divergence_of_gaussians():
    """Against twice the explicit loss, exact by a product rule because it is quadratic."""
    p = Gaussian(torch.tensor([0.3, -0.2]), COVARIANCE)
    q = Gaussian(torch.tensor([-0.5, 1.0]), torch.tensor([[0.6, -0.2], [-0.2, 0.9]]))
    node, w = torch.tensor([-math.sqrt(3), 0, math.sqrt(3)]), torch.tensor([1.0, 4.0, 1.0]) / 6
    x = p.mean + torch.cartesian_prod(node, node) @ torch.linalg.cholesky(COVARIANCE).T
    exact = (
        2 * (torch.outer(w, w).flatten() * sm.explicit_score_matching(q.score, p.score, x)).sum()
    )
    assert divergences.fisher_divergence(p, q) == pytest.approx(float(exact), rel=1e-12)
    assert divergences.fisher_divergence(p, p) == pytest.approx(0, abs=1e-12)


def test_score_matching_is_blind_to_the_weights_of_separate_modes():
    """A59: weights .2 and .8 at -5 and 5: Fisher divergence 2e-5, KL .83."""
    x = torch.linspace(-12, 12, 4001)[:, None]
    means = torch.tensor([[-5.0], [5.0]])
    p, q = (
        GaussianMixture(torch.tensor(w), means, torch.ones(2)) for w in ([0.2, 0.8], [0.8, 0.2])
    )
    weight = p.log_prob(x).exp() * 24 / 4000
    fisher = float((weight * (p.score(x) - q.score(x)).square().sum(1)).sum())
    assert divergences.mixture_fisher_divergence(p, q) == pytest.approx(fisher, rel=1e-6)
    kl = float((weight * (p.log_prob(x) - q.log_prob(x))).sum())
    assert fisher < 1e-4 and kl == pytest.approx(0.6 * math.log(4), abs=1e-3)


def test_the_divergence_of_mixtures_is_that_of_gaussians_where_they_are():
    p = Gaussian(torch.tensor([0.3, -0.2]), COVARIANCE)
    q = Gaussian(torch.tensor([-0.5, 1.0]), torch.tensor([[0.6, -0.2], [-0.2, 0.9]]))
    assert divergences.mixture_fisher_divergence(p, q) == pytest.approx(
        divergences.fisher_divergence(p, q), rel=1e-9
    )


def test_the_floor_of_denoising_is_its_constant():
    """On N(0, v) (1/s^2 - 1/(v + s^2)) / 2; on a mixture the loss of the right score, drawn."""
    law, sigma, n = Gaussian(torch.zeros(1), torch.tensor([[1.3]])), 0.7, 200_000
    exact = (1 / sigma**2 - 1 / (1.3 + sigma**2)) / 2
    assert divergences.denoising_floor(law, sigma) == pytest.approx(exact, rel=1e-12)
    law = mixture()
    right = law.diffuse(torch.tensor(1.0), torch.tensor(sigma)).score
    loss = sm.denoising_score_matching(right, law.sample(n), torch.randn(n, 2), sigma)
    error = 5 * float(loss.std()) / math.sqrt(n)
    assert divergences.denoising_floor(law, sigma) == pytest.approx(float(loss.mean()), abs=error)


@pytest.mark.parametrize(
    "name", ["implicit", sm.sliced_score_matching, sm.reduced_sliced_matching, "denoising"]
)
def test_the_gradient_of_every_loss_vanishes_at_its_optimum(name):
    """A linear model of N(0, I) data in closed form: slope -1, blurred -1 / (1 + sigma^2)."""
    x = torch.randn(4000, 2, 1)
    x = (x - x.mean(0)) / x.std(0, correction=0)  # the moments of the law exactly
    flat = x.flatten(1)
    x = (flat @ torch.linalg.inv(torch.linalg.cholesky(flat.T @ flat / 4000)).T).view_as(x)
    slope = torch.tensor(-1.0, requires_grad=True)
    if name == "denoising":
        eps = torch.cat([x.roll(1, 1), -x.roll(1, 1)])
        x, slope = torch.cat([x, x]), torch.tensor(-1 / 1.25, requires_grad=True)
        loss = sm.denoising_score_matching(lambda x: slope * x, x, eps, 0.5)
    elif name == "implicit":
        loss = sm.implicit_score_matching(lambda x: slope * x, x)
    else:
        axes = math.sqrt(2) * torch.eye(2)[:, None, :, None].expand(2, 4000, 2, 1)
        loss = name(lambda x: slope * x, x, axes)
    loss.mean().backward()
    assert float(slope.grad) == pytest.approx(0, abs=1e-10)
