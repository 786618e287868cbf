"""Denoisers against autograd of closed forms; the flow's density against the density."""

import math

import pytest
import torch
from torch import nn

from pushforward.errors import UsageError
from pushforward.theory import ddpm_schedule, densities, ode, paths, predictions, samplers
from pushforward.theory.denoisers import NetworkDenoiser
from pushforward.theory.exact.targets import (
    ExactDenoiser,
    Gaussian,
    GaussianMixture,
    lesson_mixture,
)
from pushforward.theory.guidance import Guidance, GuidedDenoiser
from pushforward.theory.predictions import prediction_target

PATHS = {
    "linear": paths.LinearPath(),
    "cosine": paths.CosinePath(),
    "vp": paths.VariancePreservingPath(),
    "ve": paths.VarianceExplodingPath(),
    "edm": paths.EDMPath(),
    "ddpm": ddpm_schedule.DDPMPath(ddpm_schedule.linear_betas(100)),
}
every_path = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
PREDICTIONS = {
    "data": predictions.data_prediction,
    "noise": predictions.noise_prediction,
    "v": predictions.v_prediction,
    "velocity": predictions.velocity_prediction,
    "score": predictions.score_prediction,
    "karras": predictions.edm_prediction(0.7),
}


@pytest.fixture(autouse=True)
def double(float64):
    """All identities are checked in float64."""


def mixture() -> GaussianMixture:
    covariances = torch.tensor([[[0.09, 0.04], [0.04, 0.16]], [[0.25, -0.1], [-0.1, 0.2]]])
    means = torch.tensor([[-1.5, 0.5], [1.0, -0.5]])
    return GaussianMixture(torch.tensor([0.3, 0.7]), means, covariances)


class Oracle(nn.Module):
    """A network that has learnt its prediction perfectly: it undoes the scaling of its input."""

    def __init__(self, law, path, prediction):
        super().__init__()
        self.exact, self.path, self.prediction = ExactDenoiser(law, path), path, prediction

    def forward(self, x, t, c=None):
        t = t**self.path.rho if isinstance(self.path, paths.EDMPath) else t  # undo the clock
        scale = self.path.scale(t)
        x_t = x * (scale[:, None] if scale.ndim else scale)
        return prediction_target(self.path, self.prediction, *self.exact(x_t, t, c), t)


@every_path
@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("each", [False, True])
def test_a_perfect_network_is_the_exact_denoiser(path, prediction, each):
    law = mixture()
    t = torch.rand(9) * 0.8 + 0.1 if each else torch.tensor(0.4)
    x_t, exact = torch.randn(9, 2) * 2, ExactDenoiser(law, path)
    denoiser = NetworkDenoiser(Oracle(law, path, prediction), path, prediction)
    for got, truth in zip(denoiser(x_t, t), exact(x_t, t)):
        torch.testing.assert_close(got, truth, rtol=1e-8, atol=1e-8)
    for name in ("score", "velocity"):
        got, truth = getattr(denoiser, name)(x_t, t), getattr(exact, name)(x_t, t)
        torch.testing.assert_close(got, truth, rtol=1e-7, atol=1e-7)


@every_path
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_a_denoiser_prepared_for_a_grid_is_the_denoiser(path, scale):
    class Conditional(Oracle):
        def forward(self, x, t, c=None):
            return super().forward(x, t) * (1 + c[:, :1])

    network = Conditional(mixture(), path, predictions.v_prediction)
    denoiser = GuidedDenoiser(NetworkDenoiser(network, path, predictions.v_prediction), scale)
    x, c, times = torch.randn(9, 2), torch.rand(9, 3), torch.tensor([0.8, 0.5, 0.1])
    for t, function in zip(times, denoiser.estimates(times, c), strict=True):
        for got, truth in zip(function(x), denoiser(x, t, c), strict=True):
            torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-9)
    for t, function in zip(times, denoiser.velocities(times, c), strict=True):
        torch.testing.assert_close(function(x), denoiser.velocity(x, t, c), rtol=1e-9, atol=1e-9)


@every_path
def test_velocity_is_the_probability_flow_of_the_sde(path):
    """u = f x - g^2 score / 2 (Song et al., 2021, eq. 13)."""
    denoiser, t, x = ExactDenoiser(mixture(), path), torch.tensor(0.37), torch.randn(9, 2)
    flow = path.drift(t) * x - path.diffusion(t) / 2 * denoiser.score(x, t)
    torch.testing.assert_close(denoiser.velocity(x, t), flow, rtol=1e-9, atol=1e-9)


@every_path
def test_flow_density_is_the_density(path):
    """From the exact law at t_max the flow returns log p at t_min, to 1e-6 nats.

    The rate of an interpolated table has kinks at its nodes, which no solver's error estimate
    foresees: there it stops.
    """
    law, denoiser = mixture(), ExactDenoiser(mixture(), path)
    start, end = (law.diffuse(*path(torch.tensor(t))) for t in (path.t_min, path.t_max))
    x, times = start.sample(20), None
    if isinstance(path, ddpm_schedule.DDPMPath):
        nodes = path.chain().flip(0)[1:]
        times = torch.cat([nodes[nodes < path.t_max], torch.tensor([path.t_max])])
    got = denoiser.log_density(x, base=end.log_prob, times=times, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.value, start.log_prob(x), rtol=0, atol=1e-6)


@every_path
def test_default_density_is_normalised_and_near(path):
    """1-D, from the default base: it integrates to one, and errs as the base does.

    The base ignores the mean and the shape that are left at t_max: by Pinsker at most the signal's
    share, alpha m / sigma = 0.1 for the least noisy path (VE, sigma_max = 10).
    """
    law = lesson_mixture()
    law = GaussianMixture(
        law.weights, (law.means - 0.8) / 1.9437, law.variances[:, 0].sqrt() / 1.9437
    )
    x = torch.linspace(-4, 4, 401)[:, None]
    log_p = ExactDenoiser(law, path).log_prob(x, rtol=1e-6, atol=1e-6)
    assert float(log_p.exp().sum() * 0.02) == pytest.approx(1, abs=1e-3)
    start = law.diffuse(*path(torch.tensor(path.t_min)))
    signal = float(path.alpha(torch.tensor(path.t_max)) / path.sigma(torch.tensor(path.t_max)))
    gap = float(((log_p - start.log_prob(x)).abs() * start.log_prob(x).exp()).sum() * 0.02)
    assert gap < 1e-4 + signal


def test_pushed_samples_of_the_flow_have_their_density():
    path, law = paths.LinearPath(), mixture()
    denoiser, z = ExactDenoiser(law, path), torch.randn(30, 2)
    x, density = densities.push_samples(
        denoiser.velocity, z, torch.tensor([1.0, 0.0]), denoiser.base_log_prob, rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(density.value, law.log_prob(x), rtol=0, atol=1e-6)


def test_base_is_the_normal_law_of_unit_data():
    for path in PATHS.values():
        alpha, sigma = (float(z) for z in path(torch.tensor(path.t_max)))
        law = torch.distributions.Normal(0.0, math.hypot(alpha, sigma))
        x = torch.randn(5, 3) * 10
        got = ExactDenoiser(mixture(), path).base_log_prob(x)
        torch.testing.assert_close(got, law.log_prob(x).sum(1))


def one_hot(k, n=9):
    return torch.eye(3)[[0]].expand(n, 3) + torch.eye(3)[[k + 1]].expand(n, 3)


@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 3.0])
def test_guidance_adds_a_multiple_of_the_classifier_gradient(scale):
    """D13: score_w = score + w grad log p(k | x_t); w = 0 unconditional, 1 conditional."""
    law, path, t = mixture(), paths.CosinePath(), torch.tensor(0.4)
    exact, x = ExactDenoiser(law, path), torch.randn(9, 2, requires_grad=True)
    terms = law.diffuse(*path(t)).log_terms(x)
    (gradient,) = torch.autograd.grad((terms[:, 1] - terms.logsumexp(1)).sum(), x)
    x = x.detach()
    guided = GuidedDenoiser(exact, scale)
    got = guided.score(x, t, one_hot(1))
    torch.testing.assert_close(got, exact.score(x, t) + scale * gradient)
    torch.testing.assert_close(path.interpolate(*guided(x, t, one_hot(1)), t), x)
    alone = ExactDenoiser(Gaussian(law.means[1], law.covariances[1]), path)
    truth = {0.0: exact, 1.0: alone}.get(scale)
    if truth:
        torch.testing.assert_close(got, truth.score(x, t))


def test_guidance_keeps_times_with_their_data():
    exact, t, x = ExactDenoiser(mixture(), paths.LinearPath()), torch.rand(9), torch.randn(9, 2)
    c = one_hot(0)
    both = GuidedDenoiser(exact, 2.0)(x, t, c)
    for i in range(9):
        one = GuidedDenoiser(exact, 2.0)(x[i : i + 1], t[i], c[i : i + 1])
        torch.testing.assert_close(both.x[i : i + 1], one.x)


def test_guidance_without_a_condition_is_unconditional():
    exact, t, x = ExactDenoiser(mixture(), paths.LinearPath()), torch.tensor(0.5), torch.randn(9, 2)
    torch.testing.assert_close(GuidedDenoiser(exact, 5.0)(x, t), exact(x, t))


def test_density_of_one_class_is_its_own():
    law, path = mixture(), paths.LinearPath()
    x = law.sample(10)
    got = ExactDenoiser(law, path).log_prob(x, one_hot(0, 10), rtol=1e-9, atol=1e-9)
    alone = Gaussian(law.means[0], law.covariances[0])
    torch.testing.assert_close(got, alone.log_prob(x), rtol=0, atol=1e-6)


class Recorder(nn.Module):
    """A network that remembers what it was given."""

    def forward(self, x, t, c=None):
        self.x, self.t, self.c = x, t, c
        return torch.zeros_like(x)


@every_path
def test_a_network_sees_unit_variance_and_a_time_in_the_unit_interval(path):
    net, n = Recorder(), 20_000
    denoiser = NetworkDenoiser(net, path, predictions.v_prediction)
    for t in path.grid(10)[:-1]:
        x = torch.randn(n, 1)
        denoiser(path.interpolate(x, torch.randn(n, 1), t), t)
        assert net.t.ndim == 0 and 0 <= net.t <= 1  # a scalar stays one
        # the variance of a sample variance of n normals is 2 / n
        assert net.x.var() == pytest.approx(1, abs=5 * math.sqrt(2 / n))


GUIDED = [(None, 2.5), ((0.0, 1.0), 2.5), ((0.3, 0.7), 2.5), ((0.3, 0.7), 0.0), ((0.5, 0.5), 3.0)]


@every_path
def test_the_noise_level_is_the_angle_of_the_path(path):
    t = torch.linspace(path.t_min, path.t_max, 7)
    alpha, sigma = path(t)
    torch.testing.assert_close(torch.tan(path.level(t)[:-1] * math.pi / 2), (sigma / alpha)[:-1])
    torch.testing.assert_close(paths.CosinePath().level(t), t)


@every_path
def test_guidance_in_the_whole_interval_is_guidance_and_in_none_the_condition(path):
    exact, x, c = ExactDenoiser(mixture(), path), torch.randn(9, 2), one_hot(1)
    for t in (path.t_min + 1e-3, 0.4, 0.9 * path.t_max):
        t = torch.tensor(t)
        plain, known = GuidedDenoiser(exact, 3.0)(x, t, c), exact(x, t, c)
        for interval, truth in (((0.0, 1.0), plain), ((0.5, 0.5), known), ((0.0, 0.0), known)):
            guided = GuidedDenoiser(exact, Guidance(3.0, interval))
            for got in (guided(x, t, c), guided.estimates(t[None], c)[0](x)):
                torch.testing.assert_close(got.x, truth.x, rtol=0, atol=0)
                torch.testing.assert_close(got.eps, truth.eps, rtol=0, atol=0)


@pytest.mark.parametrize(("interval", "scale"), GUIDED)
def test_steps_of_a_sampler_are_guided_where_the_level_is_in_the_interval(interval, scale):
    """Step by step from the definition, with the two exact conditional denoisers."""
    law, path, c = mixture(), paths.EDMPath(sigma_max=20.0, sigma_min=0.01), one_hot(1)
    times, start = path.grid(12), 20 * torch.randn(9, 2)
    low, high = interval or (0.0, 1.0)
    away, towards = (
        ExactDenoiser(Gaussian(law.means[k], law.covariances[k]), path) for k in (0, 1)
    )
    x, guided = start, 0
    for t, s in zip(times[:-1], times[1:]):
        level = 2 / math.pi * math.atan(20 * float(t))
        w = scale if low <= level <= high and low < high else 1.0
        guided += w != 1
        a, b = away(x, t).x, towards(x, t).x
        x_hat = (1 - w) * a + w * b
        x = x_hat + s / t * (x - x_hat)
    assert guided == {None: 12, (0.0, 1.0): 12, (0.3, 0.7): guided, (0.5, 0.5): 0}[interval]
    assert interval != (0.3, 0.7) or 2 <= guided <= 8
    denoiser = GuidedDenoiser(ExactDenoiser(law, path), Guidance(scale, interval, one_hot(0)))
    got = ode.final_state(samplers.ddim(denoiser, start, times, c))
    torch.testing.assert_close(got, x, rtol=1e-9, atol=1e-9)


def test_a_negative_condition_takes_the_place_of_none():
    """s_w = (1 - w) grad log p_t(x | k') + w grad log p_t(x | k), by autograd of the densities."""
    law, path, t = mixture(), paths.LinearPath(), torch.tensor(0.4)
    exact, x = ExactDenoiser(law, path), torch.randn(9, 2, requires_grad=True)
    terms = law.diffuse(*path(t)).log_terms(x)
    scores = [torch.autograd.grad(terms[:, k].sum(), x, retain_graph=True)[0] for k in (0, 1)]
    x = x.detach()
    for w in (0.0, 0.5, 3.0):
        got = GuidedDenoiser(exact, Guidance(w, negative=one_hot(0))).score(x, t, one_hot(1))
        torch.testing.assert_close(got, (1 - w) * scores[0] + w * scores[1])
    one = GuidedDenoiser(exact, Guidance(3.0, negative=one_hot(0)[:1]))(x, t, one_hot(1))
    torch.testing.assert_close(
        one, GuidedDenoiser(exact, Guidance(3.0, negative=one_hot(0)))(x, t, one_hot(1))
    )


def test_each_datum_has_its_own_time_in_the_interval():
    exact, t, x = ExactDenoiser(mixture(), paths.LinearPath()), torch.rand(9), torch.randn(9, 2)
    guided = GuidedDenoiser(exact, Guidance(3.0, (0.3, 0.6), one_hot(0)[:1]))
    assert 0 < int(guided.is_guided(t).sum()) < 9
    both = guided(x, t, one_hot(1))
    for i in range(9):
        one = guided(x[i : i + 1], t[i], one_hot(1)[i : i + 1])
        torch.testing.assert_close(both.eps[i : i + 1], one.eps)


def test_guidance_costs_twice_the_batch_inside_the_interval_and_once_outside():
    sizes, path = [], paths.LinearPath()

    class Sizes(nn.Module):
        def forward(self, x, t, c=None):
            sizes.append(len(x))
            return torch.zeros_like(x)

    denoiser = GuidedDenoiser(
        NetworkDenoiser(Sizes(), path, predictions.v_prediction), Guidance(2.0, (0.25, 0.75))
    )
    ode.final_state(samplers.ddim(denoiser, torch.randn(5, 2), path.grid(10), torch.ones(5, 3)))
    levels = path.level(path.grid(10))[:-1]
    assert sizes == [10 if 0.25 <= v <= 0.75 else 5 for v in levels]


@pytest.mark.parametrize("interval", [(0.8, 0.2), (-0.1, 0.5), (0.1, 1.5), (0.5,)])
def test_an_interval_without_sense_is_refused(interval):
    with pytest.raises(UsageError, match="guidance_interval"):
        Guidance(2.0, interval)
