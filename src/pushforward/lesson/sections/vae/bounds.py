"""Claims of lesson 2.1 to 2.4: the bound, its gap, and what its two terms do."""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from ....theory import bounds
from ....theory.exact import evidence
from ...cases import linear_vae_case, nonlinear_joint, same_values, sample_mean
from ...claims import Claim, Evidence, Number, Verdict


def _measure_bound_derivations() -> Evidence:
    """Three ways to one number, for a decoder that is not linear."""
    joint, log_q = nonlinear_joint()
    first = joint.elbo_by_jensen(log_q)
    terms = -joint.distortion(log_q) - joint.rate(log_q)
    return Evidence([
        same_values("Jensen's line and reconstruction minus KL, nats", first, terms),
        same_values("Jensen's line and $\\log p(x)$ minus KL to the posterior, nats", first,
                    joint.elbo_by_divergence(log_q)),
    ])  # fmt: skip


def _measure_elbo_gap() -> Evidence:
    joint, log_q = nonlinear_joint()
    lost = joint.log_evidence() - joint.elbo_by_jensen(log_q)
    exact = joint.elbo_by_jensen(joint.log_posterior())
    return Evidence([
        same_values("what is lost, and $D_{KL}(q \\| p(z|x))$, nats", lost, joint.gap(log_q)),
        Number("smallest gap of the five data, nats", float(lost.min()), 0.0, 0.0, ">="),
        same_values("$\\log p(x)$ and the bound at the posterior, nats", exact,
                    joint.log_evidence()),
    ])  # fmt: skip


def _measure_likelihood_bound() -> Evidence:
    """Latents that q takes to be independent and that the posterior does not."""
    model, x = linear_vae_case()
    log_p = model.evidence().log_prob(x)
    apart_q, exact_q = model.factorised(x), model.posterior(x)
    P = exact_q.precision_matrix[0]
    expected = float((P.diagonal().log().sum() - P.logdet()) / 2)
    lost = float((log_p - model.elbo(x, apart_q)).mean())
    return Evidence(
        [Number("nats by which the maximum over independent latents misses", lost, 0.0)],
        [
            Number("the same, and $\\frac12(\\sum_i \\log P_{ii} - \\log\\det P)$", lost, expected),
            same_values("$\\log p(x)$ and the bound at the posterior, nats", log_p,
                        model.elbo(x, exact_q)),
        ],
    )  # fmt: skip


def _measure_importance_bound() -> Evidence:
    r"""A q of N(m + delta, 2 v) beside the posterior N(m, v); E_q w^2 is a Gaussian integral."""
    model, x = linear_vae_case(latent=1, n=1)
    p, log_p, repeats = model.posterior(x), model.evidence().log_prob(x), 5000
    v = float(p.covariance_matrix.squeeze())
    q = MultivariateNormal(p.mean + 0.5 * math.sqrt(v), 2 * p.covariance_matrix)
    log_w = model.log_weights(x, q, 64 * repeats).view(64, repeats) - log_p
    variance = 2 / math.sqrt(3) * math.exp(0.25 / 3) - 1
    found = [bounds.importance_bound(log_w[:k]) for k in (1, 4, 16, 64)]
    # w / p(x) - 1 has mean zero and takes most of the noise
    lost = log_w.exp().mean(0) - 1 - found[-1]
    error = 5 * float(lost.std()) / math.sqrt(repeats)
    elbo, half = float((model.elbo(x, q) - log_p).mean()), variance / 128
    return Evidence([
        sample_mean("$E L_1 - \\log p(x)$, and that of the ELBO, nats", found[0], elbo),
        *(sample_mean(f"$E L_{{{4 * k}}} - E L_{{{k}}}$, nats", b - a, 0.0, ">=")
          for k, a, b in zip((1, 4, 16), found, found[1:])),
        Number("$\\log p(x) - E L_{64}$, and $\\mathrm{Var}(w/p) / 128$, nats; the next order is "
               "a 1/16 of it", float(lost.mean()), half, error + half / 16),
    ])  # fmt: skip


def _measure_reconstruction_term() -> Evidence:
    model, x = linear_vae_case()
    good, idle = model.posterior(x), model.prior.expand((len(x),))
    noise = 2 * float(model.variance)
    W, constant = model.weight, len(model.bias) / 2 * math.log(math.pi * noise)
    expected = ((x - model.bias).square().sum(1) + W.square().sum()) / noise + constant
    change = model.distortion(x, idle) - model.distortion(x, good)
    return Evidence(
        [Number("change of the term, nats, when q changes and the decoder does not",
                float(change.mean()), 0.0)],
        [same_values("the term at q = p(z), and $\\frac{|x - b|^2 + |W|^2}{2\\sigma^2} + c$, nats",
                     model.distortion(x, idle), expected)],
    )  # fmt: skip


def fit_five_points(data: Tensor, sigma: float) -> tuple[float, float, float]:
    """Mean log p of the first five data, by which it learns, and of others; the mean rate. Nats."""
    x, other = data[:5], data[5:]
    centre = x.mean(0)
    spectrum, axes = torch.linalg.eigh((x - centre).mT @ (x - centre) / 5)
    best = evidence.linear_vae_optimum(spectrum, 4, sigma)
    model = evidence.LinearVAE(axes.flip(1)[:, :4] * best.singular, centre, sigma)
    q = model.posterior(x)
    return (
        float(model.elbo(x, q).mean()),
        float(model.evidence().log_prob(other).mean()),
        float(model.rate(q).mean()),
    )


def _measure_vae_overfitting() -> Evidence:
    data = torch.randn(2005, 10, dtype=torch.float64)
    wide, narrow = (fit_five_points(data, sigma) for sigma in (1e-2, 1e-4))
    slope = (narrow[0] - wide[0]) / math.log(1e4)
    return Evidence(
        [
            Number("slope of the training bound in $\\log 1/\\sigma^2$, nats", slope, 0.0, 1e-6),
            Number("change of the test log-likelihood from $\\sigma = 0.01$ to 0.0001, nats",
                   narrow[1] - wide[1], 0.0, 0.0, ">="),
        ],
        [
            Number("slope of the training bound, and $(d - q)/2$, nats", slope, 3.0, 1e-6),
            Number("growth of the KL term, and $q \\log 100$, nats", narrow[2] - wide[2],
                   4 * math.log(100), 1e-6),
            Number("change of the test log-likelihood, nats", narrow[1] - wide[1], -1e6, 0.0, "<="),
        ],
    )  # fmt: skip


def _measure_kl_sign() -> Evidence:
    q = Normal(torch.randn(5, 3).double(), torch.rand(5, 3).double() + 0.1)
    torchs = kl_divergence(q, Normal(torch.zeros(3).double(), 1.0)).sum(1)
    log_variance = 2 * q.scale.log()
    comment = (1 + log_variance - q.mean.square() - log_variance.exp()).sum(1) / 2
    return Evidence(
        [same_values("the closed form, and the comment's $\\frac12\\sum(1 + \\log\\sigma^2 - "
                     "\\mu^2 - \\sigma^2)$, nats", bounds.kl_to_prior(q), comment)],
        [
            same_values("the closed form, and torch's divergence, nats", bounds.kl_to_prior(q),
                        torchs),
            same_values("the comment with its sign turned, and torch's divergence, nats", -comment,
                        torchs),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "2.1-likelihood",
        "A VAE maximises the likelihood (section 1.2 lists it so).",
        Verdict.ONLY_IF,
        _measure_likelihood_bound,
        "theory.exact.evidence.LinearVAE.elbo",
        right="It maximises a lower bound. The two agree only if q can be the posterior; with "
        "independent latents and posterior precision $P$ the best q of a linear VAE loses "
        "$\\frac12(\\sum_i \\log P_{ii} - \\log\\det P)$ on every data point.",
        covers="A10a R11",
    ),
    Claim(
        "2.2-derivations",
        "Jensen's inequality and the decomposition of the divergence give the same bound.",
        Verdict.HOLDS,
        _measure_bound_derivations,
        "theory.exact.evidence.QuadratureJoint.elbo_by_jensen",
        formula="\\mathbb{E}_q \\log \\frac{p(x,z)}{q(z|x)} = \\mathbb{E}_q \\log p(x|z) - "
        "D_{KL}(q \\| p(z)) = \\log p(x) - D_{KL}(q \\| p(z|x))",
        covers="R9 R12",
    ),
    Claim(
        "2.3-gap",
        "The bound lies below $\\log p(x)$ by the divergence from q to the posterior; the lesson "
        "leaves the equality case unsaid: $q = p(z|x)$ and nothing else.",
        Verdict.HOLDS,
        _measure_elbo_gap,
        "theory.exact.evidence.QuadratureJoint.gap",
        formula="\\log p(x) - \\mathcal{L}(x) = D_{KL}(q(z|x) \\| p(z|x))",
        covers="A22",
    ),
    Claim(
        "2.3-importance",
        "Averaging K importance weights inside the logarithm tightens the bound towards "
        "$\\log p(x)$ (the lesson does not mention it; it is how $\\log p$ is estimated).",
        Verdict.HOLDS,
        _measure_importance_bound,
        "theory.bounds.importance_bound",
        formula="\\log p(x) - \\mathbb{E} L_K \\approx \\frac{\\operatorname{Var}(w / p(x))}{2K}",
        covers="R18",
    ),
    Claim(
        "2.4-reconstruction",
        "The reconstruction term measures the quality of the decoder.",
        Verdict.WRONG,
        _measure_reconstruction_term,
        "theory.exact.evidence.LinearVAE.distortion",
        right="It is a property of the pair: with the decoder fixed it changes with q, and only "
        "the sum with the KL term says how good a model of x is.",
        covers="A17",
    ),
    Claim(
        "2.4-overfitting",
        "The KL term prevents overfitting.",
        Verdict.WRONG,
        _measure_vae_overfitting,
        "theory.exact.evidence.linear_vae_optimum",
        right="It pulls q towards the prior and bounds nothing. Of five data in ten dimensions a "
        "linear VAE with four latents and its exact posterior has an ELBO that grows without "
        "bound, by $(d - q)/2$ nats for each $\\log 1/\\sigma^2$, while the KL term grows as well "
        "and held-out data become impossible. Bound the decoder's scale, hold data out.",
        covers="A16",
    ),
    Claim(
        "2.6-sign",
        "The comment in the code gives the divergence as "
        "$\\frac12\\sum(1 + \\log\\sigma^2 - \\mu^2 - \\sigma^2)$.",
        Verdict.WRONG,
        _measure_kl_sign,
        "theory.bounds.kl_to_prior",
        right="The sign is turned; the line of code under the comment, and section 2.6, have it "
        "right.",
        formula="D_{KL} = \\frac12 \\sum_i (\\sigma_i^2 + \\mu_i^2 - 1 - \\log\\sigma_i^2)",
        covers="A15 R10",
    ),
]
