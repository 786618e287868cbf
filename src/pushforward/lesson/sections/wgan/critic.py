"""Section 4.3: what a critic's value says, and what it does not."""

import math

import numpy as np
import torch
from scipy.special import ndtr
from torch import nn

from ....families import wgan, wgan_gp
from ....theory import adversarial, transport
from ....theory.exact import discriminator
from ...claims import Claim, Evidence, Number, Verdict, double, numpy_generator


def _measure_critic_output() -> Evidence:
    """The gap between two points at distance 10 that a critic can have, by its last layer."""
    real, fake = double(10.0), double(0.0)
    steepest = max(
        float(adversarial.critic_gap((w * (real - 5)).sigmoid(), (w * (fake - 5)).sigmoid()))
        for w in (0.1, 1.0, 4.0, 100.0)
    )
    linear = float(adversarial.critic_gap(real, fake))
    return Evidence(
        [Number("best gap of the lesson's critic, which ends in a sigmoid", steepest, 10, 1e-6)],
        [
            Number("the same: at most its range", steepest, 1, 1e-9, "<="),
            Number("gap of a linear critic of slope 1", linear, 10, 1e-9),
        ],
    )


def _measure_optimal_gap() -> Evidence:
    """The gap of the best critics of two points at distance 10, whose W1 is 10."""
    best = discriminator.penalised_optimum(10.0, 10.0)
    strict = discriminator.penalised_optimum(10.0, 1e9)
    clipped = float(discriminator.clipped_gap(double(3.0, 4.0), 0.01))
    return Evidence(
        [
            Number("gap of the penalised critic, $W_1 = 10$, $\\lambda = 10$", best.gap, 10, 1e-6),
            Number("gap of the clipped linear critic, $W_1 = 5$, $c = 0.01$", clipped, 5, 1e-6),
        ],
        [
            Number("penalised: $d + d^2/2\\lambda$", best.gap, 10 + 10**2 / (2 * 10), 1e-9),
            Number("penalised, $\\lambda = 10^9$", strict.gap, 10, 1e-6),
            Number("clipped: $c \\lVert \\Delta \\rVert_1$", clipped, 0.07, 1e-6),
        ],
    )


def _measure_finite_samples() -> Evidence:
    rng, rounds = numpy_generator(), 500
    grid = np.linspace(-12, 12, 20_001)
    lesson, right = [], []
    for n in (256, 1024):
        x, y = rng.standard_normal((2, n, rounds))
        distances = transport.wasserstein_1d(x, y, 1)
        error = float(distances.std() / math.sqrt(rounds))
        what = f"mean $W_1$ of two samples of {n} of $\\mathcal{{N}}(0, 1)$"
        lesson.append(Number(what, float(distances.mean()), 0, 5 * error))
        expected = transport.expected_w1(grid, ndtr(grid), n)
        right.append(Number(what, float(distances.mean()), expected, 5 * error))
    return Evidence(lesson, right)


def _measure_wgan_stability() -> Evidence:
    """The game of two points with WGAN-GP: how far the sample strays late in the game."""
    start = double(1.0, 0.0)
    penalised = discriminator.play_game(discriminator.wgan_gp_step, start, 0.02, 4000, 10.0)
    held = discriminator.play_game(discriminator.simultaneous_step, start, 0.1, 4000, 0.5)
    late = float(penalised[-1000:, 0].abs().max())
    return Evidence(
        [Number("largest distance from the data point late in WGAN-GP", late, 1e-3, 0, "<=")],
        [
            Number("the same", late, 0.01, 0, ">="),
            Number("the same of a GAN with R1", float(held[-1000:, 0].abs().max()), 0, 1e-9),
        ],
    )


def _measure_wgan_objectives() -> Evidence:
    """The terms that are minimised against the gap and the penalty that 4.3 and 4.4 write."""
    real, fake = torch.randn(2, 64, 3, dtype=torch.float64)
    weight = double(1.0, -2.0, 0.5)

    def critic(x: torch.Tensor) -> torch.Tensor:
        return x @ weight

    gap = float(critic(real).mean() - critic(fake).mean())
    terms = wgan_gp.wgan_gp_critic_loss(critic, real, fake, 10.0, False)
    excess = 10 * (float(weight.norm()) - 1) ** 2
    at = fake.requires_grad_()
    (pull,) = torch.autograd.grad(wgan.wasserstein_generator_loss(critic(at)), at)
    return Evidence([
        Number("4.4's first two terms: minus the gap of 4.3", float(terms["minus_critic_gap"]),
               -gap, 1e-12),
        Number("its penalty: $\\lambda(\\lVert w \\rVert - 1)^2$", float(terms["penalty"]), excess,
               1e-9),
        Number("descent of the generator moves samples by $\\nabla f/n$: cosine",
               float(nn.functional.cosine_similarity(-pull[0], weight, dim=0)), 1, 1e-9),
    ])  # fmt: skip


def _measure_weight_clipping() -> Evidence:
    """Weights after a clipped step, and the gaps of clipped critics at one distance."""
    net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
    step = torch.optim.SGD(net.parameters(), 1.0)
    (-adversarial.critic_gap(*(net(v + torch.randn(32, 2))[:, 0] for v in (5, 0)))).backward()
    step.step()
    wgan.clip_weights(net, 0.01)
    largest = max(float(p.detach().abs().max()) for p in net.parameters())
    gaps = [float(discriminator.clipped_gap(double(*v), 0.01)) for v in ((3.0, 4.0), (5.0, 0.0))]
    return Evidence([
        Number("largest weight after a step", largest, 0.01, 1e-9, "<="),
        Number("gap at $\\Delta = (3, 4)$", gaps[0], 0.07, 1e-9),
        Number("gap at $\\Delta = (5, 0)$, which is as far", gaps[1], 0.05, 1e-9),
    ])  # fmt: skip


CLAIMS = [
    Claim(
        "4.3-output",
        "A critic's output is not a probability; the lesson's example takes its discriminator for "
        "one.",
        Verdict.WRONG,
        _measure_critic_output,
        "theory.adversarial.critic_gap",
        right="That discriminator ends in a sigmoid, so no distance above 1 can be seen: the last "
        "layer of a critic is linear.",
        covers="A34 R31",
    ),
    Claim(
        "4.3-gap",
        "The critic's value approximates the distance.",
        Verdict.ONLY_IF,
        _measure_optimal_gap,
        "theory.exact.discriminator.penalised_optimum",
        right="Only as $\\lambda \\to \\infty$: the best penalised critic of two points has slope "
        "$1 + d/2\\lambda$, and a clipped one shows another norm in other units.",
        formula=r"\text{gap} = d + \frac{d^2}{2\lambda}",
        covers="A39 R33 R31",
    ),
    Claim(
        "4.3-finite-samples",
        "The value is 0 once samples and data are alike.",
        Verdict.ONLY_IF,
        _measure_finite_samples,
        "theory.transport.wasserstein_1d",
        right="For infinite samples. Two samples of $n$ are apart by the order $n^{-1/2}$ on the "
        "line: compare with that.",
        formula=r"\mathbb{E}\,W_1(P_n, P_n') \approx \frac{2}{\sqrt{\pi n}} "
        r"\int \sqrt{F(1 - F)}\,dx",
        covers="A39",
    ),
    Claim(
        "4.3-stability",
        "WGAN improves the stability of training.",
        Verdict.WRONG,
        _measure_wgan_stability,
        "theory.exact.discriminator.play_game",
        right="Not as a theorem: between two points WGAN-GP never comes to rest, whereas a GAN "
        "whose slope at the data is penalised converges.",
        covers="A39 R28",
    ),
    Claim(
        "4.3-objectives",
        "What 4.4 minimises is minus what 4.3 maximises, plus the penalty.",
        Verdict.HOLDS,
        _measure_wgan_objectives,
        "families.wgan_gp.wgan_gp_critic_loss",
        formula=r"L_f = \mathbb{E} f(\tilde x) - \mathbb{E} f(x) + \lambda P, \qquad "
        r"L_G = -\mathbb{E} f(G(z))",
        covers="A41 R31",
    ),
    Claim(
        "4.4-clipping",
        "Clipping the weights bounds the critic, in a limited way.",
        Verdict.HOLDS,
        _measure_weight_clipping,
        "theory.exact.discriminator.clipped_gap",
        covers="R31 A41",
    ),
]
