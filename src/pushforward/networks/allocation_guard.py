"""Weights of models that could not be trained on this machine, refused before they are made."""

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..memory import require_memory

TIMES = 20  # bytes a parameter takes in training: itself, its gradient, two moments, the average


class AllocationGuard(TorchFunctionMode):
    """Refuses to allocate the weights of a model that could not be trained here.

    It watches Python's calls: a mode of the dispatcher would import PyTorch's compiler, which takes
    longer than a short fit.

    Example:
        >>> with Watch("this model", "lower width"):
        ...     net = nn.Linear(10**6, 10**6)
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__()
        self.what, self.remedy, self.count = what, remedy, 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is torch.empty:
            self.count += math.prod(args if isinstance(args[0], int) else args[0])
            require_memory(TIMES * self.count, self.what, self.remedy)
        return function(*args, **(kwargs or {}))
