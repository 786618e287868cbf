"""Claims on the code of lesson 2: the reparametrised draw, the decoder's law, the loss."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from ....errors import DataError
from ....families.vae import VAE
from ....networks import laws
from ....networks.mlp import Perceptron
from ....shapes import standard_normal, sum_event
from ....theory import bounds, evidence, linear_vae
from ...claims import Claim, Evidence, Number, Verdict, double
from . import fits
from .bounds import same


def raised(run: Callable[[], object], error: type[Exception]) -> float:
    """How many errors a call ends with: one or none."""
    try:
        run()
    except error:
        return 1.0
    return 0.0


def reparametrised() -> Evidence:
    """The latents are rebuilt outside from the same normal numbers."""
    model, x = fits.planar(laws.Gaussian()).double(), torch.randn(50, 2).double()
    state = torch.get_rng_state()
    terms = model.loss(x)
    torch.set_rng_state(state)
    q = model.posterior(x)
    z = q.mean + q.scale * torch.randn(50, 2, dtype=torch.float64)
    by_hand = -sum_event(model.law.log_prob(model.parameters_of(z), x)).mean()
    return Evidence([
        same("the distortion, and that at $\\mu + \\sigma\\varepsilon$ of the same "
             "$\\varepsilon$, nats", terms["distortion"], by_hand, 1e-12),
        same("the rate, and torch's divergence, nats", terms["rate"],
             kl_divergence(q, Normal(torch.zeros(2).double(), 1.0)).sum(1).mean(), 1e-12),
    ])  # fmt: skip


def estimators() -> Evidence:
    """f = z^2: the derivative in mu of mu^2 + sigma^2 is 2 mu."""
    n, mu, sigma = 200_000, double(1.5), double(0.7)
    eps, numbers, variances = torch.randn(n).double(), [], []
    for name, estimate, expected in (
        ("pathwise", bounds.pathwise, 4 * 0.7**2),
        ("score-function", bounds.score_function, 1.5**4 / 0.7**2 + 14 * 1.5**2 + 15 * 0.7**2),
    ):
        g = estimate(torch.square, mu, sigma, eps)
        squares = (g - 3).square()
        numbers.append(Number(f"mean of the {name} draws, and $2\\mu$", float(g.mean()), 3.0,
                              5 * float(g.std()) / math.sqrt(n)))  # fmt: skip
        variances.append(Number(f"variance of the {name} draws, and its closed form",
                                float(squares.mean()), expected,
                                5 * float(squares.std()) / math.sqrt(n)))  # fmt: skip
    only = Number("unbiased estimators among the two",
                  float(sum(number.agrees for number in numbers)), 1.0, 0.0)  # fmt: skip
    return Evidence([only], [*numbers, *variances])


def refused() -> Evidence:
    x, output = torch.randn(10, 2), torch.rand(10, 2)
    errors = raised(lambda: binary_cross_entropy(output, x, reduction="sum"), RuntimeError)
    head, h = laws.Gaussian(floor=0.1), torch.randn(10, 2, 2)
    scale = 0.1 + nn.functional.softplus(h[..., 1])
    return Evidence(
        [Number("errors of the lesson's example", errors, 0.0, 0.0)],
        [
            Number("errors of the library's Bernoulli law on the same data",
                   raised(lambda: laws.Bernoulli().log_prob(h[..., :1], x), DataError), 1.0, 0.0),
            same("a Gaussian law's log-density, and torch's, nats", head.log_prob(h, x),
                 Normal(h[..., 0], scale).log_prob(x), 1e-5),
        ],
    )  # fmt: skip


def unbounded() -> Evidence:
    target = torch.tensor(2.0)
    losses = [
        float(binary_cross_entropy_with_logits(torch.tensor(logit), target))
        for logit in (10.0, 100.0, 1000.0)
    ]
    head, h = laws.Bernoulli(), torch.tensor([[0.7]])
    masses = sum(float(head.log_prob(h, torch.tensor([bit])).exp()) for bit in (0.0, 1.0))
    return Evidence(
        [Number(f"cross-entropy of the target 2 at the logit {logit:g}, nats", loss, 0.0, 0.0, ">=")
         for logit, loss in zip((10, 100, 1000), losses)],
        [
            *(Number(f"the same, and minus the logit {logit:g}", loss, -logit, 1e-3)
              for logit, loss in zip((10, 100, 1000), losses)),
            Number("errors of the library's Bernoulli law on the target 2",
                   raised(lambda: head.log_prob(h, target[None]), DataError), 1.0, 0.0),
            Number("sum of its masses over the bits", masses, 1.0, 1e-6),
        ],
    )  # fmt: skip


def normalised() -> Evidence:
    """Gauss-Legendre quadrature of exp(-BCE) over x in [0, 1], where it is an exponential of x."""
    nodes, weights = (torch.tensor(v, dtype=torch.float64) for v in _gauss(40))  # on [0, 1]
    head, chances = laws.Bernoulli(), double(0.1, 0.3, 0.7, 0.95)
    h = chances.logit()[:, None, None].expand(-1, 40, 1)
    masses = head.log_prob(h, nodes.expand(4, -1)).exp() @ weights
    exact = (2 * chances - 1) / (chances.log() - (1 - chances).log())
    return Evidence(
        [Number(f"$\\int_0^1 e^{{-BCE}} dx$ at $\\lambda = {chance:g}$", float(mass), 1.0, 1e-6)
         for chance, mass in zip(chances, masses)],
        [
            same("these integrals, and $(2\\lambda - 1)/\\operatorname{logit}\\lambda$", masses,
                 exact, 1e-9),
        ],
    )  # fmt: skip


def _gauss(count: int) -> tuple[list[float], list[float]]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]."""
    from numpy.polynomial.legendre import leggauss

    nodes, weights = leggauss(count)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()


def instability(x: Tensor) -> float:
    r"""The largest eigenvalue of the covariance with column j divided by the deviation of a bit
    with the mean of x_j: above one, collapse is no minimum of the Bernoulli objective.

    To second order around the constant output, the cross-entropy is a squared error with the noise
    :math:`p(1 - p)`.
    """
    p, S = x.mean(0).double(), x.mT.cov(correction=0).double()
    noise = (p * (1 - p)).sqrt()
    return float(torch.linalg.eigvalsh(S / noise / noise[:, None])[-1])


def collapse() -> Evidence:
    x = fits.rows(9)
    square = fits.unit_square(x)
    worst, nats = instability(square), {}
    spectrum = double(worst)
    for name, fit, data in (
        ("bernoulli", fits.bernoulli(), square),
        ("gaussian", fits.gaussian(), x),
    ):
        with torch.no_grad():
            nats[name] = float(bounds.rate(fit.model.posterior(data)).mean())
    active = float(linear_vae.optimum(spectrum, 1, 1.0).active.sum())
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


def still(model: VAE) -> VAE:
    """A VAE whose decoder ignores z and whose encoder ignores x: a loss without noise."""
    for part in (model.encoder, model.decoder):
        nn.init.zeros_(part.layers[-1].weight)
    return model


def batch_size() -> Evidence:
    model, x = still(fits.planar(laws.Bernoulli())), torch.rand(10, 2)
    ten, hundred = (sum(model.loss(rows).values()) for rows in (x, x.repeat(10, 1)))
    h = torch.full((10, 2), 0.3)
    sums = [float(binary_cross_entropy(h.repeat(k, 1), x.repeat(k, 1), reduction="sum"))
            for k in (1, 10)]  # fmt: skip
    both = model.posterior(x)
    by_hand = (
        bounds.rate(both).mean()
        - model.law.log_prob(model.parameters_of(both.mean), x).sum(1).mean()
    )
    return Evidence(
        [Number("the lesson's loss of the same data ten times over, as a multiple",
                sums[1] / sums[0], 1.0, 1e-5)],
        [
            Number("the same", sums[1] / sums[0], 10.0, 1e-4),
            Number("the library's, as a multiple", float((hundred / ten).detach()), 1.0, 1e-5),
            Number("the library's, and sums over entries averaged over data, nats", float(ten.detach()),
                   float(by_hand.detach()), 1e-5),
        ],
    )  # fmt: skip


def mean_over_entries() -> Evidence:
    """Dividing the reconstruction by d is the objective with beta = d, divided by d."""
    joint_z, log_weight = evidence.grid(12, 2001)
    log_p = Normal(joint_z[:, 0], 0.5).log_prob(double(0.3, 1.4, -2.0)[:, None])
    joint = evidence.Joint(log_p, standard_normal(joint_z), log_weight)
    values, d = torch.linspace(0.2, 1.5, 400).double(), 10

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


def overflow() -> Evidence:
    log_variance = torch.tensor([[89.0]])
    lesson = -0.5 * (1 + log_variance - log_variance.exp()).sum()
    model = VAE(Perceptron(1, 0, 2, []), Perceptron(1, 0, 2, []), laws.Gaussian(), (1,), latent=1)
    layer = model.encoder.layers[0]  # type: ignore[union-attr, index]
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.0, 44.5]))
    ours = float(bounds.rate(model.posterior(torch.zeros(1, 1))))
    return Evidence(
        [Number("KL terms that are finite at $\\log\\sigma^2 = 89$ in single precision",
                float(lesson.isfinite()), 1.0, 0.0)],
        [
            Number("the same", float(lesson.isfinite()), 0.0, 0.0),
            Number("the library's rate, whose $\\log\\sigma$ stops at 4, nats", ours,
                   (math.exp(8) - 1) / 2 - 4, 1e-2),
        ],
    )  # fmt: skip


def prior_draws() -> Evidence:
    """A linear VAE with the library's class draws from N(b, W W' + sigma^2 I)."""
    model = fits.linear(3, 2)
    exact, n = fits.solved(model).evidence(), 40_000
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
        Number("mean of $\\log p(x)$ minus the bound with 64 particles, nats", float(slack.mean()),
               0.0, 5 * float(slack.std()) / math.sqrt(500), ">="),
    ])  # fmt: skip


CLAIMS = [
    Claim(
        "2.5-reparametrisation",
        "$z = \\mu + \\sigma \\odot \\varepsilon$ makes the bound a function of noise that has no "
        "parameters.",
        Verdict.HOLDS,
        reparametrised,
        "families.vae.VAE.loss",
        covers="R8 R9",
    ),
    Claim(
        "2.5-gradient",
        "Reparametrisation is the answer to how $\\nabla_\\phi \\mathbb{E}_q f(z)$ is computed.",
        Verdict.ONLY_IF,
        estimators,
        "theory.bounds.pathwise",
        right="It needs a differentiable f and a continuous z. The score-function estimator "
        "$f(z) \\nabla_\\phi \\log q(z)$ needs neither and is unbiased as well; for $f = z^2$ its "
        "variance is $\\mu^4/\\sigma^2 + 14\\mu^2 + 15\\sigma^2$ instead of $4\\sigma^2$.",
        covers="A19 R13",
    ),
    Claim(
        "2.5-runs",
        "The example computes the loss of normal data.",
        Verdict.WRONG,
        refused,
        "networks.laws.Gaussian.log_prob",
        right="A cross-entropy takes targets from 0 to 1, and normal numbers are not: the first "
        "code block that uses torch raises, and with it a run of the lesson from top to bottom. "
        "Real numbers need a continuous law, such as a Gaussian.",
        covers="A10 A01 R14",
    ),
    Claim(
        "2.5-logits",
        "A cross-entropy is a loss: no less than zero (the usual repair takes logits).",
        Verdict.ONLY_IF,
        unbounded,
        "networks.laws.Bernoulli.log_prob",
        right="Only for targets in [0, 1]. With logits torch accepts any target, and at the target "
        "2 the loss falls without bound: the data must be checked.",
        covers="A12 R14",
    ),
    Claim(
        "2.5-bernoulli",
        "$e^{-BCE}$ is a likelihood of real numbers in [0, 1].",
        Verdict.WRONG,
        normalised,
        "networks.laws.Bernoulli.log_prob",
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
        collapse,
        "theory.bounds.rate",
        right="All latents collapse: around a constant output a cross-entropy is a squared error "
        "with the noise $p(1-p)$, wider than the data, so that no latent is worth its rate. The "
        "same network with a Gaussian head and learned scales uses them.",
        formula="\\text{active only if } \\lambda_{\\max}(D^{-1/2} \\Sigma D^{-1/2}) > 1, \\quad "
        "D = \\operatorname{diag}(p_j(1 - p_j))",
        covers="A13 A78 R20",
    ),
    Claim(
        "2.5-batch",
        "The loss sums over everything, batch included.",
        Verdict.WRONG,
        batch_size,
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
        mean_over_entries,
        "theory.evidence.Joint.distortion",
        right="With a sum in the KL it is a $\\beta$-VAE with $\\beta = d$.",
        covers="A20",
    ),
    Claim(
        "2.5-overflow",
        "An encoder may give any $\\log\\sigma^2$.",
        Verdict.WRONG,
        overflow,
        "theory.bounds.rate",
        right="$e^{89}$ is infinite in single precision, and the KL term with it. The library stops "
        "$\\log\\sigma$ at -8 and 4.",
        covers="A21",
    ),
    Claim(
        "2.1-generation",
        "To generate: draw z from the prior, then x from the decoder's law.",
        Verdict.HOLDS,
        prior_draws,
        "families.vae.VAE.sample",
        covers="R19",
    ),
]
