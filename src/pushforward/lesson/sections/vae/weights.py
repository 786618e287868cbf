"""Claims of lesson 2.4 and problem 2.4: a weight on the KL term."""

import math

import torch
from torch import Tensor

from ....theory.exact import evidence
from ...cases import linear_vae_case, same_values
from ...claims import Claim, Evidence, Number, Verdict, double


def _measure_beta_objective() -> Evidence:
    """The best value of the weighted objective over q, for each of 200 data."""
    model, x = linear_vae_case()
    log_p = model.evidence().log_prob(x)
    excess = {beta: model.best_elbo(x, beta) - log_p for beta in (0.25, 1.0, 4.0)}
    loose = model.elbo(x, model.posterior(x, 0.25), 0.25) - log_p
    return Evidence(
        [Number("most that the best value at $\\beta = 0.25$ exceeds $\\log p(x)$, nats",
                float(excess[0.25].max()), 0.0, 1e-9, "<=")],
        [
            same_values("that value by its closed form and at $q \\propto p(z)p(x|z)^4$, nats",
                        excess[0.25], loose),
            Number("least excess at $\\beta = 0.25$, nats", float(excess[0.25].min()), 0.0, 0.0,
                   ">="),
            Number("largest excess at $\\beta = 1$, nats", float(excess[1.0].max()), 0.0),
            Number("largest excess at $\\beta = 4$, nats", float(excess[4.0].max()), 0.0, 0.0,
                   "<="),
        ],
    )  # fmt: skip


def _measure_water_filling() -> Evidence:
    """LBFGS on the mean bound over ten data whose covariance has the spectrum exactly."""
    spectrum, beta, sigma = double(3.0, 1.4, 0.6, 0.2), 2.0, 0.6
    axes = torch.linalg.qr(torch.randn(4, 4).double())[0]
    half = 2 * (axes * spectrum.sqrt()).mT
    x, W = torch.cat([half, -half]), (0.3 * torch.randn(4, 3).double()).requires_grad_()
    search = torch.optim.LBFGS([W], max_iter=500, tolerance_grad=1e-10, tolerance_change=0,
                               line_search_fn="strong_wolfe")  # fmt: skip

    def step() -> Tensor:
        search.zero_grad()
        model = evidence.LinearVAE(W, torch.zeros(4).double(), sigma)
        value = -model.elbo(x, model.posterior(x, beta), beta).mean()
        value.backward()
        return value

    search.step(step)  # type: ignore[arg-type]
    model = evidence.LinearVAE(W.detach(), torch.zeros(4).double(), sigma)
    q, best = model.posterior(x, beta), evidence.linear_vae_optimum(spectrum, 3, sigma, beta)
    constant = 2 * math.log(2 * math.pi * sigma**2)
    error = 2 * sigma**2 * (float(model.distortion(x, q).mean()) - constant)
    return Evidence([
        Number("rate, and $\\frac12\\sum\\log(\\lambda_i/\\beta\\sigma^2)_+$, nats",
               float(model.rate(q).mean()), float(best.rate), 1e-5),
        Number("squared error, and $\\sum_{i \\le q}\\min(\\lambda_i, \\beta\\sigma^2) + "
               "\\sum_{i > q}\\lambda_i$", error, float(best.error), 1e-5),
        Number("singular values of W that are not zero, and $\\lambda_i > \\beta\\sigma^2$",
               float((torch.linalg.svdvals(model.weight) > 1e-2).sum()), float(best.active.sum()),
               0.0),
    ])  # fmt: skip


CLAIMS = [
    Claim(
        "2.4-beta",
        "With a weight $\\beta$ on the KL term (problem 2.4) the objective is still a lower bound.",
        Verdict.ONLY_IF,
        _measure_beta_objective,
        "theory.exact.evidence.LinearVAE.best_elbo",
        right="Only for $\\beta \\ge 1$. The best value over q is the logarithm of a power mean, "
        "for $\\beta < 1$ above $\\log p(x)$ for every x.",
        formula="\\max_q \\mathbb{E}_q \\log p(x|z) - \\beta D_{KL}(q \\| p(z)) = "
        "\\beta \\log \\mathbb{E}_{p(z)} p(x|z)^{1/\\beta}",
        covers="A23",
    ),
    Claim(
        "2.4-water",
        "A $\\beta$-VAE trades rate against distortion (problem 2.4): on linear data it fills the "
        "spectrum with water up to the level $\\beta\\sigma^2$.",
        Verdict.HOLDS,
        _measure_water_filling,
        "theory.exact.evidence.linear_vae_optimum",
        formula="R = \\frac12 \\sum_{i \\le q} \\log \\frac{\\lambda_i}{\\beta\\sigma^2}, \\quad "
        "\\lambda_i > \\beta\\sigma^2",
        covers="R17 R20",
    ),
]
