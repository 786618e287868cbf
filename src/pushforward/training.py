"""Training: rounds of the game, one optimizer step per objective. It knows no family by name.

The loop is plain PyTorch. Lightning Fabric would hide the device and precision calls, which are
four lines here, at the price of a two-second import and a wrapper around every module.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import NumericalError
from .model import GenerativeModel, Recipe, follow

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
    warm = min(1.0, (step + 1) / max(recipe.warmup, 1))
    return recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))


class Trainer:
    """What survives between steps: the model, one optimizer per player, the average, the count.

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
        self.optimizers = {
            name: torch.optim.AdamW(
                module.parameters(), recipe.lr, recipe.betas, weight_decay=recipe.decay, fused=True
            )
            for name, module in model.players().items()
        }
        self.average = copy.deepcopy(model).eval() if recipe.ema else model
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
        self.model.train()
        terms: dict[str, Tensor] = {}
        rate = learning_rate(self.recipe, self.count, self.steps)
        for player, loss in self.model.objectives():
            optimizer = self.optimizers[player]
            (group,) = optimizer.param_groups
            group["lr"] = rate
            optimizer.zero_grad()
            for _ in range(self.accumulate):
                x, c = next(data)
                with torch.autocast(x.device.type, self.autocast, enabled=bool(self.autocast)):
                    parts = loss(x, c)
                total = torch.stack(list(parts.values())).sum() / self.accumulate
                total.backward(inputs=group["params"])  # this player's gradient and nobody else's
                terms.update((name, part.detach()) for name, part in parts.items())
            norm = nn.utils.clip_grad_norm_(group["params"], self.recipe.clip)
            if not math.isfinite(total.detach() + norm):
                raise NumericalError(self.diagnosis(player, parts, norm))
            optimizer.step()
        self.count += 1
        if self.average is not self.model:
            # early weights are poor: the window of the average grows with the run
            follow(self.average, self.model, min(self.recipe.ema, self.count / (self.count + 9)))
        return Record(self.count, terms)

    def diagnosis(self, player: str, parts: dict[str, Tensor], norm: Tensor) -> str:
        """Which number was not finite, in one line."""
        bad = [f"{name} = {float(v)}" for name, v in parts.items() if not v.isfinite()]
        what = ", ".join(bad) or f"gradient norm = {float(norm)}"
        return f"step {self.count + 1}, {player}: {what}; lower lr, or look for extreme values"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the next step depends on besides the weights: tensors, and plain values."""
        tensors = {"rng": torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        for player, optimizer in self.optimizers.items():
            for i, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"{player}.{i}.{name}": value for name, value in slots.items()}
        return tensors, {"count": self.count, "steps": self.steps}

    def load(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Continue from ``state``; the weights are loaded by whoever holds them."""
        self.count, self.steps = plain["count"], plain["steps"]
        for player, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            for key, value in tensors.items():
                name, _, rest = key.partition(".")
                if name == player:
                    i, slot = rest.split(".")
                    state["state"].setdefault(int(i), {})[slot] = value
            optimizer.load_state_dict(state)
        torch.set_rng_state(tensors["rng"])
        if "rng.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["rng.cuda"])


def held_out(
    model: Callable[..., Tensor | None], x: Tensor, c: Tensor | None, rows: int = 4096
) -> float | None:
    """A validation loss on the same noise at every call, so that two calls can be compared."""
    copies = -(-min(rows, 2048) // len(x))  # few data: several draws of the noise each
    x = x[:rows].repeat(copies, *[1] * (x.ndim - 1))
    c = None if c is None else c[:rows].repeat(copies, 1)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        value = model(x, c)
    return None if value is None else float(value)
