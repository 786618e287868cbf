r"""Processes that train one model together: who each is, and what they tell one another.

Each computes the gradient of its part of a batch. Their mean is the gradient of the whole batch:

.. math:: \nabla \frac{1}{B} \sum_{i=1}^{B} \ell_i
    = \frac{1}{R} \sum_{r=1}^{R} \nabla \frac{R}{B} \sum_{i \in r} \ell_i

Weights start alike and move alike, so that only gradients travel. Sharded, each process keeps one
part of the weights and of all that goes with them, and they meet for every block (`fsdp`).
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from ..devices import choose_device
from ..errors import Unavailable, UsageError

MANY = 1024


@dataclass(frozen=True)
class ProcessGroup:
    """One process among those that train a model; alone, every method leaves things as they are."""

    rank: int = 0  # the first decides, writes and speaks
    count: int = 1
    sharded: bool = False  # whether each keeps one part of the weights

    @property
    def first(self) -> bool:
        return self.rank == 0

    def seed(self, seed: int) -> int:
        sequence = np.random.SeedSequence((seed, self.rank))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def average(self, gradient: Tensor) -> None:
        if self.count > 1:
            gradient /= self.count
            self.sum(gradient)

    def sum(self, x: Tensor) -> None:
        if self.count > 1:
            with _lost_process_errors():
                dist.all_reduce(x)

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        if self.count > 1:
            with _lost_process_errors(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def gather(self, x: Tensor) -> list[Tensor]:
        if self.count == 1:
            return [x]
        found = [torch.empty_like(x) for _ in range(self.count)]
        with _lost_process_errors():
            dist.all_gather(found, x)
        return found

    def largest(self, values: Sequence[int]) -> list[int]:
        if self.count == 1:
            return list(values)
        known = torch.tensor(values)
        with _lost_process_errors():
            dist.all_reduce(known, dist.ReduceOp.MAX)
        return known.tolist()


ALONE = ProcessGroup()


@contextlib.contextmanager
def _lost_process_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = "another process of this fit has ended; what it said last says why"
        raise Unavailable(why) from error


def choose_process_group(devices: Any, shard: bool = False) -> ProcessGroup:
    """None takes those of ``torchrun``, or one."""
    known = _env_int("WORLD_SIZE", 1) if has_torchrun_env() else 1
    whole = isinstance(devices, int) and not isinstance(devices, bool)
    if devices is not None and not (whole and 1 <= devices <= MANY):
        raise UsageError(f"devices is {str(devices)[:40]}; it must be a whole number from 1")
    absent = sorted({"MASTER_ADDR", "MASTER_PORT"} - os.environ.keys())
    if known > 1 and devices != 1 and absent and not dist.is_initialized():
        raise UsageError(
            f"WORLD_SIZE is {known}, but {absent[0]} is not set: start by torchrun, or unset RANK "
            "and WORLD_SIZE"
        )
    if known > 1 and devices not in (None, 1, known):
        raise UsageError(f"devices is {devices}, but torchrun started {known}: leave it out")
    count = known if devices is None else devices
    if count == 1:
        return ALONE
    return ProcessGroup(_env_int("RANK", 0) if known > 1 else 0, count, shard)


def _env_int(name: str, least: int) -> int:
    text = os.environ[name]
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"the variable {name} is {text[:40]!r}: unset it, or start by torchrun")
    return int(text)


def has_torchrun_env() -> bool:
    return {"RANK", "WORLD_SIZE"}.issubset(os.environ)


def is_main_process() -> bool:
    return not has_torchrun_env() or os.environ["RANK"] == "0"


def process_device(name: Any, ranks: ProcessGroup) -> torch.device:
    where = choose_device(name)
    if where.type != "cuda" or ranks.count == 1:
        return where
    if ranks.count > torch.cuda.device_count() and not has_torchrun_env():
        raise Unavailable(f"{ranks.count} GPUs are asked for, {torch.cuda.device_count()} are here")
    if where.index is not None:
        raise UsageError(f"{name} is one device for {ranks.count} processes; use device='cuda'")
    return choose_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")


def dist_backends() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
