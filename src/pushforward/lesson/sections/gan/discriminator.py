"""Sections 3.1 and 3.2: the game, its logits, and the best discriminator."""

import math

import torch
from torch import Tensor, nn

from ....families import gan
from ....model import Event
from ....theory import adversarial
from ....theory.exact import discriminator
from ...claims import Claim, Evidence, Number, Verdict
from .distributions import LINE, shifted_log_densities


def _measure_open_interval() -> Evidence:
    """Log D and log(1 - D) at certain discriminators, in float32."""
    f = torch.tensor([-200.0, 0.0, 200.0])
    d = f.sigmoid()
    infinite = int((~torch.cat([d.log(), (1 - d).log()]).isfinite()).sum())
    value = float(adversarial.game_value(f[:1], f[2:]))
    return Evidence(
        [Number("infinite logarithms of six", infinite, 0)],
        [Number("$V$ from logits $-200$ on data and $200$ on samples", value, -400, 1e-4)],
    )


def _measure_logit_gradient() -> Evidence:
    """The discriminator's gradient on a sample that it takes for data, in float32."""
    through_d, through_f = torch.full((1,), 20.0), torch.full((1,), 20.0)
    through_d.requires_grad_(), through_f.requires_grad_()
    nn.BCELoss()(through_d.sigmoid(), torch.zeros(1)).backward()
    ours = adversarial.discriminator_loss(torch.zeros(1), through_f)["fake"]
    ours.backward()
    assert through_d.grad is not None and through_f.grad is not None
    true = 1 / (1 + math.exp(-20))
    return Evidence(
        [
            Number("gradient of BCELoss after a sigmoid, at logit 20", float(through_d.grad), true,
                   1e-6)
        ],
        [
            Number("gradient of the loss on logits", float(through_f.grad), true, 1e-6),
            Number("the loss on logits, nats", float(ours.detach()), math.log1p(math.exp(20)),
                   1e-4),
        ],
    )  # fmt: skip


def _measure_player_roles() -> Evidence:
    real, fake = (torch.tensor([0.3], requires_grad=True) for _ in range(2))
    up, down = torch.autograd.grad(adversarial.game_value(real, fake), (real, fake))
    d = 1 / (1 + math.exp(-0.3))
    return Evidence([
        Number("$\\partial V/\\partial f$ at a data point: $1 - D$", float(up), 1 - d, 1e-6),
        Number("$\\partial V/\\partial f$ at a sample: $-D$", float(down), -d, 1e-6),
    ])  # fmt: skip


def _measure_optimal_discriminator() -> Evidence:
    """The sigmoid of the best logit against p / (p + q), and the slope of the value there."""
    log_p, log_q, weight = shifted_log_densities(1.5)
    logit = discriminator.optimal_logit(log_p, log_q)
    inside = (LINE.points[:, 0] - 0.75).abs() < 10  # beyond, both densities vanish in float64
    p, q = log_p.exp(), log_q.exp()
    difference = float((logit.sigmoid() - p / (p + q))[inside].abs().max())
    at = logit.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator.expected_game_value(log_p, log_q, at, weight), at)
    return Evidence([
        Number("largest $|D^* - p/(p+q)|$", difference, 0, 1e-12),
        Number("largest $|\\partial V/\\partial f(x)|$ at $D^*$", float(slope.abs().max()), 0,
               1e-12),
    ])  # fmt: skip


def _value_curvature(p: float, q: float) -> float:
    """The second derivative of p log D + q log(1 - D) in D, at D = p / (p + q)."""
    d = torch.tensor([p / (p + q)], dtype=torch.float64, requires_grad=True)
    log_p, log_q = (torch.tensor([v], dtype=torch.float64).log() for v in (p, q))
    value = discriminator.expected_game_value(log_p, log_q, d.logit(), 1.0)
    (first,) = torch.autograd.grad(value, d, create_graph=True)
    return float(torch.autograd.grad(first.sum(), d)[0])


def _measure_optimality_proof() -> Evidence:
    """Where the first-order condition decides, and where there is nothing to decide."""
    p, q = 0.3, 0.1
    zero = torch.tensor([-math.inf], dtype=torch.float64)
    undefined = int(discriminator.optimal_logit(zero, zero).isnan().sum())
    free = [
        float(discriminator.expected_game_value(zero, zero, torch.tensor([f]).double(), 1.0))
        for f in (-3.0, 3.0)
    ]
    best = torch.tensor([math.log(p / q)], dtype=torch.float64)
    log_p, log_q = (torch.tensor([v], dtype=torch.float64).log() for v in (p, q))
    value = float(discriminator.expected_game_value(log_p, log_q, best, 1.0))
    return Evidence(
        [Number("points with $p = q = 0$ at which $D^*$ is undefined", undefined, 0)],
        [
            Number("$\\partial^2/\\partial D^2$ at $D^*$, for $p = 0.3$, $q = 0.1$",
                   _value_curvature(p, q), -((p + q) ** 3) / (p * q), 1e-9),
            Number("the maximum there, nats", value,
                   p * math.log(p / (p + q)) + q * math.log(q / (p + q)), 1e-12),
            Number("what another $D$ gains where $p = q = 0$", free[1] - free[0], 0, 1e-12),
        ],
    )  # fmt: skip


def fit_affine_logit(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The logit a x + b that minimises the discriminator's loss, and standard errors of both."""
    weight = torch.zeros(2, dtype=torch.float64)

    def loss(w: Tensor) -> Tensor:
        terms = adversarial.discriminator_loss(w[0] * real + w[1], w[0] * fake + w[1])
        return terms["real"] + terms["fake"]

    for _ in range(8):  # Newton's steps on a convex loss
        at = weight.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at), at)
        hessian = torch.autograd.functional.hessian(loss, weight)
        weight = weight - torch.linalg.solve(hessian, slope)
    # both means are of the same number of rows, so the log-likelihood is n times minus the loss
    return weight, (torch.linalg.inv(hessian).diagonal() / len(real)).sqrt()


def _measure_trained_discriminator() -> Evidence:
    real = torch.randn(50_000, dtype=torch.float64)
    fake = 1.5 + torch.randn(50_000, dtype=torch.float64)
    (a, b), (error_a, error_b) = fit_affine_logit(real, fake)
    loss = float(sum(adversarial.discriminator_loss(a * real + b, a * fake + b).values()))
    log_p, log_q, weight = shifted_log_densities(1.5)
    best = discriminator.optimal_logit(log_p, log_q)
    value = float(discriminator.expected_game_value(log_p, log_q, best, weight))
    spread = sum(
        float(nn.functional.softplus(f).var()) / len(real)
        for f in (-(a * real + b), a * fake + b)
    ) ** 0.5  # fmt: skip
    return Evidence([
        Number("slope of the trained logit: $-\\theta$", float(a), -1.5, 5 * float(error_a)),
        Number("its value at 0: $\\theta^2/2$", float(b), 1.125, 5 * float(error_b)),
        Number("its loss, nats: $-V(D^*)$", loss, -value, 5 * spread),
    ])  # fmt: skip


def _measure_player_gradients() -> Evidence:
    """Gradients left in the other player, in the lesson's steps and in ours."""
    generator, judge = (
        nn.Linear(2, 1),
        nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1), nn.Sigmoid()),
    )
    nn.BCELoss()(judge(generator(torch.randn(8, 2))), torch.ones(8, 1)).backward()
    left = sum(p.grad is not None and bool(p.grad.any()) for p in judge.parameters())
    model, x = gan.build(Event((1,)), width=8, depth=1), torch.randn(8, 1)
    for layer in model.critic.modules():
        if isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    terms = model.critic_objective(x)
    torch.stack(list(terms.values())).sum().backward()
    undecided = (terms["real"] + terms["fake"]).detach()
    moved = sum(p.grad is not None for p in model.generator.parameters())
    return Evidence(
        [Number("parameters of $D$ with a gradient after the lesson's step of $G$", left, 0)],
        [
            Number("parameters of $G$ with a gradient after our step of $D$", moved, 0),
            Number("loss of an undecided $D$, nats", float(undecided), math.log(4), 1e-6),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "3.1-open-interval",
        "The discriminator maps data into $[0, 1]$, and its logarithms enter the objective.",
        Verdict.ONLY_IF,
        _measure_open_interval,
        "theory.adversarial.game_value",
        right="$D$ lies in the open interval $(0, 1)$; in float32 it does so only as a logit.",
        formula=r"\log D = -\log(1 + e^{-f}), \qquad \log(1 - D) = -\log(1 + e^{f})",
        covers="A29 R21",
    ),
    Claim(
        "3.1-roles",
        "$D$ raises its probability on data and lowers it on samples.",
        Verdict.HOLDS,
        _measure_player_roles,
        "theory.adversarial.game_value",
        covers="R21",
    ),
    Claim(
        "3.1-logits",
        "A sigmoid followed by binary cross-entropy trains the discriminator.",
        Verdict.ONLY_IF,
        _measure_logit_gradient,
        "theory.adversarial.discriminator_loss",
        right="From a logit of 17 on the sigmoid is 1 in float32 and the gradient exactly 0: the "
        "loss must be computed from the logit.",
        covers="A30 R21",
    ),
    Claim(
        "3.2-optimal",
        "For a fixed generator the best discriminator is the share of the data at each point.",
        Verdict.HOLDS,
        _measure_optimal_discriminator,
        "theory.exact.discriminator.optimal_logit",
        formula=r"D^*(x) = \frac{p(x)}{p(x) + q(x)}, \qquad f^* = \log p - \log q",
        covers="R22",
    ),
    Claim(
        "3.2-proof",
        "Setting the derivative of the integrand to zero proves it.",
        Verdict.ONLY_IF,
        _measure_optimality_proof,
        "theory.exact.discriminator.expected_game_value",
        right="It does because the integrand is strictly concave in $D$, each $x$ may be maximised "
        "alone ($D$ is unrestricted), and where $p + q = 0$ any value will do.",
        formula=r"\frac{\partial^2}{\partial D^2}\bigl[p \log D + q \log(1 - D)\bigr]_{D^*} "
        r"= -\frac{(p + q)^3}{p q} < 0",
        covers="A28 A79 R22",
    ),
    Claim(
        "3.2-trained",
        "A discriminator that is trained on enough samples becomes $D^*$.",
        Verdict.HOLDS,
        _measure_trained_discriminator,
        "theory.adversarial.discriminator_loss",
        covers="R22",
    ),
    Claim(
        "3.2-players-apart",
        "The lesson's two steps each touch one player.",
        Verdict.ONLY_IF,
        _measure_player_gradients,
        "families.gan.GAN.critic_objective",
        right="Its step of $G$ leaves gradients in $D$, harmless only because they are zeroed "
        "before they are used; here each loss is differentiated for one player alone.",
        covers="A33 R26",
    ),
]
