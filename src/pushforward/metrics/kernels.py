r"""Energy distance, maximum mean discrepancy and KID: means of a kernel over pairs of rows.

.. math:: \mathbb E\,k(x, x') + \mathbb E\,k(y, y') - 2\,\mathbb E\,k(x, y)

The unbiased estimate leaves the pairs :math:`i = i` out, has mean zero when both distributions
agree and may be negative; the biased one keeps them and is a squared distance of the two empirical
distributions. Sums are accumulated over blocks, so two sets of 50,000 rows never meet in memory,
and are kept apart by group of rows, so the jackknife's replicates cost nothing more.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .distances import BLOCK, Array, block_slices, centre_pair, sample_pair, squared_distances
from .estimate import Replicate

Kernel = Callable[[Array, Array], Array]
SCALES = (1 / 4, 1 / 2, 1, 2, 4)


def negative_distance(x: Array, y: Array) -> Array:
    r""":math:`k(x, y) = -\lVert x - y \rVert`, whose discrepancy is the energy distance."""
    d = squared_distances(x, y)
    return np.negative(np.sqrt(d, out=d), out=d)


def median_distance(x: Array, rows: int = 1000) -> float:
    """The median distance between rows, from at most ``rows`` of them, evenly spaced."""
    some = x[:: -(-len(x) // rows)]
    d2 = squared_distances(some, some)[np.triu_indices(len(some), 1)]
    median = float(np.sqrt(np.median(d2))) if len(d2) else 0.0
    if median == 0:
        raise DataError("half of the real rows coincide, so no kernel width fits: give width=")
    return median


def rbf_kernel(width: float) -> Kernel:
    r""":math:`k(x, y) = \exp(-\lVert x - y \rVert^2 / 2 h^2)` with :math:`h` the ``width``."""

    def kernel(x: Array, y: Array) -> Array:
        k = squared_distances(x, y)
        k *= -0.5 / width**2
        return np.exp(k, out=k)

    return kernel


def multiscale_rbf(width: float) -> Kernel:
    """The mean of Gaussian kernels at 1/4, 1/2, 1, 2 and 4 times ``width``.

    Halving a width raises its kernel to the fourth power, so one exponential serves all five.
    """
    widest = rbf_kernel(SCALES[-1] * width)

    def kernel(x: Array, y: Array) -> Array:
        k = widest(x, y)
        total = k.copy()
        for _ in SCALES[1:]:
            np.square(k, out=k)
            np.square(k, out=k)
            total += k
        total /= len(SCALES)
        return total

    return kernel


def _polynomial_kernel(x: Array, y: Array) -> Array:
    r""":math:`k(x, y) = (x^\top y / d + 1)^3`, the kernel of KID (Bińkowski et al., 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


class _PairSums(NamedTuple):
    xx: Array  # (groups, groups), as are yy and xy
    yy: Array
    xy: Array
    x_self: Array  # the part of the diagonal of xx where a row meets itself, (groups,)
    y_self: Array
    n: NDArray[np.int64]
    m: NDArray[np.int64]

    def discrepancy(self, keep: NDArray[np.bool_], *, unbiased: bool = True) -> float:
        n, m = int(self.n[keep].sum()), int(self.m[keep].sum())
        both = np.ix_(keep, keep)
        xx, yy, xy = self.xx[both].sum(), self.yy[both].sum(), self.xy[both].sum()
        if not unbiased:
            return float(xx / n**2 + yy / m**2 - 2 * xy / (n * m))
        xx, yy = xx - self.x_self[keep].sum(), yy - self.y_self[keep].sum()
        return float(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m))


def _kernel_sum(kernel: Kernel, x: Array, y: Array, block: int) -> float:
    xs, ys = block_slices(len(x), block), list(block_slices(len(y), block))
    return float(sum(kernel(x[i], y[j]).sum() for i in xs for j in ys))


def _diagonal_sum(kernel: Kernel, x: Array) -> float:
    return float(sum(np.trace(kernel(x[i], x[i])) for i in block_slices(len(x), 64)))


def _pair_sums(kernel: Kernel, x: Array, y: Array, groups: int, block: int = BLOCK) -> _PairSums:
    xs, ys = np.array_split(x, groups), np.array_split(y, groups)

    def within(parts: list[Array]) -> Array:
        sums = np.zeros((groups, groups))
        for a in range(groups):
            for b in range(a, groups):
                sums[a, b] = sums[b, a] = _kernel_sum(kernel, parts[a], parts[b], block)
        return sums

    return _PairSums(
        within(xs),
        within(ys),
        np.array([[_kernel_sum(kernel, a, b, block) for b in ys] for a in xs]),
        np.array([_diagonal_sum(kernel, a) for a in xs]),
        np.array([_diagonal_sum(kernel, b) for b in ys]),
        np.array([len(a) for a in xs]),
        np.array([len(b) for b in ys]),
    )


def _kernel_replicates(kernel_of: Callable[[Array], Kernel]) -> Replicate:
    """One pass over all pairs serves all replicates; ``kernel_of`` chooses by the real rows."""

    def replicates(x: Array, y: Array, groups: int) -> tuple[Array, Array]:
        sums = _pair_sums(kernel_of(x), x, y, groups or 1)
        which = np.arange(groups or 1)
        left = [sums.discrepancy(which != a) for a in range(groups)]
        return np.array([sums.discrepancy(which >= 0)]), np.reshape(left, (groups, 1))

    return replicates


def kernel_discrepancy(kernel: Kernel, x: Array, y: Array, unbiased: bool, block: int) -> float:
    if min(len(x), len(y)) < 2:
        raise DataError("a discrepancy needs two rows on each side: give more rows")
    sums = _pair_sums(kernel, x, y, 1, block)
    return sums.discrepancy(np.ones(1, dtype=bool), unbiased=unbiased)


def energy_distance(
    real: np.ndarray, generated: np.ndarray, *, unbiased: bool = True, block: int = BLOCK
) -> float:
    r"""Energy distance, in the unit of the data (Székely and Rizzo, 2013).

    .. math:: 2\,\mathbb E\lVert x - y\rVert - \mathbb E\lVert x - x'\rVert
        - \mathbb E\lVert y - y'\rVert, \qquad \text{on the line } 2\int (F - G)^2

    Zero exactly when the distributions agree. The unbiased estimate may be negative.

    Raises:
        DataError: If the rows are not finite, of different widths, or fewer than two.
    """
    x, y = centre_pair(*sample_pair(real, generated))
    return kernel_discrepancy(negative_distance, x, y, unbiased, block)


def mmd(
    real: np.ndarray,
    generated: np.ndarray,
    *,
    width: float | None = None,
    unbiased: bool = True,
    block: int = BLOCK,
) -> float:
    r"""Squared maximum mean discrepancy of a Gaussian kernel, without unit (Gretton et al., 2012).

    By default the mean over five kernels, at 1/4 to 4 times the median distance of *real* rows, so
    that every model is measured with the same kernels.

    Arguments:
        real, generated: ``(n, d)`` and ``(m, d)``.
        width: The standard deviation of one kernel to use in their place.
        unbiased: Leave pairs of a row with itself out.
        block: Rows of a block; it changes the result by rounding alone.

    Raises:
        DataError: If the rows are not finite, of different widths, fewer than two or all equal.
    """
    x, y = centre_pair(*sample_pair(real, generated))
    kernel = multiscale_rbf(median_distance(x)) if width is None else rbf_kernel(width)
    return kernel_discrepancy(kernel, x, y, unbiased, block)


def kid(
    real: np.ndarray, generated: np.ndarray, *, unbiased: bool = True, block: int = BLOCK
) -> float:
    r"""Kernel distance of features: the discrepancy of :math:`(x^\top y/d + 1)^3`, without unit.

    Compares moments up to the third; unbiased at every sample size, as the Fréchet distance is not
    (Bińkowski et al., 2018). The kernel has an origin and a scale: standardise both sets alike.
    """
    x, y = sample_pair(real, generated)
    return kernel_discrepancy(_polynomial_kernel, x, y, unbiased, block)


energy_replicates = _kernel_replicates(lambda x: negative_distance)
mmd_replicates = _kernel_replicates(lambda x: multiscale_rbf(median_distance(x)))
kid_replicates = _kernel_replicates(lambda x: _polynomial_kernel)
