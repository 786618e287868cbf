"""The mixture density network against PyTorch's distributions and laws with known entropy."""

import math

import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from pushforward.families import build
from pushforward.model import Event, Recipe
from pushforward.theory.exact.targets import GaussianMixture
from pushforward.training.trainer import Trainer, random_batches


def prepared(event, x, c=None, **options):
    model = build("mixture_density", event, **options)
    model.prepare(x, c)
    return model


def test_its_density_is_that_of_the_mixture_it_describes():
    c, x = torch.randn(7, 3), torch.randn(7, 4)
    model = prepared(Event((4,), 3), torch.randn(50, 4), components=5)
    log_w, mean, factor = model.mixture(c)
    parts = MultivariateNormal(mean, scale_tril=factor)
    expected = MixtureSameFamily(Categorical(logits=log_w), parts).log_prob(x)
    torch.testing.assert_close(model.log_prob(x, c), expected)


def test_it_starts_at_the_gaussian_or_at_the_clusters():
    """One component has the mean and covariance of the data; four have those of four clusters."""
    x = torch.randn(4000, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.5]]) + 2
    _, mean, factor = prepared(Event((2,)), x, components=1).mixture(None)
    torch.testing.assert_close(mean[0, 0], x.mean(0))
    torch.testing.assert_close((factor @ factor.mT)[0, 0], x.T.cov(), rtol=0, atol=0.01)
    centres = torch.tensor([[-9.0, 0.0], [0.0, 9.0], [9.0, 0.0], [0.0, -9.0]])
    own = torch.arange(4000) % 4
    x = centres[own] + 0.5 * torch.randn(4000, 2)
    log_w, mean, factor = prepared(Event((2,)), x, components=4).mixture(None)
    away = torch.cdist(centres, mean[0])
    assert away.amin(1).max() < 5 * 0.5 * math.sqrt(2 / 1000)
    torch.testing.assert_close(log_w, torch.full((1, 4), -math.log(4)))
    inside = factor @ factor.mT
    torch.testing.assert_close(inside, 0.25 * torch.eye(2).expand(1, 4, 2, 2), rtol=0, atol=0.03)


def test_it_starts_with_fewer_distinct_data_than_components():
    x = torch.randn(3, 2).repeat(4, 1)
    model = prepared(Event((2,)), x, components=8)
    assert model.log_prob(x).isfinite().all() and model.sample(5).isfinite().all()


def test_it_learns_a_law_whose_spread_depends_on_a_number():
    r"""For :math:`x \mid u \sim N(2u, (0.2 + u^2/4)^2)` it ends within 0.02 of the entropy."""
    u = torch.randn(20_000, 1)
    x = 2 * u + (0.2 + u.square() / 4) * torch.randn_like(u)
    c = torch.cat([torch.ones_like(u), u], dim=1)
    model = prepared(Event((1,), 2), x, c, components=2, width=32)
    trainer = Trainer(model, Recipe(batch=256, lr=1e-2, ema=0.99), 500)
    for _ in trainer.run(random_batches(x[:10_000], 256, c[:10_000])):
        pass
    x, c, u = x[10_000:], c[10_000:], u[10_000:]
    spread = (0.2 + u.square() / 4)[:, 0]
    truth = torch.distributions.Normal(2 * u[:, 0], spread).log_prob(x[:, 0])
    with torch.no_grad():
        excess = truth - trainer.average.log_prob(x, c)
    assert -4 * excess.std() / 100 < excess.mean() < 0.02


def test_what_is_given_leaves_the_exact_conditional():
    model = prepared(Event((3,)), torch.randn(50, 3), components=4).eval()
    x, known = torch.tensor([0.3, 0.0, 0.0]), torch.tensor([True, False, False])
    with torch.no_grad():
        log_w, mean, factor = model.mixture(None)
        drawn = model.complete(40_000, x, known)[:, 1:].double()
    law = GaussianMixture(log_w[0].exp(), mean[0], factor[0] @ factor[0].mT)
    exact = law.condition_on([0], x[:1])
    error = (drawn.mean(0) - exact.mean).abs()
    assert (error < 5 * drawn.std(0) / math.sqrt(len(drawn))).all()
    torch.testing.assert_close(drawn.T.cov(), exact.covariance, rtol=0.05, atol=0.02)
