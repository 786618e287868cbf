r"""Wasserstein distances between two sample sets, in the unit of the data.

All three are positive even between two samples of one law, by :math:`n^{-1/2}` on the line and
:math:`n^{-1/d}` beyond: read them beside their floor.
"""

import numpy as np

from .distances import Array, sample_pair

CAP = 2000


def sliced_w2(
    real: np.ndarray, generated: np.ndarray, *, projections: int = 128, seed: int = 0
) -> float:
    r"""Sliced 2-Wasserstein distance: the root of the mean of the squared distance of projections.

    The same ``seed`` draws the same directions, so models are compared on equal terms
    (Rabin et al., 2012). Sizes may differ.
    """
    from ..theory import transport

    x, y = sample_pair(real, generated)
    rng = np.random.default_rng(seed)
    return transport.sliced_w2_distance(x, y, projections=projections, rng=rng)


def equal_samples(x: Array, y: Array, cap: int, seed: int) -> tuple[Array, Array]:
    """The same number of rows of both, at most ``cap``, drawn without replacement."""
    n = min(len(x), len(y), cap)
    rng = np.random.default_rng(seed)
    return x[rng.permutation(len(x))[:n]], y[rng.permutation(len(y))[:n]]


def w1(real: np.ndarray, generated: np.ndarray, *, cap: int = CAP, seed: int = 0) -> float:
    r""":math:`W_1` by exact assignment of at most ``cap`` rows of each; of all on the line."""
    from ..theory import transport

    x, y = sample_pair(real, generated)
    if x.shape[1] == 1:
        return transport.w1_1d(x[:, 0], y[:, 0])
    return transport.exact_w1(*equal_samples(x, y, cap, seed))


def w2(real: np.ndarray, generated: np.ndarray, *, cap: int = CAP, seed: int = 0) -> float:
    r""":math:`W_2` by exact assignment of at most ``cap`` rows of each; of all on the line."""
    from ..theory import transport

    x, y = sample_pair(real, generated)
    if x.shape[1] == 1:
        return transport.w2_1d(x[:, 0], y[:, 0])
    return transport.exact_w2(*equal_samples(x, y, cap, seed))
