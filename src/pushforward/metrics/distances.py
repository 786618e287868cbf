"""Checks of sample sets, and distances between two of them in blocks that fit in memory."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Array = NDArray[np.float64]
BLOCK = 256  # 256 x 256 float64 numbers, 512 KiB, stay in a second-level cache


def sample_set(x: object, name: str = "sample") -> Array:
    """Rows in float64, ``(n, d)``: events are flattened, numbers alone are a column."""
    try:
        rows = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"the {name} rows are not numbers: encode text columns first") from error
    if rows.ndim == 0 or rows.size == 0:
        raise DataError(f"the {name} rows are empty: a metric compares two sets of rows")
    rows = rows.reshape(len(rows), -1)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if len(bad):
        raise DataError(
            f"{len(bad)} of the {name} rows are not finite (the first is row {bad[0]}): drop them"
        )
    return rows


def sample_pair(real: object, generated: object) -> tuple[Array, Array]:
    x, y = sample_set(real, "real"), sample_set(generated, "generated")
    if x.shape[1] != y.shape[1]:
        raise DataError(
            f"real rows have {x.shape[1]} entries and generated rows {y.shape[1]}: "
            "give both the same columns"
        )
    return x, y


def block_slices(n: int, block: int = BLOCK) -> Iterator[slice]:
    return (slice(i, min(i + block, n)) for i in range(0, n, block))


def squared_distances(x: Array, y: Array) -> Array:
    r""":math:`\lVert x_i - y_j \rVert^2` by one matrix product, ``(n, m)``.

    What is left of equal rows after cancellation is set to exactly zero, so that duplicates count
    as duplicates. Centre both sets first: the rounding is relative to the norms.
    """
    x2, y2 = np.square(x).sum(1, keepdims=True), np.square(y).sum(1, keepdims=True)
    # (x, |x|^2, 1) . (-2y, 1, |y|^2): one product and no temporary of the size of the result
    d2 = np.hstack([x, x2, np.ones_like(x2)]) @ np.hstack([-2 * y, np.ones_like(y2), y2]).T
    d2 *= d2 > 1e-13 * x2
    return d2


def centre_pair(x: Array, y: Array) -> tuple[Array, Array]:
    """Both sets moved by the mean of the first: distances stay, rounding shrinks."""
    mean = x.mean(0)
    return x - mean, y - mean
