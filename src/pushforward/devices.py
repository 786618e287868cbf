"""The device of a public call, and how many rows it takes at once."""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch

from .errors import Unavailable, UsageError
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
