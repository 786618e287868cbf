"""What a fit cost, and what a family's own diagnosis of it means, where it is bad news."""

import copy
from collections.abc import Iterator
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..model import Preprocessing
from ..rng import fork_rng
from ..theory.sample_statistics import is_collapsed
from .preprocessor import ModelPipeline

ENOUGH = 0.25  # of the usual steps, below which a model is not judged
IDLE = 0.8  # of the latents
SOLVER = 0.01  # nats by which a coarse solver may flatter a model unnoticed


def _latest_value(history: list[dict[str, Any]], name: str) -> float | None:
    return next((row[name] for row in reversed(history) if row.get(name) is not None), None)


def _default_steps(config: dict[str, Any]) -> int:
    known = config.get("usual")  # not in runs from before it was noted
    if known is None and config.get("minutes"):
        known = config.get("recipe", {}).get("steps")
    return known or 0


def trained_fraction(config: dict[str, Any]) -> float:
    """The part of the family's usual steps that a fit took; 1 where it is done or not known."""
    done, stopped = config.get("steps"), str(config.get("ended", "")).startswith("stopped early")
    usual = _default_steps(config)
    return min(done / usual, 1.0) if done and usual and not stopped else 1.0


def diagnose_fit(history: list[dict[str, Any]], config: dict[str, Any]) -> Iterator[str]:
    """One sentence for each: little training, mode or posterior collapse, an exploited solver."""
    kept, gain = _latest_value(history, "mode_coverage"), _latest_value(history, "solver_error")
    active, idle = _latest_value(history, "active_units"), _latest_value(history, "collapsed_units")
    if kept is not None and is_collapsed(kept):
        yield f"mode collapse: samples reach {kept:.0%} of the mass of held-out data"
    if active is not None and idle is not None and idle >= IDLE * (active + idle):
        yield f"posterior collapse: {idle:.0f} of {active + idle:.0f} latents tell nothing"
    if gain is not None and gain > SOLVER:
        yield (
            f"solver error: the steps of training flatter the likelihood by {gain:.2g} nats; "
            "take more of them (solver_steps=)"
        )
    if trained_fraction(config) < ENOUGH:
        done, budget = config["steps"], "minutes" if config.get("minutes") else "steps"
        yield (
            f"far from trained: {done:,} of the usual {_default_steps(config):,} steps; "
            f"give it more {budget}"
        )


ROWS = 4  # enough for losses that pair data


class _FlopCounter(TorchDispatchMode):
    """Counts operations by PyTorch's own formulas.

    PyTorch's `FlopCounterMode` also follows modules, by hooks that fail where a loss holds a
    gradient of its own, as a gradient penalty does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def training_flops(pipeline: ModelPipeline) -> int:
    """Floating-point operations of a row in all players' losses, before these are differentiated.

    Products of matrices and convolutions count, an addition and a multiplication each; of what is
    fused, such as attention, only that for which PyTorch has a formula. 0 for closed forms.
    """
    model = copy.deepcopy(pipeline.model)
    if not model.players():
        return 0
    model.requires_grad_().train()
    length, done = pipeline.schema.condition_length, set()
    with fork_rng(pipeline.device), _FlopCounter() as counter:
        x = model.noise(ROWS, *model.event_shape)
        x = x * (model.preprocessing is not Preprocessing.LEVELS)
        c = x.new_zeros(ROWS, length) if length else None
        for player, loss in model.objectives():
            if player not in done:
                loss(x, c)
                done.add(player)
    return counter.total // ROWS
