"""Section 4.4: the gradient penalty, exactly, and where the lesson's code goes wrong."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ....theory import adversarial
from ....theory.exact import discriminator
from ...claims import Claim, Evidence, Number, Verdict, double, raises_error

Critic = Callable[[Tensor], Tensor]


def _affine_critic(weight: Tensor) -> Critic:
    return lambda x: (x * weight).flatten(1).sum(1)


def _lesson_penalty(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """The penalty by the lesson's operations: one number a row of a matrix, the plain norm."""
    eps = torch.rand(len(real), 1)
    x = (eps * real + (1 - eps) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (slope.reshape(len(real), -1).norm(2, dim=1) - 1).square().mean()


def _measure_affine_penalty() -> Evidence:
    """The penalty and its gradient at affine critics of vectors and of images."""
    numbers = []
    for shape in ((5,), (3, 8, 8)):
        weight = torch.randn(shape, dtype=torch.float64).requires_grad_()
        norm = float(weight.detach().norm())
        x = adversarial.sample_interpolates(*torch.randn(2, 16, *shape, dtype=torch.float64))
        value = adversarial.wgan_gp_penalty(_affine_critic(weight), x)
        (slope,) = torch.autograd.grad(value, weight)
        difference = slope - 2 * (norm - 1) * weight.detach() / norm
        kind = f"shape {shape}"
        what = f"penalty, {kind}: $(\\lVert w \\rVert - 1)^2$"
        numbers += [
            Number(what, float(value.detach()), (norm - 1) ** 2, 1e-9),
            Number(f"error of its gradient, {kind}", float(difference.abs().max()), 0, 1e-9),
        ]
    return Evidence(numbers)  # fmt: skip


def _count_interpolation_weights(x: Tensor, real: Tensor, fake: Tensor) -> int:
    """How many interpolation weights the first data point has, to three digits."""
    eps = ((x - fake) / (real - fake))[0]
    return len((eps * 1e3).round().unique())


def _measure_image_weights() -> Evidence:
    """Interpolation weights of images, where the batch is and is not as large as the height."""
    shape = (28, 3, 28, 28)
    real, fake = torch.ones(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    eps = torch.rand(28, 1, dtype=torch.float64)
    per_image = _count_interpolation_weights(eps * real + (1 - eps) * fake, real, fake)
    ours = adversarial.sample_interpolates(real, fake)
    raised = raises_error(lambda: torch.rand(32, 1) * torch.ones(32, 3, 28, 28))
    return Evidence(
        [
            Number("weights within one image, batch 28 of height 28", per_image, 1),
            Number("errors for a batch of 32", raised, 0),
        ],
        [
            Number(
                "weights within one image, ours", _count_interpolation_weights(ours, real, fake), 1
            ),
            Number("weights in a batch, ours", len(ours[:, 0, 0, 0].unique()), 28),
            Number("largest weight, ours", float(ours.max()), 1, 0, "<="),
        ],
    )


def _measure_penalty_device() -> Evidence:
    real = torch.ones(4, 2)
    critic = _affine_critic(torch.tensor([3.0, 4.0]))
    there, slope = torch.ones(4, 2, device="meta"), torch.ones(2, device="meta")
    elsewhere = raises_error(lambda: _lesson_penalty(_affine_critic(slope), there, there))
    with torch.no_grad():
        off = raises_error(lambda: _lesson_penalty(critic, real, torch.zeros(4, 2)))
        ours = float(
            adversarial.wgan_gp_penalty(critic, adversarial.sample_interpolates(real, 0 * real))
        )
    points = adversarial.sample_interpolates(there, there)
    return Evidence(
        [
            Number("errors of the lesson's penalty on another device", elsewhere, 0),
            Number("errors of the lesson's penalty with gradients off", off, 0),
        ],
        [
            Number("ours on another device: points there", float(points.device.type == "meta"), 1),
            Number("our penalty with gradients off, slope 5", ours, 16, 1e-4),
        ],
    )


def _measure_flat_critic() -> Evidence:
    x = torch.randn(8, 3, dtype=torch.float64)

    def slope(size: float) -> float:
        weight = double(size, 0.0, 0.0).requires_grad_()
        value = adversarial.wgan_gp_penalty(_affine_critic(weight), x)
        return float(torch.autograd.grad(value, weight)[0][0])

    root = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (bare,) = torch.autograd.grad((root.square().sum().sqrt() - 1).square(), root)
    flat = slope(0.0)
    return Evidence(
        [Number("$\\partial P/\\partial w$ at $w = 0$: the limit from above", flat, -2, 1e-6)],
        [
            Number("the same: a subgradient, finite", flat, 0, 1e-12),
            Number("at $w = 0.001$: $2(w - 1)$", slope(1e-3), -1.998, 1e-9),
            Number("entries that are not finite with $\\sqrt{\\sum g^2}$",
                   int((~bare.isfinite()).sum()), 3),
        ],
    )  # fmt: skip


def _train_affine_slope(
    one_sided: bool, start: float, distance: float = 2.0, weight: float = 10.0
) -> float:
    """The slope at which descent of the critic's loss on two points ends."""
    real, fake = (torch.full((8, 1), v, dtype=torch.float64) for v in (distance, 0.0))
    w = double(start).requires_grad_()
    for _ in range(300):
        critic = _affine_critic(w)
        penalty = adversarial.wgan_gp_penalty(
            critic, adversarial.sample_interpolates(real, fake), one_sided=one_sided
        )
        loss = weight * penalty - adversarial.critic_gap(critic(real), critic(fake))
        (slope,) = torch.autograd.grad(loss, w)
        w = (w - 0.02 * slope).detach().requires_grad_()
    return float(w.detach())


def _measure_spurious_slope() -> Evidence:
    """Slopes from a start on the wrong side of zero, for two points at distance 2."""
    best = discriminator.penalised_optimum(2.0, 10.0).slope
    two, one = _train_affine_slope(False, -0.5), _train_affine_slope(True, -0.5)
    wrong = discriminator.spurious_slope(2.0, 10.0)
    assert wrong is not None
    return Evidence(
        [Number("slope of a critic that started at $-0.5$, two-sided", two, best, 1e-6)],
        [
            Number("the same: $-1 + d/2\\lambda$", two, wrong, 1e-6),
            Number("one-sided: $1 + d/2\\lambda$", one, best, 1e-6),
            Number("two-sided, started at 0.5", _train_affine_slope(False, 0.5), best, 1e-6),
        ],
    )


def _measure_coupled_pairs() -> Evidence:
    """The penalty of a critic that attains W1, on independent and on optimal pairs."""
    n = 20_000
    rows = torch.randint(0, 2, (2, n))
    ends = double(0.0, 3.0), double(1.0, 2.0)  # two equal masses each; W1 = 1
    real, fake = ends[0][rows[0]][:, None], ends[1][rows[1]][:, None]

    def critic(x: Tensor) -> Tensor:
        return torch.relu(1 - x[:, 0]) + torch.relu(x[:, 0] - 2)

    points = adversarial.sample_interpolates(real, fake)
    independent = float(adversarial.wgan_gp_penalty(critic, points).detach())
    paired = adversarial.sample_interpolates(real, ends[1][rows[0]][:, None])
    optimal = float(adversarial.wgan_gp_penalty(critic, paired).detach())
    gap = float(adversarial.critic_gap(critic(ends[0][:, None]), critic(ends[1][:, None])))
    error = 5 * math.sqrt(3 / 16 / n)
    return Evidence(
        [Number("penalty of that critic on independent pairs", independent, 0, error)],
        [
            Number("the same: its slope is 0 between 1 and 2", independent, 1 / 4, error),
            Number("on optimally coupled pairs", optimal, 0, 1e-12),
            Number("its gap: $W_1$", gap, 1, 1e-12),
        ],
    )


def _measure_batch_norm() -> Evidence:
    """The gradient of a summed critic with batch normalisation, and without."""
    x = 3 + torch.randn(64, 2, dtype=torch.float64)
    plain = nn.Linear(2, 1).double()
    batch = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1)).double()
    alone = float(plain.weight.detach().norm())
    found = [
        float(adversarial.input_gradient(critic, x).norm(dim=1).mean().detach())
        for critic in (nn.Sequential(batch, nn.Flatten(0)), nn.Sequential(plain, nn.Flatten(0)))
    ]
    first = nn.Linear(2, 1).double()
    first.load_state_dict(batch[0].state_dict())
    true = float(first.weight.detach().norm() / first(x).std(correction=0).detach())
    return Evidence(
        [Number("mean slope by the sum, batch-normalised critic", found[0], true, 1e-3)],
        [
            Number("the same: the sum of normalised values is constant", found[0], 0, 1e-6),
            Number("mean slope by the sum, plain critic", found[1], alone, 1e-9),
        ],
    )


def _measure_gradient_leak() -> Evidence:
    real, shift = torch.randn(32, 2), torch.zeros(2, requires_grad=True)

    def critic(x: Tensor) -> Tensor:
        return x.square().sum(1)

    _lesson_penalty(critic, real, torch.randn(32, 2) + shift).backward()
    assert shift.grad is not None
    theirs = int((shift.grad != 0).sum())
    point = adversarial.sample_interpolates(real, torch.randn(32, 2) + shift)
    value = adversarial.wgan_gp_penalty(_affine_critic(torch.tensor([0.0, 3.0])), point)
    return Evidence(
        [Number("parameters of $G$ that get a gradient from the penalty", theirs, 0)],
        [
            Number("points between that lead back to $G$, ours", float(point.requires_grad), 0),
            Number("our penalty there, slope 3", float(value), 4, 1e-5),
        ],
    )


CLAIMS = [
    Claim(
        "4.4-penalty",
        "The penalty of an affine critic is $(\\lVert w \\rVert - 1)^2$, for vectors and images.",
        Verdict.HOLDS,
        _measure_affine_penalty,
        "theory.adversarial.wgan_gp_penalty",
        formula=r"\nabla_w P = 2(\lVert w \rVert - 1)\frac{w}{\lVert w \rVert}",
        covers="R32",
    ),
    Claim(
        "4.4-images",
        "The lesson's penalty interpolates each data point by a number of its own.",
        Verdict.ONLY_IF,
        _measure_image_weights,
        "theory.adversarial.sample_interpolates",
        right="Only vectors: images raise, or, if the batch is as large as the height, each row of "
        "pixels silently gets its own. $\\epsilon$ needs the shape $(n, 1, \\ldots, 1)$.",
        covers="A35 R32",
    ),
    Claim(
        "4.4-places",
        "It works on any device and in evaluation.",
        Verdict.WRONG,
        _measure_penalty_device,
        "theory.adversarial.wgan_gp_penalty",
        right="It raises on another device unless one is named, and where gradients are off; here "
        "the points are made from the data and gradients are turned on. (Batches of unequal size "
        "remain an error.)",
        covers="A36",
    ),
    Claim(
        "4.4-zero-slope",
        "The penalty drives every slope to one.",
        Verdict.ONLY_IF,
        _measure_flat_critic,
        "theory.adversarial.wgan_gp_penalty",
        right="Not from exactly zero, where the norm's subgradient is 0 and a flat critic stays "
        "flat; the root of a sum of squares would give NaN.",
        covers="A37 R32",
    ),
    Claim(
        "4.4-sign",
        "The penalised critic of two points finds the slope $1 + d/2\\lambda$.",
        Verdict.ONLY_IF,
        _measure_spurious_slope,
        "theory.adversarial.wgan_gp_penalty",
        right="On the line the two-sided penalty has a second stable optimum of the wrong sign, "
        "which the one-sided has not; in more dimensions a critic can turn around it.",
        formula=r"s = -1 + \frac{d}{2\lambda} \quad (d < 2\lambda)",
        covers="A38 R33 R34",
    ),
    Claim(
        "4.4-pairs",
        "A critic that attains $W_1$ has slope 1 between independent pairs of data and samples.",
        Verdict.ONLY_IF,
        _measure_coupled_pairs,
        "theory.adversarial.wgan_gp_penalty",
        right="Proved on optimally coupled pairs alone; independent pairs, with "
        "$\\epsilon \\sim U[0, 1]$ and $\\lambda = 10$, are a heuristic.",
        covers="A40",
    ),
    Claim(
        "4.4-batch-norm",
        "The gradient of the summed outputs is the gradient of each data point.",
        Verdict.ONLY_IF,
        _measure_batch_norm,
        "theory.adversarial.input_gradient",
        right="Only if the critic treats the data of a batch one by one: no batch normalisation.",
        covers="A42",
    ),
    Claim(
        "4.4-detach",
        "The penalty trains the critic alone.",
        Verdict.ONLY_IF,
        _measure_gradient_leak,
        "theory.adversarial.wgan_gp_penalty",
        right="Only if the samples are detached, which the lesson's function does not do.",
        covers="A43",
    ),
]
