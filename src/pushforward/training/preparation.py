"""The data of a fit as its model sees them: split, transformed, on the device, batch by batch.

Data of moderate size are transformed once and kept on the device. Larger ones stay where they are:
a thread reads the batches ahead, and each is transformed when it comes. So is every batch of
dequantised integers, of which no particular noise is to be learned.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import memmap
from ..data.captions import truncate_captions
from ..data.conditions import condition_frequencies
from ..data.reading import Dataset
from ..data.transforms import Chain
from ..errors import DataError
from ..memory import require_memory
from .trainer import Batch, random_batches

OVERVIEW = 2**26  # entries that a model sees before its first step
SURVEYED = 2**17  # conditions of which the distribution of samples without one is made
AHEAD = 4  # batches that wait, or are being read
Split = tuple[np.ndarray, np.ndarray]  # the rows to train on, and those held out


def holdout_split(n: int, seed: int) -> Split:
    """Row numbers for training, and a tenth (at most 5,000, none of fewer than 40) held out.

    Those held out are in random order: the first of them are a sample, however a file was sorted.
    """
    order = np.random.default_rng(seed).permutation(n)
    held = min(n // 10, 5000) if n >= 40 else 0
    return np.sort(order[held:]), order[:held]


class PreparedData:
    def __init__(
        self, samples: Dataset, split: Split, transform: Chain, device: torch.device
    ) -> None:
        self.samples, self.transform, self.device = samples, transform, device
        self.train, self.held = split
        self.large = samples.x.nbytes > memmap.LARGE
        self._x = torch.empty(0) if self.large else self._all_rows().to(device)
        self._c = None if self.large else self._all_conditions()

    def rows(self, rows: np.ndarray) -> Batch:
        z = _transform_rows(self.transform, self.samples.x[rows]).to(self.device)
        if not self.large:
            return z, None if self._c is None else self._c[rows]
        c = _encode_condition_rows(self.samples, rows)
        return z, None if c is None else c.to(self.device)

    def overview(self) -> np.ndarray:
        most = max(OVERVIEW // math.prod(self.samples.x.shape[1:]), 1)
        if len(self.train) <= most:
            return self.train
        return np.sort(np.random.default_rng(0).permutation(self.train)[:most])

    def open_stream(self, size: int, seed: int, position: int) -> "MinibatchStream":
        return MinibatchStream(self.samples, self.train, size, seed, self.device, position)

    def random_batches(self, size: int, stream: "MinibatchStream | None" = None) -> Iterator[Batch]:
        if stream is not None:
            return _transform_batches(stream, self.transform)
        c = None if self._c is None else self._c[self.train]
        batches = random_batches(self._x[self.train], size, c)
        return _transform_batches(batches, self.transform) if self.transform.stochastic else batches

    def _all_rows(self) -> Tensor:
        if self.transform.stochastic:
            return torch.tensor(self.samples.x)
        z = _transform_rows(self.transform, self.samples.x)
        if not z.isfinite().all():
            raise DataError("a column varies too little or too much to be standardised; rescale it")
        return z

    def _all_conditions(self) -> Tensor | None:
        n, length = len(self.samples.x), self.samples.schema.condition_length
        if not length:
            return None
        require_memory(8 * n * length, "the conditions", "shorten them, as text=words does")
        c = _encode_condition_rows(self.samples, np.arange(n))
        return None if c is None else c.to(self.device)


class MinibatchStream(Iterator[Batch]):
    """Endless uniform minibatches of rows that stay on the disk, drawn with replacement.

    Which rows a batch holds follows from the seed and the number of the batch, so that a run that
    is resumed goes on, at its ``position``, with the batch that would have come. ``x`` keeps its
    type.
    """

    def __init__(
        self,
        samples: Dataset,
        rows: np.ndarray,
        size: int,
        seed: int,
        device: torch.device,
        position: int = 0,
    ) -> None:
        self.samples, self.rows, self.size = samples, rows, size
        self.seed, self.device = seed, device
        self.position, self.waited = position, 0.0
        self.ahead: deque[Future[Batch]] = deque()
        self.pool = ThreadPoolExecutor(1, "reader")

    def __next__(self) -> Batch:
        while len(self.ahead) < AHEAD:
            self.ahead.append(self.pool.submit(self.read, self.position + len(self.ahead)))
        began = time.perf_counter()
        x, c = self.ahead.popleft().result()
        self.waited += time.perf_counter() - began
        self.position += 1
        x = x.to(self.device, non_blocking=True)
        return x, None if c is None else c.to(self.device, non_blocking=True)

    def read(self, number: int) -> Batch:
        rng = np.random.default_rng((self.seed, number))
        rows = np.sort(self.rows[rng.integers(len(self.rows), size=self.size)])
        x = torch.from_numpy(self.samples.x[rows])
        c = _encode_condition_rows(self.samples, rows)
        if self.device.type == "cuda":  # copies to the GPU then need not be waited for
            x, c = x.pin_memory(), None if c is None else c.pin_memory()
        return x, c

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        self.ahead.clear()


def _encode_condition_rows(samples: Dataset, rows: np.ndarray) -> Tensor | None:
    if not samples.schema.condition_length:
        return None
    y = None if samples.y is None else samples.y[rows]
    return torch.as_tensor(samples.schema.encode(y, len(rows)), dtype=torch.get_default_dtype())


def _transform_rows(transform: Chain, x: np.ndarray) -> Tensor:
    if x.size <= memmap.MANY:
        z = transform.forward(torch.tensor(x, dtype=torch.float64))[0]
        return z.to(torch.get_default_dtype())
    z = torch.empty(x.shape)
    for i in memmap.row_slices(x.shape):
        z[i] = transform.forward(torch.tensor(x[i], dtype=torch.float64))[0]
    return z


def _transform_batches(batches: Iterator[Batch], transform: Chain) -> Iterator[Batch]:
    for x, c in batches:
        yield transform.forward(x.double())[0].to(torch.get_default_dtype()), c


def tally_conditions(
    samples: Dataset, rows: np.ndarray
) -> tuple[list[Any] | None, list[float] | None]:
    if samples.y is None:
        return None, None
    condition = samples.schema.condition
    if len(rows) > SURVEYED:
        rows = np.random.default_rng(0).choice(rows, SURVEYED, replace=False)
    if condition is not None and condition.captioned:  # text takes less room than its numbers
        given = np.array(truncate_captions(samples.y[rows].ravel().tolist()), object)
        seen, weights = condition_frequencies(given)
    else:
        seen, weights = condition_frequencies(samples.schema.encode(samples.y[rows], len(rows)))
    return seen.tolist(), weights.tolist()


def data_fingerprint(samples: Dataset) -> str:
    """SHA-256 of the data and conditions, so that a resumed run cannot mix two data sets."""
    digest, large = hashlib.sha256(), samples.x.size > memmap.MANY
    for i in memmap.row_slices(samples.x.shape) if large else [slice(None)]:
        digest.update(samples.x[i].astype(np.float64).tobytes())
    if samples.y is not None:
        digest.update(repr(samples.y.tolist()).encode())
    return digest.hexdigest()
