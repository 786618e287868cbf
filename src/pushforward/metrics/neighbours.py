"""Nearest neighbours: fidelity, coverage and memorisation.

A row's ball reaches to its ``k``-th nearest neighbour in its own set. Precision asks whether
generated rows lie in balls of real rows, recall the reverse (Kynkäänniemi et al., 2019); density
and coverage bear outliers better (Naeem et al., 2020). Duplicates make balls of radius zero, which
hold exact copies alone.
"""

import numpy as np

from ..errors import DataError
from .distances import BLOCK, Array, block_slices, centre_pair, sample_pair, squared_distances

K = 5


def squared_radii(x: Array, k: int, block: int = BLOCK) -> Array:
    """Squared distance from each row to its ``k``-th nearest other row, a block at a time."""
    return np.concatenate(
        [
            np.partition(squared_distances(x[i], x), k, axis=1)[:, k]
            for i in block_slices(len(x), block)
        ]
    )


def prdc(real: np.ndarray, generated: np.ndarray, *, k: int = K, block: int = BLOCK) -> Array:
    r"""Precision, recall, density and coverage, ``(4,)``; all but density are fractions.

    Raises:
        DataError: If either set has at most ``k`` rows.
    """
    x, y = centre_pair(*sample_pair(real, generated))
    if min(len(x), len(y)) <= k:
        raise DataError(f"neighbours number {k} need more than {k} rows on each side: give more")
    r_x, r_y = squared_radii(x, k, block), squared_radii(y, k, block)
    balls = np.zeros(len(y))  # real balls around each generated row
    recalled, covered = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    for i in block_slices(len(x), block):
        d2 = squared_distances(x[i], y)
        inside = d2 <= r_x[i, None]
        balls += inside.sum(0)
        covered[i] = inside.any(1)
        recalled[i] = (d2 <= r_y).any(1)
    return np.array([(balls > 0).mean(), recalled.mean(), balls.mean() / k, covered.mean()])


def precision(real: np.ndarray, generated: np.ndarray, *, k: int = K) -> float:
    """Fraction of generated rows that lie in the ball of some real row."""
    return float(prdc(real, generated, k=k)[0])


def recall(real: np.ndarray, generated: np.ndarray, *, k: int = K) -> float:
    """Fraction of real rows that lie in the ball of some generated row."""
    return float(prdc(real, generated, k=k)[1])


def density(real: np.ndarray, generated: np.ndarray, *, k: int = K) -> float:
    """Real balls around a generated row, on average and over ``k``; about 1 for equal laws."""
    return float(prdc(real, generated, k=k)[2])


def coverage(real: np.ndarray, generated: np.ndarray, *, k: int = K) -> float:
    """Fraction of real rows whose ball holds a generated row."""
    return float(prdc(real, generated, k=k)[3])


def nearest_distance(rows: np.ndarray, train: np.ndarray, *, block: int = BLOCK) -> Array:
    """Distance from each row to the nearest training row, in the unit of the data.

    The matrix product finds the neighbour and a subtraction measures it: zero means equal.
    """
    t, x = centre_pair(*sample_pair(train, rows))
    least, which = np.full(len(x), np.inf), np.zeros(len(x), dtype=np.int64)
    for i in block_slices(len(x), block):
        for j in block_slices(len(t), block):
            d2 = squared_distances(x[i], t[j])
            closer = d2.min(1) < least[i]
            which[i] = np.where(closer, d2.argmin(1) + j.start, which[i])
            least[i] = np.minimum(d2.min(1), least[i])
    return np.linalg.norm(x - t[which], axis=1)


def memorisation_scores(real: Array, generated: Array) -> Array:
    r"""From two sets of distances to the nearest training row: their ratio, and copies, ``(2,)``.

    .. math:: \frac{\operatorname{median} d(\text{generated}, \text{train})}
        {\operatorname{median} d(\text{held out}, \text{train})}, \qquad
        \text{fraction of } d(\text{generated}, \text{train}) = 0

    About 1 for a model that has learned the law, towards 0 for one that repeats its training rows,
    above 1 for one that strays (after Meehan et al., 2020). Infinite or NaN if most held-out rows
    are themselves copies of training rows.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.median(generated) / np.median(real)
    return np.array([ratio, (generated == 0).mean()])


def exact_duplicates(generated: np.ndarray, train: np.ndarray) -> int:
    """The number of generated rows that equal a training row in every entry."""
    t, x = sample_pair(train, generated)
    known = {row.tobytes() for row in t + 0.0}  # adding 0.0 makes -0.0 and 0.0 the same bytes
    return sum(row.tobytes() in known for row in x + 0.0)
