"""Small VAEs for the claims, the figures and practice problem 2, each trained once a process."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ....families.vae import VAE
from ....model import Recipe
from ....networks import likelihoods
from ....networks.autoencoder import AutoencoderNetworks
from ....networks.mlp import Perceptron
from ....rng import seeded_rng
from ....theory.exact import evidence, targets
from ....training.trainer import Trainer, random_batches

ROWS = 4000
BETAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SPECTRUM = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
NOISE = 0.6  # deviation of the linear decoder
SCALE = 0.4  # that of the decoder of points in the plane, where it is fixed


class _TrainedVAE(NamedTuple):
    """A trained VAE.

    Arguments:
        model: In the state for use.
        curves: The mean of every term over ten steps, by name; nats a data point.
    """

    model: VAE
    curves: dict[str, Tensor]


def two_mode_mixture() -> targets.GaussianMixture:
    """0.3 and 0.7 of the mass at (-2, 0) and (2, 0), narrow across and tilted oppositely."""
    covariances = torch.tensor([[[0.4, 0.5], [0.5, 0.9]], [[0.4, -0.5], [-0.5, 0.9]]])
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    return targets.GaussianMixture(torch.tensor([0.3, 0.7]), means, covariances)


def two_mode_rows(seed: int = 0, n: int = ROWS) -> Tensor:
    """Data of `two_mode_mixture`, ``(n, 2)``."""
    with seeded_rng(seed):
        return two_mode_mixture().sample(n)


def scale_to_unit(x: Tensor) -> Tensor:
    """Every column scaled to [0, 1]: what a decoder with a sigmoid needs."""
    low, high = x.min(0).values, x.max(0).values
    return (x - low) / (high - low)


def _train_vae(model: VAE, x: Tensor, steps: int, lr: float = 5e-3) -> _TrainedVAE:
    """Train with the library's trainer; the caller has seeded."""
    trainer = Trainer(model, Recipe(steps=steps, batch=256, lr=lr, ema=0.0), steps)
    records = [r.terms for r in trainer.run(random_batches(x, 256))]
    curves = {
        name: torch.stack([terms[name] for terms in records]).unflatten(0, (-1, 10)).mean(1)
        for name in records[0]
    }
    return _TrainedVAE(model.eval(), curves)


def build_planar_vae(likelihood: likelihoods.EntryLikelihood, beta: float = 1.0) -> VAE:
    """A VAE of points in the plane with two latents; the weight of the rate grows half the time."""
    encoder = Perceptron(2, 0, 4, [64, 64])
    decoder = Perceptron(2, 0, 2 * likelihood.size, [64, 64])
    return VAE(
        AutoencoderNetworks(encoder, decoder, likelihood),
        (2,),
        latent=2,
        beta=beta,
        anneal=0.5,
        whitened=False,
    )


@cache
@seeded_rng(1)
def fit_gaussian_vae() -> _TrainedVAE:
    """With a Gaussian head whose scales are learned, on `two_mode_rows`."""
    return _train_vae(
        build_planar_vae(likelihoods.GaussianLikelihood(floor=0.05)), two_mode_rows(), 1000
    )


@cache
@seeded_rng(4)
def fit_beta_vae(beta: float) -> _TrainedVAE:
    """With a Gaussian head of fixed scale, where beta sets how many nats describe a data point."""
    return _train_vae(build_planar_vae(fixed_scale_gaussian(SCALE), beta), two_mode_rows(), 600)


@cache
@seeded_rng(1)
def fit_bernoulli_vae() -> _TrainedVAE:
    """With the lesson's head, a Bernoulli, on the same data scaled to [0, 1]."""
    return _train_vae(
        build_planar_vae(likelihoods.BernoulliLikelihood()), scale_to_unit(two_mode_rows()), 500
    )


def fixed_scale_gaussian(scale: float) -> likelihoods.GaussianLikelihood:
    """A Gaussian likelihood whose scale is given and not learned."""
    likelihood = likelihoods.GaussianLikelihood(floor=0.0, shared=True)
    raw = torch.tensor(math.log(math.expm1(scale)))  # softplus of it is the scale
    likelihood.shared = nn.Parameter(raw, requires_grad=False)
    return likelihood


def build_linear_vae(d: int, latent: int, beta: float = 1.0, scale: float = NOISE) -> VAE:
    """A VAE whose encoder and decoder are affine: probabilistic PCA."""
    encoder, decoder = Perceptron(d, 0, 2 * latent, []), Perceptron(latent, 0, d, [])
    likelihood = fixed_scale_gaussian(scale)
    return VAE(
        AutoencoderNetworks(encoder, decoder, likelihood),
        (d,),
        latent=latent,
        beta=beta,
        whitened=False,
    )


def spectrum_data(n: int = 2000) -> Tensor:
    """Gaussian data whose sample covariance has the eigenvalues `SPECTRUM` exactly."""
    with seeded_rng(2):
        x = torch.randn(n, len(SPECTRUM), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.mT @ x / n), x.mT, upper=False)
    return (white.mT * SPECTRUM.sqrt()).float()


@cache
@seeded_rng(3)
def fit_linear_vae(beta: float) -> _TrainedVAE:
    """A linear VAE with fixed noise, trained on `spectrum_data`."""
    return _train_vae(
        build_linear_vae(len(SPECTRUM), len(SPECTRUM), beta), spectrum_data(), 600, lr=2e-2
    )


def last_linear(network: nn.Module) -> nn.Linear:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]


def closed_form_vae(model: VAE) -> evidence.LinearVAE:
    """The linear VAE in closed form with the decoder of a trained one."""
    layer = last_linear(model.decoder)
    return evidence.LinearVAE(layer.weight.detach().double(), layer.bias.detach().double(), NOISE)
