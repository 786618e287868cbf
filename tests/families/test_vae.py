"""The VAE's bound against closed forms: a linear VAE is probabilistic PCA.

p(x) = N(b, W W' + s^2 I), and the posterior is N(M^-1 W'(x - b) / s^2, M^-1), M = I + W'W / s^2.
"""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pushforward.errors import DataError, UsageError
from pushforward.families.vae import (
    VAE,
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Gaussian,
    build,
    law,
    rate,
)
from pushforward.model import Event, Likelihood, Recipe
from pushforward.training import Trainer, batches

D, Q, S = 6, 2, 0.4


class Linear(nn.Module):
    """An affine map that ignores the condition; its last columns are constants."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x, c=None):
        return x @ self.weight.T + self.bias


def linear_vae(beta=1.0, shift=0.0):
    """A linear VAE whose posterior is exact where W'W is diagonal, moved by ``shift``."""
    w = torch.linalg.qr(torch.randn(D, Q, dtype=torch.float64))[0] * torch.tensor([1.5, 0.7])
    w, b = w.double(), torch.randn(D, dtype=torch.float64)
    precision = 1 + (w.T @ w).diagonal() / (beta * S**2)
    into = w.T / (beta * S**2) / precision[:, None]
    encoder = Linear(
        torch.cat([into, torch.zeros_like(into)]),
        torch.cat([-into @ b + shift, -precision.log() / 2]),
    )
    head = Gaussian(floor=0.0, shared=True).double()
    with torch.no_grad():
        head.shared.fill_(math.log(math.expm1(S)))  # softplus of it is S
    model = VAE(encoder, Linear(w, b), head, (D,), latent=Q, beta=beta)
    return model.double().eval(), MultivariateNormal(b, w @ w.T + S**2 * torch.eye(D).double())


def test_the_exact_posterior_makes_every_single_weight_the_likelihood():
    """log p(x, z) - log q(z | x) = log p(x) for every z, so the bound is tight for every k."""
    model, p = linear_vae()
    x = p.sample((10,))
    for k in (1, 3):
        torch.testing.assert_close(model.log_prob(x, k=k), p.log_prob(x), rtol=1e-10, atol=1e-10)


def test_the_gap_of_the_bound_is_the_divergence_from_the_posterior():
    """q moved by 0.3 / sd: KL = shift^2 / (2 var) a coordinate; 40,000 draws, 5 standard errors."""
    model, p = linear_vae(shift=0.05)
    x = p.sample((1,))
    q = model.posterior(x)
    gap = kl_divergence(q, Normal(q.mean - 0.05, q.scale)).sum()
    weights = model.log_weights(q, x, None, 40_000)
    bar = 5 * weights.std() / math.sqrt(40_000)
    assert (p.log_prob(x) - weights.mean() - gap).abs() < bar


def test_the_loss_is_minus_the_bound_in_nats_summed_over_entries():
    """Distortion + rate = -ELBO; here the ELBO is log p. 40,000 data, 5 standard errors."""
    model, p = linear_vae()
    x = p.sample((40_000,))
    terms = model.loss(x)
    bar = 5 * p.log_prob(x).std() / math.sqrt(len(x))
    assert (sum(terms.values()) + p.log_prob(x).mean()).abs() < bar
    torch.testing.assert_close(model.validation(x), sum(terms.values()), rtol=0, atol=bar.item())


def test_the_bound_rises_with_k_to_the_likelihood():
    """L_k <= L_k+1 <= log p in expectation (Burda et al., 2016); gap of k = 1024 below 0.01."""
    model, p = linear_vae(shift=0.2)
    x = p.sample((2000,))
    bounds = [model.log_prob(x, k=k).mean().item() for k in (1, 4, 16, 1024)]
    exact = p.log_prob(x).mean().item()
    assert all(a < b for a, b in itertools.pairwise(bounds))
    assert exact - 0.01 < bounds[-1] < exact + 0.001


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_optimum_with_beta_is_the_posterior_with_noise_beta_s2(beta):
    """The best q has precision I + W'W / (beta s^2): there the encoder's gradient vanishes.

    It catches a beta on the wrong term. 200,000 reparametrised draws; each partial derivative is
    compared with 5 of its standard errors, from 100 blocks.
    """
    model, p = linear_vae(beta)
    x = p.sample((1,)).expand(2000, D)
    gradients = torch.stack(
        [
            torch.autograd.grad(sum(model.loss(x).values()), model.encoder.bias)[0]
            for _ in range(100)
        ]
    )
    error = gradients.std(0) / math.sqrt(len(gradients))
    assert (gradients.mean(0).abs() < 5 * error).all()
    assert (error < 0.05).all()  # the power to see a wrong weight


def test_the_rate_is_torchs_divergence():
    q = Normal(torch.randn(7, 3), torch.rand(7, 3) + 0.1)
    expected = kl_divergence(q, Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(rate(q), expected)


def test_latents_are_mean_plus_scale_times_noise():
    """The pathwise gradient of E z^2 is 2 mu and 2 sigma: both parameters are attached."""
    mu, sigma = (
        torch.full((1, 1), 1.5, requires_grad=True),
        torch.full((1, 1), 0.7, requires_grad=True),
    )
    z = Normal(mu.expand(200_000, 1), sigma.expand(200_000, 1)).rsample()
    z.square().mean().backward()
    assert mu.grad.item() == pytest.approx(3.0, abs=5 * 2 * 0.7 / math.sqrt(200_000))
    assert sigma.grad.item() == pytest.approx(1.4, abs=0.05)


@pytest.mark.parametrize("levels", [2, 5, 17, 256])
@pytest.mark.parametrize("kind", [Bernoulli, Categorical, DiscretisedLogistic])
def test_masses_of_the_levels_sum_to_one(kind, levels):
    """In float64; also for locations far outside and scales of a small part of a cell."""
    if kind is Bernoulli and levels != 2:
        pytest.skip("bits have two levels")
    head = kind(levels)
    h = torch.randn(1, 50, head.size, dtype=torch.float64) * 3
    x = torch.arange(levels, dtype=torch.float64)[:, None].expand(levels, 50)
    log_p = head.log_prob(h.expand(levels, -1, -1), x)
    torch.testing.assert_close(log_p.logsumexp(0).exp(), torch.ones(50).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("head", [Bernoulli(2), Categorical(5), DiscretisedLogistic(9)])
def test_draws_have_the_masses_and_the_mean_that_are_claimed(head):
    """40,000 draws of one entry; 5 standard errors each."""
    n = 40_000
    h = torch.randn(1, head.size).expand(n, -1)
    drawn, levels = head.sample(h), torch.arange(float(head.levels))
    p = head.log_prob(h[: head.levels], levels).exp()
    share = (drawn[:, None] == levels).double().mean(0)
    assert ((share - p).abs() <= 5 * (p * (1 - p) / n).sqrt() + 1e-6).all()
    if not isinstance(head, DiscretisedLogistic):  # its mean is that of the density it rounds
        assert head.mean(h)[0].item() == pytest.approx((p * levels).sum().item(), abs=1e-5)


def test_bernoulli_and_categorical_masses_are_torchs():
    h, x = torch.randn(30, 5), torch.randint(5, (30,))
    expected = TorchCategorical(logits=h).log_prob(x)
    torch.testing.assert_close(Categorical(5).log_prob(h, x.float()), expected)
    bit = (x > 2).float()
    expected = torch.distributions.Bernoulli(logits=h[:, 0]).log_prob(bit)
    torch.testing.assert_close(Bernoulli(2).log_prob(h[:, :1], bit), expected)


def test_the_gaussian_floor_bounds_the_density():
    """At the mean, with the scale driven to its floor, the density is 1 / (sqrt(2 pi) floor)."""
    h = torch.tensor([[0.3, -100.0]])
    value = Gaussian(0.01).log_prob(h, torch.tensor([0.3])).exp().item()
    assert value == pytest.approx(1 / (math.sqrt(2 * math.pi) * 0.01), rel=1e-5)


@pytest.mark.parametrize(
    ("levels", "kind"),
    [(0, Gaussian), (2, Bernoulli), (17, Categorical), (256, DiscretisedLogistic)],
)
def test_the_data_choose_the_law(levels, kind):
    model = build(Event((4,), levels=levels), width=8)
    assert isinstance(model.law, kind) and model.discrete == (levels > 0)
    assert model.likelihood is Likelihood.LOWER_BOUND
    drawn = model.sample(50)
    assert not levels or ((drawn == drawn.round()) & (drawn >= 0) & (drawn < levels)).all()


@pytest.mark.parametrize("bad", [2.0, 0.5, -1.0, float("nan")])
def test_targets_that_are_not_bits_are_refused(bad):
    """A cross-entropy of logits accepts them and falls without bound."""
    model, x = build(Event((3,), levels=2), width=8), torch.tensor([[0.0, 1.0, bad]])
    for use in (model.prepare, model.log_prob):
        with pytest.raises(DataError, match="integers 0 to 1"):
            use(x)


@pytest.mark.parametrize(
    ("decoder", "levels"), [("bernoulli", 0), ("bernoulli", 5), ("logistic", 0)]
)
def test_a_law_that_does_not_fit_the_data_is_refused(decoder, levels):
    with pytest.raises(UsageError, match="needs data of"):
        law(decoder, levels, 0.01)
    with pytest.raises(UsageError, match="no decoder"):
        law("poisson", levels, 0.01)


def test_an_image_vae_is_the_vector_vae_of_its_entries():
    image, flat = (build(Event(s, 2), width=8, latent=3) for s in ((2, 4), (8,)))
    flat.load_state_dict(image.state_dict())
    x, c = torch.randn(5, 2, 4), torch.ones(5, 2)
    torch.testing.assert_close(image.encode(x, c), flat.encode(x.flatten(1), c))
    z = torch.randn(5, 3)
    torch.testing.assert_close(image.decode(z, c).flatten(1), flat.decode(z, c))
    torch.testing.assert_close(image.decode(z), image.decode(z, 0 * c))  # unknown is zero


def test_the_weight_of_the_rate_grows_in_training_only():
    model = linear_vae()[0]
    model.anneal, model.beta, weights = 0.5, 2.0, []
    assert model.eval().rate_weight() == 2.0
    trainer = Trainer(model, Recipe(batch=4), 8)
    for _ in trainer.run(batches(torch.randn(16, *model.event_shape).double(), 4)):
        weights.append(model.train().rate_weight())
    assert weights == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]
    assert trainer.average.train().rate_weight() == 2.0


def test_a_saved_state_gives_the_same_bound_in_a_fresh_model():
    model, fresh = (build(Event((3,), 2), width=8) for _ in range(2))
    fresh.load_state_dict(model.state_dict())
    x, c = torch.randn(6, 3), torch.randn(6, 2)
    values = []
    for m in (model, fresh):
        torch.manual_seed(1)
        values.append(m.log_prob(x, c, k=3))
    assert torch.equal(*values)


def test_scores_do_not_depend_on_the_size_of_the_blocks():
    """With the exact posterior every weight is log p, whatever is drawn: 70,000 rows, and 5."""
    model, p = linear_vae()
    x = p.sample((70_000,))
    torch.testing.assert_close(model.log_prob(x, k=2)[:5], model.log_prob(x[:5], k=2))


@pytest.mark.slow
def test_a_trained_linear_vae_reaches_the_likelihood_of_pca():
    """N4's bar: the bound within 0.05 nats of log p after training on fresh data."""
    _, p = linear_vae()
    x = p.sample((16_384,)).float()
    model = VAE(
        Linear(torch.randn(2 * Q, D) * 0.1, torch.zeros(2 * Q)),
        Linear(torch.randn(D, Q) * 0.1, torch.zeros(D)),
        Gaussian(shared=True),
        (D,),
        latent=Q,
    )
    trainer = Trainer(model, model.recipe._replace(lr=1e-2, batch=256), 3000)
    for _ in trainer.run(batches(x, 256)):
        pass
    exact = p.log_prob(x.double()).mean().item()
    assert exact + float(trainer.average.validation(x)) < 0.05
