"""What a model costs: operations for a row of data."""

import copy
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..model import Preprocessing
from ..rng import fork_rng
from .preprocessor import ModelPipeline

ROWS = 4  # enough for losses that pair data


class _FlopCounter(TorchDispatchMode):
    """Counts operations by PyTorch's own formulas.

    PyTorch's `FlopCounterMode` also follows modules, by hooks that fail where a loss holds a
    gradient of its own, as a gradient penalty does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
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
