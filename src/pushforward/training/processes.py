r"""Processes that train one model together: who each is, and what they tell one another.

Each computes the gradient of its part of a batch. Their mean is the gradient of the whole batch:

.. math:: \nabla \frac{1}{B} \sum_{i=1}^{B} \ell_i
    = \frac{1}{R} \sum_{r=1}^{R} \nabla \frac{R}{B} \sum_{i \in r} \ell_i

Weights start alike and move alike, so that only gradients travel. Sharded, each process keeps one
part of the weights and of all that goes with them, and they meet for every block (`sharding`).
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from ..errors import Unavailable


@dataclass(frozen=True)
class ProcessGroup:
    """One process among those that train a model; alone, every method leaves things as they are.

    Arguments:
        rank: Which it is, from 0; the first decides, writes and speaks.
        count: How many there are.
        sharded: Whether each keeps one part of the weights.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        """Whether this process decides for all."""
        return self.rank == 0

    def seed(self, seed: int) -> int:
        """A seed of this process alone, from one that all know."""
        sequence = np.random.SeedSequence((seed, self.rank))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def collect(self, gradient: Tensor) -> None:
        """Replace a gradient by the mean over processes."""
        if self.count > 1:
            gradient /= self.count
            self.add(gradient)

    def add(self, x: Tensor) -> None:
        """Replace a tensor by the sum over processes."""
        if self.count > 1:
            with lost_process_errors():
                dist.all_reduce(x)

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's values."""
        if self.count > 1:
            with lost_process_errors(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def all(self, x: Tensor) -> list[Tensor]:
        """The values that each process has."""
        if self.count == 1:
            return [x]
        found = [torch.empty_like(x) for _ in range(self.count)]
        with lost_process_errors():
            dist.all_gather(found, x)
        return found

    def most(self, values: Sequence[int]) -> list[int]:
        """The largest of each of some whole numbers over all processes."""
        if self.count == 1:
            return list(values)
        known = torch.tensor(values)
        with lost_process_errors():
            dist.all_reduce(known, dist.ReduceOp.MAX)
        return known.tolist()


ALONE = ProcessGroup()


@contextlib.contextmanager
def lost_process_errors() -> Iterator[None]:
    """Say so when another process has ended.

    Raises:
        Unavailable: In place of what the network reports.
    """
    try:
        yield
    except RuntimeError as error:
        raise Unavailable(
            "another process of this fit has ended; what it said last says why"
        ) from error
