"""The VAE's bound against closed forms: a linear VAE is probabilistic PCA.

p(x) = N(b, W W' + s^2 I), and the posterior is N(M^-1 W'(x - b) / s^2, M^-1), M = I + W'W / s^2.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from pushforward import families
from pushforward.errors import DataError, UsageError
from pushforward.families.vae import VAE, build
from pushforward.model import Event, Likelihood, Preprocessing, Recipe
from pushforward.networks.autoencoder import AutoencoderNetworks
from pushforward.networks.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretisedLogistic,
    GaussianLikelihood,
)
from pushforward.theory.bounds import importance_bound
from pushforward.theory.exact.evidence import linear_vae_optimum
from pushforward.training.trainer import Trainer, random_batches

D, Q, S = 6, 2, 0.4


class Linear(nn.Module):
    """An affine map that ignores the condition; its last columns are constants."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.contiguous()), nn.Parameter(bias)

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
    head = GaussianLikelihood(floor=0.0, shared=True).double()
    with torch.no_grad():
        head.shared.fill_(math.log(math.expm1(S)))  # softplus of it is S
    model = VAE(AutoencoderNetworks(encoder, Linear(w, b), head), (D,), latent=Q, beta=beta)
    return model.double().eval(), MultivariateNormal(b, w @ w.T + S**2 * torch.eye(D).double())


def test_the_exact_posterior_makes_every_single_weight_the_likelihood():
    """log p(x, z) - log q(z | x) = log p(x) for every z, so the bound is tight for every k."""
    model, p = linear_vae()
    x = p.sample((10,))
    for k in (1, 3):
        torch.testing.assert_close(
            model.log_prob(x, particles=k), p.log_prob(x), rtol=1e-12, atol=1e-12
        )


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
    x = p.sample((1000,))
    bounds = [model.log_prob(x, particles=k).mean().item() for k in (1, 4, 16, 1024)]
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


def moments(n, d, count):
    """``count`` matrices of n rows in d columns, all of mean 0, covariance I, and uncorrelated."""
    rows = torch.randn(n, d * count).double()
    basis = torch.linalg.qr(rows - rows.mean(0))[0] * math.sqrt(n)
    return (basis - basis.mean(0)).split(d, dim=1)


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_a_trained_linear_vae_fills_the_spectrum_with_water(beta):
    """Singular values sqrt(lambda - beta s^2)_+, rate, distortion and active units.

    Data and noise have exact moments, so the loss is its own expectation and LBFGS reaches the
    optimum. It catches a beta on the wrong term, and a mean over entries in place of a sum.
    """
    torch.manual_seed(0)
    spectrum = torch.tensor([3.0, 0.5, 0.3, 0.2, 0.1, 0.05]).double()
    x, eps, _ = moments(64, D, 3)
    x, eps = x * spectrum.sqrt() @ torch.linalg.qr(torch.randn(D, D).double())[0], eps[:, :Q]
    model = linear_vae(beta)[0]
    model.noise = lambda *shape: eps
    model.law.requires_grad_(False)
    constant = torch.arange(2 * Q)[:, None] >= Q  # scales that vary would see higher moments
    model.encoder.weight.register_hook(lambda gradient: gradient.masked_fill(constant, 0.0))
    learned = [p for p in model.parameters() if p.requires_grad]
    search = {"max_iter": 400, "tolerance_grad": 1e-9, "tolerance_change": 0}
    optimizer = torch.optim.LBFGS(learned, line_search_fn="strong_wolfe", **search)

    def closure():
        optimizer.zero_grad()
        total = sum(model.loss(x).values())
        total.backward()
        return total

    optimizer.step(closure)
    expected, terms, level = (
        linear_vae_optimum(spectrum, Q, S, beta),
        model.loss(x),
        2 * math.pi * S**2,
    )
    singular = torch.linalg.svdvals(model.decoder.weight.detach())
    torch.testing.assert_close(singular, expected.singular, rtol=0, atol=1e-4)
    torch.testing.assert_close(terms["rate"], expected.rate, rtol=0, atol=1e-5)
    distortion = expected.error / (2 * S**2) + D / 2 * math.log(level)
    torch.testing.assert_close(terms["distortion"], distortion, rtol=0, atol=1e-5)
    assert model.diagnosis(x)["active_units"] == expected.active.sum()


def test_latents_are_mean_plus_scale_times_noise():
    """Given the noise, distortion is that of decoding mu + sigma eps, and both are attached."""
    model, p = linear_vae()
    x, eps = p.sample((9,)), torch.randn(9, Q).double()
    model.noise = lambda *shape: eps.view(shape)
    q = model.posterior(x)
    z = (q.mean + q.scale * eps).detach().requires_grad_()
    distortion = -Normal(model.decoder(z), S).log_prob(x).sum(1).mean()
    found = model.loss(x)["distortion"]
    torch.testing.assert_close(found, distortion)
    (pull,) = torch.autograd.grad(distortion, z)
    (bias,) = torch.autograd.grad(found, model.encoder.bias)
    expected = torch.cat([pull.sum(0), (pull * q.scale * eps).sum(0)])
    torch.testing.assert_close(bias, expected.detach())


@pytest.mark.parametrize("particles", [1, 4])
def test_the_history_holds_the_bound_whatever_the_weight_of_the_rate(particles):
    """The first terms do not see the warm-up; the last makes their sum what is minimised."""
    model, p = linear_vae(shift=0.1)
    x, eps = p.sample((50,)), torch.randn(particles, 50, Q).double()
    model.noise = lambda *shape: eps.view(shape)
    model.particles, model.anneal, seen = particles, 0.5, []
    for progress in (0.0, 0.25, 1.0):
        model.train().progress = progress
        terms = model.loss(x)
        reweighting = terms.pop("reweighting")
        seen.append((sum(terms.values()), reweighting))
    bounds, weights = (torch.stack(column) for column in zip(*seen, strict=True))
    torch.testing.assert_close(bounds, bounds[:1].expand(3))
    assert weights[0] < weights[1] < weights[2] == 0
    q = model.posterior(x)
    if particles == 1:
        kl = kl_divergence(q, Normal(q.mean * 0, 1.0)).sum(1).mean()
        torch.testing.assert_close(weights, torch.tensor([-1, -0.5, 0]).double() * kl)
    else:
        z = q.mean + q.scale * eps
        log_p = Normal(model.decoder(z), S).log_prob(x).sum(-1)
        torch.testing.assert_close(bounds[0] + weights[0], -importance_bound(log_p).mean())


def test_training_with_particles_minimises_minus_the_importance_weighted_bound():
    """Its value, and its gradient in the decoder, are those of the bound by autograd."""
    model, p = linear_vae(shift=0.1)
    x, eps = p.sample((50,)), torch.randn(5, 50, Q).double()
    model.noise, model.particles = lambda *shape: eps, 5
    q = model.posterior(x)
    z = (q.mean + q.scale * eps).detach()
    log_w = Normal(model.decoder(z), S).log_prob(x).sum(-1)
    log_w = log_w + (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum(-1)
    expected, found = -importance_bound(log_w).mean(), model.loss(x)
    torch.testing.assert_close(found, {"iwae": expected})
    pair = [torch.autograd.grad(v, model.decoder.weight)[0] for v in (expected, found["iwae"])]
    torch.testing.assert_close(*pair)


def test_the_diagnosis_counts_units_and_states_the_gap():
    """An exact posterior gains nothing and uses both units; one that is the prior uses none."""
    model, p = linear_vae()
    x = p.sample((600,))
    found = model.diagnosis(x)
    assert found["active_units"] == Q and found["collapsed_units"] == 0
    assert abs(found["iwae_gain"]) < 1e-10
    assert found["held_out_rate"] == pytest.approx(model.loss(x)["rate"].item())
    collapsed = linear_vae()[0]
    with torch.no_grad():
        collapsed.encoder.weight.zero_()
        collapsed.encoder.bias.zero_()
    found = collapsed.diagnosis(p.sample((600,)))
    assert found["active_units"] == found["held_out_rate"] == 0
    assert found["collapsed_units"] == Q
    assert found["iwae_gain"] > 1


def test_both_networks_know_the_condition_and_nothing_is_drawn_to_encode():
    model, x = build(Event((3,), 2), width=8), torch.randn(5, 3)
    c, other = torch.tensor([[1.0, -1.0]]).expand(5, 2), torch.tensor([[1.0, 1.0]]).expand(5, 2)
    z = model.encode(x, c)
    assert torch.equal(z, model.encode(x, c)) and not torch.allclose(z, model.encode(x, other))
    assert torch.equal(model.reconstruct(x, c), model.decode(z, c))
    assert not torch.allclose(model.decode(z, c), model.decode(z, other))


def with_prior(m, s):
    """A linear VAE whose latents have the law N(m c, s^2), and its law of data given c = 1."""
    model, _ = linear_vae()
    w, b = model.decoder.weight.detach(), model.decoder.bias.detach()
    precision = s**-2 + (w.T @ w).diagonal() / S**2
    with torch.no_grad():
        into = w.T / S**2 / precision[:, None]
        model.encoder.weight.copy_(torch.cat([into, torch.zeros_like(into)]))
        mean = m / s**2 / precision - into @ b
        model.encoder.bias.copy_(torch.cat([mean, -precision.log() / 2]))
    model.prior = nn.Linear(1, 2 * Q, bias=False).double()
    model.prior.weight.data = torch.cat([m, s.log()])[:, None]
    return model, MultivariateNormal(w @ m + b, (w * s**2) @ w.T + S**2 * torch.eye(D).double())


def test_a_prior_that_follows_the_condition_gives_the_likelihood_of_its_law():
    m, s = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double()
    model, p = with_prior(m, s)
    x, c = p.sample((40,)), torch.ones(40, 1).double()
    log_w = model.log_weights(model.posterior(x, c), x, c, 3)
    torch.testing.assert_close(log_w, p.log_prob(x).expand(3, -1))
    torch.testing.assert_close(
        model.prior_parameters(torch.zeros(1, 1).double()), (torch.zeros(1, Q).double(),) * 2
    )


def test_samples_of_a_condition_come_from_its_place_among_the_latents():
    m, s = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double()
    model, p = with_prior(m, s)
    n = 4000
    x = model.sample(n, torch.ones(n, 1).double())
    error = (p.variance / n).sqrt()
    assert ((x.mean(0) - p.mean).abs() < 4.5 * error).all()
    assert ((x.var(0) / p.variance - 1).abs() < 4.5 * (2 / n) ** 0.5).all()


def test_without_grain_every_sample_is_the_mean_given_its_latents():
    model, p = linear_vae()
    x = model.sample(50, grain=False) - model.decoder.bias
    w = model.decoder.weight
    torch.testing.assert_close(x, x @ w @ torch.linalg.inv(w.T @ w) @ w.T)  # of the decoder's span
    assert ((x.T @ x).trace() / 50 < p.variance.sum() - D * S**2 / 2).item()


@pytest.mark.parametrize("log_scale", [-1e4, 1e4])
def test_extreme_log_scales_leave_the_loss_finite(log_scale):
    """exp(1e4) overflows and exp(-1e4) has no logarithm: unclamped, the rate would be infinite."""
    model, p = linear_vae()
    with torch.no_grad():
        model.encoder.bias[Q:] = log_scale
    terms = model.float().loss(p.sample((5,)).float())
    sum(terms.values()).backward()
    assert all(v.isfinite() for v in terms.values())
    assert all(v.grad.isfinite().all() for v in model.parameters())


def test_particles_train_in_bfloat16_and_leave_float32_weights():
    model = build(Event((2,), 2), width=8, particles=3)
    trainer = Trainer(model, Recipe(batch=8), 3, autocast=torch.bfloat16)
    for record in trainer.run(random_batches(torch.randn(16, 2), 8, torch.ones(16, 2))):
        assert set(record.terms) == {"iwae", "reweighting"}
        assert all(v.isfinite() and v.dtype == torch.float32 for v in record.terms.values())


def test_options_that_would_bound_nothing_are_refused_or_said():
    with pytest.raises(UsageError, match="particles=5 needs beta=1"):
        build(Event((2,)), particles=5, beta=4.0)
    with pytest.raises(UsageError, match="from 0 to 1"):
        families.build("vae", Event((2,)), anneal=1.5)
    with pytest.raises(UsageError, match="at least one"):
        build(Event((2,))).log_prob(torch.randn(3, 2), particles=0)
    with pytest.warns(UserWarning, match="bounds nothing"):
        build(Event((2,)), beta=0.5).prepare(torch.randn(3, 2))
    assert build(Event((2,))).preprocessing is Preprocessing.WHITEN
    plain = build(Event((2,)), whiten=False)
    assert plain.preprocessing is Preprocessing.STANDARDISE


@pytest.mark.parametrize(
    ("levels", "kind"),
    [
        (0, GaussianLikelihood),
        (2, BernoulliLikelihood),
        (17, CategoricalLikelihood),
        (256, DiscretisedLogistic),
    ],
)
def test_the_data_choose_the_law(levels, kind):
    model = build(Event((4,), levels=levels), width=8)
    assert isinstance(model.law, kind) and (model.preprocessing is Preprocessing.LEVELS) == (
        levels > 0
    )
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
    for _ in trainer.run(random_batches(torch.randn(16, *model.event_shape).double(), 4)):
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
        values.append(m.log_prob(x, c, particles=3))
    assert torch.equal(*values)


def test_scores_do_not_depend_on_the_size_of_the_blocks():
    """With the exact posterior every weight is log p, whatever is drawn: 70,000 rows, and 5."""
    model, p = linear_vae()
    x = p.sample((70_000,))
    torch.testing.assert_close(
        model.log_prob(x, particles=2)[:5], model.log_prob(x[:5], particles=2)
    )


@pytest.mark.slow
def test_a_trained_linear_vae_reaches_the_likelihood_of_pca():
    """N4: d = 16, k = 4, sigma = 0.3; the ELBO within 0.05 nats of log p after 5,000 steps of 256.

    20,000 fresh data; the standard error of the difference is below 0.01.
    """
    torch.manual_seed(0)
    W = torch.as_tensor(np.random.default_rng(0).standard_normal((16, 4)))
    p = MultivariateNormal(torch.zeros(16).double(), W @ W.T + 0.09 * torch.eye(16))
    into, out = torch.randn(8, 16) * 0.1, torch.randn(16, 4) * 0.1
    linear = Linear(into, torch.zeros(8)), Linear(out, torch.zeros(16))
    networks = AutoencoderNetworks(*linear, GaussianLikelihood(shared=True))
    model = VAE(networks, (16,), latent=4)
    trainer = Trainer(model, model.recipe._replace(lr=1e-2, batch=256), 5000)
    for _ in trainer.run(random_batches(p.sample((65_536,)).float(), 256)):
        pass
    x = p.sample((20_000,))
    exact, found = p.log_prob(x).mean().item(), trainer.average.eval().loss(x.float())
    assert exact + float(sum(found.values())) < 0.05


def test_completion_draws_the_exact_conditional_of_bits():
    """Four bits of a linear decoder with one latent, against quadrature; q is crude on purpose."""
    model = build(Event((4,), 0, 2), latent=1, width=4, waves=0).double().eval()
    slope = torch.tensor([[2.0], [-1.5], [2.5], [1.0]]).double()
    bias = torch.tensor([0.3, 0.0, -0.5, 0.2]).double()
    model.decoder = Linear(slope, bias)
    model.encoder = Linear(0.5 * torch.cat([slope.T, 0 * slope.T]) / 2, torch.zeros(2).double())
    x, known = torch.tensor([1.0, 0.0, 0.0, 0.0]).double(), torch.tensor([1, 1, 0, 0]).bool()
    drawn = model.complete(8000, x, known, sweeps=60)
    assert (drawn[:, :2] == x[:2]).all()
    z = torch.linspace(-8, 8, 4001).double()[:, None]
    p = (z @ slope.T + bias).sigmoid()
    weight = torch.exp(-z[:, 0].square() / 2) * p[:, 0] * (1 - p[:, 1])
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        both = (p[:, 2] if a else 1 - p[:, 2]) * (p[:, 3] if b else 1 - p[:, 3])
        exact = float((weight * both).sum() / weight.sum())
        share = float(((drawn[:, 2] == a) & (drawn[:, 3] == b)).double().mean())
        assert abs(share - exact) < 5 * (exact * (1 - exact) / 8000) ** 0.5, (a, b, share, exact)
