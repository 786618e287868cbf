r"""What samples say of a generator without a likelihood: energy distance, and mode coverage.

Mode collapse is seen without knowing the modes: real rows are cut into cells by k-means, and a cell
is kept if its share of the generated rows is at least a tenth of its share of the real ones (after
the bins of Richardson and Weiss, 2018). The statistic is the real mass in kept cells: 1 for equal
distributions, whatever they are, and :math:`m/K` for a generator that knows :math:`m` of :math:`K`
equal modes. Unlike coverage by nearest neighbours it bears samples blurred by less than a cell.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import cat, cdist

from ..shapes import Condition, Data, Scalar


def conditional_energy_distance(x: Data, y: Data, c: Condition = None) -> Scalar:
    r"""Of data x and draws y under the same conditions, over all pairs (Székely & Rizzo, 2013).

    .. math:: 2\,\mathbb E\|x - y\| - \mathbb E\|x - x'\| - \mathbb E\|y - y'\|

    With conditions it is that of the joint distributions of :math:`(x, c)`, which vanishes only if
    those given each condition agree; conditions that vary more than the data, as tokens of text do,
    are scaled down to vary as much, or they would hide the data. All pairs count, those of a datum
    with itself as well: the noise is of the order 1/n where the model is right, and that of
    independent pairs is :math:`n^{-1/2}`.
    """
    if c is not None:
        most, spread = (z.flatten(1).var(0, correction=0).sum() for z in (x, c))
        c = c * (most / spread.clamp(min=1e-12)).sqrt().clamp(max=1)
    a, b = (z.flatten(1) if c is None else cat([z.flatten(1), c], dim=1) for z in (x, y))
    return 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


COLLAPSE = 0.8  # of the modes or of the mass: seven of eight are above it, six are below
SHARE = 0.1  # of the rows it should have: with fewer a cell counts as lost
CELLS, ROWS = 16, 20  # at most so many cells, of at least so many rows: fewer say nothing


def is_collapsed(kept: float) -> bool:
    return kept <= COLLAPSE


def coverage_cells(n: int) -> int:
    return min(CELLS, n // ROWS)


def cluster_rows(real: NDArray[Any], k: int, *, seed: int = 0) -> Any:
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=3, random_state=seed).fit(real)


def covered_mass(real: NDArray[Any], generated: NDArray[Any]) -> float:
    """From the cells' numbers of two sets of rows: the real mass in cells that are kept."""
    k = int(max(real.max(), generated.max())) + 1
    p, q = (np.bincount(c.astype(int).ravel(), minlength=k) for c in (real, generated))
    kept = q / len(generated) >= SHARE * p / len(real)
    return float(p[kept].sum() / len(real))


def kmeans_coverage(real: NDArray[Any], generated: NDArray[Any]) -> float:
    """Fraction of real rows in cells that generated rows keep; from 20 real rows on.

    At 0.8 or less modes are missing. With 1,000 rows of each, six modes of eight are at 0.75 with a
    standard error of 0.014, seven at 0.875.
    """
    cells = cluster_rows(real, coverage_cells(len(real)))
    return covered_mass(cells.labels_, cells.predict(generated))
