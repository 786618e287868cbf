"""Section 3.3: what the value of the game says of the Jensen-Shannon divergence."""

import math

import torch

from ....theory import adversarial
from ....theory.exact import discriminator, divergences
from ...cases import gaussian_1d
from ...claims import Claim, Evidence, Number, Verdict, double
from .distributions import (
    DATA,
    LINE,
    js_gradient,
    shift_gradients,
    shifted_log_densities,
)


def _measure_game_value() -> Evidence:
    numbers = []
    for theta in (0.0, 1.0, 3.0):
        log_p, log_q, weight = shifted_log_densities(theta)
        best = discriminator.optimal_logit(log_p, log_q)
        value = float(discriminator.expected_game_value(log_p, log_q, best, weight))
        js = float(divergences.jensen_shannon(log_p, log_q, weight))
        numbers.append(
            Number(f"$V(D^*)$ at $\\theta = {theta:g}$, nats", value, 2 * js - math.log(4), 1e-10)
        )
    return Evidence(numbers)


def _measure_js_range() -> Evidence:
    near, far = (float(divergences.jensen_shannon(*shifted_log_densities(t))) for t in (0.0, 20.0))
    log_p, log_q, weight = shifted_log_densities(2.0)
    there = float(divergences.jensen_shannon(log_p, log_q, weight))
    back = float(divergences.jensen_shannon(log_q, log_p, weight))
    return Evidence([
        Number("JS of equal distributions, nats", near, 0, 1e-12),
        Number("JS of distributions 20 deviations apart, nats", far, math.log(2), 1e-10),
        Number("its asymmetry at $\\theta = 2$", there - back, 0, 1e-12),
        Number("JS at $\\theta = 2$, nats", there,
               divergences.gaussian_jensen_shannon(DATA, gaussian_1d(2.0)), 1e-10),
    ])  # fmt: skip


def _measure_imperfect_discriminator() -> Evidence:
    """The divergence that a worse discriminator shows, and by how much it falls short."""
    log_p, log_q, weight = shifted_log_densities(1.0)
    logit = discriminator.optimal_logit(log_p, log_q) + LINE.points[:, 0].sin()
    value = discriminator.expected_game_value(log_p, log_q, logit, weight)
    shown = float(adversarial.js_from_value(value))
    js = float(divergences.jensen_shannon(log_p, log_q, weight))
    short = float(discriminator.discriminator_regret(log_p, log_q, logit, weight))
    return Evidence(
        [Number("JS shown by $f^* + \\sin x$, nats", shown, js, 1e-6)],
        [Number("the same, and half of what $D$ lacks", shown + short / 2, js, 1e-10)],
    )


def _measure_generator_gradients() -> Evidence:
    """Gradients of both losses in the shift, against that of 2 JS."""
    lesson, right = [], []
    for theta in (1.0, 3.0, 6.0):
        saturating, other = shift_gradients(theta)
        js = js_gradient(theta)
        at = f"at $\\theta = {theta:g}$"
        lesson.append(Number(f"gradient of $-\\log D$ {at}", other, 2 * js, 1e-7))
        right.append(Number(f"gradient of $\\log(1 - D)$ {at}", saturating, 2 * js, 1e-7))
        right.append(Number(f"gradient of $-\\log D$ {at}", other, theta - 2 * js, 1e-7))
    return Evidence(lesson, right)


def _measure_dirac_dynamics() -> Evidence:
    """The game of two points: the distance of the players from their equilibrium."""
    start, h = double(0.12, 0.16), 0.1
    free = discriminator.play_game(discriminator.simultaneous_step, start, h, 2000)
    held = discriminator.play_game(discriminator.simultaneous_step, start, h, 2000, 0.5)
    small = discriminator.play_game(discriminator.simultaneous_step, 1e-5 * start, h, 200)
    growth = float(small[-1].norm() / small[0].norm()) ** (1 / 200)
    turns = discriminator.play_game(discriminator.alternating_step, start, h, 2000).norm(dim=1)
    return Evidence(
        [Number("radius after 2000 simultaneous steps", float(free[-1].norm()), 0.2, 0, "<=")],
        [
            Number("growth a step, near equilibrium: $\\sqrt{1 + h^2/4}$", growth,
                   abs(discriminator.simultaneous_eigenvalues(h)[0]), 1e-7),
            Number("least radius of alternating steps, from 0.2", float(turns.min()), 0.1, 0, ">="),
            Number("radius after 2000 steps with R1", float(held[-1].norm()), 0, 1e-12),
        ],
    )  # fmt: skip


def _measure_js_from_loss() -> Evidence:
    """The divergence from the loss of the best discriminator on samples."""
    n = 100_000
    x, y = torch.randn(n, 1, dtype=torch.float64), 1 + torch.randn(n, 1, dtype=torch.float64)
    real, fake = (
        discriminator.optimal_logit(DATA.log_prob(v), gaussian_1d(1.0).log_prob(v)) for v in (x, y)
    )
    loss = float(sum(adversarial.discriminator_loss(real, fake).values()))
    halves = torch.stack([torch.nn.functional.softplus(f) for f in (-real, fake)])
    error = float((halves.var(1) / n).sum().sqrt()) / 2
    js = float(divergences.jensen_shannon(*shifted_log_densities(1.0)))
    return Evidence([Number("$(\\log 4 - L_D)/2$, nats", (math.log(4) - loss) / 2, js, 5 * error)])


CLAIMS = [
    Claim(
        "3.3-value",
        "At the best discriminator the objective is twice the Jensen-Shannon divergence, less "
        "$\\log 4$.",
        Verdict.HOLDS,
        _measure_game_value,
        "theory.exact.discriminator.expected_game_value",
        formula=r"C(G) = -\log 4 + 2\,\mathrm{JS}(p, q)",
        covers="R23",
    ),
    Claim(
        "3.3-range",
        "The mean KL of both distributions to their mixture is symmetric and runs from 0 to "
        "$\\log 2$.",
        Verdict.HOLDS,
        _measure_js_range,
        "theory.exact.divergences.jensen_shannon",
        covers="R23",
    ),
    Claim(
        "3.3-loss",
        "The discriminator's printed loss is minus the value of the game, and so tells the "
        "divergence.",
        Verdict.HOLDS,
        _measure_js_from_loss,
        "theory.adversarial.discriminator_loss",
        formula=r"\mathrm{JS}(p, q) = \tfrac12(\log 4 - L_D) \text{ at } D^*",
        covers="A32 R23",
    ),
    Claim(
        "3.3-equivalence",
        "The generator of a GAN minimises the Jensen-Shannon divergence.",
        Verdict.ONLY_IF,
        _measure_imperfect_discriminator,
        "theory.exact.discriminator.discriminator_regret",
        right="Only at $D = D^*$; any other $D$ shows a value below it, by the mean KL of its "
        "verdicts.",
        formula=r"V(D^*) - V(D) = 2\,\mathbb{E}_{(p+q)/2}\,\mathrm{KL}"
        r"\bigl(\operatorname{Bern} D^* \,\|\, \operatorname{Bern} D\bigr)",
        covers="A24",
    ),
    Claim(
        "3.3-gradients",
        "Descending either generator loss at $D^*$ descends the Jensen-Shannon divergence.",
        Verdict.ONLY_IF,
        _measure_generator_gradients,
        "theory.exact.discriminator.generator_slopes",
        right="Only the saturating loss does; the other descends "
        "$\\mathrm{KL}(q\\|p) - 2\\,\\mathrm{JS}$.",
        formula=r"\nabla_\theta\,\mathbb{E}_q[-\log D^*] = \nabla_\theta\bigl[\mathrm{KL}(q\|p) - "
        r"2\,\mathrm{JS}(p, q)\bigr]",
        covers="A24 A25",
    ),
    Claim(
        "3.3-dynamics",
        "Training both players by gradient descent brings the divergence to zero.",
        Verdict.ONLY_IF,
        _measure_dirac_dynamics,
        "theory.exact.discriminator.play_game",
        right="Between two points simultaneous steps spiral outwards, alternating ones circle, and "
        "only a penalty on the slope of $D$ makes them converge.",
        formula=r"|\lambda| = \sqrt{1 + h^2/4} > 1",
        covers="A24 R28",
    ),
]
