"""Training: rounds of the game, one optimizer step per objective. It knows no family by name.

The loop is plain PyTorch. Lightning Fabric would hide the device and precision calls, which are
four lines here, at the price of a two-second import and a wrapper around every module.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import NumericalError
from .generators import forked, sow
from .model import GenerativeModel, Recipe

Batch = tuple[Tensor, Tensor | None]


class Record(NamedTuple):
    """What happened in one round. Scalars stay on the device until someone reads them."""

    step: int
    terms: dict[str, Tensor]


def batches(x: Tensor, size: int, c: Tensor | None = None) -> Iterator[Batch]:
    """Endless uniform minibatches of tensors held in memory, drawn by index with replacement."""
    while True:
        i = torch.randint(len(x), (size,)).to(x.device)
        yield x[i], None if c is None else c[i]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    r"""Linear warm-up, then a half cosine to zero: :math:`\tfrac12\eta(1 + \cos\pi k/K)`."""
    warm = min(1.0, (step + 1) / max(min(recipe.warmup, steps // 10), 1))
    return recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))


def join(parts: list[nn.Parameter]) -> Tensor:
    """One vector of which the parameters become views."""
    vector = torch.cat([part.detach().flatten() for part in parts])
    for part, view in zip(parts, vector.split([part.numel() for part in parts]), strict=True):
        part.data = view.view_as(part)
    return vector


class Player:
    """The parameters of a module as one vector, of which they become views, and its optimizer.

    Clipping, the optimizer and the average are then one kernel each, however many layers there
    are; in small networks they would otherwise take as long as the backward pass. The optimizer is
    the kernel of PyTorch's fused AdamW (Loshchilov & Hutter, 2019), for the same reason.

    Arguments:
        module: Its learning parameters are of one type and on one device.
    """

    def __init__(self, module: nn.Module) -> None:
        self.parts = [part for part in module.parameters() if part.requires_grad]
        self.value = join(self.parts)
        self.gradient, self.first, self.second = (torch.zeros_like(self.value) for _ in range(3))
        self.moves = torch.zeros((), device=self.value.device)
        sizes = [part.numel() for part in self.parts]
        for part, gradient in zip(self.parts, self.gradient.split(sizes), strict=True):
            part.grad = gradient.view_as(part)

    def clip(self, most: float) -> float:
        """Shorten the gradient to a norm of at most ``most``; the norm that it had."""
        norm = float(torch.linalg.vector_norm(self.gradient))
        if most < norm < math.inf:
            self.gradient.mul_(most / norm)
        return norm

    @torch.no_grad()
    def move(self, lr: float, betas: tuple[float, float], decay: float) -> None:
        """One step of AdamW down the gradient."""
        torch._fused_adamw_(
            [self.value],
            [self.gradient],
            [self.first],
            [self.second],
            [],
            [self.moves.add_(1)],
            lr=lr,
            beta1=betas[0],
            beta2=betas[1],
            weight_decay=decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """What the next move depends on besides the weights and the gradient."""
        return {"first": self.first, "second": self.second, "moves": self.moves}


class Trainer:
    """What survives between steps: the model, its players, the average, the count.

    Arguments:
        model: Any generative model.
        recipe: Learning rate, batch, average and the rest.
        steps: Rounds that the learning rate's decay is spread over.
        accumulate: Batches per optimizer step.
        autocast: Dtype of automatic mixed precision, or None.

    Example:
        >>> trainer = Trainer(model, model.recipe, steps=1000)
        >>> for record in trainer.run(batches(x, 256)):
        ...     print(record.step, record.terms)
    """

    def __init__(
        self,
        model: GenerativeModel,
        recipe: Recipe,
        steps: int,
        *,
        accumulate: int = 1,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model, self.recipe, self.steps = model, recipe, steps
        self.averaged = copy.deepcopy(model).eval() if recipe.ema and model.players() else model
        self.players = {name: Player(module) for name, module in model.players().items()}
        self.averages = {}
        if self.averaged is not model:
            players = self.averaged.players()
            self.averages = {
                name: join([part for part in module.parameters() if part.requires_grad])
                for name, module in players.items()
            }
        self.accumulate, self.autocast, self.count = accumulate, autocast, 0

    def run(self, data: Iterator[Batch]) -> Iterator[Record]:
        """Train until the steps are done, handing back control after each."""
        while self.count < self.steps:
            yield self.step(data)

    def step(self, data: Iterator[Batch]) -> Record:
        """One round: every objective in turn, one optimizer step each.

        Raises:
            NumericalError: If a loss or a gradient is not finite; the weights are those of before.
        """
        if not self.model.training:
            self.model.train()
        self.model.progress = min(1.0, self.count / max(self.steps, 1))
        terms: dict[str, Tensor] = {}
        begun, length = self.model.stretch(self.count, self.steps)
        rate = learning_rate(self.recipe, begun, length)
        for name, loss in self.model.objectives():
            player = self.players[name]
            # one player's gradient and nobody else's
            inputs = player.parts if len(self.players) > 1 else None
            player.gradient.zero_()
            for _ in range(self.accumulate):
                x, c = next(data)
                with self.precision(x.device.type):
                    parts = loss(x, c)
                    total = reduce(add, parts.values())
                (total / self.accumulate if self.accumulate > 1 else total).backward(inputs=inputs)
                terms.update((name, part.detach()) for name, part in parts.items())
            norm = player.clip(self.recipe.clip)
            if not math.isfinite(float(total.detach()) + norm):
                raise NumericalError(self.diagnosis(name, parts, norm))
            player.move(rate, self.recipe.betas, self.recipe.decay)
        self.count += 1
        # early weights are poor: the window of the average grows with the run
        decay = min(self.recipe.ema, (begun + 1) / (begun + 10))
        for name, average in self.averages.items():
            average.lerp_(self.players[name].value, 1 - decay)
        return Record(self.count, terms)

    @property
    def average(self) -> GenerativeModel:
        """The model with averaged weights; its buffers are those of the model now."""
        if self.averaged is not self.model:
            for a, b in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                a.copy_(b)
        return self.averaged

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.model.state_dict().values())).device

    def precision(self, device: str) -> contextlib.AbstractContextManager[Any]:
        """Automatic mixed precision, if it is on."""
        return torch.autocast(device, self.autocast) if self.autocast else contextlib.nullcontext()

    def diagnosis(self, player: str, parts: dict[str, Tensor], norm: float) -> str:
        """Which number was not finite, in one line."""
        bad = [f"{name} = {float(v.detach())}" for name, v in parts.items() if not v.isfinite()]
        what = ", ".join(bad) or f"gradient norm = {norm}"
        return f"step {self.count + 1}, {player}: {what}; lower lr, or look for extreme values"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the next step depends on besides the weights: tensors, and plain values."""
        tensors = {"rng": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        for name, player in self.players.items():
            tensors |= {f"{name}.{slot}": value for slot, value in player.state().items()}
        return tensors, {"count": self.count, "steps": self.steps}

    def load(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Continue from ``state``; the weights are loaded by whoever holds them."""
        self.count, self.steps = plain["count"], plain["steps"]
        for name, player in self.players.items():
            for slot, value in player.state().items():
                value.copy_(tensors[f"{name}.{slot}"])
        torch.set_rng_state(tensors["rng"])
        if "rng.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)


def held_out(measure: Callable[..., Any], x: Tensor, c: Tensor | None, rows: int = 4096) -> Any:
    """A measure of held-out data on the same noise at every call, so that calls compare."""
    rows = min(rows, max(64, 2**20 // x[0].numel()))  # large data take memory and time
    copies = -(-min(rows, 2048) // len(x))  # few data: several draws of the noise each
    x = x[:rows].repeat(copies, *[1] * (x.ndim - 1))
    c = None if c is None else c[:rows].repeat(copies, 1)
    with forked(x.device), torch.no_grad():
        sow(0, x.device)
        return measure(x, c)
