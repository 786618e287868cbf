"""Latent diffusion: its bound against a Gaussian in closed form, its two stages, its first stage.

An untrained flow is that of N(0, I), so a linear decoder makes p(x) = N(W m + b, W S W' + s^2 I) of
codes with mean m and variances S.
"""

import math
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pushforward.errors import UsageError
from pushforward.families import flow_matching
from pushforward.families.latent_diffusion import LatentDiffusion, build
from pushforward.families.vae import VAE
from pushforward.inference.loading import load
from pushforward.model import Event, Recipe
from pushforward.networks.autoencoder import AutoencoderNetworks, RandomFeatureDistance
from pushforward.networks.likelihoods import GaussianLikelihood
from pushforward.training import trainer as training
from pushforward.training.fit import fit
from pushforward.training.optimizer import PlayerOptimizer
from pushforward.training.trainer import Trainer, random_batches

D, Q, S = 5, 2, 0.5
PICTURES = {"encoder": "conv", "encoder_width": 4, "network": "mlp", "width": 16, "depth": 2}


class Linear(nn.Module):
    """An affine map of rows."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)

    def forward(self, x, c=None):
        return x @ self.weight.T + self.bias


def linear(shift=0.0):
    """A model of linear maps, moved by ``shift`` from its exact posterior; p(x); q's divergence."""
    torch.manual_seed(0)
    w = torch.linalg.qr(torch.randn(D, Q).double())[0] * torch.tensor([1.5, 0.7]).double()
    b, m, v = torch.randn(D).double(), torch.tensor([0.4, -1.0]).double(), torch.tensor([2.0, 0.6])
    v = v.double()
    precision = 1 / v + (w.T @ w).diagonal() / S**2
    into = w.T / S**2 / precision[:, None]
    away = m / v / precision - into @ b + shift
    encoder = Linear(
        torch.cat([into, torch.zeros_like(into)]), torch.cat([away, -precision.log() / 2])
    )
    law = GaussianLikelihood(floor=0.0, shared=True).double()
    with torch.no_grad():
        law.shared.fill_(math.log(math.expm1(S)))
    first = VAE(AutoencoderNetworks(encoder, Linear(w, b), law), (D,), latent=Q)
    make = lambda shape: flow_matching.build(Event(shape), width=8, depth=1)  # noqa: E731
    model = LatentDiffusion(first, make).double().eval()
    last = [p for p in model.second.denoiser.net.parameters()][-2:]
    for p in last:
        nn.init.zeros_(p)
    model.mean.copy_(m)
    model.variance.copy_(v)
    exact = MultivariateNormal(w @ m + b, w @ v.diag() @ w.T + S**2 * torch.eye(D).double())
    scale = precision.rsqrt()
    gap = kl_divergence(Normal(shift * torch.ones(Q).double(), scale), Normal(0.0, scale)).sum()
    return model, exact, gap


@torch.no_grad()
def test_with_the_exact_posterior_every_draw_gives_the_likelihood():
    """The ODE is solved to 1e-5, so that the density of a code is right to about that."""
    model, p, _ = linear()
    x = p.sample((20,))
    for particles in (1, 3):
        value = model.log_prob(x, particles=particles)
        torch.testing.assert_close(value, p.log_prob(x), rtol=0, atol=1e-3)


@torch.no_grad()
def test_the_gap_of_the_bound_is_the_divergence_from_the_posterior():
    """500 draws for one datum, four standard errors; 30 particles close four fifths of it."""
    model, p, gap = linear(shift=0.3)
    x = p.sample((1,))
    short = p.log_prob(x) - model.log_prob(x.expand(500, -1))
    assert gap > 0.3 and (short.mean() - gap).abs() < 4 * short.std() / 500**0.5 + 1e-3
    many = p.log_prob(x) - model.log_prob(x.expand(50, -1), particles=30)
    assert many.mean().abs() < gap / 5


@torch.no_grad()
def test_samples_with_their_grain_have_the_law_that_is_scored_and_without_it_the_means():
    """Covariances from 10,000 draws, five standard errors of an entry (Isserlis)."""
    model, p, _ = linear()
    cov = p.covariance_matrix
    for grain, expected in ((True, cov), (False, cov - S**2 * torch.eye(D))):
        x = model.sample(10_000, grain=grain, steps=40)
        var = expected.diagonal()
        bar = 5 * ((expected**2 + var[:, None] * var) / 10_000).sqrt()
        assert ((x.T.cov() - expected).abs() < bar + 1e-3).all()  # and the sampler's steps


@torch.no_grad()
def test_a_datum_beyond_all_reach_costs_the_others_nothing():
    model, p, _ = linear()
    x = p.sample((3,))
    x[1] = 1e9
    value = model.log_prob(x)
    assert value[1] == -torch.inf
    torch.testing.assert_close(value[::2], p.log_prob(x[::2]), rtol=0, atol=1e-3)


def trained(steps=40, event=(2,), x=None, ema=0.9, **options):
    """A small model after both stages, and its trainer."""
    torch.manual_seed(0)
    x = torch.randn(256, *event) if x is None else x
    model = build(Event(event), **{"width": 16, "encoder_width": 16, **options})
    trainer = Trainer(model, Recipe(batch=32, lr=3e-3, ema=ema, warmup=4, clip=100.0), steps)
    return model, trainer, random_batches(x, 32)


def test_the_rate_of_learning_rises_and_falls_once_in_each_stage(monkeypatch):
    rates, move = {}, PlayerOptimizer.step

    def spy(self, lr, *rest):
        rates.setdefault(id(self), []).append(lr)
        move(self, lr, *rest)

    monkeypatch.setattr(PlayerOptimizer, "step", spy)
    _, trainer, data = trained(steps=100)
    for _ in trainer.run(data):
        pass
    recipe = trainer.recipe
    first, second = (rates[id(trainer.players[name])] for name in ("autoencoder", "diffusion"))
    assert len(first) == 40 and len(second) == 60
    assert first == [training.learning_rate(recipe, k, 40) for k in range(40)]
    assert second == [training.learning_rate(recipe, k, 60) for k in range(60)]


def test_codes_are_standardised_and_then_stay_as_they_are():
    """Over all data, after 120 rounds: means within 0.1, variances within a fifth.

    The running mean's weights fall by 1 - 1/13 a round: its variance is 1/25 of that of a batch of
    256, so that its standard error is 0.0125, and that of the variance 0.018.
    """
    x = torch.randn(512, 3) @ torch.randn(3, 3) + 2
    model, trainer, _ = trained(300, (3,), x)
    frozen = None
    for _ in trainer.run(random_batches(x, 256)):
        if model.settled and frozen is None:
            frozen = {k: v.clone() for k, v in model.first.state_dict().items()}
            moments = model.mean.clone(), model.variance.clone()
    with torch.no_grad():
        u = model.encode(x) + model.first.posterior(x).scale / model.scale * torch.randn(512, 3)
    assert u.mean(0).abs().max() < 0.1 and (u.var(0) - 1).abs().max() < 0.2
    for weights in (model.first, trainer.average.first):  # the average has come to rest there too
        for key, value in weights.state_dict().items():
            torch.testing.assert_close(value, frozen[key], rtol=1e-4, atol=1e-6)
    assert torch.equal(model.mean, moments[0]) and torch.equal(model.variance, moments[1])


def test_held_out_losses_are_those_of_one_stage_only():
    model, trainer, data = trained(20)
    x = torch.randn(64, 2)
    seen = []
    for record in trainer.run(data):
        seen.append(model.validation(x) is None)
        assert ("regression" in record.terms) != ("distortion" in record.terms)
    assert seen == [True] * 8 + [False] * 12


def test_more_steps_go_to_the_second_stage(tmp_path):
    x = np.random.default_rng(0).standard_normal((60, 2))
    options = {"width": 8, "encoder_width": 8, "batch": 16}
    short = fit(x, "latent_diffusion", steps=5, out=tmp_path / "r", progress=False, **options)
    after = fit(x, out=tmp_path / "r", resume=True, steps=40, progress=False)
    assert int(after.model.rounds) == int(short.model.rounds) == 2
    kinds = ["distortion" if "distortion" in row else "regression" for row in after.history]
    assert kinds == ["distortion"] * 2 + ["regression"] * 38


def pictures(n=80, side=12):
    """Bright squares in one of four places, with the place as label."""
    rng, x = np.random.default_rng(0), np.zeros((n, side, side))
    place, half = rng.integers(0, 4, n), side // 2
    for image, k in zip(x, place):
        top, left = half * (k // 2), half * (k % 2)
        image[top + 1 : top + half - 1, left + 1 : left + half - 1] = 1
    return x + 0.05 * rng.standard_normal(x.shape), place


def test_a_fitted_vae_is_a_first_stage_that_stays_as_it_is_and_is_kept(tmp_path):
    """Its conditions are the second stage's own, and the run needs the teacher's no more."""
    x, place = pictures()
    small = {"batch": 16, "progress": False, "steps": 30}
    teacher = fit(x, "vae", out=tmp_path / "vae", latent=3, width=4, depth=2, **small)
    given = {"teacher": tmp_path / "vae", "width": 8}
    model = fit(x, "latent_diffusion", place, out=tmp_path / "r", **given, **small)
    shutil.rmtree(tmp_path / "vae")
    again = load(tmp_path / "r")
    assert list(model.model.players()) == ["diffusion"]
    assert all("regression" in row for row in model.history)
    np.testing.assert_allclose(again.reconstruct(x, place), teacher.reconstruct(x), atol=1e-6)
    np.testing.assert_array_equal(again.sample(5, y=2, seed=0), model.sample(5, y=2, seed=0))
    z = again.encode(x, place)
    assert z.shape == (80, 3)
    with torch.no_grad():  # measured on the rows of training, with the noise of the posterior
        data = torch.as_tensor(teacher.transform.forward(torch.as_tensor(x))[0]).float()
        spread = again.model.first.posterior(data).variance / again.model.variance
    variance = z.var(0) + spread.mean(0).numpy()
    assert np.abs(z.mean(0)).max() < 0.2 and np.abs(variance - 1).max() < 0.3


def test_a_latent_diffusion_is_a_first_stage_of_another_prior(tmp_path):
    x, _ = pictures()
    small = {"batch": 16, "progress": False, "steps": 10}
    first = fit(x, "latent_diffusion", **PICTURES, **small)
    other = fit(x, "latent_diffusion", teacher=first, prior="edm", network="mlp", width=8, **small)
    other.save(tmp_path / "r")
    again = load(tmp_path / "r")
    np.testing.assert_allclose(again.reconstruct(x), first.reconstruct(x), atol=1e-6)
    np.testing.assert_array_equal(again.sample(3, seed=0), other.sample(3, seed=0))


def test_an_edit_of_strength_0_is_the_reconstruction_and_of_strength_1_a_sample():
    """In the space of codes; in between it moves codes, which reconstruct to others."""
    x, place = pictures()
    small = {"batch": 16, "progress": False, "steps": 30}
    model = fit(x, "latent_diffusion", place, **PICTURES, **small)
    given = {"seed": 0, "steps": 3}
    back = model.reconstruct(x[:9], place[:9])
    assert np.abs(back - x[:9]).max() > 0.1  # so that it is not the data themselves
    np.testing.assert_array_equal(model.edit(x[:9], place[:9], strength=0, **given), back)
    fresh = model.edit(x[:9], 1, strength=1, **given)
    np.testing.assert_array_equal(model.edit(x[9:18], 1, strength=1, **given), fresh)
    np.testing.assert_allclose(fresh, model.sample(9, 1, **given), atol=1e-6)
    moves = [np.abs(model.edit(x, place, strength=s, **given) - model.reconstruct(x, place)).mean()
             for s in (0.05, 0.4)]  # fmt: skip
    assert 0 < moves[0] < moves[1]
    with pytest.raises(UsageError, match="cannot honour the option"):
        model.edit(x[:2], 1, colour=2)


@pytest.mark.parametrize("shape", [(12, 12), (3, 12, 10), (11, 13, 2)])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_codes_of_images_are_smaller_images(shape, factor):
    model = build(Event(shape), factor=factor, latent=2, **PICTURES)
    sides = {(12, 12): (12, 12), (3, 12, 10): (12, 10), (11, 13, 2): (11, 13)}[shape]
    x = torch.randn(4, *shape)
    u = model.encode(x)
    assert u.shape == (4, 2, *(-(-side // factor) for side in sides))
    assert model.decode(u).shape == x.shape and model.sample(2, steps=2).shape == (2, *shape)


def test_the_critic_pulls_at_the_last_layer_as_hard_as_asked():
    """The norms of both gradients of the decoder's last weights, by autograd: 0.5 to 1."""
    model = build(Event((12, 12)), adversarial=0.5, **PICTURES)
    with torch.no_grad():
        for p in model.critic.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.progress = 0.3
    terms, last = (
        model.autoencoder_objective(torch.randn(8, 12, 12)),
        model.first.decoder.leave.weight,
    )
    ours, its = (
        torch.autograd.grad(terms[name], last, retain_graph=True)[0].norm()
        for name in ("distortion", "fooled")
    )
    torch.testing.assert_close(its / ours, torch.tensor(0.5), rtol=1e-4, atol=0)
    model.progress = 0.1
    assert "fooled" not in model.autoencoder_objective(torch.randn(8, 12, 12))


def test_a_game_with_a_critic_is_played_in_the_first_stage_alone():
    x = torch.as_tensor(pictures()[0]).float()
    options = {**PICTURES, "adversarial": 0.5, "perceptual": 1.0}
    model, trainer, data = trained(10, (12, 12), x, **options)
    features = [p.clone() for p in model.sharpening.features.parameters()]
    names = [set(record.terms) for record in trainer.run(data)]
    bound, game = {"distortion", "rate", "reweighting"}, {"real", "fake", "slope"}
    assert names[0] == bound | game | {"features"}
    assert names[3] == names[0] | {"fooled"} and names[-1] == {"regression"}
    assert all(map(torch.equal, features, model.sharpening.features.parameters()))


def test_the_distance_of_random_features_is_that_of_unit_vectors():
    """By hand for the first scale; zero for equal data, and at most 2."""
    torch.manual_seed(0)
    net = RandomFeatureDistance((3, 8, 8), width=4, scales=1)
    x, y = torch.randn(2, 5, 3, 8, 8)
    layer = net.layers[0]
    seen = [nn.functional.conv2d(v, layer.weight, layer.bias, padding=1) for v in (x, y)]
    a, b = (v.clamp(min=0) for v in seen)
    cosine = nn.functional.cosine_similarity(a, b, dim=1)
    lengths = [(v.norm(dim=1) > 0).float() for v in (a, b)]
    expected = (lengths[0] + lengths[1] - 2 * cosine).mean((1, 2))
    torch.testing.assert_close(net(x, y), expected, rtol=1e-4, atol=1e-5)
    deep = RandomFeatureDistance((3, 8, 8), width=4)
    assert deep(x, x).abs().max() < 1e-6 and (deep(x, y) > 0.05).all() and (deep(x, y) < 2).all()


def test_pictures_are_learned_place_by_place():
    """Squares in four places: a sample asked for a place is brightest there, nine times in ten."""
    x, place = pictures(200)
    options = {**PICTURES, "width": 64, "lr": 4e-3, "batch": 32}
    model = fit(x, "latent_diffusion", place, steps=240, progress=False, ema=0.9, **options)
    drawn = model.sample(100, y=np.arange(100) % 4, seed=0, steps=10)
    quarters = drawn.reshape(100, 2, 6, 2, 6).mean((2, 4)).reshape(100, 4)
    assert (quarters.argmax(1) == np.arange(100) % 4).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 3}, "factor is 3"),
        ({"stage": 1.5}, "stage is 1.5"),
        ({"stage": 1.0}, "both stages"),
        ({"perceptual": 1.0, "encoder": "mlp"}, "are for convolutions"),
        ({"prior": "gan"}, "prior is 'gan'"),
        ({"sampler": "magic"}, "magic"),
    ],
)
def test_options_without_sense_are_refused(options, message):
    x = np.random.default_rng(0).standard_normal((50, 12, 12))
    with pytest.raises(UsageError, match=message):
        fit(x, "latent_diffusion", steps=2, progress=False, **options)


def test_what_is_no_first_stage_is_refused():
    x = np.random.default_rng(0).standard_normal((60, 3))
    with pytest.raises(UsageError, match="no first stage"):
        fit(x, "latent_diffusion", teacher=fit(x, "gaussian", progress=False), progress=False)


def test_several_particles_need_the_exact_trace():
    model = build(Event((12, 12)), latent=8, **PICTURES).eval()  # 72 numbers a code
    x = torch.randn(2, 12, 12)
    with torch.no_grad():
        exact, error = model.estimated(x, probes=0)
        assert not error.any() and exact.isfinite().all()
        with pytest.raises(UsageError, match="exact trace"):
            model.log_prob(x, particles=2)
