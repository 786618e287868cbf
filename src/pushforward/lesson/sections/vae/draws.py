"""Claims on latents and the loss in the code of lesson 2: draws, gradients, sums, overflow."""

import math

import torch
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy

from ....families.vae import VAE
from ....networks import likelihoods
from ....networks.autoencoder import AutoencoderNetworks
from ....networks.mlp import Perceptron
from ....shapes import standard_normal_log_prob, sum_event
from ....theory import bounds
from ....theory.exact import evidence
from ...cases import same_values, sample_mean
from ...claims import Claim, Evidence, Number, Verdict, double
from . import fits


def _make_noiseless(model: VAE) -> VAE:
    """A VAE whose decoder ignores z and whose encoder ignores x: a loss without noise."""
    for part in (model.encoder, model.decoder):
        nn.init.zeros_(fits.last_linear(part).weight)
    return model


def _measure_reparametrisation() -> Evidence:
    """The latents are rebuilt outside from the same normal numbers."""
    model, x = (
        fits.build_planar_vae(likelihoods.GaussianLikelihood()).double(),
        torch.randn(50, 2).double(),
    )
    state = torch.get_rng_state()
    terms = model.loss(x)
    torch.set_rng_state(state)
    q = model.posterior(x)
    z = q.mean + q.scale * torch.randn(50, 2, dtype=torch.float64)
    by_hand = -sum_event(model.law.log_prob(model.likelihood_parameters(z), x)).mean()
    return Evidence([
        same_values("the distortion, and that at $\\mu + \\sigma\\varepsilon$ of the same "
                    "$\\varepsilon$, nats", terms["distortion"], by_hand, 1e-12),
        same_values("the rate, and torch's divergence, nats", terms["rate"],
                    kl_divergence(q, Normal(torch.zeros(2).double(), 1.0)).sum(1).mean(), 1e-12),
    ])  # fmt: skip


def _measure_gradient_estimators() -> Evidence:
    """Of f = z^2: the derivative in mu of mu^2 + sigma^2 is 2 mu."""
    mu, sigma = double(1.5), double(0.7)
    eps, numbers, variances = torch.randn(200_000).double(), [], []
    for name, estimate, expected in (
        ("pathwise", bounds.pathwise_gradient, 4 * 0.7**2),
        (
            "score-function",
            bounds.score_function_gradient,
            1.5**4 / 0.7**2 + 14 * 1.5**2 + 15 * 0.7**2,
        ),
    ):
        g = estimate(torch.square, mu, sigma, eps)
        numbers.append(sample_mean(f"mean of the {name} draws, and $2\\mu$", g, 3.0))
        what = f"variance of the {name} draws, and its closed form"
        variances.append(sample_mean(what, (g - 3).square(), expected))
    unbiased = float(sum(number.agrees for number in numbers))
    only = Number("unbiased estimators among the two", unbiased, 1.0, 0.0)
    return Evidence([only], [*numbers, *variances])


def _measure_batch_scaling() -> Evidence:
    model, x = (
        _make_noiseless(fits.build_planar_vae(likelihoods.BernoulliLikelihood())),
        torch.rand(10, 2),
    )
    ten, hundred = (
        float(torch.stack(list(model.loss(rows).values())).sum().detach())
        for rows in (x, x.repeat(10, 1))
    )
    h = torch.full((10, 2), 0.3)
    sums = [float(binary_cross_entropy(h.repeat(k, 1), x.repeat(k, 1), reduction="sum"))
            for k in (1, 10)]  # fmt: skip
    both = model.posterior(x)
    by_hand = (
        bounds.kl_to_prior(both).mean()
        - model.law.log_prob(model.likelihood_parameters(both.mean), x).sum(1).mean()
    )
    return Evidence(
        [Number("the lesson's loss of the same data ten times over, as a multiple",
                sums[1] / sums[0], 1.0, 1e-5)],
        [
            Number("the same", sums[1] / sums[0], 10.0, 1e-4),
            Number("the library's, as a multiple", hundred / ten, 1.0, 1e-5),
            Number("the library's, and sums over entries averaged over data, nats", ten,
                   float(by_hand.detach()), 1e-5),
        ],
    )  # fmt: skip


def _measure_entry_scaling() -> Evidence:
    """Dividing the reconstruction by d is the objective with beta = d, divided by d."""
    joint_z, log_weight = evidence.latent_quadrature(12.0, 2001)
    log_p = Normal(joint_z[:, 0], 0.5).log_prob(double(0.3, 1.4, -2.0)[:, None])
    joint = evidence.QuadratureJoint(log_p, standard_normal_log_prob(joint_z), log_weight)
    values, d = torch.linspace(0.2, 1.5, 400).double(), 10.0

    def best_width(weight: float) -> float:
        """The deviation of q, one for all three data, that minimises distortion + weight rate."""
        means = double(0.3, 1.4, -2.0) / (1 + 0.25 * weight)
        costs = [
            (joint.distortion(q) + weight * joint.rate(q)).mean()
            for q in (Normal(means[:, None], s).log_prob(joint_z[:, 0]) for s in values)
        ]
        return float(values[int(torch.stack(costs).argmin())])

    spacing = float(values[1] - values[0])
    with_mean, exact = best_width(d), math.sqrt(1 / (1 + 4))
    return Evidence(
        [Number("deviation of the best q with a mean over 10 entries and a sum in the KL, and "
                "that of the posterior", with_mean, exact, spacing)],
        [
            Number("the same, and that of noise with the variance $10\\sigma^2$", with_mean,
                   math.sqrt(1 / (1 + 4 / d)), spacing),
            Number("with sums in both, and that of the posterior", best_width(1.0), exact, spacing),
        ],
    )  # fmt: skip


def _measure_variance_overflow() -> Evidence:
    log_variance = torch.tensor([[89.0]])
    lesson = -0.5 * (1 + log_variance - log_variance.exp()).sum()
    perceptrons = Perceptron(1, 0, 2, []), Perceptron(1, 0, 2, [])
    networks = AutoencoderNetworks(*perceptrons, likelihoods.GaussianLikelihood())
    model = VAE(networks, (1,), latent=1)
    layer = fits.last_linear(model.encoder)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.0, 44.5]))
        ours = float(bounds.kl_to_prior(model.posterior(torch.zeros(1, 1))))
    return Evidence(
        [Number("KL terms that are finite at $\\log\\sigma^2 = 89$ in single precision",
                float(lesson.isfinite()), 1.0, 0.0)],
        [
            Number("the same", float(lesson.isfinite()), 0.0, 0.0),
            Number("the library's rate, whose $\\log\\sigma$ stops at 4, nats", ours,
                   (math.exp(8) - 1) / 2 - 4, 1e-2),
        ],
    )  # fmt: skip


def _measure_prior_samples() -> Evidence:
    """A linear VAE with the library's class draws from N(b, W W' + sigma^2 I)."""
    model = fits.build_linear_vae(3, 2)
    exact, n = fits.closed_form_vae(model).evidence(), 40_000
    x = model.sample(n).double() - exact.mean
    found, S = x.mT @ x / n, exact.covariance_matrix
    error = ((S.square() + S.diagonal()[:, None] * S.diagonal()) / n).sqrt()
    probe = exact.sample((500,)).float()
    with torch.no_grad():
        bound = model.log_prob(probe, particles=64).double()
    slack = exact.log_prob(probe.double()) - bound
    return Evidence([
        Number("largest error of a covariance of draws, in standard errors",
               float(((found - S) / error).abs().max()), 0.0, 5.0),
        sample_mean("mean of $\\log p(x)$ minus the bound with 64 particles, nats", slack, 0.0,
                    ">="),
    ])  # fmt: skip


CLAIMS = [
    Claim(
        "2.5-reparametrisation",
        "$z = \\mu + \\sigma \\odot \\varepsilon$ makes the bound a function of noise that has no "
        "parameters.",
        Verdict.HOLDS,
        _measure_reparametrisation,
        "families.vae.VAE.loss",
        covers="R8 R9",
    ),
    Claim(
        "2.5-gradient",
        "Reparametrisation is the answer to how $\\nabla_\\phi \\mathbb{E}_q f(z)$ is computed.",
        Verdict.ONLY_IF,
        _measure_gradient_estimators,
        "theory.bounds.pathwise_gradient",
        right="It needs a differentiable f and a continuous z. The score-function estimator "
        "$f(z) \\nabla_\\phi \\log q(z)$ needs neither and is unbiased as well; for $f = z^2$ its "
        "variance is $\\mu^4/\\sigma^2 + 14\\mu^2 + 15\\sigma^2$ instead of $4\\sigma^2$.",
        covers="A19 R13",
    ),
    Claim(
        "2.5-batch",
        "The loss sums over everything, batch included.",
        Verdict.WRONG,
        _measure_batch_scaling,
        "families.vae.VAE.loss",
        right="As an estimate of the bound it must sum over the entries and average over the "
        "batch; otherwise its size, and the step of an optimizer without normalisation, grows with "
        "the batch.",
        covers="A20",
    ),
    Claim(
        "2.5-entries",
        "A mean over entries in the reconstruction would do as well as a sum.",
        Verdict.WRONG,
        _measure_entry_scaling,
        "theory.exact.evidence.QuadratureJoint.distortion",
        right="With a sum in the KL it is a $\\beta$-VAE with $\\beta = d$.",
        covers="A20",
    ),
    Claim(
        "2.5-overflow",
        "An encoder may give any $\\log\\sigma^2$.",
        Verdict.WRONG,
        _measure_variance_overflow,
        "theory.bounds.kl_to_prior",
        right="$e^{89}$ is infinite in single precision, and the KL term with it. The library "
        "stops $\\log\\sigma$ at -8 and 4.",
        covers="A21",
    ),
    Claim(
        "2.1-generation",
        "To generate: draw z from the prior, then x from the decoder's distribution.",
        Verdict.HOLDS,
        _measure_prior_samples,
        "families.vae.VAE.sample",
        covers="R19",
    ),
]
