"""Random numbers of torch: the CPU's generator and that of the one device in use, and no other."""

import contextlib
import os
from collections.abc import Iterator

import torch

from . import options


def fork_rng(device: torch.device | None = None) -> contextlib.AbstractContextManager[None]:
    """Context manager that restores the generators at its end.

    Torch by itself would fork the generators of all GPUs, and so occupy each of them.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    return torch.random.fork_rng(devices=gpus)


def seed_rng(seed: int, device: torch.device | None = None) -> None:
    """Seed the generators that `fork_rng` restores."""
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def seeded_rng(seed: int | None, device: torch.device | None = None) -> Iterator[None]:
    """Seed forked generators: the CPU's and that of the device; the caller's stay as they are."""
    if seed is not None:
        options.check_seed(seed)
    with fork_rng(device):
        seed_rng(int.from_bytes(os.urandom(7)) if seed is None else int(seed), device)
        yield
