"""Batches of data that are too large for memory, read ahead while the model learns."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..data.reading import Dataset
from .trainer import Batch

AHEAD = 4  # batches that wait, or are being read


class MinibatchStream(Iterator[Batch]):
    """Endless uniform minibatches of rows that stay where they are, drawn with replacement.

    Which rows a batch holds follows from the seed and the number of the batch, so that a run that
    is resumed goes on with the batch that would have come.

    Arguments:
        samples: Their ``x`` is an array on the disk.
        rows: The numbers of the rows to draw from.
        size: Data per batch.
        seed: Chooses the rows.
        device: Where the batches go; ``x`` keeps its type.
    """

    def __init__(
        self, samples: Dataset, rows: np.ndarray, size: int, seed: int, device: torch.device
    ) -> None:
        self.samples, self.rows, self.size = samples, rows, size
        self.seed, self.device = seed, device
        self.position, self.waited = 0, 0.0
        self.ahead: deque[Future[Batch]] = deque()
        self.pool = ThreadPoolExecutor(1, "reader")

    def __next__(self) -> Batch:
        """The next batch; how long it was waited for is counted in ``waited``, in seconds."""
        while len(self.ahead) < AHEAD:
            self.ahead.append(self.pool.submit(self.read, self.position + len(self.ahead)))
        began = time.perf_counter()
        x, c = self.ahead.popleft().result()
        self.waited += time.perf_counter() - began
        self.position += 1
        x = x.to(self.device, non_blocking=True)
        return x, None if c is None else c.to(self.device, non_blocking=True)

    def read(self, number: int) -> Batch:
        """The batch of a number."""
        rng = np.random.default_rng((self.seed, number))
        rows = np.sort(self.rows[rng.integers(len(self.rows), size=self.size)])
        x = torch.from_numpy(self.samples.x[rows])
        c = encode_condition_rows(self.samples, rows)
        if self.device.type == "cuda":  # copies to the GPU then need not be waited for
            x, c = x.pin_memory(), None if c is None else c.pin_memory()
        return x, c

    def close(self) -> None:
        """Read no further."""
        self.pool.shutdown(cancel_futures=True)
        self.ahead.clear()


def encode_condition_rows(samples: Dataset, rows: np.ndarray) -> Tensor | None:
    """The condition vectors of some rows, if the data have conditions."""
    if not samples.schema.condition_length:
        return None
    y = None if samples.y is None else samples.y[rows]
    return torch.as_tensor(samples.schema.encode(y, len(rows)), dtype=torch.get_default_dtype())
