"""Training: rounds of the game, one optimizer step per objective. It knows no family by name.

The loop is plain PyTorch. Lightning Fabric would hide the device and precision calls, which are
four lines here, at the price of a two-second import and a wrapper around every module; several
processes meet in one call of `ranks` a step.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import NumericalError
from ..model import GenerativeModel, Loss, Recipe
from ..rng import fork_rng, seed_rng
from .optimizer import Ema, EmaModel, FlatOptimizer, Players
from .processes import ALONE, ProcessGroup

if TYPE_CHECKING:
    from .fsdp import FsdpRoot  # it takes a second to import

Batch = tuple[Tensor, Tensor | None]


class _StepResult(NamedTuple):
    """What happened in one round. Scalars stay on the device until someone reads them."""

    step: int
    terms: dict[str, Tensor]


def random_batches(x: Tensor, size: int, c: Tensor | None = None) -> Iterator[Batch]:
    """Endless uniform minibatches of tensors held in memory, drawn by index with replacement."""
    while True:
        i = torch.randint(len(x), (size,)).to(x.device)
        yield x[i], None if c is None else c[i]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    r"""Linear warm-up, then a half cosine to zero: :math:`\tfrac12\eta(1 + \cos\pi k/K)`."""
    warm = min(1.0, (step + 1) / max(min(recipe.warmup, steps // 10), 1))
    return recipe.lr * warm * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))


class Trainer:
    """What survives between steps: the model, its players, the average, the count.

    Arguments:
        steps: Rounds that the learning rate's decay is spread over.
        autocast: Dtype of automatic mixed precision, or None.
        ranks: The processes that train it; each gets other batches.
        device: Where it is trained; None says where the weights are.
    """

    def __init__(
        self,
        model: GenerativeModel,
        recipe: Recipe,
        steps: int,
        *,
        autocast: torch.dtype | None = None,
        ranks: ProcessGroup = ALONE,
        device: torch.device | None = None,
    ) -> None:
        self.model, self.recipe, self.steps = model, recipe, steps
        self.autocast, self.ranks, self.count, self.drawn = autocast, ranks, 0, 0
        self.device = device or next(iter(model.state_dict().values())).device
        self.players: Players = {k: FlatOptimizer(v, ranks) for k, v in model.players().items()}
        decays = recipe.ema if isinstance(recipe.ema, tuple) else (recipe.ema,)
        self.averages: list[Ema] = [
            EmaModel(model, self.players, decay) for decay in decays if decay and self.players
        ]
        self.root: FsdpRoot | None = None

    def synchronise(self) -> None:
        """Start from the weights of the first process; sharded, each keeps its part of them."""
        self.ranks.broadcast(self.model.state_dict().values())
        for average in self.averages if self.ranks.count > 1 and not self.count else ():
            average.load(self.model.state_dict())
        if self.ranks.sharded and self.players:
            from .fsdp import shard_training_state

            self.root, self.players, self.averages = shard_training_state(
                self.model, self.device, self.players, self.averages
            )

    def on_main_process(self, work: Callable[[], Any]) -> Any:
        """What work without gradients gives, by all processes if the weights are in parts."""
        if self.root is not None:
            return self.root.run_alone(work)
        return work() if self.ranks.first else None

    def run(self, data: Iterator[Batch]) -> Iterator[_StepResult]:
        while self.count < self.steps:
            yield self.step(data)

    def step(self, data: Iterator[Batch]) -> _StepResult:
        """Step every objective in turn; if one is not finite, the weights stay as they were."""
        if not self.model.training:
            self.model.train()
        self.model.progress = min(1.0, self.count / max(self.steps, 1))
        terms: dict[str, Tensor] = {}
        begun, length = self.model.stage_progress(self.count, self.steps)
        if not begun:  # what each process has measured on its own batches
            self.ranks.broadcast(self.model.buffers())
        rate = learning_rate(self.recipe, begun, length)
        for name, loss in self.model.objectives():
            player = self.players[name]
            # one player's gradient and nobody else's
            inputs = player.inputs() if len(self.players) > 1 else None
            player.zero_grad()
            pieces = [self.backward(loss, data, inputs) for _ in range(self.recipe.accumulate)]
            parts = {k: reduce(add, (piece[k] for piece in pieces)) for k in pieces[0]}
            total = reduce(add, parts.values())
            player.collect_gradient(total)
            norm = player.clip(self.recipe.clip)
            if not math.isfinite(float(total) + norm):
                raise NumericalError(self.describe_failure(name, parts, norm))
            terms |= parts
            player.step(rate, self.recipe.betas, self.recipe.decay)
        self.count += 1
        for average in self.averages:
            average.update(begun + 1)
        return _StepResult(self.count, terms)

    def backward(
        self, loss: Loss, data: Iterator[Batch], inputs: list[nn.Parameter] | None
    ) -> dict[str, Tensor]:
        x, c = next(data)
        self.drawn += 1
        dtype = self.autocast
        with torch.autocast(x.device.type, dtype) if dtype else contextlib.nullcontext():
            parts = loss(x, c) if self.root is None else self.root(loss, x, c)
            total = reduce(add, parts.values())
        pieces = self.recipe.accumulate
        (total / pieces if pieces > 1 else total).backward(inputs=inputs)
        return {k: v.detach() / pieces if pieces > 1 else v.detach() for k, v in parts.items()}

    @property
    def average(self) -> GenerativeModel:
        """The model with averaged weights, unless they are in parts: then see `averaged`."""
        with self.averaged() as model:
            return model

    def averaged(self) -> contextlib.AbstractContextManager[GenerativeModel]:
        if self.averages:
            return self.averages[0].swapped_in()
        return contextlib.nullcontext(self.model.eval())

    def gather(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return state if self.root is None else self.root.gather(state)

    def averages_by_name(self) -> dict[str, Ema]:
        return {f"ema-{i}" if i else "ema": a for i, a in enumerate(self.averages)}

    def describe_failure(self, player: str, parts: dict[str, Tensor], norm: float) -> str:
        bad = [f"{name} = {float(v.detach())}" for name, v in parts.items() if not v.isfinite()]
        what = ", ".join(bad) or f"gradient norm = {norm}"
        return f"step {self.count + 1}, {player}: {what}; lower lr, or look for extreme values"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {}
        generators = {"rng": torch.get_rng_state()}
        if self.device.type == "cuda":
            generators["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        for name, own in generators.items():
            for rank, state in enumerate(self.ranks.gather(own)):
                tensors[_rank_key(name, rank)] = state
        for name, player in self.players.items():
            tensors |= {f"{name}.{slot}": value for slot, value in player.state().items()}
        return tensors, {"count": self.count, "steps": self.steps, "drawn": self.drawn}

    def load(self, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
        """Continue from ``state``; a process that had no part in it draws numbers of its own."""
        self.count, self.steps = plain["count"], plain["steps"]
        self.drawn = plain.get("drawn", 0)
        for name, player in self.players.items():
            player.load({slot: tensors[f"{name}.{slot}"] for slot in ("first", "second", "moves")})
        cpu, cuda = (_rank_key(name, self.ranks.rank) for name in ("rng", "rng.cuda"))
        if cpu in tensors:
            torch.set_rng_state(tensors[cpu])
        if cuda in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[cuda], self.device)


def _rank_key(name: str, rank: int) -> str:
    return f"{name}.{rank}" if rank else name


def evaluate_held_out(
    measure: Callable[..., Any], x: Tensor, c: Tensor | None, rows: int = 4096
) -> Any:
    """A measure of held-out data on the same noise at every call, so that calls compare."""
    rows = min(rows, max(64, 2**20 // x[0].numel()))  # large data take memory and time
    copies = -(-min(rows, 2048) // len(x))  # few data: several draws of the noise each
    x = x[:rows].repeat(copies, *[1] * (x.ndim - 1))
    c = None if c is None else c[:rows].repeat(copies, 1)
    with fork_rng(x.device), torch.no_grad():
        seed_rng(0, x.device)
        return measure(x, c)
