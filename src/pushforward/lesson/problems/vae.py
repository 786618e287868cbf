"""Practice problem 2: a VAE on two modes."""

import math

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ...metrics import neighbours
from ...theory import bounds
from ...theory.exact import evidence
from ..cases import same_values, sample_mean
from ..claims import Number
from ..sections.vae import figures, fits, heads
from . import DerivationStep, ExperimentResult, Problem, ProblemPart

FRESH = 4000  # data that no model was trained on
MODE = -0.3 * math.log(0.3) - 0.7 * math.log(0.7)  # nats that say which mode a data point is from


def _check_squared_error() -> list[Number]:
    model, z = fits.build_linear_vae(3, 2), torch.randn(7, 2)
    x = torch.randn(7, 3)
    distortion = -model.law.log_prob(model.likelihood_parameters(z), x).sum(1)
    squares = (x - model.decode(z)).square().sum(1) / (2 * fits.NOISE**2)
    constant = 3 / 2 * math.log(2 * math.pi * fits.NOISE**2)
    return [
        same_values(
            "the head's $-\\log p(x|z)$ and the formula, nats", distortion, squares + constant, 1e-5
        )
    ]


def _check_gaussian_rate() -> list[Number]:
    q = Normal(torch.randn(7, 2).double(), torch.rand(7, 2).double() + 0.1)
    standard = Normal(torch.zeros(2).double(), 1.0)
    return [same_values("the formula and torch's divergence, nats", bounds.kl_to_prior(q),
                        kl_divergence(q, standard).sum(1), 1e-12)]  # fmt: skip


def _check_bernoulli_curvature() -> list[Number]:
    """The second derivative of BCE(x, sigmoid(h)) in the output at x = output, by autograd."""
    p = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64, requires_grad=True)
    target = p.detach()
    loss = -(target * p.log() + (1 - target) * (1 - p).log()).sum()
    (slope,) = torch.autograd.grad(loss, p, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), p)
    return [same_values("curvature and $1 / p(1-p)$", curvature, 1 / (target * (1 - target)), 1e-9)]


def _fresh_data() -> Tensor:
    """Data of the two modes that no model was trained on."""
    return fits.two_mode_rows(11, FRESH)


def _run_vae_fit() -> ExperimentResult:
    """Bounds on fresh data against the exact density, and draws against the exact weights."""
    model, target, x = fits.fit_gaussian_vae().model, fits.two_mode_mixture(), _fresh_data()
    with torch.no_grad():
        elbo, tight = (model.log_prob(x, particles=k).double() for k in (1, 64))
        draws = model.sample(FRESH)
    exact = target.log_prob(x.double())
    report = neighbours.known_modes(draws.numpy(), target.means.numpy(), 1.0)
    left = float(report.frequencies[0])
    numbers = [
        sample_mean("mean $\\log p(x)$ minus the ELBO, nats", exact - elbo, 0.0, ">="),
        sample_mean("what 64 importance samples add to the bound, nats", tight - elbo, 0.0, ">="),
        sample_mean("mean $\\log p(x)$ minus the bound with 64, nats", exact - tight, 0.0, ">="),
        Number("weight of the left mode among the draws", left, 0.3, 0.06),
    ]
    text = [
        f"On {FRESH:,} fresh data the ELBO is {float(elbo.mean()):.3f} nats, 64 importance samples "
        f"raise the bound to {float(tight.mean()):.3f}, and the exact mean of $\\log p$ is "
        f"{float(exact.mean()):.3f}: the encoder's gap is at least "
        f"{float((tight - elbo).mean()):.3f} nats, and what the decoder lacks at most "
        f"{float((exact - tight).mean()):.3f}.",
        f"Of the draws {left:.3f} lie at the left mode, whose weight is 0.3.",
    ]
    return ExperimentResult(text, numbers, {})


def _run_loss_curves() -> ExperimentResult:
    """Both terms as a VAE learns, and the head that cannot learn."""
    fit, bare = fits.fit_gaussian_vae(), fits.fit_bernoulli_vae()
    last = {name: float(v[-10:].mean()) for name, v in fit.curves.items()}
    entropy, total = fits.two_mode_mixture().entropy(), last["distortion"] + last["rate"]
    square = fits.scale_to_unit(_fresh_data())
    worst = heads.collapse_eigenvalue(square)
    numbers = [
        Number("minus the ELBO over the last 100 steps, and the entropy, nats", total, entropy, 0.0,
               ">="),
        Number("KL term of the Bernoulli head at the end, nats", float(bare.curves["rate"][-1]),
               0.0, 0.01),
        Number("$\\lambda_{\\max}$ of the scaled covariance, in units of $p(1-p)$", worst, 1.0, 0.0,
               "<="),
    ]  # fmt: skip
    text = [
        f"Over the last hundred steps the reconstruction term is {last['distortion']:.3f} and the "
        f"KL term {last['rate']:.3f} nats; their sum, {total:.3f}, is {total - entropy:.3f} above "
        f"the entropy of the data, {entropy:.3f}, below which no model can bring its mean.",
        "The weight of the KL term grows from 0 to 1 over the first half of training, so that the "
        "latents are in use before their rate counts in full.",
        "With the lesson's Bernoulli head and the data scaled to the unit square the KL term falls "
        f"to {float(bare.curves['rate'][-1]):.1e} nats: every latent collapses. Around a constant "
        "output the cross-entropy is a squared error with the noise $p(1-p)$, and the largest "
        f"eigenvalue of the covariance in these units is {worst:.2f}, below 1: no latent is worth "
        "its rate. The problem can be solved with a continuous distribution only.",
    ]
    return ExperimentResult(text, numbers, {"training_curves": figures.draw_training_curves()})


def _run_latent_space() -> ExperimentResult:
    """How data cover the latent plane, and what lies between the modes."""
    model, x = fits.fit_gaussian_vae().model, _fresh_data()
    target = fits.two_mode_mixture()
    with torch.no_grad():
        q = model.posterior(x)
        used = int(bounds.active_units(q.mean).sum())
        on_grid = target.log_prob(figures.decode_lattice(25).reshape(-1, 2).double())
    # the distribution of z over the data is the mean of the posteriors
    second = (q.mean.square() + q.variance).mean(0)
    between = float((on_grid < target.log_prob(x.double()).quantile(0.01)).double().mean())
    numbers = [
        Number("active latents, of two", float(used), 2.0, 0.0),
        Number("mean square of z over data and posteriors, first latent", float(second[0]), 1.0,
               0.2),
        Number("the same, second latent", float(second[1]), 1.0, 0.2),
    ]  # fmt: skip
    text = [
        f"Both latents are used ({used} of 2 active). Averaged over the data, the posteriors cover "
        f"the prior: the mean squares of the latents are {float(second[0]):.3f} and "
        f"{float(second[1]):.3f}, next to 1.",
        "The modes share the latent plane along a boundary, and the decoder, which is continuous, "
        f"maps what lies at it to the gap between them: {between:.0%} of equally likely latents "
        "decode to points that are less likely than all but one in a hundred data.",
    ]
    return ExperimentResult(text, numbers, {"latent_space": figures.draw_latent_space()})


def _check_beta_slope() -> list[Number]:
    """Water-filling: the derivative of the error's nats by the rate, by differences in beta."""
    spectrum, sigma = fits.SPECTRUM, fits.NOISE
    low, high = (evidence.linear_vae_optimum(spectrum, 4, sigma, 1.0 * f) for f in (0.999, 1.001))
    slope = float((high.error - low.error) / (high.rate - low.rate)) / (2 * sigma**2)
    return [Number("slope of the optimum at $\\beta = 1$", slope, -1.0, 1e-5)]


def _run_beta_sweep() -> ExperimentResult:
    """Rate and error by beta, against water-filling and Shannon's bound."""
    entropy, numbers, planar = fits.two_mode_mixture().entropy(), [], []
    for beta in fits.BETAS:
        rate, error = figures.linear_rate_error(beta)
        best = evidence.linear_vae_optimum(fits.SPECTRUM, 4, fits.NOISE, beta)
        found, least = (
            float(e) / (2 * fits.NOISE**2) + beta * float(r)
            for e, r in ((error, rate), (best.error, best.rate))
        )
        what = f"objective of a trained linear VAE, and the optimum, $\\beta = {beta:g}$, nats"
        numbers.append(Number(what, found, least, 0.05))
        planar.append(figures.planar_rate_error(beta))
    for beta, (rate, error) in zip(fits.BETAS, planar):
        least = float(evidence.shannon_bound(entropy, 2, torch.tensor(error)))
        numbers.append(Number(f"rate on two modes, and Shannon's bound at its error, "
                              f"$\\beta = {beta:g}$, nats", rate, least, 0.1, ">="))  # fmt: skip
    rows = "; ".join(
        f"$\\beta = {beta:g}$: {rate:.2f} nats, {error:.2f}"
        for beta, (rate, error) in zip(fits.BETAS, planar)
    )
    text = [
        "On linear data the trained models lie on the curve of reverse water-filling: the decoder "
        "keeps the directions whose variance exceeds $\\beta\\sigma^2$ and reconstructs them to "
        "that error. The slope of the optimum is $-\\beta$.",
        f"On two modes, rate and squared error are {rows}. The larger $\\beta$, the fewer nats "
        f"describe a data point: at the largest {planar[-1][0]:.2f} nats, next to the {MODE:.2f} "
        "that it takes to say which mode it is. Shannon's bound lies below every point.",
        "The scale of the decoder is fixed here. If it is learned, the optimum of a linear model "
        "has $\\sigma^2 = \\sum_{i > q} \\lambda_i / (d - \\beta q)$, and none with all latents "
        "in use if $\\beta q \\ge d$. For $\\beta < 1$ the objective bounds nothing (2.4-beta).",
    ]
    return ExperimentResult(text, numbers, {"beta_sweep": figures.draw_beta_sweep()})


IMPLEMENT = [
    DerivationStep(
        "Encoder: a perceptron gives the mean and log-deviation of each latent. Draw by "
        "reparametrisation.",
        "q(z|x) = \\mathcal{N}(\\mu(x), \\operatorname{diag} \\sigma^2(x)), \\quad z = \\mu + "
        "\\sigma \\odot \\varepsilon",
    ),
    DerivationStep(
        "Decoder: a perceptron gives mean and scale of a Gaussian for each entry. With a fixed "
        "scale the reconstruction term is a squared error.",
        "-\\log p(x|z) = \\frac{\\lVert x - f(z) \\rVert^2}{2\\sigma^2} + \\frac{d}{2} \\log "
        "2\\pi\\sigma^2",
        _check_squared_error,
    ),
    DerivationStep(
        "The divergence from the prior is in closed form.",
        "D_{KL} = \\frac12 \\sum_i (\\mu_i^2 + \\sigma_i^2 - 1 - \\log\\sigma_i^2)",
        _check_gaussian_rate,
    ),
]
WHY = [
    DerivationStep(
        "Why not the lesson's Bernoulli head: near a constant output $p$ the cross-entropy is "
        "a squared error with the noise $p(1-p)$.",
        "BCE(x, \\lambda) \\approx BCE(x, x) + \\frac{(x - \\lambda)^2}{2p(1-p)}",
        _check_bernoulli_curvature,
    ),
    DerivationStep(
        "A latent is worth its rate only if it explains more variance than the noise "
        "(water-filling with $\\sigma^2 = p(1-p)$), and data in $[0, 1]$ have less.",
        "\\lambda_{\\max}(D^{-1/2} \\Sigma D^{-1/2}) > 1, \\quad D = \\operatorname{diag}(p(1-p))",
    ),
]
WEIGHT = [
    DerivationStep(
        "Minimise distortion plus $\\beta$ times rate: a Lagrangian of the distortion at a given "
        "rate, so that the curve of optima has the slope $-\\beta$.",
        "\\frac{\\partial D}{\\partial R} = -\\beta",
        _check_beta_slope,
    )
]

PROBLEM = Problem(
    title="A VAE on two modes",
    parts=[
        ProblemPart(
            "Implement a VAE with a latent space of two dimensions.", IMPLEMENT, _run_vae_fit
        ),
        ProblemPart(
            "Plot the curves of the reconstruction and KL losses in training.",
            WHY,
            _run_loss_curves,
        ),
        ProblemPart(
            "Draw the latent space, and what the decoder makes of a grid.", [], _run_latent_space
        ),
        ProblemPart(
            "Implement the beta-VAE and analyse the effect of beta.", WEIGHT, _run_beta_sweep
        ),
    ],
)
