"""Nearest neighbours and modes: fidelity, coverage and memorisation.

A row's ball reaches to its ``k``-th nearest neighbour in its own set. Precision asks whether
generated rows lie in balls of real rows, recall the reverse (Kynkäänniemi et al., 2019); density
and coverage bear outliers better (Naeem et al., 2020). Duplicates make balls of radius zero, which
hold exact copies alone. Mode coverage asks which parts of a distribution a generator reaches, by
the nearest of its modes or of the centres of k-means.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from ..theory import sample_statistics
from . import distances
from .distances import BLOCK, Array, sample_pair

K = 5


def _squared_radii(x: Array, k: int, block: int = BLOCK) -> Array:
    parts = (distances.squared_distances(x[i], x) for i in distances.block_slices(len(x), block))
    return np.concatenate([np.partition(d2, k, axis=1)[:, k] for d2 in parts])


def prdc(real: np.ndarray, generated: np.ndarray, *, k: int = K, block: int = BLOCK) -> Array:
    """Precision, recall, density and coverage, ``(4,)``; all but density are fractions."""
    x, y = distances.centre_pair(*sample_pair(real, generated))
    if min(len(x), len(y)) <= k:
        raise DataError(f"neighbours number {k} need more than {k} rows on each side: give more")
    r_x, r_y = _squared_radii(x, k, block), _squared_radii(y, k, block)
    balls = np.zeros(len(y))  # real balls around each generated row
    recalled, covered = np.zeros(len(x), dtype=bool), np.zeros(len(x), dtype=bool)
    for i in distances.block_slices(len(x), block):
        d2 = distances.squared_distances(x[i], y)
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
    """Real balls around a generated row, on average and over ``k``; about 1 if equal."""
    return float(prdc(real, generated, k=k)[2])


def coverage(real: np.ndarray, generated: np.ndarray, *, k: int = K) -> float:
    """Fraction of real rows whose ball holds a generated row."""
    return float(prdc(real, generated, k=k)[3])


def nearest_distance(rows: np.ndarray, train: np.ndarray, *, block: int = BLOCK) -> Array:
    """Distance from each row to the nearest training row, in the unit of the data.

    The matrix product finds the neighbour and a subtraction measures it: zero means equal.
    """
    t, x = distances.centre_pair(*sample_pair(train, rows))
    least, which = np.full(len(x), np.inf), np.zeros(len(x), dtype=np.int64)
    for i in distances.block_slices(len(x), block):
        for j in distances.block_slices(len(t), block):
            d2 = distances.squared_distances(x[i], t[j])
            closer = d2.min(1) < least[i]
            which[i] = np.where(closer, d2.argmin(1) + j.start, which[i])
            least[i] = np.minimum(d2.min(1), least[i])
    return np.linalg.norm(x - t[which], axis=1)


def memorisation_scores(real: Array, generated: Array) -> Array:
    r"""From two sets of distances to the nearest training row: their ratio, and copies, ``(2,)``.

    .. math:: \frac{\operatorname{median} d(\text{generated}, \text{train})}
        {\operatorname{median} d(\text{held out}, \text{train})}, \qquad
        \text{fraction of } d(\text{generated}, \text{train}) = 0

    About 1 for a model that has learned the distribution, towards 0 for one that repeats its
    training rows, above 1 for one that strays (after Meehan et al., 2020). Infinite or NaN if most
    held-out rows are themselves copies of training rows.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.median(generated) / np.median(real)
    return np.array([ratio, (generated == 0).mean()])


def exact_duplicates(generated: np.ndarray, train: np.ndarray) -> int:
    """The number of generated rows that equal a training row in every entry."""
    t, x = sample_pair(train, generated)
    known = {row.tobytes() for row in t + 0.0}  # adding 0.0 makes -0.0 and 0.0 the same bytes
    return sum(row.tobytes() in known for row in x + 0.0)


class _ModeReport(NamedTuple):
    covered: int  # modes with at least one high-quality row
    high_quality: float  # fraction of rows within ``radius`` scales of a mode
    reverse_kl: float  # KL of the modes' frequencies to uniform, in nats
    frequencies: Array  # fraction of the high-quality rows at each mode
    kept: float  # fraction of the modes that have at least a tenth of their fair share

    @property
    def collapsed(self) -> bool:
        return sample_statistics.is_collapsed(self.kept)


def known_modes(
    generated: np.ndarray, modes: np.ndarray, scale: float, *, radius: float = 3.0
) -> _ModeReport:
    r"""Coverage of modes at known places (Srivastava et al., 2017; Lin et al., 2018).

    .. math:: \mathrm{KL}(f \,\|\, \text{uniform}) = \sum_k f_k \log (K f_k)

    Arguments:
        generated: Rows ``(n, d)``.
        modes: Their centres ``(K, d)``.
        scale: The standard deviation at a mode, in the unit of the data.
        radius: How many scales away a row is still of high quality.
    """
    from scipy.special import rel_entr

    centres, rows = sample_pair(modes, generated)
    if scale <= 0:
        raise UsageError(f"the scale of a mode is its standard deviation, above zero, not {scale}")
    d2 = distances.squared_distances(rows, centres)
    nearest = d2.argmin(1)
    good = d2.min(1) <= (radius * scale) ** 2
    k = len(centres)
    counts = np.bincount(nearest[good], minlength=k)
    f = counts / max(int(good.sum()), 1)
    kl = float(rel_entr(f, 1 / k).sum()) if good.any() else float(np.log(k))
    kept = float((counts >= sample_statistics.SHARE * len(rows) / k).mean())
    return _ModeReport(int((counts > 0).sum()), float(good.mean()), kl, f, kept)


def kmeans_centres(real: np.ndarray, *, k: int | None = None, seed: int = 0) -> Array:
    """Centres of a k-means partition of real rows, where modes are not known, ``(k, d)``.

    Cells of too few rows are no evidence, so ``k`` is at most a twentieth of the rows.
    """
    x = distances.sample_set(real, "real")
    k = k or sample_statistics.coverage_cells(len(x))
    if not 1 <= k <= len(x):
        raise UsageError(f"{len(x)} real rows cannot fill {k} cells: give more rows or a smaller k")
    return sample_statistics.cluster_rows(x, k, seed=seed).cluster_centers_.astype(np.float64)


def nearest_centre(rows: np.ndarray, centres: np.ndarray) -> NDArray[np.int64]:
    c, x = sample_pair(centres, rows)
    return distances.squared_distances(x, c).argmin(1)


def mode_coverage(
    real: np.ndarray, generated: np.ndarray, *, k: int | None = None, seed: int = 0
) -> float:
    """Fraction of real rows in those k-means cells that generated rows keep; 1 is perfect."""
    centres = kmeans_centres(real, k=k, seed=seed)
    x, y = (nearest_centre(rows, centres).astype(float) for rows in (real, generated))
    return sample_statistics.covered_mass(x, y)
