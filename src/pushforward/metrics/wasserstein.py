r"""Wasserstein distances between two sample sets, and between the Gaussians that fit them.

The first three are in the unit of the data, and positive even between two samples of one
distribution, by :math:`n^{-1/2}` on the line and :math:`n^{-1/d}` beyond: read them beside their
floor. The Fréchet distance (Heusel et al., 2017) is the squared :math:`W_2` of two Gaussians,

.. math:: \lVert m_1 - m_2 \rVert^2 + \operatorname{tr} S_1 + \operatorname{tr} S_2
    - 2 \operatorname{tr} (S_1^{1/2} S_2 S_1^{1/2})^{1/2}

It sees means and covariances alone: identical values do not mean identical distributions. On
Inception features it is called FID; here the features are whatever the caller gives, and must be
stated. Between two samples of one distribution it is about :math:`(2d + d(d+1)/2)/n` on whitened
features, not zero.
"""

import warnings

import numpy as np

from ..errors import DataError
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


def _equal_samples(x: Array, y: Array, cap: int, seed: int) -> tuple[Array, Array]:
    n = min(len(x), len(y), cap)
    rng = np.random.default_rng(seed)
    return x[rng.permutation(len(x))[:n]], y[rng.permutation(len(y))[:n]]


def w1(real: np.ndarray, generated: np.ndarray, *, cap: int = CAP, seed: int = 0) -> float:
    r""":math:`W_1` by exact assignment of at most ``cap`` rows of each; of all on the line."""
    from ..theory import transport

    x, y = sample_pair(real, generated)
    if x.shape[1] == 1:
        return transport.w1_1d(x[:, 0], y[:, 0])
    return transport.exact_w1(*_equal_samples(x, y, cap, seed))


def w2(real: np.ndarray, generated: np.ndarray, *, cap: int = CAP, seed: int = 0) -> float:
    r""":math:`W_2` by exact assignment of at most ``cap`` rows of each; of all on the line."""
    from ..theory import transport

    x, y = sample_pair(real, generated)
    if x.shape[1] == 1:
        return transport.w2_1d(x[:, 0], y[:, 0])
    return transport.exact_w2(*_equal_samples(x, y, cap, seed))


def gaussian_fit_distance(x: Array, y: Array) -> float:
    from ..theory import transport

    shift = float(np.square(x.mean(0) - y.mean(0)).sum())
    a, b = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (x, y))
    return max(shift + transport.squared_bures_distance(a, b), 0.0)


def check_covariance_rows(n: int, d: int) -> None:
    """Refuse fewer rows than a covariance needs; warn where the bias is most of the value."""
    if n <= d:
        raise DataError(
            f"a Fréchet distance in {d} dimensions needs more than {d} rows on each side and has "
            f"{n}: give more rows, or ask for kid, which is unbiased at any size"
        )
    if n < 10 * d:
        warnings.warn(
            f"Fréchet distance from {n} rows in {d} dimensions: fewer than {10 * d}, so compare it "
            f"only with its floor, about {(2 * d + d * (d + 1) / 2) / n:.3g} on whitened features",
            stacklevel=2,
        )


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> float:
    """Fréchet distance of two sets of features, in their squared unit.

    Raises:
        DataError: If there are no more rows than features, or the rows are not finite.
    """
    x, y = sample_pair(real, generated)
    check_covariance_rows(min(len(x), len(y)), x.shape[1])
    return gaussian_fit_distance(x, y)
