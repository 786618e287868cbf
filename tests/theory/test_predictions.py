"""Every prediction against every other, through the linear system that defines them all."""

import itertools

import pytest
import torch

from pushforward.theory import ddpm_schedule, paths, predictions
from pushforward.theory.predictions import (
    convert_prediction,
    prediction_target,
    solve_posterior_means,
)

PATHS = {
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "vp": paths.VariancePreservingPath(),
    "ve": paths.VarianceExplodingPath(),
    "edm": paths.EDMPath(),
    "ddpm": ddpm_schedule.DDPMPath(ddpm_schedule.cosine_betas(100)),
}
PREDICTIONS = {
    "data": predictions.data_prediction,
    "noise": predictions.noise_prediction,
    "v": predictions.v_prediction,
    "velocity": predictions.velocity_prediction,
    "score": predictions.score_prediction,
    "karras": predictions.edm_prediction(0.7),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def draw(t):
    return (
        torch.randn(7, 3, dtype=torch.float64),
        torch.randn(7, 3, dtype=torch.float64),
        t.double(),
    )


@every_path
@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize(
    "t", [torch.tensor(0.4), torch.rand(7) * 0.8 + 0.1], ids=["scalar", "each"]
)
def test_solve_inverts_target(path, prediction, t):
    x, eps, t = draw(t)
    y = prediction_target(path, prediction, x, eps, t)
    estimate = solve_posterior_means(path, prediction, path.interpolate(x, eps, t), y, t)
    # sigma reaches 80 on EDM's path, where x is a difference of numbers 80 times larger
    torch.testing.assert_close(estimate.x, x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(estimate.eps, eps, rtol=1e-9, atol=1e-9)


@every_path
def test_conversion_there_and_back(path):
    x, eps, t = draw(torch.rand(7) * 0.8 + 0.1)
    x_t = path.interpolate(x, eps, t)
    for a, b in itertools.permutations(PREDICTIONS.values(), 2):
        y = prediction_target(path, a, x, eps, t)
        there = convert_prediction(path, a, b, x_t, y, t)
        torch.testing.assert_close(
            there, prediction_target(path, b, x, eps, t), rtol=1e-8, atol=1e-8
        )
        torch.testing.assert_close(
            convert_prediction(path, b, a, x_t, there, t), y, rtol=1e-8, atol=1e-8
        )


def test_edm_is_v_prediction_for_unit_data_on_a_variance_preserving_path():
    path, t = paths.VariancePreservingPath(), torch.rand(5)
    for a, b in zip(predictions.edm_prediction(1.0)(path, t), predictions.v_prediction(path, t)):
        torch.testing.assert_close(a, -b)


def test_karras_target_has_unit_variance_and_is_least_correlated_with_the_input():
    """Karras et al. (2022), B.6: for data of variance s^2, Var y = 1 and Cov(y, x_t) = 0."""
    path, t, s = paths.EDMPath(), torch.linspace(0.001, 1, 9, dtype=torch.float64), 0.7
    (alpha, sigma), (a, b) = path(t), predictions.edm_prediction(s)(path, t)
    torch.testing.assert_close(a**2 * s**2 + b**2, torch.ones_like(t))
    torch.testing.assert_close(a * alpha * s**2 + b * sigma, torch.zeros_like(t))


def test_velocity_is_the_derivative_of_the_interpolation():
    for path in PATHS.values():
        x, eps, t = draw(torch.full((7,), 0.4321))
        h = 1e-6
        slope = (path.interpolate(x, eps, t + h) - path.interpolate(x, eps, t - h)) / (2 * h)
        got = prediction_target(path, predictions.velocity_prediction, x, eps, t)
        torch.testing.assert_close(got, slope, rtol=1e-6, atol=1e-6)


def test_predictions_that_survive_the_ends_of_the_linear_path():
    """At t = 1 noise says nothing of x (0/0), while velocity and v do; likewise data at t = 0."""
    path, x, eps = paths.LinearPath(), *draw(torch.tensor(1.0))[:2]
    for t in (torch.tensor(0.0).double(), torch.tensor(1.0).double()):
        for prediction in (
            predictions.velocity_prediction,
            predictions.v_prediction,
            predictions.edm_prediction(0.5),
        ):
            y = prediction_target(path, prediction, x, eps, t)
            estimate = solve_posterior_means(path, prediction, path.interpolate(x, eps, t), y, t)
            torch.testing.assert_close(estimate.x, x)
            torch.testing.assert_close(estimate.eps, eps)


@every_path
def test_the_score_is_the_gradient_of_the_conditional_density(path):
    r""":math:`\nabla_{x_t} \log \mathcal N(x_t \mid \alpha_t x, \sigma_t^2)` by autograd."""
    x, eps, t = draw(torch.tensor(0.4))
    alpha, sigma = path(t)
    x_t = path.interpolate(x, eps, t).requires_grad_()
    log_p = torch.distributions.Normal(alpha * x, sigma).log_prob(x_t).sum()
    (gradient,) = torch.autograd.grad(log_p, x_t)
    torch.testing.assert_close(
        prediction_target(path, predictions.score_prediction, x, eps, t), gradient
    )
