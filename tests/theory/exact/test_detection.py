"""The area under the curve against its closed form and samples; surprise against chi-squared."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, multivariate_normal, norm
from sklearn.metrics import roc_auc_score

from pushforward.theory.exact import divergences


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_area_of_two_gaussians_is_the_normal_cdf_at_their_distance(shift):
    r"""P(x' > x) = Phi(shift / sqrt 2) for N(0, 1) and N(shift, 1), with an error of order h^2."""
    exact, errors = norm.cdf(shift / math.sqrt(2)), []
    for count in (501, 1001):
        grid = torch.linspace(-9, 11, count, dtype=torch.float64)
        p, q = (torch.exp(-((grid - m) ** 2) / 2) for m in (0.0, shift))
        errors.append(abs(float(divergences.quadrature_auroc(grid, p, q)) - exact))
    assert errors[1] < 1e-5
    assert shift == 0 or errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_the_area_is_scikit_learns_for_equal_masses():
    rng = np.random.default_rng(0)
    score, label = rng.normal(size=200), np.arange(200) % 3 == 0
    p, q = (torch.as_tensor(mask.astype(float)) for mask in (~label, label))
    area = float(divergences.quadrature_auroc(torch.as_tensor(score), p, q))
    assert area == pytest.approx(roc_auc_score(label, score), abs=1e-12)


def test_equal_scores_count_half():
    """A constant score tells nothing; a rounded one has the area of scikit-learn's ties."""
    one, other = torch.eye(2).double()
    assert float(divergences.quadrature_auroc(torch.zeros(2), one, other)) == 0.5
    assert float(divergences.quadrature_auroc(torch.zeros(2), other, one)) == 0.5
    rng = np.random.default_rng(0)
    score, label, mass = rng.integers(0, 4, 60), np.arange(60) % 3 == 0, rng.random(60)
    p, q = (torch.as_tensor(mass * mask) for mask in (~label, label))
    area = float(divergences.quadrature_auroc(torch.as_tensor(score), p, q))
    assert area == pytest.approx(roc_auc_score(label, score, sample_weight=mass), abs=1e-12)


def test_no_score_has_a_larger_area_than_the_likelihood_ratio():
    """Against 50 random scores of two random distributions on 30 points."""
    torch.manual_seed(0)
    p, q = torch.rand(30).double(), torch.rand(30).double()
    best = divergences.quadrature_auroc(q / p, p, q)
    assert all(
        divergences.quadrature_auroc(torch.randn(30).double(), p, q) < best for _ in range(50)
    )


@pytest.mark.parametrize("d", [1, 4, 100])
def test_surprise_has_the_moments_of_half_a_chi_squared(d):
    """log p = log p(0) - |x|^2 / 2, |x|^2 chi-squared with d degrees of freedom."""
    found, chi_squared = divergences.gaussian_surprise(d), chi2(d)
    assert found.mode == pytest.approx(multivariate_normal(np.zeros(d)).logpdf(np.zeros(d)))
    assert found.mean == pytest.approx(found.mode - chi_squared.mean() / 2)
    assert found.deviation == pytest.approx(chi_squared.std() / 2)
