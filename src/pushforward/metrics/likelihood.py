"""Held-out likelihood as a number with an interval."""

import math

import numpy as np

from .distances import sample_set
from .estimate import MetricEstimate, bootstrap_mean_interval


def nll(log_prob: np.ndarray, *, entropy: float = math.nan, seed: int = 0) -> MetricEstimate:
    r"""Mean negative log-likelihood of held-out rows, in nats, with a bootstrap interval.

    Arguments:
        log_prob: One value a row, in nats.
        entropy: The entropy of the law, where it is known: no density can do better.
        seed: Of the bootstrap.

    Raises:
        DataError: If a value is not a number, or plus infinity. A row that the model holds to be
            impossible, at minus infinity, makes the mean infinite.
    """
    x = -np.asarray(log_prob, dtype=np.float64).ravel()
    sample_set(x[x < math.inf] if (x == math.inf).any() else x, "log_prob")
    low, high = bootstrap_mean_interval(x, seed=seed)
    return MetricEstimate(float(x.mean()), low, high, entropy, "nll", "nats", "lower", len(x))


def bits_per_dim(
    log_prob: np.ndarray, d: int, *, entropy: float = math.nan, seed: int = 0
) -> MetricEstimate:
    r"""Negative log-likelihood in bits per entry, :math:`-\log p(x) / (d \ln 2)`.

    Arguments:
        log_prob: One value a row, in nats: log-mass of discrete rows, or log-density in whichever
            unit is stated beside the number.
        d: The number of entries of a row.
        entropy: The entropy of the law in nats, where it is known.
        seed: Of the bootstrap.
    """
    nats = nll(log_prob, entropy=entropy, seed=seed)
    value, low, high, floor = (v / (d * math.log(2)) for v in nats[:4])
    return MetricEstimate(value, low, high, floor, "bits_per_dim", "bits/dim", "lower", nats.n)
