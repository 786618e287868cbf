"""The device of a public call, the rows that it takes at once, and its limit."""

import math
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from .errors import Unavailable, UsageError
from .memory import require_memory
from .model import GenerativeModel


def choose_device(name: str | torch.device) -> torch.device:
    """A device by name; "auto" is the first GPU, or the CPU without one."""
    if not isinstance(name, str | torch.device):
        raise UsageError(f"device is {str(name)[:40]}; name one, such as 'cpu', or 'auto'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if str(name).startswith("mps"):
        raise Unavailable("device 'mps' has no float64, which is needed here; use device='cpu'")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        what = f"device {str(name)[:40]!r} is not available here; use device='cpu'"
        raise Unavailable(what) from error
    return torch.device(name)


def batch_rows(event_shape: tuple[int, ...]) -> int:
    """Rows per chunk, from the shape alone, so that the same seed gives the same rows."""
    return max(64, min(4096, 2**20 // max(int(np.prod(event_shape)), 1)))


def model_device(model: GenerativeModel) -> torch.device:
    return next(chain(model.parameters(), model.buffers())).device


def cast_like_model(model: GenerativeModel, x: torch.Tensor) -> torch.Tensor:
    floats = (v for v in chain(model.parameters(), model.buffers()) if v.is_floating_point())
    return x.to(next(floats))


def batch_offsets(n: int, size: int) -> Iterator[tuple[int, int]]:
    return ((i, min(size, n - i)) for i in range(0, n, size))


TIMES = 20  # bytes a parameter takes in training: itself, its gradient, two moments, the average


class AllocationGuard(TorchFunctionMode):
    """Refuses to allocate the weights of a model that could not be trained here.

    It watches Python's calls: a mode of the dispatcher would import PyTorch's compiler, which takes
    longer than a short fit.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__()
        self.what, self.remedy, self.count = what, remedy, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.empty:
            self.count += math.prod(args if isinstance(args[0], int) else args[0])
            require_memory(TIMES * self.count, self.what, self.remedy)
        return func(*args, **(kwargs or {}))
