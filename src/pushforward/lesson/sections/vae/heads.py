"""Claims on the decoder's likelihood in the code of lesson 2."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from ....networks import likelihoods
from ....theory import bounds
from ....theory.exact import evidence
from ...cases import gauss_legendre, same_values
from ...claims import Claim, Evidence, Number, Verdict, double, raises_error
from . import fits


def _measure_target_refusal() -> Evidence:
    x, output = torch.randn(10, 2), torch.rand(10, 2)
    errors = raises_error(lambda: binary_cross_entropy(output, x, reduction="sum"))
    bernoulli, h = likelihoods.BernoulliLikelihood(), torch.randn(10, 2, 2)
    head = likelihoods.GaussianLikelihood(floor=0.1)
    scale = 0.1 + nn.functional.softplus(h[..., 1])
    return Evidence(
        [Number("errors of the lesson's example", errors, 0.0, 0.0)],
        [
            Number("errors of the library's Bernoulli likelihood on the same data",
                   raises_error(lambda: bernoulli.log_prob(h[..., :1], x)), 1.0, 0.0),
            same_values("a Gaussian likelihood's log-density, and torch's, nats",
                        head.log_prob(h, x), Normal(h[..., 0], scale).log_prob(x), 1e-5),
        ],
    )  # fmt: skip


def _measure_unbounded_loss() -> Evidence:
    target = torch.tensor(2.0)
    losses = [
        float(binary_cross_entropy_with_logits(torch.tensor(logit), target))
        for logit in (10.0, 100.0, 1000.0)
    ]
    head, h = likelihoods.BernoulliLikelihood(), torch.tensor([[0.7]])
    masses = sum(float(head.log_prob(h, torch.tensor([bit])).exp()) for bit in (0.0, 1.0))
    return Evidence(
        [Number(f"cross-entropy of the target 2 at the logit {logit:g}, nats", loss, 0.0, 0.0, ">=")
         for logit, loss in zip((10, 100, 1000), losses)],
        [
            *(Number(f"the same, and minus the logit {logit:g}", loss, -logit, 1e-3)
              for logit, loss in zip((10, 100, 1000), losses)),
            Number("errors of the library's Bernoulli likelihood on the target 2",
                   raises_error(lambda: head.log_prob(h, target[None])), 1.0, 0.0),
            Number("sum of its masses over the bits", masses, 1.0, 1e-6),
        ],
    )  # fmt: skip


def _measure_bce_normalisation() -> Evidence:
    """Gauss-Legendre quadrature of exp(-BCE) over x in [0, 1], where it is an exponential of x."""
    nodes, weights = gauss_legendre(40)
    head, chances = likelihoods.BernoulliLikelihood(), double(0.1, 0.3, 0.7, 0.95)
    h = chances.logit()[:, None, None].expand(-1, 40, 1)
    masses = head.log_prob(h, nodes.expand(4, -1)).exp() @ weights
    exact = (2 * chances - 1) / (chances.log() - (1 - chances).log())
    return Evidence(
        [Number(f"$\\int_0^1 e^{{-BCE}} dx$ at $\\lambda = {chance:g}$", float(mass), 1.0, 1e-6)
         for chance, mass in zip(chances, masses)],
        [
            same_values("these integrals, and $(2\\lambda - 1)/\\operatorname{logit}\\lambda$",
                        masses, exact, 1e-9),
        ],
    )  # fmt: skip


def collapse_eigenvalue(x: Tensor) -> float:
    r"""The largest eigenvalue of the covariance with column j divided by the deviation of a bit
    with the mean of x_j: above one, collapse is no minimum of the Bernoulli objective.

    To second order around the constant output, the cross-entropy is a squared error with the noise
    :math:`p(1 - p)`.
    """
    x = x.double()
    p, S = x.mean(0), x.mT.cov(correction=0)
    noise = (p * (1 - p)).sqrt()
    return float(torch.linalg.eigvalsh(S / noise / noise[:, None])[-1])


def _measure_bernoulli_collapse() -> Evidence:
    x = fits.two_mode_rows(9)
    square = fits.scale_to_unit(x)
    worst, nats = collapse_eigenvalue(square), {}
    spectrum = double(worst)
    for name, fit, data in (
        ("bernoulli", fits.fit_bernoulli_vae(), square),
        ("gaussian", fits.fit_gaussian_vae(), x),
    ):
        with torch.no_grad():
            nats[name] = float(bounds.kl_to_prior(fit.model.posterior(data)).mean())
    active = float(evidence.linear_vae_optimum(spectrum, 1, 1.0).active.sum())
    mass = 0.3 * math.log(1 / 0.3) + 0.7 * math.log(1 / 0.7)
    return Evidence(
        [Number("rate with the lesson's Bernoulli head, nats; the two modes alone take "
                f"{mass:.2f}", nats["bernoulli"], mass, 0.0, ">=")],
        [
            Number("the same", nats["bernoulli"], 0.0, 0.01),
            Number("latents worth their rate: $\\lambda_{\\max}$ of the scaled covariance is "
                   f"{worst:.2f}", active, 0.0, 0.0),
            Number("rate of the same network with a Gaussian head, nats", nats["gaussian"], mass,
                   0.0, ">="),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "2.5-runs",
        "The example computes the loss of normal data.",
        Verdict.WRONG,
        _measure_target_refusal,
        "networks.likelihoods.GaussianLikelihood.log_prob",
        right="A cross-entropy takes targets from 0 to 1, and normal numbers are not: the first "
        "code block that uses torch raises, and with it a run of the lesson from top to bottom. "
        "Real numbers need a continuous distribution, such as a Gaussian.",
        covers="A10 A01 R14",
    ),
    Claim(
        "2.5-logits",
        "A cross-entropy is a loss: no less than zero (the usual repair takes logits).",
        Verdict.ONLY_IF,
        _measure_unbounded_loss,
        "networks.likelihoods.BernoulliLikelihood.log_prob",
        right="Only for targets in [0, 1]. With logits torch accepts any target, and at the target "
        "2 the loss falls without bound: the data must be checked.",
        covers="A12 R14",
    ),
    Claim(
        "2.5-bernoulli",
        "$e^{-BCE}$ is a likelihood of real numbers in [0, 1].",
        Verdict.WRONG,
        _measure_bce_normalisation,
        "networks.likelihoods.BernoulliLikelihood.log_prob",
        right="It does not integrate to one, and to how much depends on $\\lambda$, so that nats "
        "of different outputs do not compare.",
        formula="\\int_0^1 \\lambda^x (1 - \\lambda)^{1 - x} dx = "
        "\\frac{2\\lambda - 1}{\\log\\lambda - \\log(1 - \\lambda)}",
        covers="A14",
    ),
    Claim(
        "2.5-collapse",
        "With data scaled to [0, 1], the lesson's VAE learns a mixture of two Gaussians (problem "
        "2).",
        Verdict.WRONG,
        _measure_bernoulli_collapse,
        "theory.bounds.kl_to_prior",
        right="All latents collapse: around a constant output a cross-entropy is a squared error "
        "with the noise $p(1-p)$, wider than the data, so that no latent is worth its rate. The "
        "same network with a Gaussian head and learned scales uses them.",
        formula="\\text{active only if } \\lambda_{\\max}(D^{-1/2} \\Sigma D^{-1/2}) > 1, \\quad "
        "D = \\operatorname{diag}(p_j(1 - p_j))",
        covers="A13 A78 R20",
    ),
]
