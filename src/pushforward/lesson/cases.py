"""What sections share: models whose bounds are known, quadratures, two ways to one value."""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from ..model import GenerativeModel
from ..theory.exact import evidence
from ..theory.exact.targets import Gaussian
from .claims import Number, double


def nonlinear_joint() -> tuple[evidence.QuadratureJoint, Tensor]:
    """Five data of a decoder that is not linear, and an arbitrary q with two bumps for each."""
    z, log_weight = evidence.latent_quadrature(12.0, 2001)
    x = double(-1.5, -0.3, 0.2, 1.0, 2.5)[:, None]
    likelihood = Normal(z[:, 0].sin() + z[:, 0].square() / 4, 0.5).log_prob(x)
    joint = evidence.QuadratureJoint(likelihood, Normal(0.0, 1.0).log_prob(z[:, 0]), log_weight)
    one, two = Normal(x, 0.6).log_prob(z[:, 0]), Normal(-x / 2, 0.3).log_prob(z[:, 0])
    return joint, torch.logaddexp(one + math.log(0.4), two + math.log(0.6))


def linear_vae_case(d: int = 6, latent: int = 3, n: int = 200) -> tuple[evidence.LinearVAE, Tensor]:
    W, b = torch.randn(d, latent).double(), torch.randn(d).double()
    model = evidence.LinearVAE(W, b, 0.5)
    return model, model.evidence().sample((n,))


def gaussian_1d(mean: float = 0.0, deviation: float = 1.0) -> Gaussian:
    return Gaussian(double(mean), double(deviation**2)[:, None])


def gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss's rule on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(count)
    return torch.as_tensor((x + 1) / 2), torch.as_tensor(w / 2)


def integrate_density(model: GenerativeModel, reach: float, points: int) -> float:
    r""":math:`\int p(x)\,dx` by the trapezoidal rule over a square, exact to many digits here."""
    side = torch.linspace(-reach, reach, points)
    log_p = model.log_prob(torch.cartesian_prod(side, side)).detach().double()
    return float(log_p.exp().sum()) * float(side[1] - side[0]) ** 2


def sample_mean(
    what: str, values: Tensor, predicted: float, sense: Literal["=", "<=", ">="] = "="
) -> Number:
    """A mean over rows within five of its standard errors of what is predicted."""
    error = 5 * float(values.std()) / math.sqrt(len(values))
    return Number(what, float(values.mean()), predicted, error, sense)


def same_values(what: str, a: Tensor, b: Tensor, tolerance: float = 1e-9) -> Number:
    """Two ways to the same values, row by row: their largest difference is zero."""
    difference = float((a - b).detach().abs().max())
    return Number(f"largest difference: {what}", difference, 0.0, tolerance)
