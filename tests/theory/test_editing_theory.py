"""How far an edit goes, what law it leaves, and the way between two latents."""

import math

import numpy as np
import pytest
import torch

from pushforward.diffusion import Diffusion
from pushforward.theory import completion, paths, predictions, samplers
from pushforward.theory.exact.targets import ExactDenoiser, Gaussian, GaussianMixture

pytestmark = pytest.mark.usefixtures("float64")
PATHS = [paths.LinearPath(), paths.EDMPath(), paths.VariancePreservingPath(), paths.CosinePath()]
N = 4000


def exact(law, path, sampler=samplers.heun, steps=100):
    """A model whose network is replaced by the law's own denoiser."""
    model = Diffusion(
        torch.nn.Identity(),
        (law.dim,),
        path=path,
        prediction=predictions.noise_prediction,
        sampler=sampler,
        steps=steps,
    )
    model.denoiser = ExactDenoiser(law, path)
    model.anchor = torch.nn.Parameter(torch.zeros(1))  # tells the precision
    return model


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.8])
def test_a_strength_leaves_the_same_signal_beside_noise_on_every_path(path, strength):
    alpha, sigma = path(completion.time_at_strength(path, strength))
    angle = math.atan2(float(sigma), float(alpha))
    assert angle == pytest.approx(math.pi / 2 * strength, abs=1e-9)


@pytest.mark.parametrize("path", PATHS)
def test_the_times_that_remain_fall_from_the_strength_to_data(path):
    grid = path.grid(20)
    assert torch.equal(completion.times_from_strength(path, 1.0, grid), grid)
    assert len(completion.times_from_strength(path, 0.0, grid)) == 1
    times = completion.times_from_strength(path, 0.5, grid)
    assert (
        times[0] == completion.time_at_strength(path, 0.5)
        and times[-1] == 0
        and (times.diff() < 0).all()
    )


def ways(d=2):
    root = torch.tensor([[1.0, 0.3], [-0.2, 0.7]])
    law = Gaussian(torch.tensor([1.0, -0.5]), root @ root.mT)
    other = Gaussian(torch.tensor([-2.0, 1.0]), torch.diag(torch.tensor([0.5, 0.2])))
    return law, other


def assert_moments(y, mean, covariance, bias):
    error = (y.mean(0) - mean).abs()
    assert (error < 5 * y.std(0) / len(y) ** 0.5 + bias).all(), error
    scale = covariance.diagonal().sqrt()
    error = (y.mT.cov() - covariance).abs() / (scale[:, None] * scale)
    assert (error < 5 * (2 / len(y)) ** 0.5 + bias).all(), error


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_of_normal_data_the_law_after_an_edit_is_known(path, strength):
    """The flow back is x = m + S^(1/2) (a^2 S + s^2)^(-1/2) (x_t - a m) along the axes of S."""
    law, other = ways()
    got = exact(law, path).edit(other.sample(N), strength=strength)
    alpha, sigma = path(completion.time_at_strength(path, strength))
    eye = torch.eye(2)
    values, axes = torch.linalg.eigh(law.covariance)
    back = (axes * (values / (alpha**2 * values + sigma**2)).sqrt()) @ axes.mT
    mean = law.mean + back @ (alpha * (other.mean - law.mean))
    spread = back @ (alpha**2 * other.covariance + sigma**2 * eye) @ back.mT
    assert_moments(got, mean, spread, bias=0.01)


def test_a_stochastic_way_back_draws_the_posterior():
    """Ancestral steps end at x ~ p(x | x_t): its mean is affine, its covariance added."""
    law, other = ways()
    path, strength = paths.VariancePreservingPath(), 0.5
    model = exact(law, path, samplers.ddpm, steps=300)
    got = model.edit(other.sample(N), strength=strength, variance=0.5)
    alpha, sigma = path(completion.time_at_strength(path, strength))
    S, eye = law.covariance, torch.eye(2)
    gain = alpha * S @ torch.linalg.inv(alpha**2 * S + sigma**2 * eye)
    mean = law.mean + gain @ (alpha * (other.mean - law.mean))
    spread = gain @ (alpha**2 * other.covariance + sigma**2 * eye) @ gain.mT + S - alpha * gain @ S
    assert_moments(got, mean, spread, bias=0.02)


@pytest.mark.parametrize("strength", [0.2, 0.6, 1.0])
def test_data_of_the_models_own_law_keep_it(strength):
    law = GaussianMixture(
        torch.tensor([0.3, 0.7]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.3, 0.5])
    )
    got = exact(law, paths.LinearPath()).edit(law.sample(N), strength=strength)
    assert_moments(got, law.mean, law.covariance, bias=0.01)
    below, share = (got < -0.4).double().mean(), (law.sample(40 * N) < -0.4).double().mean()
    assert abs(below - share) < 5 * 0.5 / N**0.5 + 0.005


@pytest.mark.parametrize("sampler", ["heun", "ddpm", "dpmpp_2m"])
def test_at_full_strength_an_edit_is_a_sample_and_at_none_the_data(sampler):
    law, other = ways()
    model, x = exact(law, paths.CosinePath(), steps=10), other.sample(7)
    torch.manual_seed(1)
    fresh = model.sample(7, sampler=sampler)
    torch.manual_seed(1)
    assert torch.equal(model.edit(x, strength=1.0, sampler=sampler), fresh)
    assert torch.equal(model.edit(x, strength=0.0, sampler=sampler), x)


@pytest.mark.parametrize("shape", [(2,), (5,), (3, 4, 4)])
def test_a_great_circle_turns_evenly_and_keeps_lengths(shape):
    a, b = torch.randn(6, *shape), torch.randn(6, *shape)
    scale = completion.event_norm(a) / completion.event_norm(b)
    b = b * scale.view(-1, *[1] * len(shape))
    points = [completion.slerp(a, b, w).flatten(1) for w in np.linspace(0, 1, 5).tolist()]
    assert torch.allclose(points[0], a.flatten(1)) and torch.allclose(points[-1], b.flatten(1))
    unit = [p / p.norm(dim=1, keepdim=True) for p in points]
    for p in points:
        assert torch.allclose(p.norm(dim=1), a.flatten(1).norm(dim=1))
    angles = torch.stack([(p * q).sum(1).clamp(-1, 1).acos() for p, q in zip(unit, unit[1:])])
    assert torch.allclose(angles, angles[:1].expand_as(angles), atol=1e-6)
    whole = (unit[0] * unit[-1]).sum(1).acos()
    assert torch.allclose(angles.sum(0), whole, atol=1e-6)  # the short way round


@pytest.mark.parametrize("factor", [2.0, -1.0, 1 + 1e-9])
def test_on_a_line_with_the_origin_the_way_is_the_line(factor):
    a = torch.randn(4, 3)
    got = completion.slerp(a, factor * a, 0.25)
    assert torch.allclose(got, (0.75 + 0.25 * factor) * a)
    assert completion.slerp(torch.zeros(1, 3), torch.ones(1, 3), 0.5).isfinite().all()
