"""Mode coverage: which parts of the law does a generator reach, and does it reach them evenly?"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..theory.sample_statistics import (
    SHARE,
    cluster_rows,
    coverage_cells,
    covered_mass,
    is_collapsed,
)
from .distances import Array, sample_pair, sample_set, squared_distances


class ModeReport(NamedTuple):
    """What a sample shows of known modes.

    Arguments:
        covered: Modes with at least one high-quality row.
        high_quality: Fraction of rows within ``radius`` scales of a mode.
        reverse_kl: KL of the modes' frequencies to uniform, in nats.
        frequencies: Fraction of the high-quality rows at each mode.
        kept: Fraction of the modes that have at least a tenth of their fair share.
    """

    covered: int
    high_quality: float
    reverse_kl: float
    frequencies: Array
    kept: float

    @property
    def collapsed(self) -> bool:
        """Whether no more than four fifths of the modes are kept."""
        return is_collapsed(self.kept)


def known_modes(
    generated: np.ndarray, modes: np.ndarray, scale: float, *, radius: float = 3.0
) -> ModeReport:
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
    d2 = squared_distances(rows, centres)
    nearest = d2.argmin(1)
    good = d2.min(1) <= (radius * scale) ** 2
    k = len(centres)
    counts = np.bincount(nearest[good], minlength=k)
    f = counts / max(int(good.sum()), 1)
    kl = float(rel_entr(f, 1 / k).sum()) if good.any() else float(np.log(k))
    kept = float((counts >= SHARE * len(rows) / k).mean())
    return ModeReport(int((counts > 0).sum()), float(good.mean()), kl, f, kept)


def kmeans_centres(real: np.ndarray, *, k: int | None = None, seed: int = 0) -> Array:
    """Centres of a k-means partition of real rows, for laws whose modes are not known, ``(k, d)``.

    Cells that too few rows fill say nothing, so ``k`` is at most a twentieth of the rows.
    """
    x = sample_set(real, "real")
    k = k or coverage_cells(len(x))
    if not 1 <= k <= len(x):
        raise UsageError(f"{len(x)} real rows cannot fill {k} cells: give more rows or a smaller k")
    return cluster_rows(x, k, seed=seed).cluster_centers_.astype(np.float64)


def nearest_centre(rows: np.ndarray, centres: np.ndarray) -> NDArray[np.int64]:
    """The nearest centre of each row."""
    c, x = sample_pair(centres, rows)
    return squared_distances(x, c).argmin(1)


def mode_coverage(
    real: np.ndarray, generated: np.ndarray, *, k: int | None = None, seed: int = 0
) -> float:
    """Fraction of real rows in those k-means cells that generated rows keep; 1 is perfect."""
    centres = kmeans_centres(real, k=k, seed=seed)
    return covered_mass(
        nearest_centre(real, centres).astype(float),
        nearest_centre(generated, centres).astype(float),
    )
