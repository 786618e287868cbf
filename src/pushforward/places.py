"""Where a public call runs, with which random numbers, and how many rows at once."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from .errors import Unavailable, UsageError
from .model import GenerativeModel


@contextlib.contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Fork torch's generator at the door; the caller's is as it was afterwards."""
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"seed is {seed}; it is a whole number from 0 to 2^63 - 1")
    with torch.random.fork_rng():
        if seed is None:
            torch.seed()
        else:
            torch.manual_seed(seed)
        yield


def choose_device(name: str) -> torch.device:
    """A device by name; "auto" is the first GPU, or the CPU without one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise Unavailable(f"device {name!r} is not available here; use device='cpu'") from error
    return torch.device(name)


def rows_at_once(event_shape: tuple[int, ...]) -> int:
    """Rows per chunk, from the shape alone, so that the same seed gives the same rows."""
    return max(64, min(4096, 2**20 // max(int(np.prod(event_shape)), 1)))


def device_of(model: GenerativeModel) -> torch.device:
    """Where a model's tensors are."""
    return next(iter(model.state_dict().values())).device


def chunks(n: int, size: int) -> Iterator[tuple[int, int]]:
    """Starts and lengths of the chunks of ``n`` rows."""
    return ((i, min(size, n - i)) for i in range(0, n, size))


def accepts(function: Callable[..., Any], options: dict[str, Any], family: str) -> None:
    """Refuse an option that a model's method does not take, instead of ignoring it."""
    known = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for option in options:
        if option not in known:
            raise UsageError(f"{family} cannot honour the option {option!r}")
