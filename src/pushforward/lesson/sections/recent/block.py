"""Claims about the code block of section 6: its loss, its shapes, its network."""

import math
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ....networks.mlp import TimeMLP, mlp
from ....rng import seeded_rng
from ....theory import ode
from ....theory.exact import dynamics
from ....theory.exact.targets import ExactDenoiser, gaussian_ring
from ....theory.paths import LinearPath
from ... import snippets
from ...claims import Claim, Evidence, Number, Verdict, raises_error

TARGET = gaussian_ring(5, radius=1.3, scale=0.3)  # of about unit variance


class _ScaledTime(nn.Module):
    """A network that is given a multiple of the number t beside x."""

    def __init__(self, activation: type[nn.Module], unit: float = 1.0) -> None:
        super().__init__()
        self.unit = unit
        self.layers = mlp(3, 64, 64, 2, activation=activation)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.unit * t.reshape(-1, 1).expand(len(x), 1)
        return self.layers(torch.cat([x, time], dim=1))


def _zero_field(x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros_like(x)


def _measure_loss_sum() -> Evidence:
    x0, x1 = torch.randn(2, 64, 5, dtype=torch.float64)
    norm = float((x1 - x0).square().sum(1).mean())
    mean = float(mse_loss(_zero_field(x0, x0), x1 - x0))
    ours = float(snippets.flow_matching_loss(_zero_field, x0, x1))
    what = r"loss of a zero field in five dimensions"
    return Evidence(
        [Number(f"{what}, by mse_loss", mean, norm)],
        [
            Number(f"{what}, summed over entries", ours, norm, 1e-9),
            Number("ratio of both", ours / mean, 5, 1e-9),
        ],
    )


def _measure_loss_shapes() -> Evidence:
    x0, x1 = torch.randn(32, 2), torch.randn(1, 2)
    silent = int(not mse_loss(_zero_field(x0, x0), x1 - x0).isfinite())
    image, noise = torch.ones(4, 3, 8, 8), torch.zeros(4, 3, 8, 8)
    loss = float(snippets.flow_matching_loss(_zero_field, noise, image))
    refused = raises_error(lambda: snippets.flow_matching_loss(_zero_field, x0, x1))
    return Evidence(
        [Number("errors when 32 rows of noise meet one data point, by mse_loss", silent, 1)],
        [
            Number("errors when they meet in the library's loss", refused, 1),
            Number("loss of a zero field from black to white images of 192 entries", loss, 192,
                   1e-4),
        ],
    )  # fmt: skip


@seeded_rng(3)
def _rk4_order(activation: type[nn.Module]) -> float:
    """The rate at which RK4's error falls when its steps are halved twice, on a random field."""
    net = _ScaledTime(activation).double()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2)
    x, runs = torch.randn(200, 2, dtype=torch.float64), []
    with torch.no_grad():
        for n in (8, 32, 256):
            grid = torch.linspace(0, 1, n + 1, dtype=torch.float64)
            runs.append(ode.final_state(ode.rk4(net, x, grid)))
    coarse, fine = (float((run - runs[2]).square().mean().sqrt()) for run in runs[:2])
    return math.log2(coarse / fine) / 2


def _measure_activation_kinks() -> Evidence:
    relu, silu = _rk4_order(nn.ReLU), _rk4_order(nn.SiLU)
    return Evidence(
        [Number("order of Runge and Kutta's method of order 4, field with ReLU", relu, 4, 0.35)],
        [
            Number("its order, field with ReLU", relu, 3, 0, "<="),
            Number("its order, field with SiLU", silu, 4, 0.35),
        ],
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "lesson": partial(_ScaledTime, nn.ReLU),
    "index": partial(_ScaledTime, nn.ReLU, 1000.0),
    "smooth": partial(_ScaledTime, nn.SiLU),
    "fourier": partial(TimeMLP, (2,), width=64, depth=2),
}


@cache
@seeded_rng(0)
def _train_time_network(name: str, steps: int = 500) -> nn.Module:
    """A 64-64 network fitted to the lesson's time and path."""
    net = NETWORKS[name]()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x1 = TARGET.sample(256)
        optimizer.zero_grad()
        snippets.flow_matching_loss(net, torch.randn_like(x1), x1).backward()
        optimizer.step()
        schedule.step()
    return net.requires_grad_(False)


def _measure_time_features() -> Evidence:
    path = LinearPath()
    x, t = TARGET.sample(4000), torch.rand(4000) * 0.98 + 0.01
    x_t = path.interpolate(x, torch.randn_like(x), t)
    field = ExactDenoiser(TARGET, path).velocity

    def excess(net: nn.Module) -> float:
        return float(dynamics.velocity_error(lambda x, t: -net(x, 1 - t), field, x_t, t)) / 2

    found = {name: excess(_train_time_network(name)) for name in NETWORKS}
    what = "excess loss an entry"
    index = found["index"] / found["lesson"]
    return Evidence(
        [Number(f"{what}: t from 0 to 1000, over t from 0 to 1", index, 1, 0.5, "<=")],
        [
            Number(f"{what}: t from 0 to 1000, over t from 0 to 1", index, 3, 0, ">="),
            Number(f"{what}, t from 0 to 1", found["lesson"], 0.06, 0, "<="),
            Number(f"{what}, SiLU: Fourier features of t over t itself",
                   found["fourier"] / found["smooth"], 0.95, 0, "<="),
        ],
    )  # fmt: skip


CLAIMS = [
    Claim(
        "6.2-norm",
        r"PyTorch's mse_loss is the squared norm of the formula.",
        Verdict.WRONG,
        _measure_loss_sum,
        "lesson.snippets.flow_matching_loss",
        right=r"It is the mean over the entries, smaller by their number $D$. A loss is a sum over "
        r"the entries of a data point and a mean over the batch.",
        covers="A68",
    ),
    Claim(
        "6.2-shapes",
        r"The loss takes noise and data of any shapes that go together.",
        Verdict.WRONG,
        _measure_loss_shapes,
        "lesson.snippets.flow_matching_loss",
        right=r"One data point broadcasts against a batch in silence and images raise. Shapes must "
        r"be equal, and may be anything.",
        covers="A69",
    ),
    Claim(
        "6.2-activation",
        r"A network with ReLU is a field like any other.",
        Verdict.ONLY_IF,
        _measure_activation_kinks,
        "theory.ode._combine_stages",
        right=r"At its kinks a solver of high order falls to order two; SiLU and tanh keep it.",
        covers="A70",
    ),
    Claim(
        "6.2-features",
        r"The number $t$ beside $x$ tells a network the time.",
        Verdict.ONLY_IF,
        _measure_time_features,
        "theory.exact.dynamics.velocity_error",
        right=r"It does if its size is that of the data: as an index up to 1000 it serves little "
        r"better than no time. Fourier features of $t$ help the same network further.",
        covers="A71",
    ),
]
