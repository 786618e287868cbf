r"""Energy distance, maximum mean discrepancy and KID: means of a kernel over pairs of rows.

.. math:: \mathbb E\,k(x, x') + \mathbb E\,k(y, y') - 2\,\mathbb E\,k(x, y)

The unbiased estimate leaves the pairs :math:`i = i` out, has mean zero when both laws agree and may
be negative; the biased one keeps them and is a squared distance of the two empirical laws. Sums are
accumulated over blocks, so two sets of 50,000 rows never meet in memory, and are kept apart by
group of rows, so the jackknife's replicates cost nothing more.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .estimate import GROUPS, Replicate, group_sizes
from .pairwise import BLOCK, Array, centred, sample_pair, slices, squared_distances

Kernel = Callable[[Array, Array], Array]
SCALES = (1 / 4, 1 / 2, 1, 2, 4)


def negative_distance(x: Array, y: Array) -> Array:
    r""":math:`k(x, y) = -\lVert x - y \rVert`, whose discrepancy is the energy distance."""
    d = squared_distances(x, y)
    return np.negative(np.sqrt(d, out=d), out=d)


def median_distance(x: Array, rows: int = 1000) -> float:
    """The median distance between rows, from at most ``rows`` of them, evenly spaced.

    Raises:
        DataError: If half of the pairs coincide.
    """
    some = x[:: -(-len(x) // rows)]
    d2 = squared_distances(some, some)[np.triu_indices(len(some), 1)]
    median = float(np.sqrt(np.median(d2))) if len(d2) else 0.0
    if median == 0:
        raise DataError("half of the real rows coincide, so no kernel width fits: give width=")
    return median


def rbf(width: float) -> Kernel:
    r""":math:`k(x, y) = \exp(-\lVert x - y \rVert^2 / 2 h^2)` with :math:`h` the ``width``."""
    return lambda x, y: np.exp(squared_distances(x, y) / (-2 * width**2))


def multiscale_rbf(width: float) -> Kernel:
    """The mean of Gaussian kernels at 1/4, 1/2, 1, 2 and 4 times ``width``.

    Halving a width raises its kernel to the fourth power, so one exponential serves all five.
    """

    def kernel(x: Array, y: Array) -> Array:
        k = rbf(SCALES[-1] * width)(x, y)
        total = k.copy()
        for _ in SCALES[1:]:
            k *= k
            k *= k
            total += k
        return total / len(SCALES)

    return kernel


def polynomial(x: Array, y: Array) -> Array:
    r""":math:`k(x, y) = (x^\top y / d + 1)^3`, the kernel of KID (Bińkowski et al., 2018)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def pair_sums(kernel: Kernel, x: Array, y: Array, groups: int, block: int) -> NDArray[np.float64]:
    """Sums of the kernel over pairs of groups of rows, ``(groups, groups)``, a block at a time."""
    sums = np.zeros((groups, groups))
    a = np.repeat(np.arange(groups), group_sizes(len(x), groups))
    b = np.repeat(np.arange(groups), group_sizes(len(y), groups))
    for i in slices(len(x), block):
        for j in slices(len(y), block):
            np.add.at(sums, (a[i][:, None], b[j]), kernel(x[i], y[j]))
    return sums


def self_sum(kernel: Kernel, x: Array, block: int) -> Array:
    """The values :math:`k(x_i, x_i)`."""
    return np.concatenate([np.diagonal(kernel(x[i], x[i])) for i in slices(len(x), block)])
