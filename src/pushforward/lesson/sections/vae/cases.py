"""Models of lesson 2 whose bounds are known, and how two ways to one value are compared."""

import math

import torch
from torch import Tensor
from torch.distributions import Normal

from ....theory.exact import evidence, linear_vae
from ...claims import Number, double


def nonlinear_joint() -> tuple[evidence.QuadratureJoint, Tensor]:
    """Five data of a decoder that is not linear, and an arbitrary q with two bumps for each."""
    z, log_weight = evidence.latent_quadrature(12.0, 2001)
    x = double(-1.5, -0.3, 0.2, 1.0, 2.5)[:, None]
    likelihood = Normal(z[:, 0].sin() + z[:, 0].square() / 4, 0.5).log_prob(x)
    joint = evidence.QuadratureJoint(likelihood, Normal(0.0, 1.0).log_prob(z[:, 0]), log_weight)
    one, two = Normal(x, 0.6).log_prob(z[:, 0]), Normal(-x / 2, 0.3).log_prob(z[:, 0])
    return joint, torch.logaddexp(one + math.log(0.4), two + math.log(0.6))


def linear_vae_case(
    d: int = 6, latent: int = 3, n: int = 200
) -> tuple[linear_vae.LinearVAE, Tensor]:
    W, b = torch.randn(d, latent).double(), torch.randn(d).double()
    model = linear_vae.LinearVAE(W, b, 0.5)
    return model, model.evidence().sample((n,))


def max_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def same_values(what: str, a: Tensor, b: Tensor, tolerance: float = 1e-9) -> Number:
    """Two ways to the same values, row by row: their largest difference is zero."""
    return Number(f"largest difference: {what}", max_difference(a, b), 0.0, tolerance)
