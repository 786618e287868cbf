"""Practice problem 3: the optimal discriminator."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ...report.style import DASHES, DATA, INK, LINES, QUIET, whole
from ...theory import adversarial, divergences, targets
from ..claims import Number
from . import Experiment, Part, Problem, Step


def vanishes(what: str, difference: Any) -> Number:
    """A number that is 0 if SymPy can show that an expression is, and 1 if it cannot."""
    import sympy

    return Number(what, 0.0 if sympy.simplify(difference) == 0 else 1.0, 0)


@cache
def symbols() -> tuple[Any, Any, Any]:
    """The densities p and q at one point, and D there, all positive."""
    import sympy

    return sympy.symbols("p q D", positive=True)


def integrand() -> Any:
    """The integrand p log D + q log(1 - D)."""
    import sympy

    p, q, D = symbols()
    return p * sympy.log(D) + q * sympy.log(1 - D)


def two_laws() -> tuple[Tensor, Tensor, float]:
    """Log-densities of the lesson's mixture and of a normal law of its moments, and the weight."""
    data = targets.lesson_mixture()
    samples = targets.Gaussian(data.mean, data.covariance)
    x, weight = divergences.box([-20.0], [22.0], 6001)
    return data.log_prob(x), samples.log_prob(x), weight


def stationary() -> list[Number]:
    """The derivative, and its only zero."""
    import sympy

    p, q, D = symbols()
    slope = sympy.diff(integrand(), D)
    zeros = sympy.solve(slope, D)
    return [
        vanishes("derivative", slope - (p / D - q / (1 - D))),
        Number("zeros", len(zeros), 1),
        vanishes("the zero", zeros[0] - p / (p + q)),
    ]


def concave() -> list[Number]:
    """The second derivative, anywhere and at the zero."""
    import sympy

    p, q, D = symbols()
    second = sympy.diff(integrand(), D, 2)
    at_zero = second.subs(D, p / (p + q))
    return [
        vanishes("second derivative", second + p / D**2 + q / (1 - D) ** 2),
        vanishes("the same at the zero", at_zero + (p + q) ** 3 / (p * q)),
    ]


def by_inequality() -> list[Number]:
    """The loss of another D as the KL of two Bernoulli laws."""
    import sympy

    p, q, D = symbols()
    best, rest = p / (p + q), q / (p + q)
    lost = p * sympy.log(best) + q * sympy.log(rest) - integrand()
    bernoulli = best * sympy.log(best / D) + rest * sympy.log(rest / (1 - D))
    return [vanishes("the identity", sympy.expand_log(lost - (p + q) * bernoulli, force=True))]


def regret() -> list[Number]:
    """The same integrated, for a discriminator that wobbles about the best."""
    log_p, log_q, weight = two_laws()
    best = adversarial.optimal_logit(log_p, log_q)
    other = best.clamp(-5, 5) + 0.5
    lost = adversarial.expected_value(log_p, log_q, best, weight)
    lost = lost - adversarial.expected_value(log_p, log_q, other, weight)
    found = adversarial.regret(log_p, log_q, other, weight)
    return [
        Number("$V(D^*) - V(D)$ less the integral, nats", float(lost - found), 0, 1e-10),
        Number("the integral, nats", float(found), 0, 0, ">="),
    ]


def empty() -> list[Number]:
    """Two uniform laws with a gap between: points where neither has mass."""
    log_p, log_q = (
        torch.tensor(v, dtype=torch.float64).log() for v in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    )
    far = torch.tensor([40.0, 0.0, -40.0], dtype=torch.float64)
    values = [
        float(adversarial.expected_value(log_p, log_q, far + far.new_tensor([0, f, 0]), 1.0))
        for f in (-5.0, 5.0)
    ]
    return [
        Number("change of $V$ with $D$ between the laws", values[1] - values[0], 0, 1e-15),
        Number("$V$ as $D \\to 1$ and $0$ on the laws: its supremum", values[0], 0, 1e-15),
    ]


def value() -> list[Number]:
    """The integrand at D* against the integrands of both KL divergences."""
    import sympy

    p, q, D = symbols()
    m = (p + q) / 2
    right = p * sympy.log(p / m) + q * sympy.log(q / m) - (p + q) * sympy.log(2)
    apart = sympy.expand_log(integrand().subs(D, p / (p + q)) - right, force=True)
    return [vanishes("the integrands", sympy.expand_log(sympy.simplify(apart), force=True))]


def integrated() -> list[Number]:
    """C(G) of two laws that are no closed form of each other."""
    log_p, log_q, weight = two_laws()
    best = adversarial.optimal_logit(log_p, log_q)
    found = float(adversarial.expected_value(log_p, log_q, best, weight))
    js = float(divergences.jensen_shannon(log_p, log_q, weight))
    same = adversarial.expected_value(log_p, log_p, torch.zeros_like(log_p), weight)
    return [
        Number("$C(G)$, nats", found, 2 * js - math.log(4), 1e-10),
        Number("$C(G)$ where $q = p$, nats", float(same), -math.log(4), 1e-10),
        Number("JS of the lesson's mixture and a normal law of its moments, nats", js, 0, 0, ">="),
    ]


def network() -> nn.Module:
    """A discriminator with two smooth hidden layers, ending in a logit."""
    return nn.Sequential(
        nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1)
    )


def trained(steps: int = 800, batch: int = 512) -> tuple[Tensor, dict[int, Tensor]]:
    """Training on the lesson's mixture against N(0.8, 3.778): steps of record, logits on a grid."""
    data = targets.lesson_mixture()
    samples = targets.Gaussian(data.mean, data.covariance)
    x = torch.linspace(-20, 22, 6001, dtype=torch.float64)[:, None]
    net, kept = network(), {}
    mover = torch.optim.Adam(net.parameters(), 1e-2, (0.9, 0.99))
    decay = torch.optim.lr_scheduler.LinearLR(mover, 1, 0.01, steps)
    for step in range(steps + 1):
        if step in (0, 10, 25, 50, 100, 200, 400, steps):
            with torch.no_grad():
                kept[step] = net(x.float())[:, 0].double()
        losses = adversarial.discriminator_loss(
            net(data.sample(batch))[:, 0], net(samples.sample(batch))[:, 0]
        )
        mover.zero_grad()
        (losses["real"] + losses["fake"]).backward()
        mover.step()
        decay.step()
    return x[:, 0], kept


def drawn(x: Tensor, kept: dict[int, Tensor], short: dict[int, float]) -> Figure:
    """Left: D* and trained discriminators over both densities. Right: their shortfall."""
    figure = Figure(figsize=(6.3, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1])
    log_p, log_q, _ = two_laws()
    best = adversarial.optimal_logit(log_p, log_q).sigmoid()
    left.fill_between(x, log_p.exp(), color=DATA, alpha=0.18, lw=0)
    left.plot(x, log_q.exp(), color=DATA, ls=DASHES[2], lw=0.9)
    left.plot(x, best, color=INK, lw=1.6)
    last = max(kept)
    for step, ink, dash in ((25, LINES[1], DASHES[2]), (last, LINES[5], DASHES[1])):
        left.plot(x, kept[step].sigmoid(), color=ink, ls=dash)
    left.text(4.1, 0.9, "best", color=INK)
    left.text(4.1, 0.8, "after 25 steps", color=LINES[1])
    left.text(4.1, 0.7, f"after {last} steps", color=LINES[5])
    left.text(2, 0.04, "data", color=DATA, ha="center")
    left.text(4.4, 0.11, "samples", color=DATA)
    left.set(xlim=(-5.5, 7), ylim=(0, 1), xlabel="x", ylabel="density, D(x)")
    steps = np.array(sorted(short))
    right.plot(steps + 1, [short[s] for s in steps], color=LINES[5], marker="o")
    right.set(xscale="log", yscale="log", xlabel="steps + 1", ylabel="V(D*) − V(D), nats")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(whole)
    right.grid(color=QUIET, alpha=0.2, lw=0.5)
    return figure


def approach() -> Experiment:
    """Train a discriminator against a fixed generator, and measure its distance to D*."""
    x, kept = trained()
    log_p, log_q, weight = two_laws()
    best = adversarial.optimal_logit(log_p, log_q)
    highest = float(adversarial.expected_value(log_p, log_q, best, weight))
    short = {
        step: float(adversarial.regret(log_p, log_q, f, weight)) for step, f in kept.items()
    }  # fmt: skip
    last, m = max(kept), torch.logaddexp(log_p, log_q) - math.log(2)
    error = {
        step: math.sqrt(float(divergences.expectation(
            m, (f.sigmoid() - best.sigmoid()).square(), weight)))
        for step, f in kept.items()
    }  # fmt: skip
    js = float(divergences.jensen_shannon(log_p, log_q, weight))
    shown = float(
        adversarial.jensen_shannon(adversarial.expected_value(log_p, log_q, kept[last], weight))
    )
    numbers = [
        Number("shortfall after training, nats", short[last], 0.01, 0, "<="),
        Number("root mean square of $D - D^*$ after training", error[last], 0.06, 0, "<="),
        Number("JS that the trained $D$ shows, nats: at most JS", shown, js, 1e-9, "<="),
        Number("shown JS and half of the shortfall", shown + short[last] / 2, js, 1e-9),
        Number("shortfall before training, nats", short[0], highest + math.log(4), 0.2),
    ]
    discussion = [
        "The generator is fixed at the normal law with the mean 0.8 and the variance 3.778 of the "
        "lesson's mixture, so that $D^*$ has two humps and a valley, which no affine logit has. A "
        f"network of two hidden layers is trained for {last} steps on 512 fresh rows of each.",
        f"$V(D^*) = {highest:.4f}$ nats. What the network falls short of it, by quadrature, "
        f"is {short[0]:.4f} nats before the first step, {short[100]:.4f} after 100 and "
        f"{short[last]:.5f} after {last}; the root mean square of $D - D^*$ under $(p + q)/2$ "
        f"falls from {error[0]:.3f} to {error[last]:.4f}.",
        f"Before training $D$ is close to 1/2 everywhere and $V$ close to $-\\log 4$: it sees no "
        f"difference. After it the value implies a divergence of {shown:.4f} nats, where the exact "
        f"one is {js:.4f}: a bound from below at every step, by half of the shortfall. The error "
        "that is left is that of a noisy gradient and of where neither law has rows; there $D$ is "
        "not determined.",
    ]
    return Experiment(discussion, numbers, {"trained_discriminator": drawn(x, kept, short)})


PROOF = [
    Step(
        "Write both expectations as one integral. The samples have density $q = p_g$; for a "
        "generator whose law has none, densities are taken with respect to "
        "$\\mu = P_{\\mathrm{data}} + P_g$, which always exist.",
        r"V(D) = \int \bigl[p(x) \log D(x) + q(x) \log(1 - D(x))\bigr]\,dx",
    ),
    Step(
        "$D$ may be any measurable function into $(0, 1)$: its values at different points have "
        "nothing to do with each other. So the integral is largest where the integrand is largest "
        "at almost every point. (For a network with few parameters this step fails.)",
        r"\max_D V(D) = \int \max_{y \in (0, 1)} \bigl[p(x) \log y + q(x) \log(1 - y)\bigr]\,dx",
    ),
    Step(
        "At a point with $p, q > 0$ the derivative has one zero.",
        r"\frac{p}{D} - \frac{q}{1 - D} = 0 \iff p(1 - D) = q D \iff D = \frac{p}{p + q}",
        stationary,
    ),
    Step(
        "It is a maximum, and the only one, because the integrand is strictly concave: the first "
        "condition alone would not show it.",
        r"\frac{\partial^2}{\partial D^2} = -\frac{p}{D^2} - \frac{q}{(1 - D)^2} < 0, \qquad "
        r"\text{at the zero } -\frac{(p + q)^3}{p q}",
        concave,
    ),
    Step(
        "The same without calculus: what another $D$ loses is a KL divergence of Bernoulli laws, "
        "which is zero for equal laws alone (Gibbs).",
        r"p \log\frac{D^*}{D} + q \log\frac{1 - D^*}{1 - D} = (p + q)\,\mathrm{KL}\bigl("
        r"\operatorname{Bern} D^* \,\|\, \operatorname{Bern} D\bigr) \ge 0",
        by_inequality,
    ),
    Step(
        "Integrated, with $m = (p + q)/2$, it says by how much a discriminator falls short.",
        r"V(D^*) - V(D) = 2\,\mathbb{E}_m\,\mathrm{KL}\bigl(\operatorname{Bern} D^* \,\|\, "
        r"\operatorname{Bern} D\bigr)",
        regret,
    ),
]
EDGES = [
    Step(
        "Where $p > 0 = q$ the integrand is $p \\log D$, which increases up to $D = 1$; where "
        "$q > 0 = p$ it increases down to $D = 0$. The supremum is approached and not reached "
        "within $(0, 1)$; with $0 \\log 0 = 0$ and $D \\in [0, 1]$ the formula holds.",
        r"q = 0 < p:\; D^* = 1, \qquad p = 0 < q:\; D^* = 0",
    ),
    Step(
        "Where $p = q = 0$ the integrand is 0 whatever $D$ is: $D^*$ is undefined there, and any "
        "value is optimal. $D^*$ is unique only almost everywhere under $p + q$.",
        r"p = q = 0:\; 0 \log D + 0 \log(1 - D) = 0",
        empty,
    ),
]
VALUE = [
    Step(
        "Put $D^*$ in, and divide both densities by their mean $m = (p + q)/2$, not by their sum: "
        "each logarithm gives up $\\log 2$.",
        r"p \log\frac{p}{p + q} + q \log\frac{q}{p + q} = p \log\frac{p}{m} + q \log\frac{q}{m} "
        r"- (p + q)\log 2",
        value,
    ),
    Step(
        "Integrate. Both densities have mass 1, and the first two terms are the divergences from "
        "the mixture.",
        r"C(G) = \mathrm{KL}(p \,\|\, m) + \mathrm{KL}(q \,\|\, m) - 2 \log 2 "
        r"= -\log 4 + 2\,\mathrm{JS}(p, q)",
        integrated,
    ),
    Step(
        "As $\\mathrm{JS} \\ge 0$ with equality for equal laws alone, the generator's least value "
        "is $-\\log 4$, and it is reached where $q = p$. That says what is optimal, not that "
        "alternating gradient steps arrive there.",
        r"\min_G C(G) = -\log 4 \iff p_g = p_{\mathrm{data}}",
    ),
]
PROBLEM = Problem(
    title="The optimal discriminator",
    parts=[
        Part(
            "Prove that for a fixed generator $D^* = p/(p + p_g)$ maximises the objective.", PROOF
        ),
        Part("What if one of the densities, or both, are zero?", EDGES),
        Part("Which value does the generator's objective have at $D^*$?", VALUE),
        Part("Does a trained discriminator approach $D^*$?", [], approach),
    ],
)
