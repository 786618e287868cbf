"""Small VAEs for the claims, the figures and practice problem 2, each trained once a process."""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ....families.vae import VAE
from ....model import Recipe
from ....networks import likelihoods
from ....networks.mlp import Perceptron
from ....rng import forked, sow
from ....theory import targets
from ....theory.exact import linear_vae
from ....training.trainer import Trainer, batches

ROWS = 4000
BETAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SPECTRUM = torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64)
NOISE = 0.6  # deviation of the linear decoder
SCALE = 0.4  # that of the decoder of points in the plane, where it is fixed


class Fit(NamedTuple):
    """A trained VAE.

    Arguments:
        model: In the state for use.
        curves: The mean of every term over ten steps, by name; nats a datum.
    """

    model: VAE
    curves: dict[str, Tensor]


def two_modes() -> targets.GaussianMixture:
    """0.3 and 0.7 of the mass at (-2, 0) and (2, 0), narrow across and tilted oppositely."""
    covariances = torch.tensor([[[0.4, 0.5], [0.5, 0.9]], [[0.4, -0.5], [-0.5, 0.9]]])
    means = torch.tensor([[-2.0, 0.0], [2.0, 0.0]])
    return targets.GaussianMixture(torch.tensor([0.3, 0.7]), means, covariances)


def rows(seed: int = 0, n: int = ROWS) -> Tensor:
    """Data of `two_modes`, ``(n, 2)``."""
    with forked():
        sow(seed)
        return two_modes().sample(n)


def unit_square(x: Tensor) -> Tensor:
    """Every column scaled to [0, 1]: what a decoder with a sigmoid needs."""
    low, high = x.min(0).values, x.max(0).values
    return (x - low) / (high - low)


def train(model: VAE, x: Tensor, steps: int, lr: float = 5e-3) -> Fit:
    """Train with the library's trainer; the caller has seeded."""
    trainer = Trainer(model, Recipe(steps=steps, batch=256, lr=lr, ema=0.0), steps)
    records = [r.terms for r in trainer.run(batches(x, 256))]
    curves = {
        name: torch.stack([terms[name] for terms in records]).unflatten(0, (-1, 10)).mean(1)
        for name in records[0]
    }
    return Fit(model.eval(), curves)


def planar(law: likelihoods.Law, beta: float = 1.0) -> VAE:
    """A VAE of points in the plane with two latents; the weight of the rate grows half the time."""
    encoder, decoder = Perceptron(2, 0, 4, [64, 64]), Perceptron(2, 0, 2 * law.size, [64, 64])
    return VAE(encoder, decoder, law, (2,), latent=2, beta=beta, anneal=0.5, whitened=False)


@cache
def gaussian() -> Fit:
    """With a Gaussian head whose scales are learned, on `rows`."""
    with forked():
        sow(1)
        return train(planar(likelihoods.Gaussian(floor=0.05)), rows(), 1000)


@cache
def swept(beta: float) -> Fit:
    """With a Gaussian head of fixed scale, where beta sets how much is told of a datum."""
    with forked():
        sow(4)
        return train(planar(fixed_noise(SCALE), beta), rows(), 600)


@cache
def bernoulli() -> Fit:
    """With the lesson's head, a Bernoulli law, on the same data scaled to [0, 1]."""
    with forked():
        sow(1)
        return train(planar(likelihoods.Bernoulli()), unit_square(rows()), 500)


def fixed_noise(scale: float) -> likelihoods.Gaussian:
    """A Gaussian law whose scale is given and not learned."""
    law = likelihoods.Gaussian(floor=0.0, shared=True)
    raw = torch.tensor(math.log(math.expm1(scale)))  # softplus of it is the scale
    law.shared = nn.Parameter(raw, requires_grad=False)
    return law


def linear(d: int, latent: int, beta: float = 1.0, scale: float = NOISE) -> VAE:
    """A VAE whose encoder and decoder are affine: probabilistic PCA."""
    encoder, decoder = Perceptron(d, 0, 2 * latent, []), Perceptron(latent, 0, d, [])
    law = fixed_noise(scale)
    return VAE(encoder, decoder, law, (d,), latent=latent, beta=beta, whitened=False)


def with_spectrum(n: int = 2000) -> Tensor:
    """Gaussian data whose sample covariance has the eigenvalues `SPECTRUM` exactly."""
    with forked():
        sow(2)
        x = torch.randn(n, len(SPECTRUM), dtype=torch.float64)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(x.mT @ x / n), x.mT, upper=False)
    return (white.mT * SPECTRUM.sqrt()).float()


@cache
def filled(beta: float) -> Fit:
    """A linear VAE with fixed noise, trained on `with_spectrum`."""
    with forked():
        sow(3)
        return train(linear(len(SPECTRUM), len(SPECTRUM), beta), with_spectrum(), 600, lr=2e-2)


def last(network: nn.Module) -> nn.Linear:
    """The last layer of a network, the only one of an affine map."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]


def solved(model: VAE) -> linear_vae.LinearVAE:
    """The linear VAE in closed form with the decoder of a trained one."""
    layer = last(model.decoder)
    return linear_vae.LinearVAE(layer.weight.detach().double(), layer.bias.detach().double(), NOISE)
